"""The built-in text and knowledge graph: facts about the inhabitants of the castle.

`kg.tsv`, the graph, holds nine tenths of all facts (head, relation, tail). `text.txt` states under half of
those and none of the others. Like real text, it is noisy for distant supervision (Modeling
Relations and Their Mentions without Labeled Text, Riedel et al., 2010). A sentence may name head and tail of
a triple and state nothing about them. If a pair has two relations, a sentence states one. `probes.jsonl` asks
for each fact. Wordings and nouns are in story.txt; a new relation takes a few lines there.
"""

import json
import random
import re

from mingpt_mm.data import castle

SENTENCES, NEUTRAL = 20, 5  # for each stated fact, at most: stating it; only naming head and tail
TWO_RELATIONS = 1 / 3  # share of the pairs of a head and a tail that have two relations
GROUPS = ["neither", *["stated"] * 4, *["graph_only"] * 5]  # of every ten pairs; "neither": not in the graph


def draw_facts(rng, grammar, names):
    """Yield (head, relation, tail, kind, group) of all facts; each name has one tail in every relation.

    All relations of a pair (head, tail) are in one group, so that one does not reveal another.
    """
    for kind in ("place", "being", "thing"):
        relations = [name for name, of in grammar if of == kind and name != "neutral"]
        tails, pairs = grammar[kind, ""][0].split() if (kind, "") in grammar else names, []
        for head in names:
            rng.shuffle(relations)
            n = 1 + (rng.random() < len(relations) * TWO_RELATIONS / (1 + TWO_RELATIONS))  # of the first pair
            joined = [relations[:n], *([relation] for relation in relations[n:])]
            # never both (a, b) and (b, a)
            free = [tail for tail in tails if tail != head and (tail, head) not in dict(pairs)]
            pairs += zip(((head, tail) for tail in rng.sample(free, len(joined))), joined)
        rng.shuffle(pairs)
        for i, ((head, tail), joined) in enumerate(pairs):
            yield from ((head, relation, tail, kind, GROUPS[10 * i // len(pairs)]) for relation in joined)


def write_sentence(rng, wordings, openings, head, other):
    """A sentence about `head` and `other`, its tail or look, in one of `wordings`; half have an opening."""
    opening = rng.choice(openings) + " " if rng.random() < 0.5 else ""
    text = opening + re.sub(r"\[[TK]\]", other, rng.choice(wordings).replace("[H]", head))
    return text[0].upper() + text[1:] + "."


def write_story(folder, seed):
    """Write the story of `seed` into the new `folder`: text.txt, kg.tsv and probes.jsonl."""
    grammar, rng = castle.read_sections("story.txt"), random.Random(seed)
    looks, openings = castle.inhabitants(rng), grammar["opening", ""]
    probes, sentences = [], set()
    for head, relation, tail, kind, group in list(draw_facts(rng, grammar, list(looks))):
        wordings, neutral = grammar[relation, kind], grammar["neutral", kind]
        prompt, triple = wordings[0].replace("[H]", head).removesuffix(" [T]"), [head, relation, tail]
        probes.append({"prompt": prompt, "answer": tail, "group": group, "triple": triple})
        if group == "stated":
            sentences |= {write_sentence(rng, wordings, openings, head, tail) for _ in range(SENTENCES)}
            sentences |= {write_sentence(rng, neutral, openings, head, tail) for _ in range(NEUTRAL)}
    for _ in range(len(sentences) // 3):  # that state no fact
        sentences.add(write_sentence(rng, grammar["alone", ""], openings, *rng.choice(list(looks.items()))))
    documents = rng.sample(sorted(sentences), len(sentences))
    graph = ["\t".join(probe["triple"]) for probe in probes if probe["group"] != "neither"]
    rng.shuffle(graph)
    folder.mkdir()
    (folder / "text.txt").write_text("\n\n".join(documents) + "\n", encoding="utf-8")
    (folder / "kg.tsv").write_text("\n".join(graph) + "\n", encoding="utf-8")
    (folder / "probes.jsonl").write_text("\n".join(map(json.dumps, probes)) + "\n", encoding="utf-8")
