"""How fast: each thing that is slow, beside transformers and nanoGPT and beside what the machine can do, in one run.

    python -m tests.bench.speed [--nanogpt PATH] [--json FILE] [--rows 1 2 ...] [--quick]

What is compared is measured in turn, once a round, after a round that warms up; a figure is the median of the rounds
with the smallest and the largest in brackets, and a ratio is taken within each round. So are the machine's
ceilings: GFLOP/s of a product of large square matrices, and GB/s of a copy of a large tensor, read and written.

A training step takes, for each row of a batch that passes a matrix of N weights, 2 N operations forwards and 4 N
backwards (2 N for a ViT whose gradient nobody asks for); attention takes 4 S C a row and block forwards for S
positions that can be seen, twice that backwards. Those of the causal mask are counted half. The row of an
embedding costs nothing; the head is a matrix. (Training Compute-Optimal Large Language Models, Hoffmann et al.,
2022, appendix F.)

A decoded token must read all weights once: its bound is their bytes over the bandwidth.
"""

import argparse
import gc
import json
import os
import platform
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import torch

from mingpt_mm.gpt import GPTConfig
from mingpt_mm.vit import ViTConfig

QUICK = GPTConfig(block_size=1024, vocab_size=2048, n_layer=2, n_head=2, n_embd=128)


class Bench:
    """What all rows share: how much to measure, where, and what was found."""

    def __init__(self, options):
        self.rounds = 2 if options.quick else options.rounds
        self.quick, self.nanogpt, self.records = options.quick, options.nanogpt, []
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")
        self.gpt, self.vit = GPTConfig(), ViTConfig()
        if self.quick:
            self.gpt, self.vit = QUICK, ViTConfig(64, 16, 2, 2, 128)

    def clock(self, work):
        """The seconds that `work()` takes."""
        began = time.perf_counter()
        work()
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - began

    def alternate(self, arms):
        """{name: seconds of each round} of the functions `arms`, and under "flops" and "bandwidth" the ceilings."""
        seconds = {name: [] for name in arms} | {"flops": [], "bandwidth": []}
        n = 512 if self.quick else 8192 if self.device.type == "cuda" else 2048
        dtype = torch.bfloat16 if self.device.type == "cuda" else torch.float32
        a, b = torch.randn(2, n, n, dtype=dtype, device=self.device)
        x, y = torch.randn(2, 2**22 if self.quick else 2**26, device=self.device)
        for i in range(self.rounds + 1):
            product, copy = self.clock(lambda: a @ b), self.clock(lambda: y.copy_(x))
            took = {name: self.clock(work) for name, work in arms.items()}
            took |= {"flops": 2 * n**3 / product, "bandwidth": 2 * x.nbytes / copy}
            for name, value in took.items():
                seconds[name] += [value] if i else []  # the first round warms up
        gc.collect()
        return seconds

    def note(self, row, what, values, unit=""):
        """Print and keep one figure: a list of rounds, or a single number."""
        values = values if isinstance(values, list) else [values]
        record = {"row": row, "what": what, "median": median(values), "least": min(values), "most": max(values),
                  "unit": unit}
        self.records.append(record)
        spread = f"({record['least']:.3g} to {record['most']:.3g})" if len(values) > 1 else ""
        print(f"{row:>3}  {what:66} {record['median']:>9.3g} {unit:6} {spread}", flush=True)


def per(numerators, denominators):
    """The ratios of two lists, round by round."""
    return [a / b for a, b in zip(numerators, denominators)]


def shares(bench, row, seconds, flops=0, weights=0):
    """Note how near our arm comes to the ceiling: of `flops` operations, or of reading `weights` bytes."""
    if flops:
        bench.note(row, "ceiling: product of large matrices", [x / 1e9 for x in seconds["flops"]], "GFLOP/s")
        bench.note(row, "ours, share of it", [flops / s / c for s, c in zip(seconds["ours"], seconds["flops"])])
    if weights:
        bench.note(row, "ceiling: copying, read and written", [x / 1e9 for x in seconds["bandwidth"]], "GB/s")
        bench.note(row, "ours, share of the bound (weights / bandwidth)",
                   [weights / c / s for s, c in zip(seconds["ours"], seconds["bandwidth"])])


def machine():
    """One line: processor, cores, memory and versions."""
    names = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")] \
        if Path("/proc/cpuinfo").exists() else [platform.processor()]
    chip = torch.cuda.get_device_name() if torch.cuda.is_available() else names[0].split(":")[-1].strip()
    return (f"{chip}, {os.cpu_count()} cores, {torch.get_num_threads()} threads; Python {platform.python_version()}, "
            f"torch {torch.__version__}, transformers {version('transformers')}; {time.strftime('%Y-%m-%d')}")


def main():
    """Measure the rows that are asked for, print them, and write them as JSON."""
    from tests.bench.speed_models import captions, decode, growth, load, pictures_step, text_step
    from tests.bench.speed_runs import default_runs, letters, reading
    rows = [text_step, pictures_step, decode, captions, load, reading, growth, letters, default_runs]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nanogpt", type=Path, help="a checkout of nanoGPT")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--rows", type=int, nargs="+", default=range(1, len(rows) + 1))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="small models, two rounds: only to see that it runs")
    options = parser.parse_args()
    if options.nanogpt and not (options.nanogpt / "model.py").is_file():
        sys.exit(f"--nanogpt {options.nanogpt}: no model.py there: name a checkout of nanoGPT")
    bench = Bench(options)
    print(machine(), "" if options.nanogpt else "; without --nanogpt its arms are left out", sep="")
    for number in options.rows:
        row = rows[number - 1]
        print(f"\n{number}. {row.__doc__.splitlines()[0]}", flush=True)
        row(bench)
    if options.json:
        options.json.write_text(json.dumps({"machine": machine(), "rows": bench.records}, indent=1))


if __name__ == "__main__":
    main()
