"""The castle's second half: individuals with invented names, facts about them, and a text that tells a part.

A fact is a triple (head, relation, tail). `kg.tsv`, the graph, holds nine tenths of all facts; `text.txt`
states under half of those, and the others no text states. The text is as untidy as distant supervision finds
the world (Modeling Relations and Their Mentions without Labeled Text, Riedel et al., 2010): a sentence may
name both ends of a triple and state nothing about them, and where two relations join one pair, it states one
of the two. `probes.jsonl` asks for each fact. Wordings and nouns stand in story.txt: a new relation is
a few lines there.
"""

import json
import random
import re
from pathlib import Path

from mingpt_mm import castle
from mingpt_mm.castle import individuals, written_once

GRAMMAR = Path(__file__).with_name("story.txt")
SENTENCES, NEUTRAL = 20, 5  # that state each fact which is stated, and that only name its two ends, at most
TWO_RELATIONS = 1 / 3  # of the pairs of a head and a tail


def read_grammar():
    """story.txt as {title: entries}; a relation's wordings have the title (relation, kind of its tails)."""
    grammar = {}
    for line in GRAMMAR.read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            entries.append(line.strip())
        else:
            name, kind = map(str.strip, line.split(":"))
            entries = grammar[(name, kind) if kind else name] = []
    return grammar


def relations(grammar):
    """{relation: kind of its tails}"""
    return dict(title for title in grammar if isinstance(title, tuple) and title[0] != "neutral")


def draw_pairs(rng, grammar, names, share):
    """All facts, as [(head, tail, relations, group)]: each name has one tail in every relation.

    The `share` of the pairs has two relations, of one kind. A pair as a whole belongs to its group: "stated",
    "graph_only" or "neither" (in text nor graph), so that no relation gives away another.
    """
    pairs = []
    for kind in ("place", "being", "thing"):
        same_kind, found = [relation for relation, k in relations(grammar).items() if k == kind], []
        tails = grammar[kind][0].split() if kind in grammar else names
        for head in names:
            rng.shuffle(same_kind)
            joined = [[relation] for relation in same_kind]
            if rng.random() < len(joined) * share / (1 + share):  # one pair fewer, and one of them double
                joined[:2] = [same_kind[:2]]
            known = {other for other, tail, _ in found if tail == head}  # never a to b, and b to a
            free = [tail for tail in tails if tail != head and tail not in known]
            found += zip([head] * len(joined), rng.sample(free, len(joined)), joined)
        rng.shuffle(found)
        for i, pair in enumerate(found):
            place = i / len(found)
            pairs.append((*pair, "neither" if place < 0.1 else "stated" if place < 0.5 else "graph_only"))
    return pairs


def tell(rng, grammar, wordings, head, tail="", look=""):
    """A sentence in one of the `wordings`; half of them have an opening."""
    opening = rng.choice(grammar["opening"]) + " " if rng.random() < 0.5 else ""
    text = opening + rng.choice(wordings).replace("[H]", head).replace("[T]", tail).replace("[K]", look)
    return text[0].upper() + text[1:] + "."


def write_story(folder, seed, two_relations=TWO_RELATIONS):
    """Write the story of `seed` into the new `folder`: text.txt, kg.tsv and probes.jsonl."""
    grammar, rng = read_grammar(), random.Random(seed)
    looks, kinds = individuals(rng), relations(grammar)
    graph, probes, sentences = [], [], set()
    for head, tail, joined, group in draw_pairs(rng, grammar, list(looks), two_relations):
        for relation in joined:
            wordings = grammar[relation, kinds[relation]]
            prompt = wordings[0].replace("[H]", head).removesuffix(" [T]")
            probes.append({"prompt": prompt, "answer": tail, "group": group,
                           "triple": [head, relation, tail]})
            if group != "neither":
                graph.append(f"{head}\t{relation}\t{tail}")
            if group == "stated":
                neutral = grammar["neutral", kinds[relation]]
                sentences |= {tell(rng, grammar, wordings, head, tail) for _ in range(SENTENCES)}
                sentences |= {tell(rng, grammar, neutral, head, tail) for _ in range(NEUTRAL)}
    for _ in range(len(sentences) // 3):  # about nothing of this
        head = rng.choice(list(looks))
        sentences.add(tell(rng, grammar, grammar["alone"], head, look=looks[head]))
    documents = rng.sample(sorted(sentences), len(sentences))
    rng.shuffle(graph)
    folder.mkdir()
    (folder / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    (folder / "kg.tsv").write_text("\n".join(graph) + "\n", encoding="utf-8")
    (folder / "probes.jsonl").write_text("\n".join(map(json.dumps, probes)) + "\n", encoding="utf-8")


def story_folder(seed, two_relations=TWO_RELATIONS, root="runs"):
    """The folder of the story of `seed` under `root`, written at its first use."""
    return written_once(f"{root}/story-{seed}-{two_relations:.3g}", [__file__, GRAMMAR, castle.__file__],
                        lambda folder: write_story(folder, seed, two_relations))


def make_parser():
    """A function: sentence -> (head, relation, tail), or None for one that states no fact.

    It knows the grammar and nothing of the networks, whose judge it is.
    """
    grammar, patterns = read_grammar(), []
    openings = "|".join(map(re.escape, grammar["opening"]))
    for relation, kind in relations(grammar).items():
        for wording in map(re.escape, grammar[relation, kind]):
            wording = wording.replace(r"\[H\]", r"(?P<head>\w+)").replace(r"\[T\]", r"(?P<tail>\w+)")
            patterns.append((relation, re.compile(rf"(({openings}) )?{wording}\.", re.IGNORECASE)))

    def parse(text):
        """The triple that `text` states."""
        for relation, pattern in patterns:
            if match := pattern.fullmatch(text):
                return match["head"], relation, match["tail"]
        return None
    return parse
