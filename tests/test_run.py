"""Options, schedule, optimizer, files: what both loops rest on."""

import json
import math
import time
from dataclasses import dataclass

import pytest
import torch
from PIL import Image
from torch import nn

from mingpt_mm import BadInput
from mingpt_mm.draw import curve, draw_sheet
from mingpt_mm.log import Log
from mingpt_mm.run import (FORMAT, Config, choose_device, learning_rate, load_checkpoint, make_optimizer, parse, save,
                           start_run)
from mingpt_mm.system import write_file


@dataclass
class Options(Config):
    """Options for a test."""

    files: tuple = ()  # some files
    share: float = 0.5  # a share, in 100%
    clip: float = 2.0  # as this one says


def test_options_come_from_the_dataclass_and_only_given_ones_are_told():
    assert parse(Options, [], "test") == {}
    argv = ["--steps", "7", "--learning_rate", "1e-4", "--compile", "--files", "a", "b", "--seed=0"]
    assert parse(Options, argv, "test") == {"steps": 7, "learning_rate": 1e-4, "compile": True, "files": ["a", "b"],
                                            "seed": 0}


def test_help_lists_every_option_with_its_comment_and_default(capsys):
    with pytest.raises(SystemExit) as exit:
        parse(Options, ["--help"], "test")
    text = " ".join(capsys.readouterr().out.split())
    assert exit.value.code == 0 and "--share SHARE a share, in 100% (default: 0.5)" in text
    assert "--clip CLIP as this one says (default: 2.0)" in text
    assert "--steps STEPS updates of the parameters (default: 1200)" in text and "Options for a test." in text


@pytest.mark.parametrize("argv, message", [
    (["--nonsense", "3"], "unrecognized arguments: --nonsense 3"), (["--step", "3"], "unrecognized arguments: --step"),
    (["--steps", "many"], "--steps: invalid int value: 'many'"), (["--steps"], "--steps: expected one argument"),
    (["--steps", "0"], "--steps 0: must be a number from 1"),
    (["--learning_rate=-1e-3"], "--learning_rate -0.001: must be a number from 0"),
    (["--learning_rate", "nan"], "--learning_rate nan"), (["--clip", "inf"], "--clip inf"),
    (["--workers", "-1"], "--workers -1: must be a number from 0"),
])
def test_bad_options_are_named(argv, message):
    with pytest.raises(BadInput) as error:
        parse(Options, argv, "test")
    assert message in str(error.value) and "\n" not in str(error.value)


def test_the_learning_rate_rises_as_a_line_and_falls_as_a_cosine():
    config = Config(steps=110, warmup=10, learning_rate=0.5)
    rates = [learning_rate(step, config) for step in range(110)]
    assert rates[:10] == pytest.approx([0.05 * (i + 1) for i in range(10)])
    assert rates[10] == 0.5 and rates[60] == pytest.approx(0.25) and rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[35] == pytest.approx(0.25 * (1 + math.cos(math.pi / 4))) and 0 <= rates[-1] < 0.001
    assert learning_rate(4, Config(steps=5, warmup=50, learning_rate=1.0)) == 0.1


def test_only_matrices_and_embeddings_decay():
    model = nn.ModuleDict({"linear": nn.Linear(3, 4), "norm": nn.LayerNorm(4), "table": nn.Embedding(5, 4)})
    optimizer = make_optimizer([(model["linear"], 1.0), (model["norm"], 1.0), (model["table"], 0.5)],
                               Config(weight_decay=0.5))
    for group in optimizer.param_groups:  # as the loops do at each step
        group["lr"] = 0.1 * group["rate"]
    before = {name: p.clone() for name, p in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for name, parameter in model.named_parameters():
        factor = {"linear.weight": 0.95, "table.weight": 0.975}.get(name, 1.0)
        torch.testing.assert_close(parameter, before[name] * factor)


def test_a_rate_of_0_freezes_a_part():
    model = nn.ModuleList([nn.Linear(3, 4), nn.Linear(4, 2)])
    optimizer = make_optimizer(zip(model, (0, 1)), Config(weight_decay=0.5))
    before = model[0].weight.clone(), model[1].weight.clone()
    model[1](model[0](torch.randn(5, 3))).sum().backward()
    optimizer.step()
    assert model[0].weight.grad is None and torch.equal(model[0].weight, before[0])
    assert not torch.equal(model[1].weight, before[1])


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path):
    path = tmp_path / "last.pt"
    save(path, {"format": FORMAT, "step": 5})

    def fail(file):
        file.write(b"half of it")
        raise OSError(28, "No space left on device")
    with pytest.raises(BadInput, match="last.pt: cannot be written .No space left on device."):
        write_file(path, fail)
    assert load_checkpoint(path)["step"] == 5 and list(tmp_path.iterdir()) == [path]


