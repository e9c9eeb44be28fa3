"""The four recipes of the README are done: each is put into a copy of the code, and that copy is trained."""

import json
import shutil
import subprocess
import sys

import pytest

from tests.bench.common import ROOT
from tests.bench.experiments import EXPERIMENTS, LOOPS, OPTIONS, edited
from tests.conftest import make_pictures

SHORT = {"multimodal": ["--steps", "4", "--eval_rows", "8"],
         "adversarial": ["--steps", "4", "--eval_rows", "8", "--gan_warmup", "10", "--gan_steps", "10"]}
RECIPES = ["a world of crowds", "a new relation", "a convnet instead of the ViT", "a connector of two layers"]


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_trains_and_answers(name, tmp_path):
    folder, loop = edited(tmp_path / "code", EXPERIMENTS[name]), LOOPS.get(name, "multimodal")
    shutil.copy(ROOT / "sample.py", folder)
    small = [] if name in OPTIONS or name in LOOPS else ["--data", make_pictures(tmp_path / "data"), "--image_size", "32"]
    if name == "a world of crowds":  # a short one
        castle = folder / "mingpt_mm/castle.py"
        castle.write_text(castle.read_text().replace("* 6000 +", "* 60 +").replace("* 500:", "* 20:"))
    for command in (["train.py", loop, "--out", "run", *SHORT[loop], *small, *OPTIONS.get(name, [])], ["sample.py", "--run", "run"]):
        process = subprocess.run([sys.executable, *map(str, command)], cwd=folder, capture_output=True, text=True)
        assert process.returncode == 0, process.stderr
    record = json.loads((folder / "run/log.jsonl").read_text().splitlines()[-1])
    assert record["event"] == "final" and record["step"] == 4
    if name == "a world of crowds":
        assert "bats" in (next(folder.glob("runs/crowds-*")) / "captions.jsonl").read_text()
    if name == "a new relation":
        assert "owes money to" in (next(folder.glob("runs/story-*")) / "kg.tsv").read_text()
