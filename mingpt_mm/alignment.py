"""Which sentences of a text may state a triple of a knowledge graph? Distant supervision.

Distant Supervision for Relation Extraction without Labeled Data (Mintz et al., 2009): a sentence that names
both ends of a triple (head, relation, tail) is taken to state it. The names give way to slots, "[H] lives in
the [T].", so that what is left is the wording alone. A sentence is a list of units: words and punctuation
marks, each with the space before it.

Letters: B sentences, L units a sentence, R relations.
"""

import re
import unicodedata
from collections import defaultdict
from itertools import permutations

import torch

HEAD, TAIL, OTHER = "[H]", "[T]", "[N]"  # slots for the two ends of the triple, and for any other name
LONGEST = 30  # units of a sentence that is taken
# A letter, or a mark on one, which Python's own \w leaves out.
WORD = "[\\w" + "".join(chr(i) for i in range(0x3100) if unicodedata.category(chr(i)).startswith("M")) + "]"


def read_sentences(documents, triples):
    """Yield the sentences of `documents`: lists of (unit, name), the name None if none of `triples` has it.

    Of names that overlap, the one that begins first is taken, then the longest; only whole words count.
    """
    names = sorted({name for head, _, tail in triples for name in (head, tail)}, key=len, reverse=True)
    pattern = rf" ?(?<!{WORD})(?P<name>{'|'.join(map(re.escape, names))})(?!{WORD})| ?{WORD}+| ?\S"
    for document in documents:
        sentences, ended = [], True
        for match in re.finditer(pattern, " " + " ".join(document.split())):
            if ended and match[0].startswith(" "):  # which "0.5" has not
                sentences.append([(match[0][1:], match["name"])])
            else:
                sentences[-1].append((match[0], match["name"]))
            mark = match[0].strip()
            ended = mark in (".", "!", "?") or ended and mark in ('"', "'", ")", "”", "’")
        yield from sentences


def with_slots(sentence, head, tail):
    """The units of a `sentence` (see `read_sentences`), with slots in place of its names."""
    slots = {None: "", head: HEAD, tail: TAIL}
    return tuple(unit.removesuffix(name or "") + slots.get(name, OTHER) for unit, name in sentence)


def fill(units, head, tail):
    """The text of `units` (see `with_slots`) with the names `head` and `tail` in the slots."""
    names = {HEAD: head, TAIL: tail}
    return "".join(unit[:-3] + names.get(unit[-3:], unit[-3:]) for unit in units)


def align(documents, triples):
    """{relation: sentences with slots} of those that name the two ends of one of `triples` and nothing else.

    A sentence is an example of every relation of its pair; which of them it states, if any, is not known.
    """
    relations, examples = defaultdict(list), defaultdict(list)
    for head, relation, tail in triples:
        relations[head, tail].append(relation)
    for sentence in read_sentences(documents, triples):
        names = {name for _, name in sentence if name}
        if len(names) == 2 and len(sentence) <= LONGEST:
            for pair in permutations(sorted(names)):
                for relation in relations[pair]:
                    examples[relation].append(with_slots(sentence, *pair))
    return dict(sorted(examples.items()))


def confusions(triples, relations):
    """(R, R): for each relation, how often each other one serves as the wrong one.

    The more tails two relations share (the Jaccard index), the more a wrong one looks right; one that shares
    none serves now and then.
    """
    tails = [{tail for _, r, tail in triples if r == relation} for relation in relations]
    rows = [[len(a & b) / len(a | b) + 0.02 for b in tails] for a in tails]
    return torch.tensor(rows).fill_diagonal_(0)


class Examples:
    """The `examples` of `align` as rows of units, to be drawn from."""

    def __init__(self, gan, examples):
        self.rows = gan.encode([sentence for relation in gan.relations for sentence in examples[relation]])
        self.counts = torch.tensor([len(examples[relation]) for relation in gan.relations])  # (R,)
        self.starts = self.counts.cumsum(0) - self.counts  # (R,)

    def draw(self, relations, rng):
        """For each of `relations` (B,) any of its sentences -> (B, L)"""
        places = torch.rand(len(relations), generator=rng) * self.counts[relations]  # (B,)
        return self.rows[self.starts[relations] + places.long()]
