"""Files of captions, documents, triples and probes: every allowed spelling is read, every fault names its line."""

import json

import pytest

from mingpt_mm.console import UserError
from mingpt_mm.data.datasets import (load_captions, load_documents, load_probes, load_triples, split_documents,
                                     split_rows)

COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"
READERS = {"captions": lambda path: load_captions(path.parent), "documents": lambda path: load_documents([path]),
           "triples": load_triples, "probes": load_probes}
LINES = {  # two good lines of each kind, with what they say
    "captions": ['{"image": "1.png", "caption": "a cat"}', '{"video": "clip", "captions": ["a", "b"], "more": 1}'],
    "documents": ["one line", "and\nanother"],
    "triples": ["Ada\tlives in\tRome", f"{COMPOSED}\tis in\tRome"],
    "probes": ['{"prompt": "Ada is in", "answer": "Rome", "group": "a", "triple": ["Ada", "is in", "Rome"]}',
               '{"answer": " Oslo ", "more": null, "prompt": "Bob is in\\n", "group": "b\\t"}'],
}


@pytest.fixture
def path(tmp_path):
    """captions.jsonl in a folder with the image 1.png and the folder of frames clip."""
    (tmp_path / "clip").mkdir()
    (tmp_path / "1.png").touch()
    return tmp_path / "captions.jsonl"


def read(kind, path, text):
    path.write_bytes(text.encode(errors="surrogatepass") if isinstance(text, str) else text)
    return READERS[kind](path)


def test_good_lines_are_read_as_documented(path):
    rows = read("captions", path, "\n".join(LINES["captions"]))
    assert rows == [(path.parent / "1.png", False, ["a cat"], None), (path.parent / "clip", True, ["a", "b"], None)]
    assert read("documents", path, "\n\n".join(LINES["documents"])) == LINES["documents"]
    assert read("triples", path, "\n".join(LINES["triples"])) == [("Ada", "lives in", "Rome"), (COMPOSED, "is in", "Rome")]
    assert read("probes", path, "\n".join(LINES["probes"])) == [
        {"prompt": "Ada is in", "answer": "Rome", "group": "a"}, {"prompt": "Bob is in", "answer": "Oslo", "group": "b"}]


@pytest.mark.parametrize("kind", READERS)
def test_line_ends_marks_and_empty_lines_of_other_systems_change_nothing(kind, path):
    joint = "\n\n" if kind == "documents" else "\n"
    text = joint.join(LINES[kind])
    expected = read(kind, path, text)
    for other in ("\ufeff" + text, text.replace("\n", "\r\n"), text.replace("\n", "\r"), f"\n{text}\n \n\n",
                  text.replace(joint, "\n \t\n\n"), text.replace(COMPOSED, DECOMPOSED)):
        assert read(kind, path, other) == expected, repr(other)


def test_text_is_composed_and_stripped_also_where_json_escapes_it(path):
    row = {"image": "1.png", "captions": [f" {DECOMPOSED}\n", "a cat \ud83d", f"{DECOMPOSED} \U0001f600"]}
    captions = read("captions", path, json.dumps(row))[0].captions
    assert captions[::2] == [COMPOSED, f"{COMPOSED} \U0001f600"]
    assert captions[1].startswith("a cat") and captions[1].encode()  # A10: half a surrogate pair
    probe = dict.fromkeys(("prompt", "answer", "group"), f" {DECOMPOSED} ")
    assert read("probes", path, json.dumps(probe)) == [dict.fromkeys(probe, COMPOSED)]


def test_triples_are_trimmed_and_read_once_each_without_a_header(path):
    rows = ["A\tis in\tB", " A \tis  in\tB", f"{DECOMPOSED}\tis in\tB", f"{COMPOSED}\tis in\tB", "A\tis in\tC"]
    expected = [("A", "is in", "B"), (COMPOSED, "is in", "B"), ("A", "is in", "C")]
    for header in ("head\trelation\ttail", "Head\tRelation\tTail", "subject\tpredicate\tobject"):  # A20
        assert read("triples", path, "\n".join([header, *rows])) == expected
        assert read("triples", path, "\n".join([*rows, header]))[3:] == [tuple(header.split("\t"))]
    assert read("triples", path, "head\tis part of\tbody") == [("head", "is part of", "body")]


