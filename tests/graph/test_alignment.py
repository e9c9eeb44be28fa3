"""Distant supervision: which sentences become examples of which relation, in any script, with names of any form."""

import random

import pytest
import torch

from mingpt_mm.graph.alignment import HEAD, MAX_WORDS, TAIL, Examples, align, hard_negatives, lexicalize

TWO, BOB = [("Ada", "r", "Acme Inc."), ("Alan", "r", "Beta Inc.")], [("Ada", "r", "Bob")]
CITIES = [("York", "r", "Bob"), ("New York", "r", "Bob"), ("New York City", "r", "Bob"), ("राम", "r", "Bob")]


def examples(text, triples):
    """{relation: [sentence as text, ...]}; slots are words of their own in it."""
    found = align([text], triples)
    for sentence in sum(found.values(), []):
        assert all(word in (HEAD, TAIL) or HEAD not in word and TAIL not in word and word for word in sentence)
    return {relation: ["".join(sentence) for sentence in sentences] for relation, sentences in found.items()}


@pytest.mark.parametrize("text, triples, expected", [
    # A18: marks inside names and abbreviations end no sentence; a name may end one
    ("Ada works for Acme Inc. Alan works for Beta Inc. It rains.", TWO, ["[H] works for [T]"] * 2),
    ("Ada left Acme Inc. in May. Is Alan at Beta Inc.? No.", TWO, ["[H] left [T] in May.", "Is [H] at [T]?"]),
    ("Dr. Ada of the U.S. Army met Mr. Bob. It rains.", BOB, ["Dr. [H] of the U.S. Army met Mr. [T]."]),
    ("In St. Ives, i.e. at 5 p.m. sharp, Ada met Bob. So.", BOB, ["In St. Ives, i.e. at 5 p.m. sharp, [H] met [T]."]),
    ("Yahoo! pays Bob. Bob likes Yahoo! It rains.", [("Bob", "r", "Yahoo!")], ["[T] pays [H].", "[H] likes [T]"]),
    ("It is 0.5 km. Is Ada, Bob?! Ada ran! Bob ran… Ada fell.", BOB, ["Is [H], [T]?!"]),
    # A19: scripts with marks of their own, and without spaces
    ("小明住在北京。小红住在上海。", [("小明", "r", "北京"), ("小红", "r", "上海")], ["[H]住在[T]。"] * 2),
    ("北京是小明的家. 上海是小红的家.", [("小明", "r", "北京"), ("小红", "r", "上海")], ["[T]是[H]的家."] * 2),
    ("小明说：“我住在北京市！”小红住在北京？", [("小明", "r", "北京市"), ("小红", "r", "北京")],
     ["[H]说：“我住在[T]！”", "[H]住在[T]？"]),
    ("太郎は東京塔に住む。花子は東京に住む。", [("太郎", "r", "東京塔"), ("花子", "r", "東京")], ["[H]は[T]に住む。"] * 2),
    ("राम दिल्ली में रहता है। सीता मुंबई में रहती है।", [("राम", "r", "दिल्ली"), ("सीता", "r", "मुंबई")],
     ["[H] [T] में रहता है।", "[H] [T] में रहती है।"]),
    ("يعيش أحمد في القاهرة. هل تعيش ليلى في بغداد؟ نعم.", [("أحمد", "r", "القاهرة"), ("ليلى", "r", "بغداد")],
     ["يعيش [H] في [T].", "هل تعيش [H] في [T]؟"]),
    ("김철수는 서울에 산다. 이영희는 부산에 산다.", [("김철수", "r", "서울"), ("이영희", "r", "부산")], ["[H]는 [T]에 산다."] * 2),
    ("小明见过小红？！小明见过小红。", [("小明", "r", "小红")], ["[H]见过[T]？！", "[H]见过[T]。"]),
    ("Ada takes vitamin C. Bob ran. Gen. Ada left vitamin C.", [("Ada", "r", "vitamin C")],
     ["[H] takes [T].", "Gen. [H] left [T]."]),
    # quotes and brackets around sentences and names
    ("„Ada met Bob.“ (Ada met Bob.) 【Ada met Bob。】 Ada.", BOB, ["„[H] met [T].“", "([H] met [T].)", "【[H] met [T]。】"]),
    ('"Ada met Bob." Then Ada left. (Ada saw “Bob”.) Bob’s Ada ran.', BOB,
     ['"[H] met [T]."', "([H] saw “[T]”.)", "[T]’s [H] ran."]),
    ("“Run!” said Ada to Bob. Ada (b. 1815) met Bob.", BOB, ["“Run!” said [H] to [T].", "[H] (b. 1815) met [T]."]),
    # the longest name, as whole words; sentences with a third name, one name or an unrelated pair are left out
    ("New York City saw Bob. New York saw Bob. A York saw Bob.", CITIES, ["[H] saw [T]."] * 2 + ["A [H] saw [T]."]),
    ("Bobby saw York. Yorkshire saw Bob. york saw Bob. रामायण saw Bob. राम saw Bob.", CITIES, ["[H] saw [T]."]),
    ("York, not New York, saw Bob. Bob ran. York saw New York. It rains.", CITIES, []),
    ("Ada met Bob\n\tand Bob. Ada saw Ada.", BOB, ["[H] met [T] and [T]."]),
    ("Ada" + " x" * (MAX_WORDS - 3) + " Bob.", BOB, ["[H]" + " x" * (MAX_WORDS - 3) + " [T]."]),
    ("Ada" + " x" * (MAX_WORDS - 2) + " Bob.", BOB, []),
])
def test_sentences_that_name_a_pair_are_examples(text, triples, expected):
    assert examples(text, triples) == ({"r": expected} if expected else {})


