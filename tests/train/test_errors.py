"""What a user can do wrong, and the line that says so.

Each row is a command, what is done to the files first, and parts of its one line of error. The working directory is
the one of `tiny` in conftest.py: images/, clips/, text.txt, kg.tsv, probes.jsonl and the runs seen/, moving/, told/.
"""

import io
import re
from pathlib import Path
from unittest import mock

import pytest
import torch
from PIL import Image

import train

CAPTIONS, IMAGE = "images/captions.jsonl", "images/images/5.png"
MINE = "train.py adversarial TINY --text text.txt --kg kg.tsv --sentences 1 --gan_warmup 3 --gan_steps 1"


def add(line):
    """What a file becomes with one more line."""
    return lambda content: content.rstrip() + b"\n" + line.encode() + b"\n"


def huge(_):
    """A file of a few bytes that claims 100 million pixels."""
    Image.new("1", (10_000, 10_000)).save(file := io.BytesIO(), "png")
    return file.getvalue()


TRAIN = "train.py TINY IMAGES"
TABLE = [
    # ---- options ----
    ("train.py --lerning_rate 1", {}, ["--lerning_rate"]),
    ("train.py --learning_rate -1", {}, ["--learning_rate", "-1"]),
    ("sample.py --run seen --prompt a --top_p 7", {}, ["--top_p", "7"]),
    ("train.py TINY --world moon", {}, ["--world", "moon"]),
    (f"{TRAIN} --device abacus", {}, ["--device", "abacus"]),
    (f"{TRAIN} --freeze connector", {}, ["--freeze", "connector"]),
    (f"{TRAIN} --freeze gpt --text text.txt", {}, ["--freeze gpt", "--text"]),
    (f"{TRAIN} --freeze gpt --draw", {}, ["--freeze gpt", "--draw"]),
    (f"{TRAIN} --kg kg.tsv", {}, ["--kg"]),
    (f"{TRAIN} --image_size 20", {}, ["--image_size", "20", "8"]),
    (f"{TRAIN} --n_embd 25", {}, ["--n_embd", "25", "2"]),
    ("train.py adversarial TINY --text text.txt", {}, ["--kg"]),
    ("train.py adversarial TINY --kg kg.tsv", {}, ["--text"]),
    (f"{MINE} --out .", {}, ["--out .", "--resume"]),  # text.txt would be overwritten
    (f"{MINE} --seed 99999999999999999999", {}, ["--seed"]),
    (f"{TRAIN} --text graph.txt", {"graph.txt": lambda content: b" \n"}, ["graph.txt", "nothing"]),
    # ---- files ----
    ("train.py TINY --data nowhere", {}, ["nowhere/captions.jsonl"]),
    (TRAIN, {CAPTIONS: add('{"image": ')}, ["captions.jsonl:25"]),
    (TRAIN, {CAPTIONS: add('{"image": "images/1.png", "caption": "   "}')}, ["captions.jsonl:25", "empty"]),
    (TRAIN, {CAPTIONS: lambda content: b"\n"}, ["nothing in it"]),
    (f"{TRAIN} --num_workers 1", {IMAGE: lambda content: content[:60]}, ["error: images/images/5.png"]),
    (f"{MINE} --text nowhere.txt", {}, ["nowhere.txt"]),
    (MINE, {"kg.tsv": lambda content: b"Oz\tis near\tKansas\n"}, ["sentence"]),
    # ---- runs and weights ----
    (f"{TRAIN} --out seen", {}, ["--out seen", "--resume"]),
    ("train.py --resume", {}, ["runs"]),
    ("train.py --resume --out seen --patch_size 4", {}, ["--patch_size"]),
    ("train.py --resume --out seen --steps 1", {}, ["--steps 1"]),
    ("train.py --resume --out moving", {"moving/last.pt": lambda content: content[:9999]}, ["moving/last.pt"]),
    # ---- sample.py ----
    ("sample.py --run seen --image images/images", {}, ["--data"]),
    ("sample.py --run seen --image huge.png", {"huge.png": huge}, ["huge.png", "pixels"]),
    (f"sample.py --run told --image {IMAGE}", {}, ["text"]),
    ("sample.py --run told --draw 'a red one'", {}, ["text"]),
    ("sample.py --run seen --draw ''", {}, ["--draw"]),
]


@pytest.mark.parametrize("command, changes, parts", TABLE, ids=lambda value: value[:60] if type(value) is str else "")
def test_a_mistake_is_named_in_one_line_and_costs_no_checkpoint(shell, command, changes, parts):
    for name, change in changes.items():
        Path(name).write_bytes(change(Path(name).read_bytes() if Path(name).exists() else None))
    kept = {path: path.read_bytes() for path in Path().glob("*/*.pt")}
    line = shell.refuse(command)
    assert all(part in line for part in parts), line
    assert all(path.read_bytes() == content for path, content in kept.items())


def test_a_block_size_that_is_too_small_names_the_one_that_fits(shell):
    fits = int(re.findall(r"\d+", shell.refuse(f"{TRAIN} --block_size 5 --out run"))[-1])
    assert str(fits) in shell.refuse(f"{TRAIN} --block_size {fits - 1} --out run1")
    shell(f"{TRAIN} --block_size {fits} --steps 1 --out run2")


def test_a_loss_that_is_not_finite_leaves_a_checkpoint_from_before(shell):
    assert "--learning_rate" in shell.refuse(f"{TRAIN} --learning_rate 1e9 --out run")
    assert all(tensor.isfinite().all() for tensor in shell.saved("run")["model"].values())
    shell("train.py --resume --out run --learning_rate 1e-3")


def test_a_run_that_does_not_fit_the_code_is_named(shell):
    checkpoint = shell.saved("seen", "best.pt")
    checkpoint["model"]["gpt.extra"] = checkpoint["model"].pop("gpt.ln_f.bias")
    torch.save(checkpoint, "seen/best.pt")
    line = shell.refuse("sample.py --run seen --prompt a")
    assert "gpt.extra" in line and "gpt.ln_f.bias" in line and "code" in line


def test_a_start_that_failed_leaves_its_folder_free(shell):
    shell.refuse("train.py TINY --data nowhere --out run")
    shell(f"{TRAIN} --steps 1 --out run")


def test_too_little_memory_is_told_and_an_error_of_the_program_itself_is_not_hidden(shell, monkeypatch):
    errors = [torch.OutOfMemoryError("CUDA out of memory. Tried 2 GiB.\nSee it"), MemoryError(), ZeroDivisionError]
    monkeypatch.setattr(train, "train_multimodal", mock.Mock(side_effect=errors))
    assert all("memory" in shell.refuse(f"{TRAIN} --out run{i}") for i in range(2))
    with pytest.raises(ZeroDivisionError):
        shell.run(f"{TRAIN} --out run")
