"""Ask a trained model.

    python sample.py                             the newest run, on pictures or questions of its own
    python sample.py --image FILE ...            what is in your pictures
    python sample.py --video FILE_OR_FOLDER ...  what happens in your clips
    python sample.py --image FILE --ask "lives in the"     who is it, and what is known of them?
    python sample.py --prompt "a red bat"        go on from a text
    python sample.py --chat                      go on from each line that you write
    python sample.py --prompt TEXT --choices "the crypt|the tower"        which is likelier?
    python sample.py --synthesize HEAD RELATION TAIL       what the GAN of a run writes, with its scores
    python sample.py --init gpt2 --prompt TEXT   ask a released GPT-2
    python sample.py ... --explain out.png       draw what it looks at, or what a run's GAN wrote over time
    python sample.py --help                      all options

Letters: F frames, S pixels a side.
"""

import math
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from mingpt_mm import BadInput
from mingpt_mm.alignment import fill
from mingpt_mm.castle import world_folder
from mingpt_mm.chat import Chat
from mingpt_mm.data import read_captions
from mingpt_mm.draw import draw_sheet, draw_story
from mingpt_mm.evaluate import score
from mingpt_mm.explain import explain_caption, explain_text
from mingpt_mm.gan import GAN
from mingpt_mm.gpt import GPT
from mingpt_mm.images import read_clip, read_image
from mingpt_mm.linear import in_rows
from mingpt_mm.log import read_events
from mingpt_mm.multimodal import restore
from mingpt_mm.run import choose_device, load_run, newest_run, parse, run_command
from mingpt_mm.story import make_parser, story_folder
from mingpt_mm.text import GROUPS, read_probes
from mingpt_mm.tokenizer import gpt2_encoding, unpack_encoding
from mingpt_mm.vit import preprocess


@dataclass
class SampleConfig:
    """Ask a trained model to describe pictures, to go on from a text or to choose, or its GAN to write."""

    run: str = ""  # folder of the run to ask; without it, the newest under runs/
    init: str = ""  # ask released weights instead: gpt2 to gpt2-xl, distilgpt2, a folder or a file
    image: tuple = ()  # pictures to describe
    video: tuple = ()  # clips to describe: animated GIF, WebP or PNG files, or folders of frames
    ask: str = ""  # begin a new prompt, without the picture: the caption up to its comma, and then this
    prompt: str = ""  # text to go on from; with --image, the beginning of the caption
    chat: bool = False  # talk with the model; /image FILE shows it a picture
    choices: str = ""  # rank these continuations of the prompt, with "|" between them
    synthesize: tuple = ()  # HEAD RELATION TAIL: the GAN of an adversarial run puts this triple into words
    max_new_tokens: int = 100  # the most tokens to write; a text that ends, or fills the context, is shorter
    explain: str = ""  # draw into this PNG what words look at, or the heads of a text, or what a GAN wrote
    num_samples: int = 1  # texts for each picture or prompt
    temperature: float = 0.0  # 0 takes the likeliest token each time; 1 samples as the model believes
    top_k: int = 0  # sample from so many of the likeliest tokens; 0: from all
    top_p: float = 0.0  # sample from the likeliest tokens that sum to this probability; 0: from all
    seed: int = 0  # of the sampling
    device: str = "auto"  # auto, cpu, cuda or mps


def load_released(source, device):
    """(GPT, GPT-2's encoding, no checkpoint) with the released weights of `source`."""
    gpt, encoding = in_rows(GPT.from_pretrained(source)).to(device), gpt2_encoding()
    if gpt.config.vocab_size != encoding.n_vocab:
        raise BadInput(f"--init {source}: {gpt.config.vocab_size:,} tokens are not those of GPT-2, the only "
                       "ones known without a run")
    return gpt, encoding, {}


