"""The adversarial loop as a user calls it: its arms, its files, its resume, and what it says to bad input."""

import json
import os
import re
from pathlib import Path

import pytest
import torch

from PIL import Image, ImageColor

import sample
import train
from mingpt_mm import BadInput, prepare
from mingpt_mm.alignment import align
from mingpt_mm.text import read_probes
from mingpt_mm.draw import COLOURS, RIGHT, WRONG, draw_story
from mingpt_mm.gan import GAN
from mingpt_mm.evaluate import score
from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.multimodal import restore
from mingpt_mm.run import load_checkpoint
from mingpt_mm.story import make_parser
from mingpt_mm.tokenizer import unpack_encoding
from tests.bench.facts import measure
from tests.test_commands import command, final, refuse, weights

TINY = ["adversarial", "--n_embd", "16", "--n_head", "2", "--n_layer", "1", "--block_size", "32", "--batch_size", "4",
        "--steps", "12", "--warmup", "2", "--eval_interval", "6", "--eval_rows", "8", "--log_interval", "3",
        "--gan_warmup", "100", "--gan_steps", "100", "--sentences", "3", "--vocab_size", "300"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test has a working directory of its own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def gan_run(tmp_path_factory):
    """The folder of a tiny run on the castle's story, and what it printed."""
    folder = tmp_path_factory.mktemp("gan")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.main([*TINY, "--out", "run"])
    return folder / "run"


def events(folder, kind):
    """The records of that kind in a run's log."""
    return [e for line in Path(folder, "log.jsonl").open() if (e := json.loads(line))["event"] == kind]


def test_a_run_tells_what_it_measured(gan_run):
    record = final(gan_run)
    assert {"recall_stated", "recall_graph_only", "recall_neither", "ranking_stated", "ranking_graph_only",
            "perplexity", "faithfulness", "distinct_wordings", "discriminator_accuracy", "gan_seconds",
            "seconds"} <= set(record)
    assert record["event"] == "final" and record["step"] == 12 and 0 < record["gan_seconds"] < record["seconds"]
    gan = events(gan_run, "gan")
    assert [e["step"] for e in gan] == [100, 200] and len(gan[0]["sentences"]) == 3
    assert {"discriminator_loss", "generator_loss", "believes_real", "believes_fake", "distinct_wordings"} <= set(gan[1])
    assert [e["step"] for e in events(gan_run, "step")] == [3, 6, 9, 12]
    assert {"loss", "synthetic_loss"} <= set(events(gan_run, "step")[0])
    pixels = {colour for _, colour in Image.open(gan_run / "progress.png").getcolors(2**20)}
    assert {ImageColor.getrgb(colour) for colour in (WRONG, *COLOURS)} <= pixels
    assert [[score is None for score, _, _ in e["sentences"]] for e in gan] == [[True] * 3, [False] * 3]


def test_the_picture_shows_true_sentences_in_green_and_false_ones_in_red(tmp_path):
    for text, present, absent in (("Ann loves Bob.", RIGHT, WRONG), ("Bob loves Ann.", WRONG, RIGHT)):
        event = {"event": "gan", "step": 100, "sentences": [[-1.5, ["Ann", "loves", "Bob"], text]]}
        draw_story(tmp_path / "p.png", [event, {"event": "eval", "step": 1, "val_loss": 1.0}], make_parser())
        pixels = {colour for _, colour in Image.open(tmp_path / "p.png").getcolors(2**20)}
        assert ImageColor.getrgb(present) in pixels and ImageColor.getrgb(absent) not in pixels


@pytest.mark.parametrize("arm", ["mle", "templates", "linear", "none"])
def test_every_arm_takes_as_many_steps(arm):
    train.main([*TINY, "--synthetic", arm, "--out", "run"])
    record = final("run")
    assert record["step"] == 12 and ("faithfulness" in record) == (arm != "none")
    assert "discriminator_accuracy" not in record
    optimizer = load_checkpoint(Path("run/last.pt"))["optimizer"]["state"]
    assert {state["step"].item() for state in optimizer.values()} == {24}  # two updates a step


@pytest.fixture(scope="module")
def default_run(tmp_path_factory):
    """The working directory of the default run, as the README starts it, and what it printed."""
    folder = tmp_path_factory.mktemp("default")
    process = command("adversarial", cwd=folder)
    assert process.returncode == 0, process.stderr
    return folder, process.stdout


def test_the_default_run_knows_what_only_the_graph_says(default_run):
    folder, output = default_run
    record = final(folder / "runs/adversarial-1")
    assert record["recall_graph_only"] >= 0.75 and record["recall_stated"] >= 0.85
    assert record["recall_neither"] <= 0.2 and record["ranking_graph_only"] >= 0.8
    assert record["faithfulness"] >= 0.88 and record["distinct_wordings"] >= 60
    assert record["discriminator_accuracy"] >= 0.9
    assert "recall_graph_only" in output
    assert output.splitlines()[-1] == "python sample.py --run runs/adversarial-1"


@torch.no_grad()
def test_its_recall_is_what_generation_writes(default_run):
    folder, _ = default_run
    checkpoint = load_checkpoint(folder / "runs/adversarial-1/last.pt")
    gpt, encoding, right = restore(checkpoint), unpack_encoding(checkpoint["encoding"]), {}
    for probe in read_probes(next(folder.glob("runs/story-*")) / "probes.jsonl"):
        text, = gpt.complete(encoding, probe["prompt"])
        answered = re.match(re.escape(f"{probe['prompt']} {probe['answer']}") + r"\b", text) is not None
        right.setdefault(probe["group"], []).append(answered)
    for group, answers in right.items():
        assert final(folder / "runs/adversarial-1")[f"recall_{group}"] == pytest.approx(sum(answers) / len(answers))


@torch.no_grad()
def test_portraits_bring_what_the_text_model_knows(default_run):
    folder, _ = default_run
    story, out = folder / "runs/adversarial-1", folder / "portraits"
    process = command("multimodal", "--world", "portraits", "--init", story, "--out", out, cwd=folder)
    assert process.returncode == 0, process.stderr
    known, told = measure(out, 0), final(story)
    assert known["name_stated"] >= 0.9 and known["name_graph_only"] >= told["recall_graph_only"] - 0.1
    assert known["blank_name_stated"] <= 0.15 and known["blank_name_graph_only"] <= 0.15


class Interrupt(Exception):
    """Stands for whatever ends a run."""


@pytest.mark.parametrize("arm", ["gan", "none"])
def test_a_resumed_run_ends_bit_for_bit_as_an_uninterrupted_one(arm, monkeypatch, gan_run):
    argv = [*TINY, "--synthetic", arm, "--workers", "1"]
    if arm == "none":
        train.main([*argv, "--out", "whole"])
        whole = Path("whole")
    else:
        whole = gan_run
    begin_step, left = train.begin_step, iter(range(8))

    def begin_a_while(*arguments):
        if next(left, None) is None:
            raise Interrupt
        begin_step(*arguments)
    with monkeypatch.context() as patch, pytest.raises(Interrupt):
        patch.setattr(train, "begin_step", begin_a_while)
        train.main([*argv, "--out", "cut"])
    assert load_checkpoint(Path("cut/last.pt"))["step"] == 6
    monkeypatch.setattr(prepare, "align", None)  # the GAN stands in the checkpoint
    train.main(["adversarial", "--resume", "--out", "cut"])
    assert weights("cut") == weights(whole)
    for kind in ("gan", "eval", "step", "final"):
        ours, theirs = ([{name: value for name, value in e.items() if "second" not in name and name != "ms"}
                         for e in events(run, kind)] for run in ("cut", whole))
        assert ours == theirs


def test_sample_asks_the_text_model_and_its_gan(gan_run, capsys, monkeypatch):
    probe = read_probes(next(gan_run.parent.glob("runs/story-*")) / "probes.jsonl")[0]
    sample.main(["--run", str(gan_run), "--prompt", probe["prompt"], "--max_new_tokens", "3"])
    assert capsys.readouterr().out.startswith(probe["prompt"])
    monkeypatch.chdir(gan_run.parent)
    sample.main(["--run", str(gan_run)])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in lines] == ["stated"] * 3 + ["graph only"] * 3 + ["neither"] * 3
    assert all(re.search(r"\((right|it is \w+)\)$", line) for line in lines)
    sample.main(["--run", str(gan_run), "--prompt", probe["prompt"], "--choices", "crypt|tower|well|crypt"])
    lines = capsys.readouterr().out.splitlines()
    shares = [float(line.split()[0]) for line in lines]
    assert sum(shares) == pytest.approx(1, abs=1e-3) and shares == sorted(shares, reverse=True)
    checkpoint = load_checkpoint(gan_run / "last.pt")
    gpt, encoding = restore(checkpoint), unpack_encoding(checkpoint["encoding"])
    values = {word: score(gpt, encoding, [probe["prompt"]], [word])[0][0] for word in ("crypt", "tower", "well")}
    assert lines[0].split()[-4] == max(values, key=values.get)
    assert sum(" crypt " in line for line in lines) == 2
    for _ in range(2):
        sample.main(["--run", str(gan_run), "--synthesize", "Ada C++", "lives in", "the (old) Rome", "--num_samples", "5"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 10 and lines[:5] == lines[5:]
    assert all(re.match(r" *-?\d+\.\d\d  ", line) and "Ada C++" in line and "the (old) Rome" in line for line in lines)


def test_released_weights_can_be_fine_tuned():
    torch.manual_seed(0)
    GPT(GPTConfig(32, 300, 1, 2, 16)).save_pretrained("weights")
    train.main(["adversarial", "--init", "weights", "--tokenizer", "bpe", *TINY[9:], "--synthetic", "templates",
                "--out", "run"])
    config = load_checkpoint(Path("run/last.pt"))["config"]
    assert (config["learning_rate"], config["block_size"], config["n_embd"]) == (5e-5, 32, 16)


# ---- a user's own text and graph ----

CITIES = ["Ulm", "New York", "York", "Łódź", "東京", "C++ City"]
TEXT = "\n\n".join(f"{a} is twinned with {b}. {b} lies north of {a}. Rain falls on {a}." for a in CITIES
                   for b in CITIES if a != b)


def write(text=TEXT, kg=None, probes=None):
    """text.txt, kg.tsv and probes.jsonl, and the options that name them."""
    pairs = [(a, b) for a in CITIES for b in CITIES if a != b]
    kg = kg if kg is not None else "".join(f"{a}\ttwinned with\t{b}\n{b}\tnorth of\t{a}\n" for a, b in pairs[::2])
    Path("text.txt").write_text(text, encoding="utf-8")
    Path("kg.tsv").write_text(kg, encoding="utf-8")
    argv = ["--text", "text.txt", "--kg", "kg.tsv"]
    if probes is not None:
        Path("probes.jsonl").write_text(probes, encoding="utf-8")
        argv += ["--probes", "probes.jsonl"]
    return argv


def test_a_users_own_text_and_graph(capsys):
    probe = {"prompt": "Ulm lies north of", "answer": "York", "group": "stated", "triple": ["Ulm", "north of", "York"]}
    train.main([*TINY, *write(probes=json.dumps(probe) + "\n\n"), "--out", "run"])
    assert "2 relations" in capsys.readouterr().out
    assert {"recall_stated", "perplexity", "discriminator_accuracy"} <= set(final("run"))
    assert "recall_neither" not in final("run") and "faithfulness" not in final("run")
    train.main([*TINY, *write(), "--synthetic", "linear", "--out", "other"])  # without probes
    assert "perplexity" in final("other") and "recall_stated" not in final("other")


@pytest.mark.skipif("TIKTOKEN_CACHE_DIR" not in os.environ, reason="TIKTOKEN_CACHE_DIR is not set")
def test_released_weights_come_with_gpt2s_encoding():
    GPT(GPTConfig(32, 50257, 1, 1, 64)).save_pretrained("weights")
    train.main(["adversarial", "--init", "weights", *TINY[9:], "--steps", "2", "--synthetic", "templates", *write(),
                "--out", "run"])
    assert load_checkpoint(Path("run/last.pt"))["encoding"] == "gpt2"


def test_one_relation_alone_has_no_mismatch_and_goes_on():
    kg = "".join(f"{a}\ttwinned with\t{b}\n" for a in CITIES for b in CITIES if a < b)
    train.main([*TINY, *write(kg=kg), "--out", "run"])
    assert final("run")["step"] == 12


def test_a_relation_without_a_sentence_is_told_as_a_template(capsys):
    kg = "Ulm\ttwinned with\tYork\nUlm\tnorth of\tYork\nMars\torbits\tthe Sun\nVenus\torbits\tthe Sun\n"
    train.main([*TINY, *write(kg=kg), "--out", "run"])
    assert "how to say 'orbits': its 2 triples are told as templates" in capsys.readouterr().out


def test_duplicate_triples_are_told(capsys):
    kg = "Ulm\ttwinned with\tYork\nUlm\ttwinned with\tYork\nUlm\ttwinned with\tŁódź\nUlm\tnorth of\tYork\n"
    train.main([*TINY, *write(kg=kg), "--synthetic", "templates", "--out", "run"])
    assert "kg.tsv: 1 lines repeat a triple" in capsys.readouterr().out


@pytest.mark.parametrize("options, message", [
    ({"kg": ""}, "kg.tsv: an empty graph"), ({"kg": "\n \n"}, "kg.tsv: an empty graph"),
    ({"kg": "a\tb\tc\nUlm lies north\n"}, "kg.tsv:2: 'Ulm lies north' is not head<TAB>relation<TAB>tail"),
    ({"kg": "a\tb\tc\n\td\te\n"}, "kg.tsv:2: "), ({"kg": "a\tb\tc\td\n"}, "kg.tsv:1: "),
    ({"kg": "Oz\tnear\tKansas\n"}, "no sentence names the two ends of a triple of kg.tsv"),
    ({"text": "One.\n\nTwo.\n"}, "text.txt: 2 documents, but every tenth is held out"),
    ({"probes": '{"prompt": "a", "answer": "b", "group": "stated", "triple": "ab", "x": 1}'}, "probes.jsonl:1: "),
    ({"probes": "{}\n"}, "probes.jsonl:1: not {"), ({"probes": "\n"}, "probes.jsonl: no probes in it"),
    ({"probes": '{"prompt": "a", "answer": "b", "group": "c", "triple": ["a", "b", "c"]}'}, "probes.jsonl:1: "),
])
def test_bad_files_are_refused_in_one_line(capsys, options, message):
    assert message in refuse(capsys, train, [*TINY, *write(**options), "--out", "run"])


def test_files_that_cannot_be_read_are_refused(capsys):
    argv = write()
    Path("text.txt").write_bytes(b"\xff\xfe\x00 not UTF-8")
    assert "text.txt: not UTF-8" in refuse(capsys, train, [*TINY, *argv])
    Path("text.txt").unlink()
    assert "text.txt" in refuse(capsys, train, [*TINY, *argv])


@pytest.mark.parametrize("argv, message", [
    (["--synthetic", "magic"], "--synthetic magic: must be one of gan, mle, templates, linear, none"),
    (["--text", "text.txt"], "--text and --kg: give both"), (["--keep", "0"], "--keep 0.0: must be a number from 0.01 to 1"),
    (["--probes", "probes.jsonl"], "--text and --kg: give both"), (["--keep", "2"], "--keep 2.0"), (["--two_relations", "2"], "--two_relations 2.0"),
    (["--dropout", "1"], "--dropout 1.0: must be a number from 0 to 0.99"),
])
def test_bad_options_are_refused(capsys, argv, message):
    assert message in refuse(capsys, train, [*TINY, *argv])


def test_sample_refuses_what_a_run_cannot_do(capsys, gan_run):
    for argv, message in ((["--synthesize", "Ada", "dreams", "Rome"], "with one of the relations collects, eats"),
                          (["--synthesize", "Ada"], "give HEAD RELATION TAIL"),
                          (["--image", "a.png"], "this model saw no picture")):
        assert message in refuse(capsys, sample, ["--run", gan_run, *argv])
    train.main([*TINY, "--synthetic", "none", "--out", "plain"])
    assert "this run has no GAN" in refuse(capsys, sample, ["--run", "plain", "--synthesize", "a", "b", "c"])


def test_a_resumed_run_is_of_the_same_loop(capsys, gan_run):
    assert "run is of another loop: python train.py adversarial --resume --out" in refuse(capsys, train, ["--resume", "--out", gan_run])


# ---- what the second batch is made of ----

TRIPLES = [("Ann", "loves", "Bob"), ("Bob", "loves", "Eve"), ("Ann", "orbits", "Mars")]


@pytest.fixture
def gan():
    """An untrained GAN that has seen one relation."""
    torch.manual_seed(0)
    return GAN.from_examples(align(["Ann loves Bob.", "Eve is the darling of Bob."], TRIPLES))


def options(**values):
    """The options of an adversarial run."""
    return train.AdversarialConfig(**{"sentences": 3} | values)


def test_the_graph_in_words_is_what_each_arm_says(gan, capsys):
    assert prepare.write_graph(options(synthetic="none"), None, TRIPLES) == []
    assert prepare.write_graph(options(synthetic="linear"), None, TRIPLES)[0] == (TRIPLES[0], "Ann | loves | Bob")
    assert [text for _, text in prepare.write_graph(options(synthetic="templates"), None, TRIPLES)] == [
        "Ann loves Bob.", "Bob loves Eve.", "Ann orbits Mars."]
    asked = []

    def write(relation, n, rng, keep):
        asked.append((relation, n, keep))
        return [] if len(asked) == 2 else [(["[H]", " adores", " [T]"], 0.5)] * n
    gan.write = write
    for arm, keep in (("gan", 0.85), ("mle", 1.0)):
        asked.clear()
        written = prepare.write_graph(options(synthetic=arm), gan, TRIPLES)
        assert written == [(TRIPLES[0], "Ann adores Bob")] * 3 + [(TRIPLES[2], "Ann orbits Mars.")] * 3
        assert asked == [("loves", 3, keep)] * 2
        out = capsys.readouterr().out
        assert "how to say 'orbits': its 1 triples" in out and "of 1 triples the GAN wrote no sentence" in out


def test_a_gan_that_writes_nothing_is_told(gan):
    gan.write = lambda *arguments: []
    with pytest.raises(BadInput, match="--gan_warmup 1000: the GAN wrote no sentence with both ends"):
        prepare.write_graph(options(), gan, TRIPLES[:2])


def test_the_second_batch_is_another_one_of_the_same_text():
    train.main([*TINY, "--synthetic", "none", "--out", "run", "--log_interval", "1", "--learning_rate", "0",
                "--dropout", "0"])
    steps = events("run", "step")
    assert all(abs(e["loss"] - e["synthetic_loss"]) > 1e-4 for e in steps) and len(steps) == 12
