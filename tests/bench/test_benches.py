"""The fast parts of the benches."""

import importlib
import json
import shlex
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mingpt_mm.data.datasets import load_documents, load_triples
from mingpt_mm.data.story import write_story
from mingpt_mm.graph.alignment import align, lexicalize
from tests.bench import compare, pictures
from tests.bench.story_grammar import evaluate_synthetic, make_parser

@pytest.fixture(scope="module")
def story(tmp_path_factory):
    folder = tmp_path_factory.mktemp("bench") / "story"
    write_story(folder, seed=3)
    return folder


@pytest.mark.parametrize("name, options, columns", [
    ("adversarial", "--seeds 1 --variants GAN -- TINY", {"recall_graph_only", "perplexity", "faithfulness"}),
    ("facts", "--seeds 1 --story 'TINY' -- --steps 1 --eval_samples 2", {"exact_match", "context_stated"}),
    ("captions", "--seeds 1 --variants scenes -- --steps 1 --eval_samples 2", {"exact_match"}),
    ("drawing", "--seeds 1 --variants Muon -- --steps 1 --eval_samples 2 --world portraits", {"judged_right", "codebook", "different"}),
    ("experiments", "--seeds 1 --variants 'no causal mask' -- --steps 1 --eval_samples 2", {"exact_match"})])
def test_a_bench_runs_train_py_and_measures_what_its_table_shows(name, options, columns, monkeypatch, tmp_path):
    tiny = "--gan_warmup 2 --gan_steps 1 --sentences 1 --steps 2 --n_layer 1 --n_embd 16"
    argv = shlex.split(options.replace("TINY", tiny))
    monkeypatch.setattr(sys, "argv", [name, "--json", str(tmp_path / "json"), *argv])
    importlib.import_module(f"tests.bench.{name}").main()
    assert all(columns <= records[0].keys() for records in json.loads((tmp_path / "json").read_text()).values())


def test_runs_are_compared_in_one_picture(shell, monkeypatch):
    for runs, charts in (("seen moving", 2), ("seen told", 4)):
        monkeypatch.setattr(sys, "argv", ["compare", *runs.split(), "--out", "both.png"])
        compare.main()
        assert Image.open("both.png").height == 250 * charts


def test_the_picture_of_the_mask_shows_what_attention_reads(tmp_path):
    assert pictures.reads_from(False, 0, 4).all()
    for cached, T in ((0, 5), (3, 4), (6, 1)):
        assert pictures.reads_from(True, cached, T).equal(torch.ones(T, cached + T).tril(cached).bool())
    pictures.draw_masks(tmp_path / "mask.png")
    assert Image.open(tmp_path / "mask.png").width == 960


def test_parser_finds_exactly_the_stated_facts_in_a_story(story):
    parsed = list(map(make_parser(), load_documents([story / "text.txt"])))
    probes = [json.loads(line) for line in (story / "probes.jsonl").read_text().splitlines()]
    assert set(parsed) - {None} == {tuple(probe["triple"]) for probe in probes if probe["group"] == "stated"}
    assert 0.5 < sum(triple is not None for triple in parsed) / len(parsed) < 0.8  # others state nothing


def test_nearly_half_of_the_aligned_sentences_do_not_state_their_relation(story):
    examples, parse = align(load_documents([story / "text.txt"]), load_triples(story / "kg.tsv")), make_parser()
    stated = [parse(lexicalize(words, "Ann", "Bob")) == ("Ann", relation, "Bob")
              for relation, sentences in examples.items() for words in sentences]
    assert 0.45 < sum(stated) / len(stated) < 0.6


def test_faithfulness_is_measured_against_the_triple_that_a_sentence_was_written_for():
    triples = [("Ann", "lives in", "crypt"), ("Ann", "guards", "crypt"), ("Bob", "fears", "Ann"),
               ("Cleo", "fears", "Bob"), ("Bob", "loves", "Ann")]
    sentences = ["Ann lives in the crypt.", "Ann guards the crypt.",  # the second one states the other fact
                 "Ann guards the crypt.", "Ann defends the crypt from intruders.",
                 "Bob is afraid of Ann.", "Bob serves Ann.",  # not in the graph
                 "Bob loves Ann."]  # Cleo has none
    assert evaluate_synthetic(sentences, triples, 2) == {
        "faithfulness": 5 / 7, "in_graph": 6 / 7, "right_wordings": 5}
