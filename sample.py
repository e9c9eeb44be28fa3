"""Ask a trained model.

    python sample.py                             the newest run, on pictures or questions of its own
    python sample.py --image FILE ...            what is in your pictures
    python sample.py --prompt "a red bat"        go on from a text
    python sample.py --prompt TEXT --choices "the crypt|the tower"        which is likelier?
    python sample.py --synthesize HEAD RELATION TAIL       what the GAN of a run writes, with its scores
    python sample.py --init gpt2 --prompt TEXT   ask a released GPT-2
    python sample.py --help                      all options
"""

import re
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from mingpt_mm import BadInput
from mingpt_mm.alignment import fill
from mingpt_mm.castle import world_folder
from mingpt_mm.data import GROUPS, read_captions, read_image, read_probes
from mingpt_mm.evaluate import score
from mingpt_mm.gan import GAN
from mingpt_mm.gpt import GPT
from mingpt_mm.multimodal import restore
from mingpt_mm.run import choose_device, load_checkpoint, newest_run, parse, run_command
from mingpt_mm.story import story_folder
from mingpt_mm.tokenizer import gpt2_encoding, unpack_encoding
from mingpt_mm.vit import preprocess


@dataclass
class SampleConfig:
    """Ask a trained model to describe pictures, to go on from a text or to choose, or its GAN to write."""

    run: str = ""  # folder of the run to ask; without it, the newest under runs/
    init: str = ""  # ask released weights instead: gpt2 to gpt2-xl, distilgpt2, a folder or a file
    image: tuple = ()  # pictures to describe
    prompt: str = ""  # text to go on from; with --image, the beginning of the caption
    choices: str = ""  # rank these continuations of the prompt, with "|" between them
    synthesize: tuple = ()  # HEAD RELATION TAIL: the GAN of an adversarial run puts this triple into words
    max_new_tokens: int = 100  # the most tokens to write; a text that ends, or fills the context, is shorter
    num_samples: int = 1  # texts for each picture or prompt
    temperature: float = 0.0  # 0 takes the likeliest token each time; 1 samples as the model believes
    top_k: int = 0  # sample from so many of the likeliest tokens; 0: from all
    top_p: float = 0.0  # sample from the likeliest tokens that sum to this probability; 0: from all
    seed: int = 0  # of the sampling
    device: str = "auto"  # auto, cpu, cuda or mps


def load_run(folder, device):
    """(model, encoding, checkpoint) of the best checkpoint in `folder`, or else of the last."""
    best = folder / "best.pt"
    checkpoint = load_checkpoint(best if best.exists() else folder / "last.pt")
    return restore(checkpoint).to(device), unpack_encoding(checkpoint["encoding"]), checkpoint


def load_released(source, device):
    """(GPT, GPT-2's encoding, no checkpoint) with the released weights of `source`."""
    gpt, encoding = GPT.from_pretrained(source).to(device), gpt2_encoding()
    if gpt.config.vocab_size != encoding.n_vocab:
        raise BadInput(f"--init {source}: {gpt.config.vocab_size:,} tokens are not those of GPT-2")
    return gpt, encoding, {}


def synthesize(checkpoint, config):
    """Print what the GAN of a run writes for a triple, the best by its discriminator first."""
    if not checkpoint.get("gan"):
        raise BadInput("--synthesize: this run has no GAN: python train.py adversarial makes one")
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
    values = [value for value, _ in score(gpt, encoding, [config.prompt] * len(choices), choices, prefix)]
    shares = torch.tensor(values).softmax(dim=0).tolist()
    for share, value, choice in sorted(zip(shares, values, choices), reverse=True):
        print(f"{share:.4f}  {config.prompt} {choice}  ({value:.3f} a token)")


def describe(model, encoding, config, trained, sampling):
    """Print what the model says of the pictures, or which choice it takes; without any, of held-out ones."""
    captions = {image: None for image in config.image}
    if not captions:
        rows = read_captions(trained["data"] or world_folder(trained["seed"]))[1][:6]
        captions = {str(row.image): row.captions for row in rows}
    for image, truths in captions.items():
        pixels = preprocess(read_image(image), trained["image_size"]).to(model.gpt.wte.weight.device)
        if config.choices:
            choose(model.gpt, encoding, config, model.embed(pixels[None]))
            continue
        pixels = pixels.expand(config.num_samples, -1, -1, -1)
        for caption in model.caption(pixels, encoding, config.prompt, **sampling):
            verdict = "" if truths is None else "  (right)" if caption in truths else f"  (it is {truths[0]})"
            print(f"{image}: {caption}{verdict}")


def ask(gpt, encoding, trained, sampling):
    """Print how the model answers three probes of each group of its own run."""
    if trained["text"] and not trained["probes"]:
        raise BadInput("--prompt: give one; this run has no probes to show")
    story = story_folder(trained["seed"], trained["two_relations"])
    probes = read_probes(trained["probes"] or story / "probes.jsonl")
    for group in GROUPS:
        for probe in [probe for probe in probes if probe["group"] == group][:3]:
            text, = gpt.complete(encoding, probe["prompt"], **sampling)
            right = re.match(rf"{re.escape(probe['prompt'] + ' ' + probe['answer'])}\b", text)
            print(f"{group.replace('_', ' ')}: {text}  ({'right' if right else 'it is ' + probe['answer']})")


def main(argv):
    """Print what the model says."""
    config = SampleConfig(**parse(SampleConfig, argv, "sample.py"))
    device, _ = choose_device(config.device, quiet=True)
    if config.init and (config.image or config.run or config.synthesize):
        raise BadInput("--init: released weights are no run and saw no picture: give a --prompt only")
    if config.init:
        model, encoding, checkpoint = load_released(config.init, device)
    else:
        model, encoding, checkpoint = load_run(Path(config.run) if config.run else newest_run(), device)
    sees, gpt, trained = "vit" in checkpoint, getattr(model, "gpt", model), checkpoint.get("config")
    if config.image and not sees:
        raise BadInput("--image: this model saw no picture: give a --prompt")
    sampling = {"max_new_tokens": config.max_new_tokens, "temperature": config.temperature,
                "top_k": config.top_k or None, "top_p": config.top_p or None,
                "generator": torch.Generator(device).manual_seed(config.seed)}
    if config.synthesize:
        synthesize(checkpoint, config)
    elif config.image or sees and not config.prompt and not config.choices:
        describe(model, encoding, config, trained, sampling)
    elif config.choices:
        choose(gpt, encoding, config)
    elif config.prompt or config.init:
        for _ in range(config.num_samples):
            print(*gpt.complete(encoding, config.prompt, **sampling))
    else:
        ask(gpt, encoding, trained, sampling)


if __name__ == "__main__":
    run_command(main, sys.argv[1:])
