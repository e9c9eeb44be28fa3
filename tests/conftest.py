"""What several tests share: the castle, drawn once, and a tiny data set of the kind that a user brings."""

import json
import random

import pytest
import torch
from PIL import Image

from mingpt_mm import castle

torch.set_num_threads(1)  # for tensors as small as these, a second thread only waits for the first


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """The folder of the castle of seed 0."""
    return castle.world_folder(0, root=tmp_path_factory.mktemp("worlds"))


@pytest.fixture
def folder(tmp_path):
    """A data folder with 24 little pictures of one colour, captioned by it."""
    data = tmp_path / "data"
    (data / "images").mkdir(parents=True)
    rng, lines = random.Random(0), []
    for i in range(24):
        colour = rng.choice(["red", "blue", "lime"])
        Image.new("RGB", (20, 16), colour).save(data / "images" / f"{i}.png")
        lines.append(json.dumps({"image": f"images/{i}.png", "captions": [f"a {colour} one", f"one in {colour}"]}))
    (data / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return data
