"""A text and a knowledge graph give training examples for free: distant supervision.

A sentence that names the head and the tail of a triple (head, relation, tail) is taken as an example of that
relation (Distant Supervision for Relation Extraction without Labeled Data, Mintz et al., 2009). Here it must
name no other entity. Its names are replaced by the slots [H] and [T], so that only the wording is left: "[H]
lives in the [T]." Some of these sentences do not state the relation. The GAN has to handle that noise.

Letters: B sentences, L words in a sentence, N examples, R relations.
"""

import re
import unicodedata

import torch

from mingpt_mm.console import UserError, progress

HEAD, TAIL, END = "[H]", "[T]", ""  # END fills a row after its sentence
MAX_WORDS = 30  # longer sentences are left out
MARKS = "".join(chr(i) for i in range(0x3100) if unicodedata.category(chr(i)).startswith("M"))  # not in \w
# Scripts in which names are not set off by spaces: here a letter is a word.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7a3"
WORD = rf"(?:[{UNSPACED}][{MARKS}]*|(?:(?![{UNSPACED}])[\w{MARKS}])+|\S)"
CLOSING = "\"')\\]”’»›」』）】"  # these belong to the sentence that ends before them
# Matches "sentence\nrest". The marks . ! ? … end a sentence only before a space or at the end. German quotes
# end with “ or ‘, which open quotes elsewhere.
SENTENCE_END = rf"[.!?…][{CLOSING}“‘]*\n( |$)|[。！？｡।॥؟۔։።။។][{CLOSING}]*\n(?![{CLOSING}!。！？｡।؟])"
# The "." of these ends no sentence; a single letter is an initial, as in "U.S.", but not the end of a word.
ABBREVIATION = rf"(?<![\w{MARKS}'’])([^\W\d_]|Dr|Mr|Mrs|Ms|Prof|St|Mt|Jr|Sr|Gen|Capt|cf|vs|etc|No|Fig|डॉ)\.$"


def split_sentences(document, names, longest):
    """Yield the sentences of `document`, lists of (text, name); name is None unless the text is a name.

    names: a set of names of at most `longest` words; the longest one that starts at a word is taken.
    """
    words, i, sentence = re.findall(f" ?{WORD}", " ".join(document.split())), 0, []
    while i < len(words):
        n = next((n for n in range(longest, 0, -1) if "".join(words[i:i + n]).strip() in names), 1)
        text, i = "".join(words[i:i + n]), i + n
        name = text.strip() if text.strip() in names else None
        sentence.append((text, name))
        end, after = "".join(text for text, _ in sentence[-3:]), "".join(words[i:i + 1])
        # A lower-case word continues the sentence after a name or a quote: "Acme Inc. makes", "Run!" he said.
        goes_on = after.strip()[:1].islower() if name or end[-1] in CLOSING + "“‘" else (
            not sentence[-2:][0][1] and re.search(ABBREVIATION, end))
        if i >= len(words) or re.search(SENTENCE_END, f"{end}\n{after}") and not goes_on:
            yield sentence
            sentence = []


def delexicalize(sentence, head, tail):
    """The words of a `sentence` (see `split_sentences`), with slots in place of `head` and `tail`."""
    slots = {head: HEAD, tail: TAIL}
    text = "".join(text.replace(name, slots[name]) if name else text for text, name in sentence)
    # A word includes the space before it, and one after it if a slot follows. A slot has none.
    return re.findall(rf"\[[HT]\]| ?(?!\[[HT]\]){WORD}(?: (?=\[[HT]\]))?| ", text.strip())


def lexicalize(words, head, tail):
    """The text of `words` (see `delexicalize`) with the names `head` and `tail` in the slots."""
    return "".join({HEAD: head, TAIL: tail}.get(word, word) for word in words)


def align(documents, triples):
    """{relation: [sentence, ...]} of the sentences that name head and tail of a triple and no other entity.

    documents: texts. A sentence is a list of words with the slots [H] and [T], see `delexicalize`. It is an
    example of every relation that its two names have in the graph, unless it has more than MAX_WORDS words.
    """
    relations, examples = {}, {}
    for head, relation, tail in triples:
        relations.setdefault((head, tail), []).append(relation)
    names = {name for pair in relations for name in pair}
    longest = max((len(re.findall(WORD, name)) for name in names), default=1)
    for document in progress(documents, "matching the graph with the text"):
        for sentence in split_sentences(document, names, longest):
            found = sorted({name for _, name in sentence if name})
            if len(found) == 2 and len(sentence) <= MAX_WORDS:
                for head, tail in (found, found[::-1]):
                    for relation in relations.get((head, tail), ()):
                        examples.setdefault(relation, []).append(delexicalize(sentence, head, tail))
    return dict(sorted(examples.items()))


def hard_negatives(triples, relations):
    """(R, R): sampling weights, not normalized, of column j as the wrong relation of row i.

    A weight is 0.02 + the Jaccard index of the two sets of tails: shared tails make a relation plausible.
    """
    tails = [{tail for _, r, tail in triples if r == relation} for relation in relations]
    return torch.tensor([[len(a & b) / len(a | b) + 0.02 for b in tails] for a in tails]).fill_diagonal_(0)


class Examples:
    """The sentences of `align` as rows of word ids (N, L), with the vocabulary `words` of the GAN."""

    def __init__(self, examples):
        sentences = [sentence for rows in examples.values() for sentence in rows]
        if not sentences:
            raise UserError("no sentence of the text names head and tail of a triple and no other entity")
        self.relations = list(examples)
        self.words = [END] + sorted({word for sentence in sentences for word in sentence})
        self.length = L = 1 + max(map(len, sentences))  # one END at least
        ids = {word: i for i, word in enumerate(self.words)}
        self.rows = torch.tensor([[ids[w] for w in s + [END] * (L - len(s))] for s in sentences])  # (N, L)
        self.counts = torch.tensor([*map(len, examples.values())])  # (R,)
        self.starts = self.counts.cumsum(0) - self.counts  # (R,)

    def sample(self, relation, rng):
        """A random sentence for each `relation` (B,) -> (B, L)"""
        places = torch.rand(len(relation), generator=rng) * self.counts[relation]  # (B,)
        return self.rows[self.starts[relation] + places.long()]
