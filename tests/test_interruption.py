"""What ends a run before its time: signals, a loss that diverges, too little memory. Nothing is lost by it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train
from mingpt_mm import run
from tests.test_adversarial import TINY as STORY
from tests.test_commands import ROOT, TINY, refuse, weights


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test has a working directory of its own, and the signals are as before after it."""
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def send_after(number, argv, log, steps):
    """Start train.py, send it a signal after so many steps, and return its exit status and its output."""
    process = subprocess.Popen([sys.executable, str(ROOT / "train.py"), *argv], text=True, start_new_session=True,
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               env=os.environ | {"OMP_NUM_THREADS": "1"})  # as many as the tests have themselves
    while process.poll() is None and not (log.exists() and f'"step", "step": {steps}' in log.read_text()):
        time.sleep(0.02)
    os.killpg(process.pid, number)  # as a terminal does: to those who read the data, too
    output, error = process.communicate(timeout=60)
    return process.returncode, output.splitlines()[-1], error


@pytest.mark.parametrize("number, loop, argv", [
    (signal.SIGINT, "multimodal", ["multimodal", "--data", "data", *TINY, "--workers", "2"]),
    (signal.SIGTERM, "multimodal", ["multimodal", "--data", "data", *TINY]),
    (signal.SIGTERM, "adversarial", [*STORY, "--synthetic", "templates", "--dropout", "0.1"]),
], ids=["Ctrl-C", "SIGTERM", "SIGTERM adversarial"])
def test_a_signal_ends_a_run_after_its_step_and_nothing_is_lost(folder, number, loop, argv):
    argv = [*argv, "--steps", "400", "--eval_interval", "1000", "--log_interval", "1"]
    train.main([*argv, "--out", "whole"])
    status, last, error = send_after(number, [*argv, "--out", "cut"], Path("cut/log.jsonl"), 20)
    assert status == 128 + number and last == f"saved; go on with: python train.py {loop} --resume --out cut"
    assert error == "stopping after this step; once more stops at once\n"
    step = torch.load("cut/last.pt", weights_only=True)["step"]
    assert 20 <= step < 400 and weights("whole") != weights("cut")
    train.main([loop, "--resume", "--out", "cut"])
    assert weights("whole") == weights("cut")
    steps = [e["step"] for line in open("cut/log.jsonl") if (e := json.loads(line))["event"] == "step"]
    assert steps == list(range(1, 401))


def test_a_second_signal_ends_a_run_at_once(monkeypatch):
    left = []
    monkeypatch.setattr(os, "_exit", left.append)
    stop = run.Interruption()
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    assert left == [143] and stop.number == 15


@pytest.mark.parametrize("bad, name", [(float("nan"), "loss is nan"), (1e35, "gradient_norm is inf")])
def test_a_loss_that_diverges_is_told_with_its_step_and_its_batch(folder, capsys, monkeypatch, bad, name):
    calls, caption_loss = iter(range(99)), train.caption_loss

    def loss(*batch):
        return caption_loss(*batch) * (bad if torch.is_grad_enabled() and next(calls) == 12 else 1)
    monkeypatch.setattr(train, "caption_loss", loss)
    error = refuse(capsys, train, ["--data", str(folder), *TINY, "--seed", "5", "--out", "run"])
    assert f"step 13: {name} (learning rate 0.000828, the batch of seed 5, step 12)" in error
    assert torch.load("run/last.pt", weights_only=True)["step"] == 10  # the last good one


def test_too_little_memory_is_told_in_one_line(folder, capsys, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation")
    monkeypatch.setattr(train, "caption_loss", full)
    error = refuse(capsys, train, ["--data", str(folder), *TINY, "--out", "run"])
    assert "out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.): lower --batch_size" in error
