"""Ask a trained model.

    python sample.py                             the newest run, on its own validation images or questions
    python sample.py --image FILE ...            describe images, animations or folders of frames
    python sample.py --data FOLDER               score a captioned folder
    python sample.py --image FILE --ask "lives in the"   and continue "NAME lives in the" behind the caption
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
from pathlib import Path

import torch

from mingpt_mm import GPT, load_run
from mingpt_mm.console import UserError, parse_options, run_command
from mingpt_mm.data.datasets import CaptionDataset, load_captions, load_frames, load_probes, split_rows
from mingpt_mm.data.tokenizer import make_tokenizer
from mingpt_mm.evaluation import evaluate_captions, score_answers
from mingpt_mm.plots import plot_attention
from mingpt_mm.training import init_device, latest_run


def chat(gpt, tokenizer, prefix, max_new_tokens, **sampling):
    """Answer each line of standard input, after the `prefix` (1, P, C) or None.

    The dialogue stays in the key-value cache: a turn costs its own tokens only.
    """
    size, P, cache = gpt.config.block_size, 0 if prefix is None else prefix.size(1), None
    while True:
        try:
            turn = tokenizer.encode_ordinary(re.sub(r"(?<=[.!?])$", "\n", input("> ").strip()))
        except (EOFError, KeyboardInterrupt, RuntimeError):  # the last: standard input is closed
            return print()
        if P + len(turn) + 3 > size:  # with a token before it and two for the answer
            print("(this line is too long)")
            continue
        if cache is None or cache[0].length + len(waiting + turn) + 2 > size:
            print("(a new dialogue)")
            cache, waiting, front = gpt.new_cache(size), [tokenizer.eot_token], prefix
        tokens = torch.tensor([waiting + turn], device=gpt.wte.weight.device)  # (1, T)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")  # a letter may take several tokens
        for _, new in zip(range(max_new_tokens), gpt.stream(tokens, cache, front, **sampling)):
            piece = tokenizer.decode_bytes(new[0].tolist()) if new.item() < tokenizer.eot_token else b"\n"
            # A token enters the cache with the next one; at the end of the answer or the context none waits.
            waiting = [] if b"\n" in piece or cache[0].length + 1 == size else [new.item()]
            if not waiting:
                break
            print(decoder.decode(piece), end="", flush=True)
        front, waiting = None, waiting + tokenizer.encode_ordinary("\n")
        print()


def main():
    """Print what the model says."""
    defaults, given = parse_options(__doc__, sys.argv[1:], ["model", "task", "sampling"])
    args = Namespace(**(defaults | {"temperature": None} | given))
    device, _ = init_device(args.device)
    released = args.init and (GPT.from_pretrained(args.init).eval(), make_tokenizer("gpt2"), None)
    model, tokenizer, run = released or load_run(args.run or latest_run())
    gpt, prompt = getattr(model.to(device), "gpt", model), args.prompt.strip()
    shown = [(file, None) for file in args.image + args.video]
    if gpt is model and (shown or args.data or args.ask or args.explain):
        raise UserError("this model knows text alone: use --prompt or --chat")
    if gpt is not model and model.frames == 1 and any(Path(file).is_dir() for file, _ in shown):
        raise UserError("this model sees single images: name files, or score a captioned folder with --data")
    sampling = {"max_new_tokens": args.max_new_tokens, "temperature": args.temperature, "top_k": args.top_k,
                "top_p": args.top_p, "generator": torch.Generator(device).manual_seed(args.seed)}
    if not (shown or prompt or args.choices or args.chat or args.data or gpt is model):
        shown = [(row.path, row.captions) for row in split_rows(load_captions(run.data))[1][:6]]
    shown = [(f, load_frames(f, model.frames, run.image_size)[None].to(device), right) for f, right in shown]

    if args.chat:
        chat(gpt, tokenizer, model.encode_images(shown[0][1]) if shown else None, **sampling)
    elif args.data:
        data = CaptionDataset(load_captions(args.data), tokenizer, model.frames, run.image_size)
        run.eval_samples = len(data)
        for name, value in evaluate_captions(model, data, tokenizer, run, ablate=True)[0].items():
            print(f"{name} {value:.4g}")
    elif args.choices:  # the most likely one first; a share is a softmax of the mean log-likelihoods
        choices = [choice.strip() for choice in args.choices.split("|")]
        if not all(choices):
            raise UserError(f"--choices {args.choices}: write something on both sides of each |")
        for path, pixels, _ in shown or [("", None, None)]:
            print(end=f"{path}:\n" if path else "")
            prefix = model.encode_images(pixels) if path else None  # (1, P, C)
            scores, _ = zip(*score_answers(gpt, tokenizer, [prompt] * len(choices), choices, prefix))
            shares = torch.tensor(scores).softmax(dim=0).tolist()
            for share, score, c in sorted(zip(shares, scores, choices), reverse=True):
                print(f"{share:.4f}  {f'{prompt} {c}'.strip()}  (log-likelihood of a token {score:.3f})")
    elif shown:
        for path, pixels, right in [row for row in shown for _ in range(args.num_samples)]:
            caption, = model.caption(pixels, tokenizer, prompt, **sampling)
            note = f"  (right: {right[0]})" if right and caption not in right else "  (right)" * bool(right)
            print(f"{path}: {caption}{note}")
            if args.ask:  # in one context: [patches | caption. NAME TEXT ...]
                question = f"{caption}. {caption.split(',')[0]} {args.ask}"
                print(model.caption(pixels, tokenizer, question, **sampling)[0][len(caption) + 2:])
            if args.explain:
                plot_attention(args.explain, model, tokenizer, pixels, caption)
    elif prompt or not run or not run.probes:
        print(*(gpt.complete(tokenizer, prompt, **sampling)[0] for _ in range(args.num_samples)), sep="\n")
    else:  # three questions of each group
        probes = load_probes(run.probes)
        for group in dict.fromkeys(probe["group"] for probe in probes):
            for prompt, answer in [(p["prompt"], p["answer"]) for p in probes if p["group"] == group][:3]:
                text, = gpt.complete(tokenizer, prompt, **sampling)
                right = re.match(re.escape(f"{prompt} {answer}") + r"(?!\w)", text)
                print(f"{group.replace('_', ' ')}: {text}  ({'right' if right else f'right: {answer}'})")


if __name__ == "__main__":
    run_command(main)
