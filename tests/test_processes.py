"""Several processes, started by torchrun with gloo, train as one does, write once, and end together."""

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
from mingpt_mm.run import load_checkpoint
from tests.test_adversarial import TINY as STORY
from tests.test_commands import ROOT, TINY, refuse, train_a_while

PICTURES = [*TINY, "--data", "data", "--batch_size", "5", "--dropout", "0", "--log_interval", "1", "--seed", "3"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test has a working directory of its own."""
    monkeypatch.chdir(tmp_path)


def torchrun(argv, n=2, program=ROOT / "train.py"):
    """A process of torchrun that runs train.py in `n` processes."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={n}"]
    return subprocess.Popen([*command, str(program), *argv], text=True, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})


def children(process):
    """The numbers of the processes that torchrun has started."""
    return [int(n) for n in subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True).stdout.split()]


def train_together(argv, n=2):
    """Run train.py in `n` processes and return what they printed."""
    process = torchrun(argv, n)
    output, error = process.communicate(timeout=120)
    assert process.returncode == 0, error
    return output


def same(ours, theirs):
    """Check that two runs have the same log, but for times and rounding, and the same parameters."""
    logs = [[{name: value for name, value in json.loads(line).items() if "second" not in name and name != "ms"}
             for line in Path(run, "log.jsonl").open()] for run in (ours, theirs)]
    assert len(logs[0]) == len(logs[1])
    for a, b in zip(*logs):
        assert a.keys() == b.keys() and a.get("sentences") == b.get("sentences")
        numbers = [name for name in a if isinstance(a[name], (int, float))]
        assert [a[name] for name in numbers] == pytest.approx([b[name] for name in numbers], rel=1e-5, abs=1e-7), a
    ours, theirs = (load_checkpoint(Path(run, "last.pt"))["model"] for run in (ours, theirs))
    for name, tensor in ours.items():
        if not name.endswith("c_attn.bias"):  # a key's bias has no gradient but rounding, which AdamW makes large
            torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("n, more", [(2, []), (3, ["--accumulate", "2", "--workers", "1"])])
def test_several_processes_learn_from_pictures_as_one_does(folder, n, more):
    train.main([*PICTURES, "--out", "one"])
    output = train_together([*PICTURES, *more, "--out", "many"], n)
    same("many", "one")
    assert output.count("parameters, ") == 1 and output.count("eval 10: ") == 1  # one speaks
    assert output.splitlines()[-1] == "python sample.py --run many"
    assert sorted(path.name for path in Path("many").iterdir()) == sorted(path.name for path in Path("one").iterdir())


def test_two_processes_learn_from_a_story_and_then_from_portraits_as_one_does():
    story = [*STORY, "--dropout", "0", "--batch_size", "5", "--log_interval", "1", "--eval_interval", "50"]
    portraits = ["--world", "portraits", "--init", "story", "--batch_size", "5", "--steps", "6", "--warmup", "2",
                 "--eval_rows", "8", "--log_interval", "1", "--vit_layers", "1", "--patch_size", "32"]
    train.main([*story, "--out", "story"])
    train_together([*story, "--out", "stories"])
    same("stories", "story")
    train.main([*portraits, "--out", "one"])
    train_together([*portraits, "--out", "two"])
    same("two", "one")


def test_a_run_goes_on_with_another_number_of_processes(folder):
    argv = [*PICTURES, "--steps", "150"]
    train.main([*argv, "--out", "whole"])
    train_a_while([*argv, "--out", "cut"], 13)  # one process,
    process = torchrun(["--resume", "--out", "cut"])  # then two,
    while '"step", "step": 25' not in Path("cut/log.jsonl").read_text():
        time.sleep(0.01)
    os.kill(children(process)[-1], signal.SIGTERM)  # one asks, and all stop at the same step
    output, error = process.communicate(timeout=60)
    assert process.returncode != 0 and output.splitlines()[-1].startswith("saved; go on with: "), error
    assert 25 <= load_checkpoint(Path("cut/last.pt"))["step"] < 150
    train_together(["--resume", "--out", "cut"], n=3)  # then three
    same("cut", "whole")


SLOW = """
import sys, time
sys.path.insert(0, sys.argv.pop(1))
import train
from mingpt_mm.run import run_command
save = train.save
def save_slowly(*arguments):
    time.sleep(2)
    save(*arguments)
train.save = save_slowly
run_command(train.main, sys.argv[1:])
"""


@pytest.mark.parametrize("whom", ["one", "all"])
def test_a_signal_while_saving_takes_long_loses_nothing(folder, whom):
    Path("slow.py").write_text(SLOW)
    process = torchrun([str(ROOT), *PICTURES, "--steps", "900", "--eval_interval", "500", "--out", "run"],
                       program="slow.py")
    while not (Path("run/log.jsonl").exists() and '"step", "step": 12' in Path("run/log.jsonl").read_text()):
        time.sleep(0.01)
    for child in children(process)[-1:] if whom == "one" else [process.pid, *children(process)]:
        os.kill(child, signal.SIGTERM)  # which torchrun passes on: some processes get it twice
    output, error = process.communicate(timeout=60)
    assert output.splitlines()[-1].startswith("saved; go on with: "), error
    assert 12 <= load_checkpoint(Path("run/last.pt"))["step"] < 500 and "[rank" not in error


def test_an_error_of_one_process_ends_all_with_its_line(folder):
    Path("data/images/3.png").write_bytes(b"no picture")  # one of them comes to it
    process = torchrun([*PICTURES, "--out", "run"])
    _, error = process.communicate(timeout=60)
    lines = [line.partition(": ")[2] for line in error.splitlines() if line.startswith("error in process ")]
    assert process.returncode != 0 and len(lines) == 2
    assert any("3.png: not a picture that can be read" in line for line in lines)
    assert "another process of this run has ended; its own error says why; then go on with --resume" in lines
    assert "[rank" not in error  # which stands before the lines of a process's traceback


def test_a_process_that_is_killed_ends_the_others(folder):
    process = torchrun([*PICTURES, "--steps", "5000", "--out", "run"])
    while not (Path("run/log.jsonl").exists() and '"step", "step": 15' in Path("run/log.jsonl").read_text()):
        time.sleep(0.02)
    os.kill(children(process)[-1], signal.SIGKILL)
    _, error = process.communicate(timeout=60)
    assert process.returncode != 0 and "[rank" not in error
    assert load_checkpoint(Path("run/last.pt"))["step"] >= 10


def test_more_processes_than_examples_are_refused(folder, capsys, monkeypatch):
    monkeypatch.setattr("mingpt_mm.data.WORLD", 8)
    error = refuse(capsys, train, [*PICTURES, "--out", "run"])
    assert error == "error: --batch_size 5: not an example for each of 8 processes\n"
