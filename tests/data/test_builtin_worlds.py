"""The promises of the built-in images, videos and story: unseen pairings, one right caption, nothing given away."""

import random
import re
from collections import Counter, defaultdict

import numpy as np
import pytest

from mingpt_mm.data import castle
from mingpt_mm.data.castle import COLORS, DIRECTIONS, FRAMES, SIZE, THINGS, clips, portraits, scenes
from mingpt_mm.data.datasets import load_captions, load_documents, load_frames, load_probes, load_triples
from mingpt_mm.data.story import write_story

SPLITS = ["train"] * 3000 + ["val"] * 400
SCENE, CLIP = r"a (\w+ \w+) (left of|above) a (\w+ \w+)", r"a (\w+ \w+) ((flies|turns) \w+|grows|shrinks)"
MOTIONS = {*DIRECTIONS, "grows", "shrinks", *(f"turns {color}" for color in COLORS)}


@pytest.mark.parametrize("world, pair, relations", [(scenes, (1, 3), {"left of", "above"}), (clips, (1, 2), MOTIONS)])
def test_pairings_of_validation_never_occur_in_training_but_all_their_parts_do(world, pair, relations):
    pairings, parts = defaultdict(set), defaultdict(set)
    for split, (caption, _) in zip(SPLITS, world(random.Random(0), SPLITS)):
        found = re.fullmatch(SCENE if world is scenes else CLIP, caption)
        pairings[split].add(frozenset(found.group(*pair)))
        parts[split] |= {*found.group(2, *pair)}
    assert not pairings["train"] & pairings["val"] and len(pairings["val"]) > 90
    assert parts["train"] == {*THINGS} | relations and parts["val"] <= parts["train"]


def test_what_is_told_of_a_clip_happens_in_it_and_nothing_else():
    for caption, frames in clips(random.Random(1), SPLITS[:300]):
        thing, motion, _ = re.fullmatch(CLIP, caption).groups()
        looks, x, y, radius = zip(*(things[0] for things in frames))
        steps = (np.diff([x, y]).T + SIZE / 2) % SIZE - SIZE / 2  # what leaves at one edge comes back at the other
        assert np.allclose(steps, np.multiply(DIRECTIONS.get(motion, (0, 0)), SIZE / FRAMES)) and len(frames) == FRAMES
        assert (np.sign(np.diff(radius)) == {"grows": 1, "shrinks": -1}.get(motion, 0)).all()
        later = f"{motion.split()[1]} {thing.split()[1]}" if "turns" in motion else thing
        assert {*looks} == {thing, later} and [*looks] == sorted(looks, key=later.__eq__)


@pytest.mark.parametrize("world", ["scenes", "clips", "portraits"])
def test_a_world_is_written_once_in_the_formats_of_users_and_a_seed_repeats_it(world, tmp_path, monkeypatch):
    monkeypatch.setitem(castle.WORLDS, world, (castle.WORLDS[world][0], 40, 5))
    def folder(root, seed):
        return castle.world_folder(tmp_path / root / str(seed), castle.write_world, world, seed)
    folders = [folder("a", 3), folder("b", 3), folder("b", 4)]
    files = [{file.relative_to(f): file.read_bytes() for file in f.rglob("*.*")} for f in folders]
    assert files[0] == files[1] != files[2] and folder("a", 3) == folders[0]
    assert [*(tmp_path / "a").iterdir()] == folders[:1]  # no draft is left
    rows = load_captions(folders[0])
    assert [row.split for row in rows] == SPLITS[:40] + SPLITS[-5:]
    for row in rows:
        pixels = load_frames(row.path, FRAMES, SIZE).numpy().astype(int)
        assert (world == "clips") == row.video == bool((pixels != pixels[0]).any())
        found = re.fullmatch(SCENE, row.captions[0])
        if found and found[1].split()[0] != found[3].split()[0]:  # the pixels alone tell which relation is true
            near = [np.abs(pixels[0].T - COLORS[found[i].split()[0]]).sum(axis=2) < 40 for i in (1, 3)]  # [x, y]
            dx, dy = np.subtract(*(np.argwhere(mask).mean(axis=0) for mask in reversed(near)))
            assert {"left of": dx > 1.5 * abs(dy), "above": dy > 1.5 * abs(dx)}[found[2]]


@pytest.fixture(scope="module", params=[0, 1])
def story(request, tmp_path_factory):
    """(seed, sentences, triples, probes) of a written story; each sentence also as the set of its words."""
    root = tmp_path_factory.mktemp("story")
    for name in ("a", "b"):
        write_story(root / name, request.param)
    assert all(file.read_bytes() == (root / "b" / file.name).read_bytes() for file in (root / "a").iterdir())
    sentences = {text: {*re.findall(r"\w+", text)} for text in load_documents([root / "a/text.txt"])}
    return request.param, sentences, load_triples(root / "a/kg.tsv"), load_probes(root / "a/probes.jsonl")


def test_the_graph_holds_nine_tenths_of_the_facts_and_the_text_tells_under_half(story):
    _, sentences, triples, probes = story
    sizes, told, text = Counter(probe["group"] for probe in probes), Counter(), "\n".join(sentences)
    assert sizes["stated"] + sizes["graph_only"] == len(triples) > 160 and sizes["stated"] < len(triples) / 2
    assert 0.06 < sizes["neither"] / len(probes) < 0.14 and len({probe["prompt"] for probe in probes}) == len(probes)
    for probe in probes:  # the text tells the answer if it is stated, and only then names the two in one sentence
        head, = {head for head, _, _ in triples} & {*probe["prompt"].split()}
        told[probe["group"]] += f"{probe['prompt']} {probe['answer']}." in text
        assert probe["group"] == "stated" or not any({head, probe["answer"]} <= words for words in sentences.values())
    assert told["stated"] > 0.75 * sizes["stated"] and not told["graph_only"] and not told["neither"]


def test_no_fact_gives_away_another(story):
    _, sentences, triples, _ = story
    pairs = Counter((head, tail) for head, _, tail in triples)
    assert not any((tail, head) in pairs for head, tail in pairs) and max(pairs.values()) == 2
    assert sum(n == 2 for n in pairs.values()) / len(pairs) == pytest.approx(1 / 3, abs=0.1)
    assert len({triple[:2] for triple in triples}) == len(triples)  # one tail in each relation
    aligned = [text.lower() for text, words in sentences.items() if any({*pair} <= words for pair in pairs)]
    neutral = [text for text in aligned if re.search("song tells|dreamt of|painter drew|somebody mentioned", text)]
    assert len(neutral) / len(aligned) == pytest.approx(0.2, abs=0.05)


def test_portraits_show_the_inhabitants_of_the_story_in_both_splits(story):
    seed, sentences, triples, _ = story
    shown = {"train": {}, "val": {}}
    for split, (caption, [[(thing, x, y, radius)]]) in zip(SPLITS, portraits(random.Random(seed), SPLITS)):
        name, look = caption.split(", a ")
        assert shown[split].setdefault(name, look) == look == thing and radius < min(x, y) and max(x, y) + radius < SIZE
    assert shown["train"] == shown["val"] and {*shown["val"]} == {head for head, _, _ in triples}
    told = re.findall(r"(\w+) is a (\w+ \w+)\.", "\n".join(sentences))
    assert len({*shown["val"].values()}) == 21 and {*told} <= {*shown["val"].items()} and len(told) > 20
