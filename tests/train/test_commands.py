"""What train.py and sample.py do in all their modes."""

import functools
import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image, ImageColor

import train
from mingpt_mm import GPT, GPTConfig, load_run
from mingpt_mm.data.datasets import load_frames

FINAL = {"val_loss", "best_step", "seconds", "tokens_per_second", "gan_seconds"}
SHOWN = {f"{name}_{shown}" for name in ("exact_match", "val_loss") for shown in ("blank", "shuffled")} | {"exact_match"}
FRAMES = {f"exact_match_{shown}" for shown in ("reversed", "first_frame", "shuffled_frames")}
FILES = ["best.pt", "last.pt", "log.jsonl", "progress.png"]
IMAGE = "images/images/3.png"


# ---- train.py ----

@pytest.mark.parametrize("run, keys, files", [
    ("seen", SHOWN, []), ("moving", SHOWN | FRAMES, []),
    ("told", {"recall_stated", "recall_graph_only", "perplexity"}, ["synthetic.txt", "text.txt"])])
def test_a_run_leaves_its_files_and_a_final_record(shell, run, keys, files):
    assert sorted(path.name for path in Path(run).iterdir()) == FILES + files
    record, = shell.log(run, "final")
    assert FINAL | keys <= set(record) and record["step"] == shell.saved(run)["step"] == 8
    assert (record["gan_seconds"] > 0) == (run == "told")
    losses = {event["step"]: event["val_loss"] for event in shell.log(run, "eval")}
    assert record["val_loss"] == pytest.approx(losses[record["best_step"]], rel=1e-4) and set(losses) == {0, 4, 8}


def test_training_teaches_captions_and_a_text_alone_and_behind_images(shell):
    options = "--steps 120 --eval_interval 120 --learning_rate 3e-3 --dropout 0"
    out = shell(f"train.py TINY IMAGES {options} --text text.txt --out run")
    first, *_, last = shell.log("run", "step")
    assert all(first[name] > 1.5 * last[name] for name in ("loss", "text_loss", "image_text_loss"))
    assert "uses the image" in out and "more data" not in out and out.endswith("python sample.py --run run\n")


def test_the_baselines_of_the_gan_are_options(shell):
    assert ["d_loss" in event for event in shell.log("told", "gan")] == [True]
    assert 0 < len(Path("told/synthetic.txt").read_text().strip().split("\n\n")) <= 2 * 40  # triples
    shell("train.py adversarial TINY STORY --gan_steps 0 --out likelihood")
    assert ["d_loss" in event for event in shell.log("likelihood", "gan")] == [False]
    shell("train.py adversarial TINY --text text.txt --sentences 0 --out alone")
    assert not shell.log("alone", "gan") and not Path("alone/synthetic.txt").read_text().strip()


@pytest.mark.parametrize("argv, expected", [
    ("--world clips --frames 2 SMALL", {"n_layer": 2, "learning_rate": 2e-3, "loop": "multimodal"}),
    ("adversarial --gan_warmup 2 --gan_steps 1", {"n_embd": 128, "learning_rate": 3e-3, "loop": "adversarial"})])
def test_worlds_and_loops_have_their_own_defaults_and_runs_have_numbers(shell, monkeypatch, argv, expected):
    folders = {"runs/clips-0": "clips", "runs/story-0": "."}
    monkeypatch.setattr(train.castle, "world_folder", lambda name, write, *args: folders[name])
    for i in (1, 2):
        shell(f"train.py {argv} FAST --steps 1 --weight-decay 0.2")
        args = shell.saved(f"runs/{expected['loop']}-{i}")["args"]
        assert args | expected == args and args["weight_decay"] == 0.2


