"""Real captioned pictures, where the environment variable MINGPT_MM_DATA names a folder that holds some."""

import os
from pathlib import Path

import pytest

import train
from mingpt_mm.data import read_captions
from mingpt_mm.images import read_image

FOLDER = Path(os.environ.get("MINGPT_MM_DATA", "none"))
pytestmark = pytest.mark.skipif("MINGPT_MM_DATA" not in os.environ, reason="MINGPT_MM_DATA is not set")


@pytest.mark.parametrize("name, pictures", [("flickr8k_1k", 845), ("emoji", 1849), ("countries", 250)])
def test_every_row_and_picture_is_read(name, pictures):
    train_rows, val_rows = read_captions(FOLDER / name)
    assert len(train_rows) + len(val_rows) == pictures
    assert all(read_image(row.file).mode == "RGB" for row in (train_rows + val_rows)[::7])


@pytest.mark.parametrize("name", ["flickr8k_1k", "emoji"])
def test_the_loss_falls_on_real_pictures(name, tmp_path, capsys):
    train.main(["--data", str(FOLDER / name), "--out", str(tmp_path / "run"), "--block_size", "160", "--steps", "60",
                "--eval_interval", "60", "--eval_rows", "64", "--workers", "1"])
    losses = [float(line.split("val_loss ")[1].split(",")[0]) for line in capsys.readouterr().out.splitlines()
              if line.startswith("eval")]
    assert len(losses) == 2 and losses[1] < losses[0] - 2
