"""The castle's promises, checked over the written files: one right caption, unseen pairings, one world a seed."""

import json

import numpy as np
from PIL import Image

from mingpt_mm.castle import COLOURS, THINGS, draw_picture, scenes, world_folder


def read(world, split):
    """[(thing, relation, thing)] of the captions of `split`."""
    rows = map(json.loads, (world / "captions.jsonl").read_text().splitlines())
    captions = [row["caption"].split() for row in rows if row["split"] == split]
    return [(" ".join(words[1:3]), " ".join(words[3:-3]), " ".join(words[-2:])) for words in captions]


def test_training_and_validation_share_no_pairing_but_every_thing(world):
    train, val = read(world, "train"), read(world, "val")
    assert len(train) == 10000 and len(val) == 500
    pairings = [{frozenset((a, b)) for a, _, b in split} for split in (train, val)]
    assert not pairings[0] & pairings[1] and len(pairings[1]) > 150
    assert {thing for a, _, b in train for thing in (a, b)} == set(THINGS)
    assert {relation for _, relation, _ in train + val} == {"left of", "above"}


def test_exactly_one_relation_holds_between_the_two_things():
    for _, caption, ((first, x1, y1, r1), (second, x2, y2, r2)), _ in scenes(3, 2000, 200):
        relation = "left of" if x2 - x1 > abs(y2 - y1) else "above" if y2 - y1 > abs(x2 - x1) else None
        assert caption == f"a {first} {relation} a {second}" and first != second
        assert all(0 <= v - r and v + r <= 65 for v, r in ((x1, r1), (y1, r1), (x2, r2), (y2, r2)))


def test_a_thing_is_drawn_in_its_colour_and_place(world):
    for thing in THINGS:
        pixels = np.asarray(draw_picture([(thing, 20, 40, 12)])).astype(int)
        off = np.abs(pixels - 128).sum(axis=2) > 12
        ys, xs = np.nonzero(off)
        assert 6 <= xs.min() and xs.max() <= 34 and 26 <= ys.min() and ys.max() <= 54 and off.sum() > 100
        inked = pixels[off]
        assert (np.abs(inked - COLOURS[thing.split()[0]]).sum(axis=1) < 6).mean() > 0.3
    row = json.loads((world / "captions.jsonl").read_text().splitlines()[0])
    picture = Image.open(world / row["image"])
    assert picture.size == (64, 64) and picture.mode == "RGB"


def test_a_seed_is_a_world(world, tmp_path, monkeypatch):
    assert list(scenes(5, 50, 5)) == list(scenes(5, 50, 5)) != list(scenes(6, 50, 5))
    (_, _, things, mist), *_ = scenes(0)
    assert np.array_equal(np.asarray(Image.open(world / "images/00000.png")), np.asarray(draw_picture(things, mist)))


def test_a_world_is_drawn_once_and_appears_whole(world):
    before = (world / "captions.jsonl").stat().st_mtime_ns
    assert world_folder(0, world.parent) == world and (world / "captions.jsonl").stat().st_mtime_ns == before
    assert list(world.parent.iterdir()) == [world]  # no draft is left behind
