"""Files of captions, documents, triples and probes: every allowed spelling is read, every fault names its line."""

import json

import pytest

from mingpt_mm.console import UserError
from mingpt_mm.data.datasets import (load_captions, load_documents, load_probes, load_triples, split_documents,
                                     split_rows)

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
READERS = {"captions": lambda path: load_captions(path.parent), "documents": lambda path: load_documents([path]),
           "triples": load_triples, "probes": load_probes}
CAPTION, PROBE = {"image": "1.png", "caption": "a cat"}, {"prompt": "Ada is in", "answer": "Rome", "group": "a"}
LINES = {  # two good lines of each kind
    "captions": [json.dumps(CAPTION), '{"video": "clip", "captions": ["a", "b"], "more": 1}'],
    "documents": ["one line", "and\nanother"],
    "triples": ["Ada\tlives in\tRome", f"{COMPOSED}\tis in\tRome"],
    "probes": [json.dumps(PROBE | {"triple": []}), '{"answer": " Oslo ", "prompt": "Bob is in\\n", "group": "b\\t"}'],
}


@pytest.fixture
def path(tmp_path):
    """captions.jsonl in a folder with the image 1.png and the folder of frames clip."""
    (tmp_path / "clip").mkdir()
    (tmp_path / "1.png").touch()
    return tmp_path / "captions.jsonl"


def read(kind, path, *lines):
    path.write_bytes("\n".join(lines).encode())
    return READERS[kind](path)


@pytest.mark.parametrize("kind", READERS)
def test_good_lines_are_read_whatever_system_they_come_from(kind, path):
    joint = "\n\n" if kind == "documents" else "\n"
    text = joint.join(LINES[kind])
    expected = {
        "captions": [(path.parent / "1.png", False, ["a cat"], None), (path.parent / "clip", True, ["a", "b"], None)],
        "documents": LINES["documents"], "triples": [("Ada", "lives in", "Rome"), (COMPOSED, "is in", "Rome")],
        "probes": [PROBE, {"prompt": "Bob is in", "answer": "Oslo", "group": "b"}]}
    for other in (text, "\ufeff" + text, text.replace("\n", "\r\n"), text.replace("\n", "\r"), f"\n{text}\n \n\n",
                  text.replace(joint, "\n \t\n\n"), text.replace(COMPOSED, DECOMPOSED)):
        assert read(kind, path, other) == expected[kind], repr(other)
    path.write_bytes(b"caf\xe9\tb\tc")
    with pytest.raises(UserError, match=f"(?i){path.name}.*utf-8"):
        READERS[kind](path)


def test_text_is_composed_and_stripped_also_where_json_escapes_it(path):
    row = CAPTION | {"captions": [f"\u200b {DECOMPOSED}\n\ufeff", "a \u00a0 cat \ud83d"]}
    (_, _, captions, _), = read("captions", path, json.dumps(row))
    assert captions[0] == COMPOSED and captions[1].startswith("a cat") and captions[1].encode()  # A10
    assert read("probes", path, json.dumps(dict.fromkeys(PROBE, f" {DECOMPOSED} "))) == [dict.fromkeys(PROBE, COMPOSED)]


def test_triples_are_trimmed_and_read_once_each_without_a_header(path):
    rows = ["A\tis in\tB", " A \tis  in\tB", f"{DECOMPOSED}\tis in\tB", f"{COMPOSED}\tis in\tB", "A\tis in\tC"]
    expected = [("A", "is in", "B"), (COMPOSED, "is in", "B"), ("A", "is in", "C")]
    # A20
    for header in ("head\trelation\ttail", "Head\trel\tTail", "subject\tpredicate\tobject", "source\tedge\ttarget"):
        assert read("triples", path, header, *rows) == expected
        assert read("triples", path, *rows, header) == [*expected, tuple(header.split("\t"))]
    assert read("triples", path, "head\tis part of\tbody") == [("head", "is part of", "body")]


@pytest.mark.parametrize("splits, train, val", [
    ([None] * 24, [*range(9), *range(10, 19), *range(20, 24)], [9, 19]),
    (["test", None] * 12, [*range(1, 18, 2), 21, 23], [19]),
    (["val", "train", "test", None] * 6, [*range(1, 24, 2)], [*range(0, 24, 4)])])
def test_every_tenth_row_is_held_out_unless_the_rows_name_their_split(splits, train, val, path):
    rows = [CAPTION | {"caption": str(i)} | ({"split": name} if name else {}) for i, name in enumerate(splits)]
    rows = read("captions", path, *map(json.dumps, rows))
    assert [[int(row.captions[0]) for row in part] for part in split_rows(rows)] == [train, val]
    with pytest.raises(UserError, match="ten"):
        split_rows(rows[:1])


def test_every_tenth_document_of_all_files_is_held_out(path):
    texts = [f"document {i}\nof two lines" for i in range(20)]
    path.with_name("more.txt").write_text("\n\n".join(texts[15:]))
    path.write_text("\n\n".join(texts[:15]))
    train, val = split_documents(load_documents([path, path.with_name("more.txt")]))
    assert train == texts[:9] + texts[10:19] and val == texts[9::10]
    with pytest.raises(UserError, match=r"\b9\b"):
        split_documents(texts[:9])


@pytest.mark.parametrize("kind, line", [
    *(("captions", json.dumps(CAPTION | change)) for change in (
        {"caption": 7}, {"caption": ""}, {"caption": " \u200b "}, {"caption": ["a"]}, {"captions": []},
        {"captions": "abc"}, {"captions": ["a", " \n"]}, {"captions": ["a", 7]}, {"captions": {"a": 1}},
        {"split": "dev"}, {"image": "none.png"}, {"image": "clip"}, {"image": 7}, {"image": None}, {"image": ["1.png"]},
        {"image": "no\nfile"}, {"image": "\ud83d.png"}, {"image": "\0"}, {"image": ""}, {"video": "clip"})),
    *(("captions", line) for line in ("{broken", "[1]", "7", "null", '{"caption": "a"}', '{"image": "1.png"}',
                                      "[" * 100_000, '{"video": "none", "caption": "a"}')),
    *(("triples", line) for line in ("Ada lives in Rome", "A\tb", "A\tb\tC\td", "A\t \tC", "\tb\tC", "A\tb\t")),
    *(("probes", line) for line in ("[]", "{}", "{broken", '{"prompt": "a", "answer": 7, "group": "b"}',
                                    '{"prompt": "a", "answer": " ", "group": "b"}')),
], ids=lambda value: value[:50])
def test_a_fault_is_one_line_that_names_file_and_line(kind, line, path):  # D7: white space is no caption
    with pytest.raises(UserError, match=rf"\A{path}:3: .+\Z"):
        read(kind, path, LINES[kind][0], "", line, LINES[kind][1])