def synthesize(checkpoint, config):
    """Print what the GAN of a run writes for a triple, the best by its discriminator first."""
    if not checkpoint.get("gan"):
        raise BadInput("--synthesize: this run has no GAN: python train.py adversarial --synthetic gan makes "
                       "one")
    gan = GAN.from_checkpoint(checkpoint)
    if len(config.synthesize) != 3 or config.synthesize[1] not in gan.relations:
        raise BadInput(f"--synthesize {' '.join(config.synthesize)}: give HEAD RELATION TAIL, with one of "
                       f"the relations {', '.join(gan.relations)} (in quotes)")
    if checkpoint["config"]["synthetic"] == "mle":
        print("the generator learned by likelihood alone: these are scores of an untrained discriminator")
    head, relation, tail = config.synthesize
    written = gan.write(relation, config.num_samples, torch.Generator().manual_seed(config.seed))
    for units, value in sorted(written, key=lambda pair: -pair[1]):
        print(f"{value:6.2f}  {fill(units, head, tail)}")


def choose(gpt, encoding, config, prefix=None):
    """Print the choices, likeliest a token first, with the softmax of these log-likelihoods."""
    choices = config.choices.split("|")
    if not all(map(str.strip, choices)):
        raise BadInput(f"--choices {config.choices}: write something on both sides of each |")
    values = [value for value, _ in score(gpt, encoding, [config.prompt] * len(choices), choices, prefix)]
    shares = torch.tensor(values).softmax(dim=0).tolist()
    for share, value, choice in sorted(zip(shares, values, choices), reverse=True):
        print(f"{share:.4f}  {f'{config.prompt} {choice}'.strip()}  ({value:.3f} a token)")


def see(path, moves, model, size):
    """The picture or clip at `path` as a batch of one, (1, 3, S, S) or (1, F, 3, S, S)."""
    if moves and not model.frames:
        raise BadInput(f"{path}: this model never saw a clip: show it pictures")
    images = read_clip(Path(path), model.frames) if moves else [read_image(path)]
    pixels = torch.stack([preprocess(image, size) for image in images])  # (F, 3, S, S)
    return (pixels[None] if moves else pixels).to(model.gpt.wte.weight.device)


def describe(model, encoding, config, trained, sampling):
    """Print what the model says of pictures and clips, or how it ranks the choices.

    If none are given, they are the first that its training held out.
    """
    shown = [(image, False, None) for image in config.image] + [(video, True, None) for video in config.video]
    if not shown:
        rows = read_captions(trained["data"] or world_folder(trained["seed"], trained["world"]))[1][:6]
        shown = [(row.file, row.moves, row.captions) for row in rows]
    sheet = []
    for path, moves, truths in shown:
        pixels = see(path, moves, model, trained["image_size"])
        if config.choices:
            print(f"{path}:")
            choose(model.gpt, encoding, config, model.embed(pixels))
            continue
        pixels = pixels.expand(config.num_samples, *pixels.shape[1:])
        for caption in model.caption(pixels, encoding, config.prompt, **sampling):
            verdict = "" if truths is None else "  (right)" if caption in truths else f"  (it is {truths[0]})"
            print(f"{path}: {caption}{verdict}")
            sheet += [explain_caption(model, encoding, pixels[:1], caption)] if config.explain else []
            if config.ask:
                print(*model.gpt.complete(encoding, f"{caption.split(',')[0]} {config.ask}", **sampling))
    if config.explain:
        draw_sheet(Path(config.explain), pictures=sheet, across=9)