@pytest.mark.parametrize("freeze", ["gpt", "vit", "gpt vit", "gpt --freeze vit"])
def test_weights_and_tokenizer_of_a_run_are_kept_and_only_frozen_parts_do_not_learn(shell, freeze):
    load_run("seen")[0].vit.save_pretrained("vit")
    shell(f"train.py FAST --data images --image_size 16 --init told --vit vit --freeze {freeze} --out run")
    run, told, seen = shell.saved("run"), shell.saved("told", "best.pt"), shell.saved("seen", "best.pt")
    before = seen["model"] | {f"gpt.{name}": value for name, value in told["model"].items()}
    for part in ("gpt", "vit"):
        same = [torch.equal(value, before[n]) for n, value in run["model"].items() if n.startswith(part)]
        assert same and all(same) == (part in freeze) and run["tokenizer"] == told["tokenizer"]


# A29
@pytest.mark.skipif("TIKTOKEN_CACHE_DIR" not in os.environ, reason="TIKTOKEN_CACHE_DIR is not set")
def test_a_released_gpt_with_added_tokens_learns_slowly_and_the_connector_fast(shell):
    gpt = GPT(GPTConfig(64, 50258, 1, 2, 8)).eval()
    gpt.save_pretrained("gpt")
    for more, factor in (("", 20), ("--connector_lr_factor 3", 3)):
        shell(f"train.py FAST IMAGES --steps 1 --init gpt {more} --out run{factor}")
        run = shell.saved(f"run{factor}")
        rates = [group["lr"] for group in run["optimizers"][0]["param_groups"]]
        assert max(rates) / min(rates) == pytest.approx(factor) and run["args"]["learning_rate"] == 5e-5
        weight = train.restore(run)[0].gpt.h[0].mlp.c_fc.weight
        assert weight.stride() == (1, 32)  # as in the file, also after --resume
    tokens = gpt.generate(torch.tensor([[50256, 15496, 995]]), 3)[0, 1:].tolist()
    expected = train.make_tokenizer("gpt2").decode([token for token in tokens if token < 50256])
    assert shell("sample.py --init gpt --prompt 'Hello world' --max_new_tokens 3") == f"{expected}\n"


def test_a_compiled_run_saves_what_any_run_saves(shell, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True))
    for option in ("", "--compile"):
        shell(f"train.py TINY IMAGES --dropout 0 --steps 2 {option} --out run{option}")
    torch.testing.assert_close(shell.saved("run")["model"], shell.saved("run--compile")["model"], atol=1e-4, rtol=1e-4)


# ---- sample.py ----

def test_without_options_the_newest_run_shows_its_validation_rows_or_probes(shell):
    for run, pattern, n in (("seen", r"images/images/(9|19)\.png: [^/]*  \(right", 2),
                            ("told", r"(stated|graph_only): \w+ (lives in|fears)[^/]*?  \(right", 7)):
        Path("runs").mkdir(exist_ok=True)
        Path(run).rename(f"runs/{run}")
        Path(f"runs/{run}/last.pt").touch()
        assert len(re.findall(pattern, shell("sample.py"))) == n


def test_long_documents_are_cut_and_the_newest_run_with_a_model_is_asked(shell):
    shell("train.py adversarial TINY --text text.txt --sentences 0 --block_size 8 --steps 2 --out runs/short")
    Path("runs/newer").mkdir()
    Path("runs/newer/last.pt").touch()
    assert shell("sample.py --max_new_tokens 3") == shell("sample.py --run runs/short --max_new_tokens 3")


def test_files_animations_and_folders_of_frames_are_described_as_by_the_library(shell):
    Path("frames").mkdir()
    for name, color in (("9.png", "red"), ("10.png", "blue")):
        Image.new("RGB", (20, 16), color).save(Path("frames", name))
    for run, files in (("moving", ["frames", "frames/9.png", "clips/5.gif"]), ("seen", ["frames/9.png", IMAGE])):
        model, tokenizer, args = load_run(run)
        pixels = [load_frames(file, frames=model.frames, size=args.image_size)[None] for file in files]
        captions = [model.caption(shown, tokenizer)[0] for shown in pixels]
        out = shell(f"sample.py --run {run} --image {' '.join(files[:-1])} --video {files[-1]} --explain words.png")
        assert out == "".join(f"{file}: {caption}\n" for file, caption in zip(files, captions))
        assert Image.open("words.png").width > 400 and not model.training
        assert isinstance(model.caption(pixels[0], tokenizer, top_p=0.9)[0], str)


