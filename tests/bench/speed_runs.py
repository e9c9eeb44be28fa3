"""Rows 6, 8 and 9 of tests.bench.speed: whole runs, and what they wait for."""

import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import tempfile
import time
from contextlib import redirect_stdout
from pathlib import Path

import numpy as np
import torch

import train
from mingpt_mm.castle import world_folder
from mingpt_mm.data import Captions, read_captions
from mingpt_mm.tokenizer import train_bpe
from tests.bench.common import ROOT
from tests.bench.peers import pair_arms
from tests.bench.speed import per
from tests.bench.speed_models import step, text

NANOGPT = ("config/train_shakespeare_char.py --device=cpu --compile=False --eval_iters=20 --log_interval=1 "
           "--block_size=64 --batch_size=12 --n_layer=4 --n_head=4 --n_embd=128 --max_iters=2000 "
           "--lr_decay_iters=2000 --dropout=0.0").split()  # from its README
DATA = Path(os.environ.get("MINGPT_MM_DATA", "nowhere"))


def run(arguments, folder):
    """Start Python in `folder` and yield (seconds since then, line) of its output; killed when not read on."""
    began = time.perf_counter()
    process = subprocess.Popen([sys.executable, *map(str, arguments)], cwd=folder, stdout=subprocess.PIPE, text=True,
                               stderr=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)})
    try:
        for line in process.stdout:
            yield time.perf_counter() - began, line
        if process.wait():
            sys.exit(process.stderr.read())
    finally:
        process.kill()


def reach(lines, pattern, good):
    """(seconds, value) of the first of the `lines` in which the number that `pattern` finds is `good`, or the last."""
    for seconds, line in lines:
        if found := re.search(pattern, line):
            last = seconds, float(found[1])
            if good(last[1]):
                break
    return last


def pictures_a_second(folder, size, n):
    """How many pictures of the data in `folder` are read and resized in a second, none of them kept."""
    rows, _ = read_captions(folder)
    rows = rows[:n]
    data = Captions(rows, train_bpe([row.captions[0] for row in rows], 300), size, 10**6, cache_mb=0)
    began = time.perf_counter()
    for start in range(0, len(rows), 8):
        data.batch(range(start, min(start + 8, len(rows))))
    return len(rows) / (time.perf_counter() - began)


def waiting(options):
    """The share of its time that a run of the multimodal loop with `options` waits for data."""
    waited, read_ahead = 0.0, train.read_ahead

    def timed(*arguments, **named):
        """read_ahead, with a clock in each `next`."""
        nonlocal waited
        batches = read_ahead(*arguments, **named)
        while True:
            began = time.perf_counter()
            batch = next(batches, None)
            waited += time.perf_counter() - began
            if batch is None:
                return
            yield batch
    train.read_ahead, began = timed, time.perf_counter()
    try:
        with redirect_stdout(io.StringIO()):
            train.multimodal(options)
    finally:
        train.read_ahead = read_ahead
    return waited / (time.perf_counter() - began)


def reading(bench):
    """Input: pictures a second out of the reader, and into a step; the share of the default run that waits"""
    rounds = range(bench.rounds)
    with tempfile.TemporaryDirectory() as folder:
        here = os.getcwd()
        os.chdir(folder)
        try:
            castle = world_folder(0, "scenes")
            n = 64 if bench.quick else 2000
            bench.note("6", "castle, 64 pixels: pictures a second read",
                       [pictures_a_second(castle, 64, n) for _ in rounds])
            options = ["--out", "run"] + (["--steps", "10", "--eval_rows", "8", "--log_interval", "5"] if bench.quick else [])
            bench.note("6", "the default run: share of its time that waits for data", waiting(options))
            log = map(json.loads, Path("run/log.jsonl").read_text().splitlines())
            taken = [32000 / event["ms"] for event in log if event["event"] == "step"]
            bench.note("6", "the default run: pictures a second that its steps take in", taken)
        finally:
            os.chdir(here)
    if not (DATA / "flickr8k_1k").is_dir():
        return print("   without MINGPT_MM_DATA the photographs are left out")
    bench.note("6", "photographs, 224 pixels: a second read by one process",
               [pictures_a_second(DATA / "flickr8k_1k", 224, 16 if bench.quick else 200) for _ in rounds])
    arm = pair_arms(bench.gpt, bench.vit, bench.device, frozen=False)["ours"]
    pixels = torch.randn(8, 3, bench.vit.image_size, bench.vit.image_size, device=bench.device)
    seconds = bench.alternate({"ours": step(bench, arm, pixels, *text(bench, 8, 32))})["ours"]
    bench.note("6", "ViT-B/16 and GPT-2 124M: a second that a step takes in", [8 / s for s in seconds])


