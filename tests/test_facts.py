"""Portraits after a story: what is kept in the mix, what a resume must find again, and what does not fit."""

from pathlib import Path

import pytest
import torch

import sample
import train
from mingpt_mm import multimodal, prepare
from mingpt_mm.run import load_run, start_run
from mingpt_mm.text import read_documents
from mingpt_mm.tokenizer import unpack_encoding
from tests.test_adversarial import TINY as STORY
from tests.test_commands import refuse, train_a_while, weights

PORTRAITS = ["--world", "portraits", "--init", "story", "--batch_size", "4", "--steps", "12", "--warmup", "2",
             "--eval_interval", "6", "--eval_rows", "8", "--log_interval", "3", "--vit_layers", "1",
             "--dropout", "0.1", "--patch_size", "32"]


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    """The working directory of all these tests, with a tiny run of the adversarial loop in story/."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("facts"))
        train.main([*STORY, "--out", "story"])
        yield


def test_a_run_begins_with_the_weights_the_sizes_and_the_encoding_of_the_one_that_init_names():
    train.main([*PORTRAITS, "--gpt_rate", "0", "--out", "frozen"])
    story, portraits = load_run(Path("story")), load_run(Path("frozen"))
    assert portraits["encoding"] == story["encoding"] and portraits["gpt"] == story["gpt"]
    assert portraits["config"]["n_embd"] == 16 and portraits["config"]["learning_rate"] == 1.5e-3
    assert all(torch.equal(portraits["model"][f"gpt.{name}"], tensor) for name, tensor in story["model"].items())


def test_what_the_gpt_has_read_stays_in_the_mix(monkeypatch):
    encoding, seen = unpack_encoding(load_run(Path("story"))["encoding"]), set()
    batch = train.Documents.batch

    def spy(*arguments):
        tokens, targets = batch(*arguments)
        seen.update(encoding.decode([token for token in row if token != encoding.eot_token]) for row in tokens.tolist())
        return tokens, targets
    monkeypatch.setattr(train.Documents, "batch", spy)
    train.main([*PORTRAITS, "--out", "mixed"])
    file = next(Path("runs").glob("story-0-*")) / "text.txt"
    assert len(seen & set(read_documents(file)[0])) >= 15  # of 48; many of the others are cut
    assert len([text for text in seen if text not in file.read_text()]) >= 15  # of 48 synthetic ones


def test_the_text_changes_the_gpt_and_a_resumed_run_ends_bit_for_bit():
    train.main([*PORTRAITS, "--out", "whole"])
    train_a_while([*PORTRAITS, "--out", "cut"], 9 * 3)  # a batch of portraits a step, and two of text
    Path("story").rename("away")  # a run has what it needs
    train.main(["--resume", "--out", "cut"])
    Path("away").rename("story")
    assert weights("whole") == weights("cut")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prepare, "texts_before", lambda config: [])
        train.main([*PORTRAITS, "--out", "forgetful"])
    assert weights("forgetful") != weights("whole")


def test_ask_takes_the_name_to_a_prompt_of_its_own(capsys, monkeypatch):
    train.main([*PORTRAITS, "--out", "asked"])
    picture = str(next(Path("runs").glob("portraits-0-*")) / "images/03000.png")
    monkeypatch.setattr(multimodal.MultimodalGPT, "caption", lambda *_, **__: ["Ann, a red bat"])
    monkeypatch.setattr(sample.GPT, "complete", lambda self, encoding, prompt, prefix=None, **_: [f"{prompt}|{prefix}"])
    capsys.readouterr()
    sample.main(["--run", "asked", "--image", picture, "--ask", "lives in the"])
    assert capsys.readouterr().out.splitlines() == [f"{picture}: Ann, a red bat", "Ann lives in the|None"]


@pytest.mark.parametrize("argv, message", [
    (["--seed", "1"], "--seed 1: the story of story is of seed 0, with other individuals: take the same seed"),
    (["--n_embd", "32"], "--n_embd 32: the weights have 16"),
    (["--tokenizer", "gpt2"], "--tokenizer gpt2: story brings its own: leave it out"),
    (["--data", "."], "--world portraits: is the castle's: leave out this or --data"),
], ids=lambda value: value[0] if isinstance(value, list) else "")
def test_what_does_not_fit_is_refused(capsys, argv, message):
    assert message in refuse(capsys, train, [*PORTRAITS, *argv])


def test_the_kind_of_weights_sets_other_defaults_than_the_world():
    for init, expected in (("scratch", (2, 2e-3, "bpe")), ("story", (0, 2e-3, "run")), ("gpt2", (0, 5e-5, "gpt2"))):
        config = start_run(train.MultimodalConfig, ["--world", "clips", "--init", init], "multimodal")[0]
        assert (config.n_layer, config.learning_rate, config.tokenizer, config.steps) == (*expected, 1600)
