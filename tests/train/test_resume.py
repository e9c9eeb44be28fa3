"""A run that ends too early goes on and gives the same bits; what was saved is never lost."""

import multiprocessing
import os
import random
import sys
import time
from pathlib import Path
from unittest import mock

import pytest
import torch

import train
from mingpt_mm.console import run_command


def assert_same(shell, *runs):
    """Check that two runs have the same log (without times), parameters and optimizer state, bit for bit."""
    ours, theirs = ([{key: value for key, value in event.items() if "second" not in key} for event in shell.log(run)]
                    for run in runs)
    assert ours == theirs
    for name in ("last.pt", "best.pt"):
        ours, theirs = (shell.saved(run, name) for run in runs)
        assert (ours["step"], ours["synthetic"]) == (theirs["step"], theirs["synthetic"])
        torch.testing.assert_close(ours["model"], theirs["model"], rtol=0, atol=0)
        for a, b in zip(ours["optimizers"], theirs["optimizers"], strict=True):
            torch.testing.assert_close(a["state"], b["state"], rtol=0, atol=0)


@pytest.mark.parametrize("options, interruptions", [
    ("TINY IMAGES --num_workers 1", [("set_step", 0), ("set_step", 7)]),
    ("TINY IMAGES --draw", [("set_step", 3)]),
    ("TINY CLIPS --text text.txt", [("set_step", 2), ("set_step", 5), ("evaluate_captions", 1)]),
    ("adversarial TINY STORY", [("Generator", 0), ("discriminator_loss", 3), ("evaluate_facts", 1), ("set_step", 6)])])
def test_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(shell, options, interruptions):
    """The call of a function of train.py after so many others ends the run as Ctrl-C does."""
    shell(f"train.py {options} --out whole")
    for i, (name, calls) in enumerate(interruptions):
        effects = [mock.DEFAULT] * calls + [KeyboardInterrupt]
        with mock.patch.object(train, name, wraps=getattr(train, name), side_effect=effects):
            status, _, _ = shell.run(f"train.py {options} --out cut{i}")
        assert status == "interrupted; to resume training: python train.py --resume --out FOLDER"
        assert "resuming" in shell(f"train.py --resume --out cut{i}")
        assert_same(shell, f"cut{i}", "whole")


def train_in(folder, argv):
    """What a process of its own does."""
    os.chdir(folder)
    torch.set_num_threads(1)
    sys.argv = argv
    run_command(train.main)


def test_a_process_killed_at_any_moment_three_times_ends_bit_for_bit_as_an_uninterrupted_one(shell):
    options = "TINY IMAGES --steps 60 --eval_interval 3"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["torch.nn.attention.bias", "torch.nn.parallel", "tiktoken"])  # slow imports, once
    for more, until in ((options, 6), ("--resume", 21), ("--resume", 42)):
        process = context.Process(target=train_in, args=(os.getcwd(), shell.words(f"train.py {more} --out cut")))
        process.start()
        while not (Path("cut/log.jsonl").exists() and f'"step", "step": {until}' in Path("cut/log.jsonl").read_text()):
            assert process.is_alive()
            time.sleep(0.005)
        time.sleep(random.random() * 0.1)  # at any moment, of writing too
        process.kill()
        process.join()
    shell("train.py --resume --out cut")
    shell(f"train.py {options} --out whole")
    assert_same(shell, "cut", "whole")


def test_a_write_that_fails_leaves_the_old_checkpoint(shell, monkeypatch):
    def full(checkpoint, file):
        Path(file).write_bytes(b"half")
        raise OSError(28, "No space left on device")
    before = Path("seen/last.pt").read_bytes()
    monkeypatch.setattr(torch, "save", full)
    assert "No space" in shell.refuse("train.py --resume --out seen --steps 12")
    assert Path("seen/last.pt").read_bytes() == before


# A08
def test_a_run_goes_on_when_a_damaged_image_is_repaired(shell):
    image = Path("images/images/5.png")
    content = image.read_bytes()
    image.write_bytes(content[:60])
    assert "images/images/5.png" in shell.refuse("train.py TINY IMAGES --out run")
    image.write_bytes(content)
    shell("train.py --resume --out run")
    assert_same(shell, "run", "seen")


# L2
def test_options_given_again_win_and_the_newest_run_is_meant(shell):
    Path("runs").mkdir()
    for run in ("told", "seen"):
        Path(run).rename(f"runs/{run}")
    Path("runs/seen/last.pt").touch()
    out = shell("train.py --resume --steps 12 --log_interval 1 --learning_rate 1e-4")
    assert "runs/seen from step 8" in out.splitlines()[0]
    steps = shell.log("runs/seen", "step")
    assert [event["step"] for event in steps] == [2, 4, 6, 8, 9, 10, 11, 12]
    assert max(event["learning_rate"] for event in steps[4:]) <= 1e-4
    help_of_steps = " ".join(shell("train.py --help").split()).partition("--steps")[2][:200]
    assert "learning rate" in help_of_steps and "--resume" in help_of_steps  # what a resume does to it
