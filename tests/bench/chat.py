"""Does a turn late in a dialogue cost what an early one costs? GPT-2's size, random weights.

    python -m tests.bench.chat --turns 12 --rounds 3

Each turn says eight words and is answered with as many tokens as --max_new_tokens says; `kept` is the time of a turn
that finds the dialogue in its cache, `anew` that of the same turn with an empty one. Medians of the rounds, in seconds.
"""

import argparse
import time
from statistics import median

import torch

from mingpt_mm.chat import Chat
from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.tokenizer import gpt2_encoding

LINE = "tell me more about the castle at night"


@torch.no_grad()
def turn(chat, new):
    """The seconds that a turn takes."""
    began = time.perf_counter()
    if chat.say(LINE, new):
        raise SystemExit("the context is full: fewer turns")
    for _ in chat.answer(new, temperature=0):
        pass
    return time.perf_counter() - began


def main():
    """Run what the options say."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--turns", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max_new_tokens", type=int, default=32)
    parser.add_argument("--n_layer", type=int, default=12)
    config = parser.parse_args()
    torch.manual_seed(0)
    gpt, encoding = GPT(GPTConfig(n_layer=config.n_layer)).eval(), gpt2_encoding()
    kept, anew, sizes = ([[] for _ in range(config.turns)] for _ in range(3))
    for _ in range(config.rounds):
        chat = Chat(gpt, encoding)
        for i in range(config.turns):
            sizes[i].append(len(chat.tokens))
            other = Chat(gpt, encoding)
            other.turns = [list(tokens) for tokens in chat.turns]
            anew[i].append(turn(other, config.max_new_tokens))
            kept[i].append(turn(chat, config.max_new_tokens))
            assert chat.turns == other.turns and len(chat.tokens) - sizes[i][-1] > config.max_new_tokens
    print("| turn | tokens before | kept | anew |\n|---|---|---|---|")
    for i, times in enumerate(kept, 1):
        print(f"| {i} | {sizes[i - 1][0]} | {median(times):.2f} | {median(anew[i - 1]):.2f} |")
    if config.turns > 9:
        print(f"turn 10 takes {median(kept[9]) / median(kept[1]):.2f} times as long as turn 2")


if __name__ == "__main__":
    main()