def bring(checkout, folder, file):
    """A copy of the nanoGPT at `checkout` in `folder`, with the letters of `file` as its prepare.py writes them."""
    for path in checkout.glob("*.py"):
        shutil.copy(path, folder)
    shutil.copytree(checkout / "config", folder / "config")
    (folder / "data/shakespeare_char").mkdir(parents=True)
    text = file.read_text(encoding="utf-8")
    letters = sorted(set(text))
    tokens = np.array([letters.index(letter) for letter in text], np.uint16)
    for name, part in (("train", tokens[:int(0.9 * len(text))]), ("val", tokens[int(0.9 * len(text)):])):
        part.tofile(folder / f"data/shakespeare_char/{name}.bin")
    meta = {"vocab_size": len(letters), "itos": dict(enumerate(letters)), "stoi": {c: i for i, c in enumerate(letters)}}
    (folder / "data/shakespeare_char/meta.pkl").write_bytes(pickle.dumps(meta))


def letters(bench):
    """Time to a validation loss of 1.88 on Tiny Shakespeare, from the start of the process"""
    file = DATA / "text/tinyshakespeare.txt"
    if not file.is_file():
        return print("   without MINGPT_MM_DATA this row is left out")
    found = {"ours": [], "nanoGPT": []}
    for i in range(bench.rounds):
        with tempfile.TemporaryDirectory() as folder:
            quick = ["--steps", "4"] if bench.quick else []
            ours = run(["-m", "tests.bench.characters", file, "--seed", i, *quick], folder)
            found["ours"].append(reach(ours, r"val loss ([\d.]+)", lambda loss: loss <= 1.88))
            if bench.nanogpt:
                bring(bench.nanogpt, Path(folder), file)
                quick = ["--max_iters=4", "--eval_iters=1"] if bench.quick else []
                theirs = run(["train.py", *NANOGPT, *quick], folder)
                found["nanoGPT"].append(reach(theirs, r"val loss ([\d.]+)", lambda loss: loss <= 1.88))
    for name, results in found.items():
        if results:
            seconds, losses = zip(*results)
            bench.note("8", f"{name}: to 1.88, or to the end", list(seconds), "s")
            bench.note("8", f"{name}: the loss there", list(losses))
    if bench.nanogpt:
        bench.note("8", "ours is so many times as fast",
                   per([s for s, _ in found["nanoGPT"]], [s for s, _ in found["ours"]]))


def default_runs(bench):
    """The default runs, from the start of the process to their targets, the world drawn anew; seeds 0, 1, 2"""
    targets = {"multimodal": ("exact_match", 0.97, ["--steps", 10, "--eval_rows", 8]),
               "adversarial": ("recall_graph_only", 0.75, ["--gan_warmup", 20, "--gan_steps", 10, "--steps", 2])}
    if bench.quick:
        del targets["multimodal"]  # which row 6 has run
    for loop, (measure, target, quick) in targets.items():
        results = []
        for seed in range(1 if bench.quick else 3):
            with tempfile.TemporaryDirectory() as folder:
                lines = run([ROOT / "train.py", loop, "--seed", seed, *(quick if bench.quick else [])], folder)
                results.append(reach(lines, rf"^eval .*{measure} ([\d.e-]+)", lambda value: value >= target))
        seconds, values = zip(*results)
        bench.note("9", f"python train.py {loop}: to {measure} of {target}, or to the end", list(seconds), "s")
        bench.note("9", f"python train.py {loop}: {measure} there", list(values))
