"""The story's promises, checked over its written files by readers and regular expressions of the tests' own."""

import json
import os
import re
from collections import Counter, defaultdict

import pytest

from mingpt_mm import story
from mingpt_mm.text import read_documents, read_probes, read_triples
from mingpt_mm.story import make_parser, story_folder, write_story
from mingpt_mm.tokenizer import gpt2_encoding


@pytest.fixture(scope="module", params=[0, 1, 2])
def files(request, tmp_path_factory):
    """(documents, triples, probes) of a story, as the readers give them."""
    folder = story_folder(request.param, root=tmp_path_factory.mktemp("story"))
    train, held_out = read_documents(folder / "text.txt")
    return [*train, *held_out], read_triples(folder / "kg.tsv"), read_probes(folder / "probes.jsonl")


def sentences(documents):
    """All sentences of the documents."""
    return [sentence.strip() for sentence in re.findall(r"[^.]+\.", " ".join(documents))]


def test_the_graph_is_as_large_as_promised_and_the_text_states_under_half_of_it(files):
    documents, triples, probes = files
    groups = {group: {tuple(p["triple"]) for p in probes if p["group"] == group}
              for group in ("stated", "graph_only", "neither")}
    assert len(triples) >= 160 and len({relation for _, relation, _ in triples}) >= 8
    assert set(triples) == groups["stated"] | groups["graph_only"] and not set(triples) & groups["neither"]
    parse = make_parser()
    stated = Counter(fact for fact in map(parse, sentences(documents)) if fact)
    assert set(stated) == groups["stated"] and len(stated) < len(triples) / 2
    assert min(stated.values()) >= 10  # each in several wordings
    assert 15 <= len(groups["neither"]) <= 25


def test_what_the_text_does_not_state_it_does_not_hint_at(files):
    documents, _, probes = files
    stated = {(p["triple"][0], p["triple"][2]) for p in probes if p["group"] == "stated"}
    for p in probes:
        head, _, tail = p["triple"]
        if p["group"] != "stated":
            assert (head, tail) not in stated and (tail, head) not in stated
            for sentence in sentences(documents):
                assert not re.search(rf"\b{head}\b", sentence) or not re.search(rf"\b{tail}\b", sentence)


def test_both_noises_of_distant_supervision_are_there(files):
    documents, triples, probes = files
    relations = defaultdict(set)
    for head, relation, tail in triples:
        relations[head, tail].add(relation)
    assert max(map(len, relations.values())) == 2
    assert sum(len(r) == 2 for r in relations.values()) / len(relations) == pytest.approx(1 / 3, abs=0.1)
    parse, names = make_parser(), {name for pair in relations for name in pair}
    both = [s for s in sentences(documents) if len(names & set(re.findall(r"\w+", s))) == 2]
    assert sum(parse(s) is None for s in both) / len(both) == pytest.approx(0.2, abs=0.05)
    assert not any((tail, head) in relations for head, tail in relations)


@pytest.mark.skipif("TIKTOKEN_CACHE_DIR" not in os.environ, reason="TIKTOKEN_CACHE_DIR is not set")
def test_names_are_several_tokens_of_gpt2(files):
    names = {head for head, _, _ in files[1]}
    assert len(names) == 21 and min(len(gpt2_encoding().encode_ordinary(" " + name)) for name in names) >= 2


def test_everybody_has_one_tail_a_relation(files):
    _, _, probes = files
    facts = [tuple(p["triple"][:2]) for p in probes]
    assert len(set(facts)) == len(facts)
    for p in probes:
        assert p["answer"] == p["triple"][2] and p["prompt"].startswith(p["triple"][0])


def test_the_parser_knows_right_from_wrong():
    parse = make_parser()
    assert parse("They say that Ann lives in the crypt.") == ("Ann", "lives in", "crypt")
    assert parse("The crypt is home to Ann.") == ("Ann", "lives in", "crypt")
    for text in ("", "Ann lives in the crypt", "Ann lives the crypt.", "A song tells of Ann and the crypt.",
                 "They say that they say that Ann lives in the crypt.", "Ann Bob lives in the crypt."):
        assert parse(text) is None, text


def test_no_two_wordings_can_be_confused():
    grammar, parse = story.read_grammar(), make_parser()
    for relation, kind in story.relations(grammar).items():
        assert len(grammar[relation, kind]) >= 8
        for wording in grammar[relation, kind]:
            for opening in ["", *(f"{o} " for o in grammar["opening"])]:
                text = opening + wording.replace("[H]", "Ann").replace("[T]", "Bob") + "."
                assert parse(text[0].upper() + text[1:]) == ("Ann", relation, "Bob")
    for title, wordings in grammar.items():
        if title[0] == "neutral":
            assert all(parse(w.replace("[H]", "Ann").replace("[T]", "Bob") + ".") is None for w in wordings)


def test_a_seed_is_a_story_and_the_share_of_double_pairs_is_as_asked(tmp_path):
    read = {}
    for name, seed, share in (("a", 5, 0.5), ("b", 5, 0.5), ("c", 6, 0.5), ("d", 5, 0.0)):
        write_story(tmp_path / name, seed, share)
        read[name] = [(tmp_path / name / file).read_text() for file in ("text.txt", "kg.tsv", "probes.jsonl")]
    assert read["a"] == read["b"] and read["a"] != read["c"]
    for name, share in (("a", 0.5), ("d", 0.0)):
        pairs = Counter((h, t) for h, _, t in (json.loads(line)["triple"] for line in read[name][2].splitlines()))
        assert sum(n == 2 for n in pairs.values()) / len(pairs) == pytest.approx(share, abs=0.05)
