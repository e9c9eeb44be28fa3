"""A text and a knowledge graph give training examples for free: distant supervision.

A sentence that names both the head and the tail of a triple (head, relation, tail), and no other entity, is
taken as an example of that relation (Distant Supervision for Relation Extraction without Labeled Data, Mintz
et al., 2009). Its names are replaced by the slots [H] and [T], so that only the wording is left: "[H] lives
in the [T]." Some of these sentences do not state the relation; that noise is what the GAN has to handle.

Letters: B sentences, L words in a sentence, N examples, R relations.
"""

import re
import unicodedata
from collections import defaultdict
from itertools import permutations

import torch

from mingpt_mm.console import UserError, progress

HEAD, TAIL, END = "[H]", "[T]", ""  # END fills a row after its sentence
MAX_WORDS = 30  # longer sentences are left out
MARKS = "".join(chr(i) for i in range(0x3100) if unicodedata.category(chr(i)).startswith("M"))  # not in \w
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"  # here a letter is a word
WORD = rf"(?:[{UNSPACED}][{MARKS}]*|(?:(?![{UNSPACED}])[\w{MARKS}])+|\S)"
# A word takes the space before it, and one before a slot too: slots themselves have no spaces.
SLOT_OR_WORD = rf"\[[HT]\]| ?(?!\[[HT]\]){WORD}(?: (?=\[[HT]\]))?| "
SENTENCE_END, ALWAYS_END, CLOSING = ".!?…", "。！？｡।॥؟۔", "\"')]”’»」』"
ABBREVIATION = r" ?([^\W\d_]|Dr|Mr|Mrs|Ms|Prof|St|Mt|Jr|Sr|vs|etc|No|Fig)"  # the "." behind it ends no sentence


def split_sentences(document, names, longest):
    """Yield the sentences of `document`, lists of (text, name); the name of a word that is no name is None.

    names: {its words: name}, of at most `longest` words; the longest one that starts at a word is taken.
    """
    words, i, sentence = re.findall(f" ?{WORD}", " ".join(document.split())), 0, []
    while i < len(words):
        keys = ((words[i].strip(), *words[i + 1:i + n]) for n in range(longest, 0, -1))
        key = next((key for key in keys if key in names), words[i:i + 1])
        before, i = sentence[-1:], i + len(key)
        sentence.append(("".join(words[i - len(key):i]), names.get(tuple(key))))
        last, after = words[i - 1].strip()[-1], "".join(words[i:i + 1]) or " "
        closing = last in CLOSING and before  # belongs to the sentence that ends before it
        last = before[0][0][-1] if closing else last
        ends = last in ALWAYS_END or last in SENTENCE_END and after.startswith(" ")
        if names.get(tuple(key)) or closing:  # the sentence may go on: "Acme Inc. makes", "Run!" he said
            ends = ends and not after.strip()[:1].islower()
        elif last == "." and before:
            ends = ends and not re.fullmatch(ABBREVIATION, before[0][0])
        if ends and after not in CLOSING or i == len(words):
            yield sentence
            sentence = []


def delexicalize(sentence, head, tail):
    """The words of a `sentence` (see `split_sentences`) with slots in place of the names `head` and `tail`."""
    slots = {head: HEAD, tail: TAIL}
    text = "".join(text if name is None else text[:-len(name)] + slots[name] for text, name in sentence)
    return re.findall(SLOT_OR_WORD, text.strip())


def lexicalize(words, head, tail):
    """The text of `words` (see `delexicalize`) with the names `head` and `tail` in the slots."""
    return "".join({HEAD: head, TAIL: tail}.get(word, word) for word in words)


def align(documents, triples):
    """{relation: [sentence, ...]} of the sentences that name head and tail of a triple and nothing else of it.

    documents: texts. A sentence is a list of words with the slots [H] and [T], see `delexicalize`. It is an
    example of every relation that its two names have in the graph.
    """
    relations, examples = defaultdict(list), defaultdict(list)
    for head, relation, tail in triples:
        relations[head, tail].append(relation)
    names = {tuple(re.findall(f" ?{WORD}", name)): name for pair in relations for name in pair}
    longest = max(map(len, names), default=0)
    for document in progress(documents, "matching the graph with the text"):
        for sentence in split_sentences(document, names, longest):
            found = {name for _, name in sentence if name}
            if len(found) == 2 and len(sentence) <= MAX_WORDS:
                for pair in permutations(sorted(found)):
                    for relation in relations.get(pair, ()):
                        examples[relation].append(delexicalize(sentence, *pair))
    return dict(sorted(examples.items()))


def hard_negatives(triples, relations):
    """(R, R): how often to use each other relation as the wrong one of a relation.

    The more tails two relations share (Jaccard index), the more plausible is the wrong one.
    """
    tails = [{tail for _, r, tail in triples if r == relation} for relation in relations]
    rows = [[len(a & b) / len(a | b) + 0.02 for b in tails] for a in tails]
    return torch.tensor(rows).fill_diagonal_(0)


class Examples:
    """The sentences of `align` as rows of word ids (N, L), with the vocabulary `words` of the GAN."""

    def __init__(self, examples):
        sentences = [sentence for rows in examples.values() for sentence in rows]
        if not sentences:
            raise UserError("no sentence of the text names the head and the tail of a triple and nothing else")
        self.relations = list(examples)
        self.words = [END] + sorted({word for sentence in sentences for word in sentence})
        self.length = 1 + max(map(len, sentences))  # one END at least
        ids = {word: i for i, word in enumerate(self.words)}
        rows = [[ids[word] for word in sentence] + [0] * (self.length - len(sentence)) for sentence in sentences]
        self.rows = torch.tensor(rows)  # (N, L)
        self.counts = torch.tensor([len(rows) for rows in examples.values()])  # (R,)
        self.starts = self.counts.cumsum(0) - self.counts  # (R,)

    def sample(self, relation, rng):
        """A random sentence for each `relation` (B,) -> (B, L)"""
        places = torch.rand(len(relation), generator=rng) * self.counts[relation]  # (B,)
        return self.rows[self.starts[relation] + places.long()]
