"""What several tests share: the castle, drawn once, and a tiny data set of the kind that a user brings."""

import itertools
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


def make_pictures(data):
    """Write 24 little pictures of one colour, captioned by it, into the new folder `data`; return it."""
    (data / "images").mkdir(parents=True)
    rng, lines = random.Random(0), []
    for i in range(24):
        colour = rng.choice(["red", "blue", "lime"])
        Image.new("RGB", (20, 16), colour).save(data / "images" / f"{i}.png")
        lines.append(json.dumps({"image": f"images/{i}.png", "captions": [f"a {colour} one", f"one in {colour}"]}))
    (data / "captions.jsonl").write_text("\n".join(lines) + "\n")
    return data


def add_clips(data):
    """Add twelve clips, in which one colour follows another, to the pictures in `data`; return it."""
    with open(data / "captions.jsonl", "a") as file:
        for i, (first, then) in enumerate([*itertools.permutations(["red", "blue", "lime"], 2)] * 2):
            frames = [Image.new("RGB", (20, 16), colour) for colour in (first, then)]
            frames[0].save(data / f"{i}.gif", save_all=True, append_images=frames[1:], duration=100)
            file.write(json.dumps({"video": f"{i}.gif", "captions": [f"{first}, then {then}"]}) + "\n")
    return data


@pytest.fixture
def folder(tmp_path):
    """A data folder with pictures."""
    return make_pictures(tmp_path / "data")


@pytest.fixture
def clips(folder):
    """The data folder `folder` with clips as well."""
    return add_clips(folder)
