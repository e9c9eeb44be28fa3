"""Text, graphs and questions as they are read, and text as tokens in a file."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mingpt_mm import BadInput
from mingpt_mm.text import IGNORE, Documents, pad, read_documents, read_probes, read_triples, tokenize
from mingpt_mm.tokenizer import train_bpe
from tests.test_commands import ROOT


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test has a working directory of its own."""
    monkeypatch.chdir(tmp_path)


def test_documents_stand_between_blank_lines_and_every_tenth_is_held_out(tmp_path):
    texts = [f"document {i}\nof two lines" for i in range(20)]
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    for text in ("\n\n".join(texts), "\r\n \r\n\r\n".join(t.replace("\n", "\r\n") for t in texts) + "\r\n",
                 "\ufeff\n\n" + "\n\n\n\n".join(texts)):
        (tmp_path / "text.txt").write_bytes(text.encode())
        assert tuple(map(list, read_documents(tmp_path / "text.txt"))) == (
            [t for i, t in enumerate(texts) if i % 10 != 9], [texts[9], texts[19]])
    (tmp_path / "text.txt").write_text("\n\n".join([decomposed] * 10), encoding="utf-8")
    assert list(read_documents(tmp_path / "text.txt")[1]) == [composed]


def test_a_graph_is_read_composed_trimmed_and_once_each(tmp_path, capsys):
    lines = "A\tis in\tB\n A \tis  in\tB\n\ncafe\u0301\tis in\tB\r\nA\tis in\tC\n"
    (tmp_path / "kg.tsv").write_bytes(lines.encode())
    assert read_triples(tmp_path / "kg.tsv") == [("A", "is in", "B"), ("caf\u00e9", "is in", "B"), ("A", "is in", "C")]
    assert "1 lines repeat a triple" in capsys.readouterr().out


def test_probes_are_composed_also_where_json_escapes_them(tmp_path):
    name = "cafe\u0301"
    probe = {"prompt": name, "answer": "B", "group": "neither", "triple": [name, "is in", "B"], "more": 1}
    (tmp_path / "probes.jsonl").write_text(json.dumps(probe) + "\n\n")
    assert read_probes(tmp_path / "probes.jsonl") == [
        {"prompt": "caf\u00e9", "answer": "B", "group": "neither", "triple": ["caf\u00e9", "is in", "B"]}]


def test_a_long_document_is_cut_and_only_its_last_piece_ends():
    encoding = train_bpe([], 257)
    data, end = Documents(["abcdefgh", "xy"], encoding, 4), encoding.eot_token
    assert len(data) == 4
    tokens, targets = data.batch([0, 1, 2, 3])
    assert tokens.tolist() == [[end, *b"abc"], [end, *b"def"], [end, *b"gh", end], [end, *b"xy", end]]
    assert targets.tolist() == [[*b"abc", IGNORE], [*b"def", IGNORE], [*b"gh", end, IGNORE], [*b"xy", end, IGNORE]]
    assert len(Documents(["abc"], encoding, 1)) == 3


# ---- tokens in a file ----

