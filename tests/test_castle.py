"""The castle's promises, checked over the written files: one right caption, unseen pairings, one world a seed."""

import json
import random
import re
from collections import Counter
from itertools import islice

import numpy as np
import pytest
from PIL import Image

from mingpt_mm import castle
from mingpt_mm.castle import (COLOURS, THINGS, WORLDS, clips, draw_picture, individuals, move, portraits, scenes,
                              world_folder, write_world)
from mingpt_mm.images import read_clip

DIRECTIONS = {"flies left": (-1, 0), "flies right": (1, 0), "flies up": (0, -1), "flies down": (0, 1)}


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
    for _, caption, [((first, x1, y1, r1), (second, x2, y2, r2))], _ in scenes(3, 2000, 200):
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
    for make in WORLDS.values():
        one, same, other = (list(make(seed, n_train=50, n_val=5)) for seed in (5, 5, 6))
        assert one == same != other
    (_, _, [things], mist), *_ = scenes(0)
    assert np.array_equal(np.asarray(Image.open(world / "images/00000.png")), np.asarray(draw_picture(things, mist)))


def test_a_world_is_drawn_once_and_appears_whole(world):
    before = (world / "captions.jsonl").stat().st_mtime_ns
    assert world_folder(0, root=world.parent) == world and (world / "captions.jsonl").stat().st_mtime_ns == before
    assert list(world.parent.iterdir()) == [world]  # no draft is left behind


# ---- clips and portraits ----

def told(caption, movers):
    """[(thing, motion)] that `caption` tells."""
    part = r"a (\w+ \w+) " + ("that " if movers == 2 else "") + r"(grows|shrinks|flies \w+|turns \w+)"
    return [re.fullmatch(part, half).groups() for half in caption.split(" above ")]


@pytest.mark.parametrize("movers, ways", [(1, 4), (2, 2)])
def test_each_thing_and_motion_is_learnt_but_not_the_pairings_held_out(movers, ways):
    pairings, shares = {"train": set(), "val": set()}, Counter()
    for split, caption, _, _ in clips(0, movers, 3000, 500):
        parts = told(caption, movers)
        assert len(parts) == len({motion for _, motion in parts}) == movers
        pairings[split].update(parts)
        shares.update(motion for _, motion in parts)
    assert max(shares.values()) < 1.5 * min(shares.values())  # no motion is the best guess
    assert not pairings["train"] & pairings["val"] and len(pairings["val"]) > 90
    motions = {*list(DIRECTIONS)[:ways], "grows", "shrinks", *(f"turns {colour}" for colour in COLOURS)}
    assert {thing for thing, _ in pairings["train"]} == {*THINGS}
    for split in pairings.values():
        assert {motion for _, motion in split} == motions
        assert not any(thing.split()[0] == motion.split()[-1] for thing, motion in split)


@pytest.mark.parametrize("movers", [1, 2])
def test_what_is_told_of_a_clip_happens_in_it(movers):
    moments, starts = set(), {True: [], False: []}
    for _, caption, frames, _ in clips(3, movers, 200, 20):
        for row, (thing, motion) in enumerate(told(caption, movers)):
            shown = [next(t for t in things if movers == 1 or t[2] // 32 == row) for things in frames]
            looks, changes = [t[0] for t in shown], np.diff([t[1:] for t in shown], axis=0)  # changes of x, y, radius
            steps = (changes[:, :2] + 32) % 64 - 32  # who leaves at one edge comes back at the other
            assert len(frames) == 12 and np.allclose(steps * 12 / 64, DIRECTIONS.get(motion, (0, 0)))
            assert (np.sign(changes[:, 2]) == {"grows": 1, "shrinks": -1}.get(motion, 0)).all()
            later = f"{motion.split()[-1]} {thing.split()[1]}" if "turns" in motion else thing
            assert looks == sorted(looks, key=later.__eq__) and {*looks} == {thing, later}
            moments.add(looks.count(thing))
            dx, _ = DIRECTIONS.get(motion, (0, 0))
            starts[dx != 0].append((shown[0][1] - dx * 64 / 24) % 64)  # a frame is a moment in its middle
    assert min(moments) >= 2 and len(moments) > 5  # a colour may turn at any time but the first and the last
    for places in starts.values():  # where it begins does not tell whether it flies
        assert 25 <= min(places) and max(places) <= 39
        assert np.histogram(places, 3, (25, 39))[0].min() > len(places) / 9


@pytest.mark.parametrize("thing, motion, other, opposite", [
    ("red bat", "flies left", "red bat", "flies right"), ("red bat", "flies up", "red bat", "flies down"),
    ("red bat", "grows", "red bat", "shrinks"), ("red bat", "turns blue", "blue bat", "turns red")])
def test_frames_without_their_order_tell_no_motion_from_its_opposite(thing, motion, other, opposite, tmp_path):
    for i, (what, does, change) in enumerate([(thing, motion, 0.3), (other, opposite, 0.7)]):
        write_world(tmp_path / f"{i}", [("train", does, move(what, does, 50.123, 20.217, 13, change), 128)])
    for count in (4, 8, 12):
        one, two = (np.stack([np.asarray(frame) for frame in read_clip(tmp_path / f"{i}/images/00000.png", count)])
                    for i in (0, 1))
        assert np.array_equal(one, two[::-1]) and not np.array_equal(one, two)
    inked = (np.abs(one.astype(int) - 128).sum(axis=3) > 60).sum(axis=(1, 2))
    assert "flies" not in motion or inked.max() < 1.15 * inked.min()  # nothing is lost where it meets the edge


@pytest.mark.parametrize("name, key", [("scenes", "image"), ("clips", "video"), ("duets", "video"),
                                       ("portraits", "image")])
def test_every_world_is_written_as_a_user_would_bring_it(name, key, tmp_path, monkeypatch):
    make = WORLDS[name]
    monkeypatch.setitem(WORLDS, name, lambda seed: islice(make(seed), 6))
    folder = world_folder(2, name, tmp_path)
    assert re.fullmatch(rf"{name}-2-[0-9a-f]{{8}}", folder.name) and folder.parent == tmp_path
    rows = [json.loads(line) for line in (folder / "captions.jsonl").read_text().splitlines()]
    for row, (split, caption, frames, mist) in zip(rows, WORLDS[name](2), strict=True):
        assert row == {key: row[key], "caption": caption, "split": split}
        assert key == "image" or told(caption, movers=2 if name == "duets" else 1)
        drawn = [np.asarray(draw_picture(things, mist)) for things in frames]
        assert np.array_equal([np.asarray(frame) for frame in read_clip(folder / row[key], len(frames))], drawn)


def test_portraits_show_the_individuals_of_the_story_in_both_splits():
    shown, looks = {"train": set(), "val": set()}, individuals(random.Random(4))
    for split, caption, [((thing, x, y, radius),)], _ in portraits(4):
        name, look = re.fullmatch(r"([A-Z]\w+), a (\w+ \w+)", caption).groups()
        assert thing == look == looks[name] and 0 <= min(x, y) - radius and max(x, y) + radius <= 64
        shown[split].add(name)
    assert shown["train"] == shown["val"] == {*looks} and len({*looks.values()}) == len(looks) == castle.INDIVIDUALS