# L1: --top_p without --temperature
def test_sampling_options_reach_the_model(shell):
    def texts(options):
        line = f"sample.py --run seen --image {IMAGE} --prompt a --num_samples 3 --max_new_tokens 9 {options}"
        return shell(line).split(f"{IMAGE}: ")[1:]
    greedy, drawn = texts(""), texts("--temperature 1 --seed 1")
    assert greedy == texts("--top_k 1") == texts("--temperature 1 --top_p 1e-6") and len(set(greedy)) == 1
    assert len(set(texts("--top_p 0.9"))) == len(set(texts("--top_k 50"))) == 3  # each means temperature 1
    assert drawn == texts("--temperature 1 --seed 1") != texts("--temperature 1 --seed 2")
    assert len("".join(texts("--temperature 1 --max_new_tokens 1"))) < len("".join(drawn))


# A31, A33
@pytest.mark.parametrize("files", ["", f"--image {IMAGE}"])
def test_a_prompt_is_continued_or_choices_for_it_are_ranked_and_spaces_around_them_do_not_count(shell, files):
    out = shell(f"sample.py --run seen {files} --prompt 'a red ' --max_new_tokens 5")
    assert out == shell(f"sample.py --run seen {files} --prompt 'a red' --max_new_tokens 5") and "a red" in out
    out = shell(f"sample.py --run seen {files} --prompt a --choices 'blue one|red one|lime one'")
    assert out == shell(f"sample.py --run seen {files} --prompt 'a ' --choices ' blue one |red one  |  lime one '")
    shares = [float(share) for share in re.findall(r"^(?:.*: )?(0\.\d+)  a \w+ one", out, re.MULTILINE)]
    assert len(shares) == 3 and sum(shares) == pytest.approx(1, abs=2e-4) and shares == sorted(shares)[::-1]


def test_ask_goes_on_from_the_name_behind_the_caption(shell, monkeypatch):
    monkeypatch.setattr(GPT, "complete", lambda self, tokenizer, prompt, prefix, *_, **__: [
        f"{prompt} tower." if prompt else "Ann, a red bat"])
    out = shell(f"sample.py --run seen --image {IMAGE} images/images/4.png --ask 'lives in the'")
    assert out == "".join(f"images/images/{i}.png: Ann, a red bat\nAnn lives in the tower.\n" for i in (3, 4))


def test_a_folder_is_scored_as_the_validation_rows_are(shell):
    rows = Path("images/captions.jsonl").read_text().splitlines()[9::10]
    Path("images/captions.jsonl").write_text("\n".join(rows))
    told = dict(line.split() for line in shell("sample.py --run seen --data images").splitlines())
    record, = shell.log("seen", "final")
    expected = {name: record[name] for name in SHOWN | {"val_loss"}}
    assert {name: float(value) for name, value in told.items()} == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("option", ["", f"--image {IMAGE}"])
