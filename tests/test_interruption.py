"""What ends a run before its time: signals, a loss that diverges, too little memory, a full disk, another run."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

import train
from mingpt_mm import BadInput
from mingpt_mm.log import Log
from mingpt_mm.run import load_checkpoint, run_command
from mingpt_mm.story import story_folder
from mingpt_mm.system import Interruption, claim
from tests.test_adversarial import TINY as STORY
from tests.test_adversarial import events
from tests.test_commands import ROOT, TINY, Interrupt, command, refuse, train_a_while, weights


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test has a working directory of its own, and the signals are as before after it."""
    monkeypatch.chdir(tmp_path)
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def start(argv):
    """A process of train.py, with as many threads as the tests have themselves."""
    return subprocess.Popen([sys.executable, str(ROOT / "train.py"), *argv], text=True, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"})


def send_after(number, argv, log, steps, event="step"):
    """Start train.py, send it a signal after so many steps, and return its exit status and its output."""
    process = start(argv)
    while process.poll() is None and not (log.exists() and f'"{event}", "step": {steps}' in log.read_text()):
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
    stop = Interruption()
    for _ in range(2):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(0.01)
    assert left == [143] and stop.noted == 15


@pytest.mark.parametrize("bad, name", [(float("nan"), "loss is nan"), (1e35, "gradient_norm is inf")])
def test_a_loss_that_diverges_is_told_with_its_step_and_its_batch(folder, capsys, monkeypatch, bad, name):
    calls, loss_sum = iter(range(99)), train.loss_sum

    def loss(*batch):
        return loss_sum(*batch) * (bad if torch.is_grad_enabled() and next(calls) == 12 else 1)
    monkeypatch.setattr(train, "loss_sum", loss)
    error = refuse(capsys, train, ["--data", str(folder), *TINY, "--seed", "5", "--out", "run"])
    assert f"step 13: {name} (learning rate 0.000828, the batch of seed 5, step 12)" in error
    assert torch.load("run/last.pt", weights_only=True)["step"] == 10  # the last good one


def test_too_little_memory_is_told_in_one_line(folder, capsys, monkeypatch):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation")
    monkeypatch.setattr(train, "loss_sum", full)
    error = refuse(capsys, train, ["--data", str(folder), *TINY, "--out", "run"])
    assert "out of memory (CUDA out of memory. Tried to allocate 2.00 GiB.): lower --batch_size" in error


# ---- while the GAN learns ----

def interrupt_the_gan(argv, steps):
    """Run train.py until the GAN has learned so many steps, which its next step interrupts."""
    def learn(gan, *arguments):
        for measures in gan_learn(gan, *arguments):
            if gan.learned > steps:
                raise Interrupt
            yield measures
    gan_learn = train.learn
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupt):
        patch.setattr(train, "learn", learn)
        train.main(argv)


def values(part):
    """The tensors and numbers in a part of a checkpoint, as bytes."""
    if isinstance(part, dict):
        return b"".join(str(key).encode() + values(value) for key, value in part.items())
    if isinstance(part, (list, tuple)):
        return b"".join(map(values, part))
    return part.numpy().tobytes() if isinstance(part, torch.Tensor) else repr(part).encode()


def test_a_run_interrupted_while_its_gan_learns_goes_on_there_bit_for_bit():
    argv = [*STORY, "--dropout", "0.1", "--eval_interval", "60"]
    train.main([*argv, "--out", "whole"])
    interrupt_the_gan([*argv, "--out", "cut"], 110)  # the line of step 100 is told, but what it is about is not saved
    first = load_checkpoint(Path("cut/last.pt"))
    interrupt_the_gan(["adversarial", "--resume", "--out", "cut"], 179)  # in the game
    second = load_checkpoint(Path("cut/last.pt"))
    assert [(c["step"], c["gan_step"], c["gan_seconds"]) for c in (first, second)] == [(0, 60, None), (0, 120, None)]
    assert values(first["gan"]) != values(second["gan"])
    train.main(["adversarial", "--resume", "--out", "cut"])
    whole, cut = (load_checkpoint(Path(run, "last.pt")) for run in ("whole", "cut"))
    for part in ("model", "gan", "optimizer"):
        assert values(whole[part]) == values(cut[part]), part
    for kind in ("gan", "eval", "step"):
        logs = [[(e["step"], e.get("sentences"), e.get("val_loss"), e.get("loss")) for e in events(run, kind)]
                for run in ("whole", "cut")]
        assert logs[0] == logs[1] and logs[0]


def test_a_gan_that_diverges_is_told_before_it_is_saved(capsys, monkeypatch):
    def learn(gan, *arguments):
        for measures in gan_learn(gan, *arguments):
            yield measures | ({"likelihood_loss": float("nan")} if gan.learned == 60 else {})
    gan_learn = train.learn
    monkeypatch.setattr(train, "learn", learn)
    error = refuse(capsys, train, [*STORY, "--eval_interval", "30", "--out", "run"])
    assert error == ("error: step 60 of the GAN: likelihood_loss is nan: take another --seed, or fewer --gan_steps; "
                     "what was saved is from before\n")
    assert load_checkpoint(Path("run/last.pt"))["gan_step"] == 30


