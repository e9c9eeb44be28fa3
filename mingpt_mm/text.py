"""Readers of text: documents, knowledge graphs and questions; and documents as tokens.

A text may be larger than memory. Its documents are read one at a time, and its tokens, written once, lie in a
file from which only what a batch needs is read.

Letters: B batch, T tokens of the longest text in the batch.
"""

import hashlib
import json
import unicodedata
from itertools import chain
from pathlib import Path

import numpy as np

from mingpt_mm import BadInput
from mingpt_mm.system import write_file
from mingpt_mm.tokenizer import PATTERN, pack_encoding

GROUPS = ("stated", "graph_only", "neither")  # where a fact stands: in the text, only in the graph, nowhere
IGNORE = -100  # the target of a padded position, which torch's cross entropy leaves out


def fingerprint(*values):
    """A short string that is another one for other `values`."""
    return hashlib.sha256(repr(values).encode(errors="replace")).hexdigest()[:16]


def compose(text):
    """`text` in Unicode's composed form, in which an accent is part of its letter."""
    return unicodedata.normalize("NFC", text)


def read_lines(file):
    """Yield the lines of the UTF-8 text `file`, composed."""
    try:
        with open(file, encoding="utf-8-sig") as lines:
            yield from map(compose, lines)
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: not UTF-8 ({error}): save it as UTF-8") from None


class Text:
    """The documents of a text file, which blank lines separate, read anew whenever they are gone through.

    Every tenth is held out: an object has either these or the others.
    """

    def __init__(self, file, held_out):
        self.file, self.held_out = file, held_out
        with open(file, "rb") as content:
            self.digest = hashlib.file_digest(content, "sha256").hexdigest()

    def __iter__(self):
        number, lines = 0, []
        for line in chain(map(str.rstrip, read_lines(self.file)), [""]):
            if line:
                lines.append(line)
            elif lines:
                if (number % 10 == 9) == self.held_out:
                    yield "\n".join(lines).strip()
                number, lines = number + 1, []


def read_documents(file):
    """The documents of the text `file` as (training, validation documents), see `Text`."""
    train, val = Text(file, held_out=False), Text(file, held_out=True)
    if not any(True for _ in val):
        raise BadInput(f"{file}: {sum(1 for _ in train)} documents, but every tenth is held out: give ten at "
                       "least, with blank lines between them")
    return train, val


def read_triples(file):
    """The knowledge graph `file`, a "head<TAB>relation<TAB>tail" each line, as triples without repetition."""
    triples = []
    for number, line in enumerate(read_lines(file), 1):
        triple = tuple(" ".join(part.split()) for part in line.split("\t"))
        if line.strip() and (len(triple) != 3 or not all(triple)):
            raise BadInput(f"{file}:{number}: {line.strip()[:60]!r} is not head<TAB>relation<TAB>tail")
        triples += [triple] if line.strip() else []
    if not triples:
        raise BadInput(f"{file}: an empty graph: write a head<TAB>relation<TAB>tail each line")
    once = list(dict.fromkeys(triples))
    if len(once) < len(triples):
        print(f"{file}: {len(triples) - len(once)} lines repeat a triple and are left out")
    return once


def read_probe(line, where):
    """One line of a file of probes; `where` names it for messages."""
    keys = ("prompt", "answer", "group")
    try:
        row = json.loads(line)
        head, relation, tail = map(compose, row["triple"])
        probe = {key: compose(row[key]) for key in keys} | {"triple": [head, relation, tail]}
    except (ValueError, KeyError, TypeError, RecursionError):
        probe = {}
    if probe.get("group") not in GROUPS or not all(map(str.strip, [probe["answer"], *probe["triple"]])):
        raise BadInput(f'{where}: not {{"prompt": "Ada lives in", "answer": "Rome", "triple": ["Ada", '
                       f'"lives in", "Rome"], "group": "{" or ".join(GROUPS)}"}}')
    return probe


def read_probes(file):
    """The questions in `file`, an object each line: "prompt", "answer", "group" (see GROUPS) and "triple"."""
    lines = enumerate(read_lines(file), 1)
    probes = [read_probe(line, f"{file}:{number}") for number, line in lines if line.strip()]
    if not probes:
        raise BadInput(f"{file}: no probes in it: write one a line")
    return probes


def pad(texts, end):
    """Texts (lists of tokens), each between two `end` tokens, as tokens and targets, both int64 (B, T).

    Each target is the token that follows. Padding comes after the text, so the causal mask alone keeps it out
    of sight; its targets are IGNORE.
    """
    T = 1 + max(map(len, texts))
    tokens = np.full((len(texts), T), end)  # (B, T)
    targets = np.full((len(texts), T), IGNORE)  # (B, T)
    for row, text in enumerate(texts):
        tokens[row, 1:1 + len(text)] = text
        targets[row, :1 + len(text)] = [*text, end]
    return tokens, targets


def tokenize(documents, encoding, root="runs"):
    """All tokens of `documents` in one row, each document ended by the end-of-text token.

    Those of a Text are written into a file under `root`, once for its content and the encoding, and mapped
    into memory; those of other documents are in memory.
    """
    dtype = np.min_scalar_type(encoding.n_vocab)
    rows = (np.array([*encoding.encode_ordinary(text), encoding.eot_token], dtype) for text in documents)
    if not isinstance(documents, Text):
        return np.concatenate([*rows])
    key = fingerprint(documents.digest, documents.held_out, PATTERN, pack_encoding(encoding))
    file = Path(root) / f"tokens-{key}"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_file(file, lambda draft: draft.writelines(rows))
        if documents.digest != Text(documents.file, documents.held_out).digest:
            file.unlink()
            raise BadInput(f"{documents.file}: has changed while it was read: begin again")
    return np.memmap(file, dtype, mode="r")


class Documents:
    """Documents, tokenised; one that does not fit into the block is cut into pieces that do."""

    def __init__(self, documents, encoding, block_size):
        self.end, self.tokens = encoding.eot_token, tokenize(documents, encoding)
        room = max(1, block_size - 1)
        blocks = ((i, self.tokens[i:i + 2**24]) for i in range(0, len(self.tokens), 2**24))
        ends = np.concatenate([i + np.flatnonzero(block == self.end) for i, block in blocks])
        starts = np.concatenate([[0], ends[:-1] + 1])
        counts = -(-(ends - starts) // room)  # pieces of each document
        number = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)  # within the document
        self.starts = np.repeat(starts, counts) + number * room
        self.ends = np.minimum(self.starts + room, np.repeat(ends, counts))

    def __len__(self):
        return len(self.starts)

    def batch(self, indices, rng=None, mine=slice(None)):
        """The pieces `indices`, or those at the places `mine`, as tokens and targets, see `pad`; where a
        document was cut, none ends.
        """
        places = [(self.starts[i], self.ends[i]) for i in indices[mine]]
        tokens, targets = pad([self.tokens[start:end] for start, end in places], self.end)  # (B, T)
        for row, (start, end) in zip(targets, places):
            if self.tokens[end] != self.end:
                row[end - start] = IGNORE
        return tokens, targets