def talk(model, encoding, trained, sampling):
    """Answer each line of the input, until it ends."""
    gpt, sampling = getattr(model, "gpt", model), dict(sampling)
    chat, most = Chat(gpt, encoding), sampling.pop("max_new_tokens")
    while True:
        try:
            line = input("> ")
            command, _, path = line.partition(" ")
            if command == "/image":
                if gpt is model or not path.strip():
                    raise BadInput(f"/image: {'this model saw none' if gpt is model else 'name a file'}")
                pixels = see(path.strip(), False, model, trained["image_size"])
                chat, line = Chat(gpt, encoding, model.embed(pixels)), ""  # anew, with the picture in front
            if dropped := chat.say(line, most):
                print(f"(the context is full: turns forgotten, the oldest first: {dropped})")
            for piece in chat.answer(most, **sampling):
                print(piece, end="", flush=True)
            print()
        except (BadInput, UnicodeError) as error:
            print(f"error: {error}")
        except (EOFError, KeyboardInterrupt):
            return print()


def go_on(gpt, encoding, config, sampling):
    """Print how the model goes on from the prompt."""
    texts = [gpt.complete(encoding, config.prompt, **sampling)[0] for _ in range(config.num_samples)]
    print(*texts, sep="\n")
    if config.explain:
        draw_sheet(Path(config.explain), pictures=explain_text(gpt, encoding, texts[0]), across=4)


def ask(gpt, encoding, trained, sampling):
    """Print how the model answers three probes of each group of its own run."""
    if trained["text"] and not trained["probes"]:
        raise BadInput("--prompt: give one; this run has no probes to show")
    file = trained["probes"] or story_folder(trained["seed"], trained["two_relations"]) / "probes.jsonl"
    probes = read_probes(file)
    for group in GROUPS:
        for probe in [probe for probe in probes if probe["group"] == group][:3]:
            text, = gpt.complete(encoding, probe["prompt"], **sampling)
            right = re.match(rf"{re.escape(probe['prompt'] + ' ' + probe['answer'])}\b", text)
            print(f"{group.replace('_', ' ')}: {text}  ({'right' if right else 'it is ' + probe['answer']})")


def main(argv):
    """Print what the model says."""
    config = SampleConfig(**parse(SampleConfig, argv, "sample.py"))
    device, _ = choose_device(config.device, quiet=True)
    shown = config.image or config.video
    if config.init and (shown or config.run or config.synthesize):
        raise BadInput("--init: released weights are no run and saw no picture: give a --prompt or --chat")
    if config.ask and (not shown or config.choices):
        raise BadInput(f"--ask {config.ask}: of whom? give an --image or a --video, and no --choices")
    if config.chat and (shown or config.prompt or config.choices or config.synthesize):
        raise BadInput("--chat: say it in the chat; /image FILE shows a picture there")
    if config.explain and (config.chat or config.choices or config.synthesize):
        raise BadInput("--explain: of pictures, a prompt or a run: without --chat, --choices, --synthesize")
    if config.init:
        model, encoding, checkpoint = load_released(config.init, device)
    else:
        folder = Path(config.run) if config.run else newest_run()
        checkpoint = load_run(folder)
        model, encoding = restore(checkpoint).to(device), unpack_encoding(checkpoint["encoding"])
    sees, gpt, trained = "vit" in checkpoint, getattr(model, "gpt", model), checkpoint.get("config")
    if shown and not sees:
        raise BadInput("--image, --video: this model saw no picture: give a --prompt")
    sampling = {"max_new_tokens": config.max_new_tokens, "temperature": config.temperature,
                "top_k": config.top_k or None, "top_p": config.top_p or None,
                "generator": torch.Generator(device).manual_seed(config.seed)}
    if config.synthesize:
        synthesize(checkpoint, config)
    elif config.chat:
        talk(model, encoding, trained, sampling)
    elif shown or sees and not config.prompt and not config.choices:
        describe(model, encoding, config, trained, sampling)
    elif config.choices:
        choose(gpt, encoding, config)
    elif config.prompt or config.init:
        go_on(gpt, encoding, config, sampling)
    elif config.explain:
        events = read_events(folder / "log.jsonl", math.inf, math.inf)
        draw_story(Path(config.explain), events, None if trained["text"] else make_parser(), most=100)
    else:
        ask(gpt, encoding, trained, sampling)


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