def test_a_sentence_is_an_example_of_every_relation_of_its_pair_in_both_directions():
    triples = [("Ann", "sees", "York"), ("Ann", "hates", "York"), ("York", "bores", "Ann"), ("Ann", "sees", "Bob")]
    one, other = "[H] left [T], poor [T].", "[T] left [H], poor [H]."
    assert examples("Ann left York, poor York.", triples) == {"bores": [other], "hates": [one], "sees": [one]}
    assert examples("Ann saw Bob.", [*triples, ("Bob", "sees", "Ann")]) == {"sees": ["[H] saw [T].", "[T] saw [H]."]}
    assert align(["Ann saw Bob."], triples) == {"sees": [["[H]", " saw ", "[T]", "."]]}
    assert align(["Ann saw", "Bob. Ann ran."], triples) == {}  # no sentence goes on in the next document


def test_names_in_the_slots_give_the_sentence_back():
    names = ["York", "New York", "Ann", "C++", "A.B. (x)*", "$1|2", r"\1\g<name>", "Zoë", "Москва", "東京", "O'Neil"]
    words, rng = ["the", "Übung", "(see)", "0.25", "a-b", "\\2", "[H", "T]", "it's", "мир", "住在"], random.Random(0)
    for _ in range(400):
        head, tail = rng.sample(names, 2)
        pieces = [head, tail, *rng.choices([head, tail, *words], k=rng.randint(0, 5))]
        rng.shuffle(pieces)
        joints = rng.choices([" ", ", ", " (", "; ", " “"], k=len(pieces) - 1) + [" so."]
        text = "".join(piece + joint for piece, joint in zip(pieces, joints))
        sentences = align([text], [(name, "is", name) for name in names] + [(head, "r", tail)]).get("r", [])
        assert [lexicalize(words, head, tail) for words in sentences] == [text]


# A25
def test_a_graph_of_50000_triples_is_matched():
    triples = [(f"Person {i}", f"r{i % 7}", f"小{i}市") for i in range(50_000)]
    text = [f"Person {i} lives in 小{i + i % 2}市. Nobody knows Person {i}." for i in range(0, 50_000, 99)]
    found = align(text, triples)
    assert sum(map(len, found.values())) == len(range(0, 50_000, 198)) and len(found) == 7
    assert {"".join(sentence) for sentences in found.values() for sentence in sentences} == {"[H] lives in [T]."}


def test_wrong_relations_are_as_hard_as_the_tails_that_they_share():
    triples = [tuple(triple) for triple in "arx bry cry asy asz bsw atv xqy".split()]
    some, none = 1 / 4 + 0.02, 0.02  # r and s share y of {w, x, y, z}, and t shares nothing
    expected = torch.tensor([[0, none, some], [none, 0, none], [some, none, 0]])
    torch.testing.assert_close(hard_negatives(triples, ["r", "t", "s"]), expected)


def test_examples_of_a_relation_are_drawn_evenly():
    table = Examples({"a": [["x"], ["y"]], "b": [["z", "x"]], "c": [["x"], ["z"], ["z"], ["w"]]})
    assert (table.relations, table.words, table.length) == (["a", "b", "c"], ["", "w", "x", "y", "z"], 3)
    assert table.rows.tolist()[:3] == [[2, 0, 0], [3, 0, 0], [4, 2, 0]] and table.counts.tolist() == [2, 1, 4]
    drawn = table.sample(torch.arange(3).repeat_interleave(4000), torch.Generator().manual_seed(0))
    shares = torch.nn.functional.one_hot(drawn[:, 0].view(3, -1), 5).double().mean(dim=1)
    expected = torch.tensor([[0, 0, 0.5, 0.5, 0], [0, 0, 0, 0, 1], [0, 0.25, 0.25, 0, 0.5]], dtype=torch.double)
    torch.testing.assert_close(shares, expected, rtol=0, atol=0.04)
