"""Ask a trained model.

    python sample.py                             the newest run, on its own validation images or questions
    python sample.py --image FILE ...            describe images, animations or folders of frames
    python sample.py --data FOLDER               score a captioned folder
    python sample.py --image FILE --ask "lives in the"      and continue "NAME lives in the" behind the caption
    python sample.py --prompt "a red bat"        continue a text
    python sample.py --prompt TEXT --choices "the crypt|the tower"      which is more likely?
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
  --data=               folder with captions.jsonl to score: loss and exact match, also with other images
  --prompt=             text to continue; with --image the beginning of the caption
  --choices=            rank these continuations of the prompt, separated by "|"
  --ask=                after the caption continue NAME TEXT; NAME is the caption up to its comma
  --explain=            draw where each word attends on the image to this PNG file
  --chat                answer each line of standard input; with --image about the image

sampling:
  --num_samples=1       texts for each image or prompt
  --temperature=0.0     0 takes the most likely token; with --top_k or --top_p the default is 1
  --top_k=0             sample from the k most likely tokens
  --top_p=0.0           sample from the most likely tokens that add up to this probability
  --max_new_tokens=100  tokens to write, at most
  --seed=0              of the sampling
"""

import codecs
import re
import sys
from argparse import Namespace
from itertools import islice
from pathlib import Path

import torch

from mingpt_mm import GPT, load_run
from mingpt_mm.console import UserError, parse_options, run_command
from mingpt_mm.data.datasets import CaptionDataset, load_captions, load_frames, load_probes, split_rows
from mingpt_mm.data.tokenizer import make_tokenizer
from mingpt_mm.evaluation import evaluate_captions, score_answers
from mingpt_mm.plots import plot_attention
from mingpt_mm.training import init_device, latest_run

def rank_choices(gpt, tokenizer, args, prefix=None):
    """Print the choices, the most likely one first, with their shares: a softmax of mean log-likelihoods."""
    choices = [choice.strip() for choice in args.choices.split("|")]
    if not all(choices):
        raise UserError(f"--choices {args.choices}: write something on both sides of each |")
    scores = [score for score, _ in score_answers(gpt, tokenizer, [args.prompt] * len(choices), choices, prefix)]
    shares = torch.tensor(scores).softmax(dim=0).tolist()
    for share, score, choice in sorted(zip(shares, scores, choices), reverse=True):
        print(f"{share:.4f}  {f'{args.prompt} {choice}'.strip()}  (log-likelihood of a token {score:.3f})")


def describe(model, tokenizer, args, path, pixels, right, sampling):
    """Describe `pixels` (1, F, 3, S, S), rank choices for them, ask about them or explain the caption."""
    if args.choices:
        print(f"{path}:")
        return rank_choices(model.gpt, tokenizer, args, model.encode_images(pixels))
    for caption in model.caption(pixels.expand(args.num_samples, *pixels.shape[1:]), tokenizer, args.prompt, **sampling):
        verdict = f"  (right: {right[0]})" if right and caption not in right else "  (right)" * bool(right)
        print(f"{path}: {caption}{verdict}")
        if args.ask:  # in one context: [patches | caption. NAME TEXT ...]
            question = f"{caption}. {caption.split(',')[0]} {args.ask}"
            print(model.caption(pixels, tokenizer, question, **sampling)[0][len(caption) + 2:])
        if args.explain:
            plot_attention(args.explain, model, tokenizer, pixels, caption)