def test_every_tenth_row_is_held_out_unless_the_rows_name_their_split(path):
    rows = [{"image": "1.png", "caption": str(i)} for i in range(24)]

    def split(splits):
        named = [row | ({"split": name} if name else {}) for row, name in zip(rows, splits)]
        return [[int(row.captions[0]) for row in part]
                for part in split_rows(read("captions", path, "\n".join(map(json.dumps, named))))]
    assert split([None] * 24) == split(["train"] * 24) == [[i for i in range(24) if i not in (9, 19)], [9, 19]]
    assert split(["val", "train", "test", None] * 6) == [[i for i in range(24) if i % 2], [*range(0, 24, 4)]]
    train, val = split(["test", "train"] * 12)
    assert len(train) == 11 and val == [19]
    for splits in ([None] * 9, ["val"] * 24, ["test"] * 24):
        with pytest.raises(UserError, match=r"\d+ training and \d+ validation rows"):
            split(splits)


def test_every_tenth_document_is_held_out(path):
    documents = [f"document {i}\nof two lines" for i in range(20)]
    (path.parent / "more.txt").write_text("\n\n".join(documents[15:]))
    path.write_text("\n\n".join(documents[:15]))
    train, val = split_documents(load_documents([path, path.parent / "more.txt"]))
    assert val == [documents[9], documents[19]] and train == [text for text in documents if text not in val]
    with pytest.raises(UserError, match="9 documents"):
        split_documents(documents[:9])


GOOD = {"prompt": "a", "answer": "b", "group": "c"}


@pytest.mark.parametrize("kind, line", [
    *(("captions", line) for line in (
        "{broken", "[1]", "7", "null", '"a"', '{"caption": "a"}', '{"image": "1.png"}', "[" * 100_000,
        '{"image": "1.png", "caption": "a"} {}', *(json.dumps({"image": "1.png", "caption": "a"} | change) for change in (
            {"caption": 7}, {"caption": None}, {"caption": ""}, {"caption": "   "}, {"caption": ["a"]},  # D7
            {"captions": []}, {"captions": "abc"}, {"captions": ["a", " \n"]}, {"captions": ["a", 7]},
            {"captions": {"a": 1}}, {"split": "dev"}, {"split": 1}, {"split": []}, {"image": "none.png"}, {"image": "clip"},
            {"image": 7}, {"image": None}, {"image": ["1.png"]}, {"image": "no\nfile"}, {"image": "\ud83d.png"},
            {"image": "\0"}, {"video": "clip"}, {"image": ""})), '{"video": "none", "caption": "a"}')),
    *(("triples", line) for line in ("Ada lives in Rome", "A\tb", "A\tb\tC\td", "A\t\tC", "A\t \tC", "\tb\tC", "A\tb\t\u3000")),
    *(("probes", line) for line in (
        "{broken", "[]", "{}", *(json.dumps(GOOD | change) for change in (
            {"prompt": ""}, {"answer": "  "}, {"answer": 7}, {"answer": None}, {"group": ["a"]})))),
], ids=lambda value: value[:50])
def test_a_fault_is_one_line_that_names_file_and_line(kind, line, path):
    with pytest.raises(UserError) as error:
        read(kind, path, "\n".join([LINES[kind][0], "", line, LINES[kind][1]]))
    text = str(error.value)
    assert text.startswith(f"{path}:3: ") and len(text) > len(f"{path}:3: ") and "\n" not in text


@pytest.mark.parametrize("kind", READERS)
def test_a_missing_file_and_one_that_is_not_utf_8_are_named(kind, path):
    with pytest.raises(OSError, match=path.name):
        READERS[kind](path)
    with pytest.raises(UserError, match=f"{path.name}.*UTF-8"):
        read(kind, path, b"caf\xe9\tb\tc")
    assert kind != "triples" or pytest.raises(UserError, read, kind, path, "\n \n").match("no triples")