def some_documents(n, seed=0, longest=40):
    """`n` documents of up to so many words."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(["Ada", "lives", "in", "Rome", "and", "fears", "Bob."], k=rng.randint(1, longest)))
            for _ in range(n)]


@pytest.fixture
def text():
    """The training documents of text.txt."""
    Path("text.txt").write_text("\n\n".join(some_documents(60)))
    return read_documents("text.txt")[0]


@pytest.mark.parametrize("vocab_size, dtype", [(300, np.uint16), (70_000, np.uint32)])
def test_the_pieces_of_a_text_are_those_of_its_documents_cut_by_hand(text, vocab_size, dtype, monkeypatch):
    encoding = train_bpe(text, 300)
    if vocab_size > 300:
        monkeypatch.setattr(type(encoding), "n_vocab", vocab_size)
    tokens = tokenize(text, encoding)
    assert isinstance(tokens, np.memmap) and tokens.dtype == dtype
    for block_size in (2, 5, 16, 500):
        expected = []
        for document in text:
            ids = encoding.encode_ordinary(document)
            while len(ids) > block_size - 1:
                expected.append((ids[:block_size - 1], True))
                ids = ids[block_size - 1:]
            expected.append((ids, False))
        for documents in (text, list(text)):  # in a file, and in memory
            data = Documents(documents, encoding, block_size)
            assert len(data) == len(expected)
            inputs, targets = data.batch(range(len(data)))
            ours, theirs = pad([ids for ids, _ in expected], encoding.eot_token)
            for row, (ids, cut) in zip(theirs, expected):
                row[len(ids)] = IGNORE if cut else row[len(ids)]
            assert (inputs == ours).all() and (targets == theirs).all()


def test_a_text_is_tokenised_once_for_its_content_and_encoding(text, monkeypatch):
    encoding, other = train_bpe(text, 300), train_bpe(text, 262)
    first = np.array(tokenize(text, encoding))
    files = {path.name for path in Path("runs").iterdir()}
    assert len(files) == 1 and not any(name.endswith(".draft") for name in files)
    Path("text.txt").rename("moved.txt")
    with monkeypatch.context() as patch:
        patch.setattr(type(encoding), "encode_ordinary", None)  # nobody tokenises it again
        again = tokenize(read_documents("moved.txt")[0], encoding)
    assert (again == first).all()
    for documents, known in ((text, other), (read_documents("moved.txt")[1], encoding)):  # also for what is held out
        monkeypatch.setattr(documents, "file", "moved.txt")
        assert len(tokenize(documents, known)) != len(first)
    Path("moved.txt").write_text("More. " + Path("moved.txt").read_text())
    assert len(tokenize(read_documents("moved.txt")[0], encoding)) != len(first)
    assert len(list(Path("runs").iterdir())) == 4


def test_a_text_that_changes_while_it_is_read_leaves_no_file(text):
    Path("text.txt").write_text("Changed. " + Path("text.txt").read_text())
    with pytest.raises(BadInput, match="text.txt: has changed while it was read: begin again"):
        tokenize(text, train_bpe(["a"], 300))
    assert not list(Path("runs").iterdir())


def test_a_tokenisation_that_is_interrupted_leaves_no_file(text, monkeypatch):
    encoding, calls = train_bpe(text, 300), iter(range(9))
    encode = type(encoding).encode_ordinary

    def encode_a_while(self, document):
        next(calls)
        return encode(self, document)
    with monkeypatch.context() as patch, pytest.raises(BadInput):
        patch.setattr(type(encoding), "encode_ordinary", encode_a_while)
        tokenize(text, encoding)
    assert not list(Path("runs").iterdir())
    assert (tokenize(text, encoding) == tokenize(list(text), encoding)).all()


def test_a_text_is_gone_through_in_little_memory():
    """30 MB of text, whose documents, tokens and sentences as lists would take ten times as much."""
    with open("large.txt", "w") as file:
        for seed in range(100):
            file.write("\n\n".join(some_documents(250, seed, longest=600)) + "\n\n")
    assert os.path.getsize("large.txt") > 30e6
    program = """
import resource
from mingpt_mm.alignment import align
from mingpt_mm.text import Documents, read_documents
from mingpt_mm.tokenizer import train_bpe
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
train, val = read_documents("large.txt")
encoding = train_bpe(val, 300)
before = peak()
data = Documents(train, encoding, 512)
examples = align(val, [("Ada", "fears", "Bob")])
data.batch(range(0, len(data), 500))
print(len(data), peak() - before)
"""
    process = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                             env=os.environ | {"PYTHONPATH": str(ROOT)})
    pieces, grown = map(int, process.stdout.split())
    assert pieces > 20_000 and grown < 60e6, process.stderr