def test_a_signal_while_the_gan_learns_saves_where_it_stands():
    argv = [*STORY, "--eval_interval", "1000", "--gan_warmup", "5000"]
    status, last, _ = send_after(signal.SIGTERM, [*argv, "--out", "cut"], Path("cut/log.jsonl"), 100, "gan")
    assert status == 143 and last == "saved; go on with: python train.py adversarial --resume --out cut"
    checkpoint = load_checkpoint(Path("cut/last.pt"))
    assert checkpoint["step"] == 0 and 100 <= checkpoint["gan_step"] < 5100


# ---- the folder of a run ----

def test_two_runs_in_one_folder_are_kept_apart(folder):
    process = start([*TINY, "--data", "data", "--steps", "9999", "--out", "run"])
    while not Path("run/last.pt").exists():
        time.sleep(0.02)
    for argv in (["--resume", "--out", "run"], [*TINY, "--data", "data", "--out", "run"]):
        second = command(*argv)
        assert second.returncode == 2 and "error: --out run: " in second.stderr and second.stderr.count("\n") == 1
    assert process.poll() is None
    process.kill()
    process.communicate()
    before = load_checkpoint(Path("run/last.pt"))["step"]
    train.main(["--resume", "--out", "run", "--steps", str(before + 1)])  # a killed run leaves nothing that shuts it
    with pytest.raises(BadInput, match="--out run: another run is at work there"):  # one that was begun meanwhile
        claim(Path("run"), new=True)


def test_what_a_killed_run_left_half_written_is_removed(folder):
    train.main([*TINY, "--data", "data", "--out", "run"])
    Path("run/best.pt.1234.draft").write_bytes(b"half")
    Path("run/novel.tmp").write_text("mine")
    Path("run/notes.txt").write_text("mine")
    train.main(["--resume", "--out", "run", "--steps", "21"])
    assert sorted(path.name for path in Path("run").iterdir()) == [
        ".lock", "best.pt", "last.pt", "log.jsonl", "notes.txt", "novel.tmp", "progress.png"]


def test_a_full_disk_is_told_and_what_was_saved_stays(folder):
    train.main([*TINY, "--data", "data", "--out", "whole", "--steps", "40"])
    train_a_while([*TINY, "--data", "data", "--out", "run", "--steps", "40"], 25)
    before = Path("run/last.pt").read_bytes()

    def limit():  # no file may grow beyond so many bytes
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, resource.RLIM_INFINITY))
    process = command("--resume", "--out", "run", preexec_fn=limit)
    assert process.returncode == 2 and process.stderr.count("\n") == 1
    assert process.stderr.startswith("error: run/last.pt: cannot be written (") and "what was there stays" in process.stderr
    assert Path("run/last.pt").read_bytes() == before and not list(Path("run").glob("*.draft"))
    train.main(["--resume", "--out", "run"])
    assert weights("run") == weights("whole")


def test_a_log_that_cannot_be_written_is_told(tmp_path, monkeypatch, capsys):
    log = Log(tmp_path, None, train.MultimodalConfig())

    def full(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr("builtins.open", full)
    with pytest.raises(SystemExit, match="2"):
        run_command(lambda argv: log.write("step", 1, loss=1.0), [])
    assert capsys.readouterr().err == "error: [Errno 28] No space left on device\n"


# ---- the data of a run ----

def test_data_that_have_changed_are_not_gone_on_with_and_those_that_have_moved_are(folder, capsys):
    train.main([*TINY, "--data", "data", "--out", "run", "--steps", "10"])
    captions = Path("data/captions.jsonl")
    text = captions.read_text()
    picture = Path("data/images/3.png")
    content = picture.read_bytes()
    for spoil in (lambda: captions.write_text(text.replace("red", "green")),
                  lambda: captions.write_text("\n".join(text.splitlines()[:-1])),
                  lambda: captions.write_text(text.replace('0.png"', '0.png", "split": "val"')),
                  lambda: picture.write_bytes(content + b"more")):
        spoil()
        error = refuse(capsys, train, ["--resume", "--out", "run", "--steps", "20"])
        assert "--resume: the data are not what they were when the run began" in error
        captions.write_text(text)
        picture.write_bytes(content)
    Path("data").rename("elsewhere")
    train.main(["--resume", "--out", "run", "--steps", "20", "--data", "elsewhere"])
    assert load_checkpoint(Path("run/last.pt"))["step"] == 20


@pytest.mark.parametrize("name", ["text.txt", "kg.tsv", "probes.jsonl"])
def test_a_story_that_has_changed_is_not_gone_on_with(name, capsys):
    folder = Path(next(iter(story_folder(0).glob("text.txt"))).parent).rename("mine")
    argv = ["--text", "mine/text.txt", "--kg", "mine/kg.tsv", "--probes", "mine/probes.jsonl"]
    train.main([*STORY, *argv, "--synthetic", "templates", "--out", "run"])
    with open(folder / name, "a") as file:
        file.write({"text.txt": "\n\nMore.", "kg.tsv": "a\tb\tc\n"}.get(name) or (folder / name).read_text().splitlines()[0])
    error = refuse(capsys, train, ["adversarial", "--resume", "--out", "run", "--steps", "20"])
    assert "--resume: the data are not what they were when the run began" in error
