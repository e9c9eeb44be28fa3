"""A run that ends too early goes on and gives the same bits; what was saved is never lost."""

import contextlib
import json
import multiprocessing
import os
import random
import sys
import time
from pathlib import Path

import pytest
import torch

import train
from mingpt_mm.console import run_command


@contextlib.contextmanager
def interrupt(owner, name, calls):
    """The call of `owner.name` after so many `calls` ends the run as Ctrl-C does."""
    function, left = getattr(owner, name), iter(range(calls))

    def interrupted(*args, **options):
        if next(left, None) is None:
            raise KeyboardInterrupt
        return function(*args, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, interrupted)
        yield


def log(run):
    """The events of a run without what a clock tells."""
    return [{key: value for key, value in json.loads(line).items() if "second" not in key}
            for line in Path(run, "log.jsonl").open()]


def assert_same(run, whole):
    """Check that two runs have the same log, parameters and optimizer state, bit for bit."""
    assert log(run) == log(whole)
    for name in ("last.pt", "best.pt"):
        ours, theirs = (torch.load(Path(folder, name), weights_only=True) for folder in (run, whole))
        for key in ("step", "model", "optimizer"):
            for a, b in ((part[key]["state"] if key == "optimizer" else part[key] for part in (ours, theirs)),):
                torch.testing.assert_close(a, b, rtol=0, atol=0)
        assert ours["synthetic"] == theirs["synthetic"]


@pytest.mark.parametrize("options, interruptions", [
    ("TINY IMAGES --num_workers 1", [(train, "set_step", 0), (train, "set_step", 7)]),
    ("TINY CLIPS --text text.txt", [(train, "set_step", 2), (train, "set_step", 5), (train, "evaluate_captions", 1)]),
    ("adversarial TINY STORY", [(train.Generator, "log_prob", 25), (train, "discriminator_loss", 3),
                                       (train, "evaluate_facts", 1), (train, "set_step", 6)])])
def test_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(shell, options, interruptions):
    shell(f"train.py {options} --out whole")
    for i, (owner, name, calls) in enumerate(interruptions):
        with interrupt(owner, name, calls):
            status, out, _ = shell.run(f"train.py {options} --out cut{i}")
        assert status == 130 and out.splitlines()[-1].endswith(f"python train.py --resume --out cut{i}")
        assert "resuming" in shell(f"train.py --resume --out cut{i}")
        assert_same(f"cut{i}", "whole")


def train_in(folder, argv):
    """What a process of its own does."""
    os.chdir(folder)
    torch.set_num_threads(1)
    sys.argv = argv
    run_command(train.main)


def test_a_process_killed_at_any_moment_three_times_ends_bit_for_bit_as_an_uninterrupted_one(shell):
    options = "TINY IMAGES --steps 60 --eval_interval 3 --out"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.nn.attention.bias", "torch.nn.parallel", "tiktoken"])  # slow imports, once
    for resume, until in (("", 6), ("--resume --out", 21), ("--resume --out", 42)):
        process = context.Process(target=train_in, args=(os.getcwd(), shell.words(f"train.py {resume or options} cut")))
        process.start()
        while not (Path("cut/log.jsonl").exists() and f'"step", "step": {until}' in Path("cut/log.jsonl").read_text()):
            assert process.is_alive()
            time.sleep(0.005)
        time.sleep(random.random() * 0.1)  # at any moment, of writing too
        process.kill()
        process.join()
    shell("train.py --resume --out cut")
    shell(f"train.py {options} whole")
    assert_same("cut", "whole")


def test_a_write_that_fails_leaves_the_old_checkpoint(shell, monkeypatch):
    def full(checkpoint, file):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")
    before = Path("seen/last.pt").read_bytes()
    monkeypatch.setattr(torch, "save", full)
    assert "No space" in shell.refuse("train.py --resume --out seen --steps 12")
    assert Path("seen/last.pt").read_bytes() == before


def test_a_run_goes_on_when_a_damaged_image_is_repaired(shell):
    image = Path("images/images/5.png")
    content = image.read_bytes()
    image.write_bytes(content[:60])
    assert "images/images/5.png" in shell.refuse("train.py TINY IMAGES --out run")
    image.write_bytes(content)
    shell("train.py --resume --out run")
    assert_same("run", "seen")


def test_options_given_again_win_and_the_newest_run_is_meant(shell):
    Path("runs").mkdir()
    for run in ("told", "seen"):
        Path(run).rename(f"runs/{run}")
    Path("runs/seen/last.pt").touch()
    out = shell("train.py --resume --steps 12 --log_interval 1 --learning_rate 1e-4")
    assert "runs/seen" in out.splitlines()[0] and "step 8" in out.splitlines()[0]
    steps = [event["step"] for event in log("runs/seen") if event["event"] == "step"]
    assert steps == [2, 4, 6, 8, 9, 10, 11, 12] and log("runs/seen")[-1]["event"] == "final"
    assert max(event["learning_rate"] for event in log("runs/seen")[-6:] if "learning_rate" in event) <= 1e-4


def test_the_help_of_steps_says_what_a_resume_does_to_the_learning_rate(shell):
    status, out, _ = shell.run("train.py --help")
    words = " ".join(out.split()).partition("--steps")[2][:200]
    assert status == 0 and "learning rate" in words and "--resume" in words


@pytest.mark.parametrize("option", ["--n_embd 48", "--vocab_size 300", "--patch_size 4", "--image_size 32"])
def test_a_resume_refuses_other_sizes(shell, option):
    assert option.split()[0] in shell.refuse(f"train.py --resume --out seen --steps 12 {option}")