def chat(gpt, tokenizer, prefix, max_new_tokens, **sampling):
    """Answer each line of standard input. The dialogue stays in the key-value cache: a turn costs its own tokens."""
    size, cache = gpt.config.block_size, None
    while True:
        try:
            line = input("> ").strip()
        except (EOFError, KeyboardInterrupt, RuntimeError):  # the last: standard input is closed
            return print()
        turn = tokenizer.encode_ordinary(line + "\n" * line.endswith((".", "!", "?")))
        if cache is None or cache[0].length + len(waiting + turn) >= size:
            print("(a new dialogue)")
            cache, waiting, front = gpt.new_cache(size), [tokenizer.eot_token], prefix
        tokens = torch.tensor([waiting + turn], device=gpt.wte.weight.device)  # (1, T)
        room = size - cache[0].length - tokens.size(1) - (0 if front is None else front.size(1))
        if room < 1:
            print("(this line is too long)")
            continue
        decoder, waiting = codecs.getincrementaldecoder("utf-8")("replace"), []  # a letter may take several tokens
        for new in islice(gpt.stream(tokens, cache, front, **sampling), min(max_new_tokens, room)):
            piece = b"\n" if new.item() >= tokenizer.eot_token else tokenizer.decode_single_token_bytes(new.item())
            if b"\n" in piece:
                break
            waiting = [new.item()]  # not in the cache yet
            print(decoder.decode(piece), end="", flush=True)
        front, waiting = None, waiting + tokenizer.encode_ordinary("\n")
        print()


def answer_probes(gpt, tokenizer, probes, sampling):
    """Print the answers to three `probes` of each group."""
    for group in dict.fromkeys(probe["group"] for probe in probes):
        for probe in [probe for probe in probes if probe["group"] == group][:3]:
            text, = gpt.complete(tokenizer, probe["prompt"], **sampling)
            right = re.match(rf"{re.escape(probe['prompt'] + ' ' + probe['answer'])}\b", text)
            print(f"{group.replace('_', ' ')}: {text}  ({'right' if right else 'right: ' + probe['answer']})")


def main():
    """Print what the model says."""
    defaults, given = parse_options(__doc__, sys.argv[1:], ["model", "task", "sampling"])
    args = Namespace(**(defaults | {"temperature": None} | given))
    device, _ = init_device(args.device)
    if args.init:
        model, tokenizer, run = GPT.from_pretrained(args.init).eval(), make_tokenizer("gpt2"), None
    else:
        model, tokenizer, run = load_run(args.run or latest_run())
    gpt, files, args.prompt = getattr(model.to(device), "gpt", model), args.image + args.video, args.prompt.strip()
    if gpt is model and (files or args.data or args.ask or args.explain):
        raise UserError("this model knows text alone: use --prompt or --chat")
    if gpt is not model and model.frames == 1 and any(Path(file).is_dir() for file in files):
        raise UserError("this model sees single images: name files, or score a captioned folder with --data")
    sampling = {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature, "top_k": args.top_k,
                "top_p": args.top_p, "generator": torch.Generator(device).manual_seed(args.seed)}
    shown = [(file, None) for file in files]
    if not (shown or args.prompt or args.choices or args.chat or args.data or gpt is model):
        shown = [(row.path, row.captions) for row in split_rows(load_captions(run.data))[1][:6]]
    shown = [(f, load_frames(f, model.frames, run.image_size)[None].to(device), right) for f, right in shown]
    if args.chat:
        chat(gpt, tokenizer, model.encode_images(shown[0][1]) if shown else None, **sampling)
    elif args.data:
        data = CaptionDataset(load_captions(args.data), tokenizer, model.frames, run.image_size)
        run.eval_samples = len(data)
        for name, value in evaluate_captions(model, data, tokenizer, run, ablate=True)[0].items():
            print(f"{name} {value:.4g}")
    elif shown:
        for row in shown:
            describe(model, tokenizer, args, *row, sampling)
    elif args.choices:
        rank_choices(gpt, tokenizer, args)
    elif args.prompt or not run or not run.probes:
        for _ in range(args.num_samples):
            print(*gpt.complete(tokenizer, args.prompt, **sampling))
    else:
        answer_probes(gpt, tokenizer, load_probes(run.probes), sampling)


if __name__ == "__main__":
    run_command(main)
