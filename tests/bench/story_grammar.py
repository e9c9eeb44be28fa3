"""The grammar of the built-in story as a parser: what triple does a sentence state, and is it the intended one?

The parser reads mingpt_mm/data/story.txt and knows nothing of the networks that it judges.
"""

import re
from collections import defaultdict
from pathlib import Path

from mingpt_mm.data import story
from mingpt_mm.data.datasets import load_triples
from mingpt_mm.training import load_checkpoint


def make_parser():
    """A function: sentence -> (head, relation, tail), or None for a sentence that states no fact."""
    entries, kinds = defaultdict(list), {}
    for line in Path(story.__file__).with_name("story.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith(" "):
            entries[title].append(re.escape(line.strip()))
        else:
            title, kind = map(str.strip, line.split(":"))
            kinds[title] = kind
    openings, slots = "|".join(entries["opening"]), {r"\[H\]": r"(?P<head>\w+)", r"\[T\]": r"(?P<tail>\w+)"}
    patterns = []
    for relation in [title for title, kind in kinds.items() if kind and title != "neutral"]:
        for wording in entries[relation]:
            for slot, name in slots.items():
                wording = wording.replace(slot, name)
            patterns.append((relation, re.compile(rf"(({openings}) )?{wording}\.", re.IGNORECASE)))

    def parse(sentence):
        for relation, pattern in patterns:
            if match := pattern.fullmatch(sentence):
                return match["head"], relation, match["tail"]
        return None
    return parse


def evaluate_synthetic(sentences, triples, n):
    """Measures of the `sentences` that `verbalize` wrote for `triples`, in their order, at most `n` for each.

    in_graph: the share that state a triple of the graph. faithfulness: the share that state the triple that
    they were written for. right_wordings: the number of different wordings among those.

    A sentence is assigned to a triple whose head and tail it names: the first one, from that of the previous
    sentence on, with fewer than `n` sentences. If two neighboring triples share a pair and the first has fewer
    than `n`, a few sentences are assigned wrongly (a share below 0.001).
    """
    parse, graph, i, written, found, right, wordings = make_parser(), set(triples), 0, 0, 0, 0, set()
    for sentence in sentences:
        while written == n or triples[i][0] not in sentence or triples[i][2] not in sentence:
            i, written = i + 1, 0
        written, (head, relation, tail), stated = written + 1, triples[i], parse(sentence)
        found += stated in graph
        if stated == triples[i]:
            right += 1
            wordings.add((relation, sentence.replace(head, "[H]").replace(tail, "[T]")))
    return {"faithfulness": right / len(sentences), "in_graph": found / len(sentences),
            "right_wordings": len(wordings)}


def measure_run(out):
    """`evaluate_synthetic` of the adversarial run in the folder `out`; nothing if it has no synthetic sentences."""
    args, text = load_checkpoint(out / "last.pt")["args"], (out / "synthetic.txt").read_text(encoding="utf-8")
    sentences = [sentence.strip() for sentence in text.split("\n\n") if sentence.strip()]
    triples = load_triples(out.parent / args["kg"])  # of the built-in story: relative to where the run was started
    return evaluate_synthetic(sentences, triples, args["sentences"]) if sentences else {}
