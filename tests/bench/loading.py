"""How long a GPT-2 checkpoint of random weights takes to load, and how much memory, beside `transformers`.

    python -m tests.bench.loading [--model gpt2|gpt2-medium|gpt2-large|gpt2-xl] [--rounds 5]

Each measurement is a process of its own, ours and the reference in turn. "seconds" is the call alone, with the
file warm; "peak" is the most resident memory beyond that before the call, divided by the size of the
parameters, when each of them has been read once.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile

SIZES = {"gpt2": (12, 12, 768), "gpt2-medium": (24, 16, 1024), "gpt2-large": (36, 20, 1280), "gpt2-xl": (48, 25, 1600)}
WRITE = """
import sys
from mingpt_mm.gpt import GPT, GPTConfig
GPT(GPTConfig(n_layer={0}, n_head={1}, n_embd={2})).save_pretrained(sys.argv[1])
"""
MEASURE = """
import re, resource, sys, time
import torch
{0}
def peak():  # not `ru_maxrss`, which begins with what the calling process had
    return 1024 * int(re.search("VmHWM:[^0-9]*([0-9]+)", open("/proc/self/status").read())[1])
before = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()
began = time.perf_counter()
model = {1}.from_pretrained(sys.argv[1])
seconds = time.perf_counter() - began
for parameter in model.parameters():
    parameter.sum()
print(seconds, (peak() - before) / sum(parameter.nbytes for parameter in model.parameters()))
"""
ARMS = {"mingpt_mm": ("from mingpt_mm.gpt import GPT", "GPT"),
        "transformers": ("from transformers import GPT2LMHeadModel", "GPT2LMHeadModel")}


def python(program, folder):
    """What `program` prints."""
    return subprocess.run([sys.executable, "-c", program, folder], check=True, capture_output=True, text=True).stdout


def measure(model, rounds):
    """{arm: (seconds of each round, peaks)} for the `model` of SIZES"""
    figures = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        python(WRITE.format(*SIZES[model]), folder)
        for _ in range(rounds + 1):
            for name, arm in ARMS.items():
                figures[name].append([float(word) for word in python(MEASURE.format(*arm), folder).split()])
    return {name: tuple(map(list, zip(*found[1:]))) for name, found in figures.items()}  # the first warms up


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=SIZES, default="gpt2")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(f"{options.model}      seconds (lowest to highest)   peak / parameters")
    for name, (seconds, peaks) in measure(options.model, options.rounds).items():
        print(f"{name:12}  {statistics.median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})"
              f"          {statistics.median(peaks):.3f}")


if __name__ == "__main__":
    main()
