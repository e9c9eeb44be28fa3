"""Sample from a trained model.

    python sample.py                             the newest run, on its own validation images or questions
    python sample.py --image FILE ...            describe images, animations or folders of frames
    python sample.py --data FOLDER               score a captioned folder
    python sample.py --image FILE --ask "lives in the"   then continue "NAME lives in the" after the caption
    python sample.py --prompt "a red bat"        continue a text
    python sample.py --prompt TEXT --choices "the crypt|the tower"      which is more likely?
    python sample.py --draw "a red bat above a blue cat" --out bat.png
    python sample.py --chat                      answer each line that you type
    python sample.py --init gpt2 --prompt TEXT   the same with a released GPT-2

The lines below declare the options with their defaults.

model:
  --run=                folder of the run; else the newest under runs/
  --init=               a released text model instead: gpt2 to gpt2-xl, distilgpt2, a folder or a file
  --device=auto|cpu|cuda|mps

task:
  --image ...           images, animations or folders of frames to describe
  --video ...           the same as --image
  --data=               folder with captions.jsonl to score: loss, exact match, both also with ablations
  --prompt=             text to continue; with --image the beginning of the caption
  --choices=            rank these continuations of the prompt, separated by "|"
  --ask=                after the caption continue "NAME TEXT"; NAME: the caption up to a comma
  --draw=               draw this caption to --out, num_samples times
  --out=drawing.png     PNG file for --draw
  --explain=            draw where each token attends on the image to this PNG file
  --chat                answer each line of standard input; with --image about the image

sampling:
  --num_samples=1       texts for each image or prompt; drawings
  --temperature=0.0     0 takes the most likely token; default 1 with --top_k or --top_p, 0.6 with --draw
  --top_k=0             sample from the k most likely tokens
  --top_p=0.0           sample from the most likely tokens that add up to this probability
  --max_new_tokens=100  tokens to write, at most
  --seed=0              of the sampling
"""

import codecs
import math
import re
import sys
from argparse import Namespace
from pathlib import Path

import torch

from mingpt_mm import GPT, load_run
from mingpt_mm.console import UserError, parse_options, run_command
from mingpt_mm.data.datasets import CaptionDataset, load_captions, load_frames, load_probes, split_rows
from mingpt_mm.data.tokenizer import make_tokenizer
from mingpt_mm.evaluation import evaluate_captions, score_answers
from mingpt_mm.plots import make_grid, plot_attention
from mingpt_mm.training import init_device, latest_run


def chat(gpt, tokenizer, prefix, max_new_tokens, **sampling):
    """Answer each line of standard input, after the `prefix` (1, P, C) or None.

    When the context is full, the older part of the dialogue is forgotten.
    """
    room, dialogue = gpt.config.block_size - 1 - (0 if prefix is None else prefix.size(1)), []
    while True:
        try:
            dialogue += tokenizer.encode_ordinary(re.sub(r"(?<=[.!?])$", "\n", input("> ").strip()))
        except (EOFError, KeyboardInterrupt, RuntimeError, UnicodeError):  # closed, interrupted, or not text
            return print()
        dialogue = dialogue[-max(room // 2, room - max_new_tokens):]
        tokens = torch.tensor([[tokenizer.eot_token, *dialogue]], device=gpt.wte.weight.device)  # (1, T)
        stream = gpt.stream(tokens, gpt.new_cache(gpt.config.block_size), prefix, **sampling)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a letter may take several tokens
        for _, new in zip(range(min(max_new_tokens, room - len(dialogue))), stream):
            piece = tokenizer.decode_bytes(new[0].tolist()) if new.item() < tokenizer.eot_token else b"\n"
            if b"\n" in piece:
                break
            dialogue.append(new.item())
            print(decoder.decode(piece), end="", flush=True)
        dialogue += tokenizer.encode_ordinary("\n")
        print()


def main():
    """Print what the model says."""
    defaults, given = parse_options(__doc__, sys.argv[1:], ["model", "task", "sampling"])
    args = Namespace(**(defaults | {"temperature": None} | given))
    device, _ = init_device(args.device)
    released = args.init and (GPT.from_pretrained(args.init).eval(), make_tokenizer("gpt2"), None)
    model, tokenizer, run = released or load_run(args.run or latest_run("best.pt"))
    gpt, files, prompt = getattr(model.to(device), "gpt", model), args.image + args.video, args.prompt.strip()
    choices = [choice.strip() for choice in args.choices.split("|") if choice.strip()]
    if gpt is model and (files or args.data or args.ask or args.explain or "draw" in given):
        raise UserError("this is a text-only model: use --prompt or --chat")
    if gpt is not model and model.frames == 1 and any(Path(file).is_dir() for file in files):
        raise UserError("this model sees single images: name files, or score a captioned folder with --data")
    sampling = {"temperature": args.temperature, "top_k": args.top_k, "top_p": args.top_p,
                "generator": torch.Generator(device).manual_seed(args.seed)}
    if "draw" in given:
        drawings = model.draw(args.draw.strip(), tokenizer, run.image_size, args.num_samples, **sampling)
        return make_grid(drawings.flatten(0, 1)).save(args.out, "PNG")
    if args.data:
        data = CaptionDataset(load_captions(args.data), tokenizer, model.frames, run.image_size)
        run.eval_samples = len(data)
        for name, value in evaluate_captions(model, data, tokenizer, run, ablate=True)[0].items():
            print(f"{name} {value:.4g}")
        return

    asked = [(f"{file}: ", file, prompt, []) for file in files] or [("", None, prompt, [])]
    if run and not (files or prompt or choices or args.chat):  # the run's own questions or validation images
        rows = split_rows(load_captions(run.data))[1][:6] if gpt is not model else []
        probes = load_probes(run.probes) if run.probes else []
        asked = [(f"{row.path}: ", row.path, "", row.captions) for row in rows] or [
            (f"{probe['group']}: ", None, probe["prompt"], [f"{probe['prompt']} {probe['answer']}"])
            for probe in probes[::math.ceil(len(probes) / 9) or 1]] or asked
    for label, file, prompt, right in [row for row in asked for _ in range(args.num_samples)]:
        pixels = load_frames(file, model.frames, run.image_size)[None].to(device) if file else None
        prefix = model.encode_images(pixels) if file else None  # (1, P, C)
        if args.chat:
            chat(gpt, tokenizer, prefix, args.max_new_tokens, **sampling)
        elif choices:  # the most likely one first; a share is a softmax of the mean log-likelihoods
            scores, _ = zip(*score_answers(gpt, tokenizer, [prompt] * len(choices), choices, prefix))
            shares = torch.tensor(scores).softmax(dim=0).tolist()
            for share, score, c in sorted(zip(shares, scores, choices), reverse=True):
                print(f"{label}{share:.4f}  {f'{prompt} {c}'.strip()}  (log-likelihood {score:.3f} a token)")
        else:
            text, = gpt.complete(tokenizer, prompt, prefix, args.max_new_tokens, **sampling)
            end = "$" if file else r"(?!\w)"  # a text goes on after the answer
            good = any(re.match(re.escape(answer) + end, text) for answer in right)
            print(label + text + (f"  (right: {right[0]})" if right and not good else "  (right)" * good))
            if args.ask:  # in one context: [patches | caption. NAME TEXT ...]
                question = f"{text}. {text.split(',')[0]} {args.ask}"
                said, = gpt.complete(tokenizer, question, prefix, args.max_new_tokens, **sampling)
                print(said[len(text) + 2:])
            if args.explain and file:
                plot_attention(args.explain, model, tokenizer, pixels, text)


if __name__ == "__main__":
    run_command(main)