def test_damaged_and_foreign_checkpoints_are_named(tmp_path):
    path = tmp_path / "last.pt"
    save(path, {"format": FORMAT, "model": {"w": torch.zeros(1000)}})
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[whole.index(bytes(1000)) + 500] ^= 4  # a bit in the middle of the zeros
    for data in (b"", b"hello", whole[:len(whole) // 2], whole[:-30], flipped):
        path.write_bytes(data)
        with pytest.raises(BadInput, match="last.pt: not a checkpoint, or damaged"):
            load_checkpoint(path)
    save(path, {"format": 99})
    with pytest.raises(BadInput, match="format 99, but this program reads"):
        load_checkpoint(path)
    with pytest.raises(BadInput, match="none.pt: no such file"):
        load_checkpoint(tmp_path / "none.pt")


def test_runs_are_numbered_and_no_run_is_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert str(start_run(Config, [], "fun")[1]) == "runs/fun-1"
    (tmp_path / "runs/fun-1").mkdir(parents=True)
    assert str(start_run(Config, [], "fun")[1]) == "runs/fun-2"
    with pytest.raises(BadInput, match="runs/: no run there yet"):
        start_run(Config, ["--resume"], "fun")
    checkpoint = {"format": FORMAT, "loop": "fun", "config": {"steps": 7, "seed": 3}, "step": 7, "seconds": 5}
    save(tmp_path / "runs/fun-1/last.pt", checkpoint)
    with pytest.raises(BadInput, match="--out runs/fun-1: holds another run"):
        start_run(Config, ["--out", "runs/fun-1"], "fun")
    config, folder, checkpoint, first, began = start_run(Config, ["--resume", "--steps", "9", "--seed", "3"], "fun")
    assert first == 7 and 5 <= time.perf_counter() - began < 6
    assert (config.steps, config.seed, str(folder)) == (9, 3, "runs/fun-1") and checkpoint["config"]["steps"] == 7
    with pytest.raises(BadInput, match="--seed 4: runs/fun-1 was started with 3 and keeps it"):
        start_run(Config, ["--resume", "--seed", "4"], "fun")


def test_the_log_of_a_resumed_run_forgets_what_came_later(tmp_path):
    log = Log(tmp_path, None, Config())
    for step in (10, 20, 30):
        log.write("step", step, loss=1 / step)
        log.write("eval", step, val_loss=2 / step)
    log = Log(tmp_path, {"step": 20}, Config())  # a checkpoint is saved before the evaluation, so that is made again
    log.write("eval", 20, val_loss=0.5)
    events = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [(e["event"], e["step"]) for e in events] == [("step", 10), ("eval", 10), ("step", 20), ("eval", 20)]
    assert curve(log.events, "eval", "val_loss") == [(10, 0.2), (20, 0.5)]


def test_the_picture_shows_right_in_green_and_wrong_in_red(tmp_path):
    curves = {"training": [(1, 3.0), (9, 0.01)], "validation": []}
    square = Image.new("RGB", (8, 8), "blue")
    for caption, present, absent in (("a bat", (17, 119, 51), (204, 34, 34)), ("a key", (204, 34, 34), (17, 119, 51))):
        draw_sheet(tmp_path / "p.png", [(curves, "loss")], [[(square, caption, ["a bat"])]])
        pixels = {colour for _, colour in Image.open(tmp_path / "p.png").getcolors(2**16)}
        assert present in pixels and absent not in pixels and (0, 0, 255) in pixels


def test_labels_of_curves_that_end_at_one_place_find_room(tmp_path):
    for level in (0.0, 0.4, 0.5, 0.6, 1.0):
        curves = {name: [(0, 0.0), (9, level)] for name in "abc"}
        draw_sheet(tmp_path / "p.png", [(curves, "shares", True)], lines=[[(9, "text", "#000000")]])
    assert Image.open(tmp_path / "p.png").width == 960


def test_a_process_without_a_gpu_of_its_own_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(BadInput, match="--nproc_per_node: more than this machine's 2 GPUs"):
        choose_device("auto")