def test_a_chat_answers_as_the_whole_dialogue_without_a_cache_would(shell, option):
    shell("train.py TINY IMAGES --steps 60 --eval_interval 60 --learning_rate 3e-3 --out run")
    model, tokenizer, _ = load_run("run")
    prefix = model.encode_images(load_frames(IMAGE, 1, 16)[None]) if option else None
    dialogue, expected = [tokenizer.eot_token], []
    for line in ("a red", "one."):
        dialogue += tokenizer.encode_ordinary(line + "\n" * line.endswith("."))
        answer = []
        while len(answer) < 12 and b"\n" not in tokenizer.decode_bytes(answer):
            token = model.gpt(torch.tensor([dialogue + answer]), prefix)[0, -1].argmax().item()
            answer.append(token if token < tokenizer.eot_token else 10)  # the byte "\n"
        answer = answer[:-1] if answer[-1] == 10 else answer
        dialogue += answer + tokenizer.encode_ordinary("\n")
        expected.append(tokenizer.decode(answer).strip())
    out = shell(f"sample.py --run run --chat {option} --max_new_tokens 12", typed="a red\none.\n")
    assert [text.replace("(a new dialogue)", "").strip() for text in out.split("> ")[1:]] == [*expected, ""]


def test_a_chat_survives_long_lines_a_full_context_and_a_closed_standard_input(shell):
    assert shell("sample.py --run told --chat", typed=None).strip() in ("", ">")
    talk = shell("sample.py --run told --chat --max_new_tokens 9", typed="z" * 99 + "\n" + "Ada lives\n" * 12)
    assert talk.count("> ") == 14


# A09
def test_text_outside_the_encoding_of_the_console_is_escaped(shell):
    names = ["ليلى", "سامي", "نور", "هدى", "عمر", "دينا"]
    Path("kg.tsv").write_text("\n".join(f"{n}\tتعيش في\tروما" for n in names), encoding="utf-8")
    Path("text.txt").write_text("\n\n".join(f"{n} تعيش في روما." for n in names * 2), encoding="utf-8")
    shell("train.py adversarial TINY --text text.txt --kg kg.tsv --gan_warmup 99 --steps 1 --out a", encoding="ascii")
    status, out, err = shell.spawn("sample.py --run a --prompt ليلى", PYTHONIOENCODING="cp1252")
    assert status == 0 and out.startswith(rb"\u0644\u064a\u0644\u0649"), err.decode()


def test_a_run_learns_to_draw_what_a_caption_says(shell):
    shell("train.py TINY IMAGES --draw --dropout 0 --steps 120 --eval_interval 60 --learning_rate 1e-2 --out run")
    assert shell.log("run", "final")[0]["exact_match"] == 1 and "draw_loss" in shell.log("run", "step")[0]
    colors = {name: torch.tensor(ImageColor.getrgb(name)) for name in ("red", "blue", "lime")}
    for name in colors:
        assert shell(f"sample.py --run run --draw 'one in {name}' --num_samples 5 --out sheet") == ""
        with Image.open("sheet") as sheet:
            assert (sheet.format, sheet.size) == ("PNG", (50, 33))  # 16 pixels each, a line between
            mean = torch.tensor(sheet.crop((0, 0, 16, 16)).resize((1, 1), Image.BOX).getpixel((0, 0)))
        assert name == min(colors, key=lambda other: (colors[other] - mean).abs().sum())


def test_muon_gets_the_matrices_of_all_blocks_and_adamw_the_rest(shell):
    shell("train.py TINY IMAGES --optimizer muon --vit_layers 2 --out run")
    model, (adamw, muon) = shell.saved("run")["model"], shell.saved("run")["optimizers"]
    assert sum(len(group["params"]) for group in muon["param_groups"]) == 3 * 4  # blocks, and matrices in each
    assert sum(len(group["params"]) for group in adamw["param_groups"]) == len(model) - 3 * 4
    assert all("momentum_buffer" in state for state in muon["state"].values())


def test_dropout_acts_in_training_and_not_in_evaluation(shell):
    for dropout in (0.0, 0.5):
        shell(f"train.py TINY IMAGES --dropout {dropout} --steps 2 --log_interval 1 --out {dropout}")
    (plain, *_), (dropped, *_) = (shell.log(run, "step") for run in ("0.0", "0.5"))
    assert abs(plain["loss"] - dropped["loss"]) > 1e-4
    assert shell.log("0.0", "eval")[0]["val_loss"] == shell.log("0.5", "eval")[0]["val_loss"]
