"""What train.py and sample.py do in all their modes."""

import functools
import json
import os
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
from mingpt_mm import GPT, GPTConfig, MultimodalGPT, load_run
from mingpt_mm.data.datasets import load_frames

FINAL = {"val_loss", "best_step", "seconds", "tokens_per_second", "gan_seconds"}
SHOWN = {f"{name}_{shown}" for name in ("exact_match", "val_loss") for shown in ("blank", "shuffled")} | {"exact_match"}
FRAMES = {f"exact_match_{shown}" for shown in ("reversed", "first_frame", "shuffled_frames")}
FILES = ["best.pt", "last.pt", "log.jsonl", "progress.png"]


def events(run, kind):
    """The events of a `kind` in the log of a run."""
    return [e for line in Path(run, "log.jsonl").open() if (e := json.loads(line))["event"] == kind]


def saved(run, name="last.pt"):
    """The checkpoint of a run."""
    return torch.load(Path(run, name), weights_only=True)


# ---- train.py ----

@pytest.mark.parametrize("run, keys, files", [
    ("seen", SHOWN, []), ("moving", SHOWN | FRAMES, []),
    ("told", {"recall_stated", "recall_graph_only", "perplexity"}, ["synthetic.txt", "text.txt"])])
def test_a_run_leaves_its_files_and_a_final_record(shell, run, keys, files):
    assert sorted(path.name for path in Path(run).iterdir()) == FILES + files
    record, = events(run, "final")
    assert FINAL | keys <= set(record) and record["step"] == saved(run)["step"] == 8
    assert saved(run, "best.pt")["step"] == record["best_step"] and (record["gan_seconds"] > 0) == (run == "told")
    losses = {e["step"]: e["val_loss"] for e in events(run, "eval")}
    assert record["val_loss"] == pytest.approx(losses[record["best_step"]], rel=1e-4) and set(losses) == {0, 4, 8}


def test_training_teaches_the_captions(shell):
    out = shell("train.py TINY IMAGES --steps 120 --eval_interval 120 --learning_rate 3e-3 --dropout 0 --out run")
    first, last = (e["val_loss"] for e in events("run", "eval"))
    assert first > 3 * last and "uses the image" in out and out.endswith("python sample.py --run run\n")


def test_text_is_learned_alone_and_behind_images(shell):
    shell("train.py TINY IMAGES --text text.txt --steps 40 --eval_interval 40 --out run")
    first, last = events("run", "step")[0], events("run", "step")[-1]
    assert all(first[name] > 1.2 * last[name] for name in ("text_loss", "image_text_loss"))


def test_the_baselines_of_the_gan_are_options(shell):
    assert [{"d_loss", "mle_loss"} & set(e) for e in events("told", "gan")] == [{"d_loss"}]
    written = Path("told/synthetic.txt").read_text().strip().split("\n\n")
    names = [line.split("\t")[0] for line in Path("kg.tsv").read_text().splitlines()]
    assert 0 < len(written) <= 2 * len(names) and all(any(name in text for name in names) for text in written)
    shell("train.py adversarial TINY STORY --gan_steps 0 --out likelihood")
    assert ["d_loss" in e for e in events("likelihood", "gan")] == [False]
    shell("train.py adversarial TINY --text text.txt --sentences 0 --out alone")
    assert not events("alone", "gan") and not Path("alone/synthetic.txt").read_text().strip()


@pytest.mark.parametrize("argv, expected", [
    ("--world clips --frames 2 SMALL", {"n_layer": 2, "learning_rate": 2e-3, "loop": "multimodal"}),
    ("adversarial --gan_warmup 2 --gan_steps 1", {"n_embd": 128, "learning_rate": 3e-3, "probes": "./probes.jsonl"})])
def test_worlds_and_loops_have_their_own_defaults_and_runs_have_numbers(shell, monkeypatch, argv, expected):
    monkeypatch.setattr(train, "world_folder", lambda world, seed: world)
    monkeypatch.setattr(train, "story_folder", lambda seed: ".")
    for _ in range(2):
        shell(f"train.py {argv} FAST --steps 1".replace("--warmup_steps", "--warmup-steps"))
    runs = sorted(Path("runs").iterdir())
    assert [run.name[-2:] for run in runs] == ["-1", "-2"]
    args = saved(runs[1])["args"]
    assert args | expected == args and runs[1].name.startswith(args["loop"])


@pytest.mark.parametrize("freeze", ["gpt", "vit", "gpt vit"])
def test_weights_and_tokenizer_of_a_run_are_kept_and_only_frozen_parts_do_not_learn(shell, freeze):
    load_run("seen")[0].vit.save_pretrained("vit")
    shell(f"train.py FAST --data images --image_size 16 --init told --vit vit --freeze {freeze} --out run")
    run, told, seen = saved("run"), saved("told", "best.pt"), saved("seen", "best.pt")
    assert run["tokenizer"] == told["tokenizer"] and run["gpt"]["n_embd"] == 24
    before = {f"gpt.{name}": value for name, value in told["model"].items()} | {
        name: value for name, value in seen["model"].items() if name.startswith("vit.")}
    for part in ("gpt", "vit"):
        same = [torch.equal(run["model"][n], value) for n, value in before.items() if n.startswith(part)]
        assert (all(same) if part in freeze.split() else not all(same)) and same


@pytest.mark.skipif("TIKTOKEN_CACHE_DIR" not in os.environ, reason="TIKTOKEN_CACHE_DIR is not set")
def test_a_released_gpt_with_added_tokens_learns_slowly_and_the_connector_fast(shell):
    gpt = GPT(GPTConfig(64, 50258, 1, 2, 8)).eval()
    gpt.save_pretrained("gpt")
    for more, factor in (("", 20), ("--connector_lr_factor 3", 3)):
        shell(f"train.py FAST IMAGES --steps 1 --init gpt {more} --out run{factor}")
        run = saved(f"run{factor}")
        rates = {group["lr"] for group in run["optimizer"]["param_groups"]}
        assert max(rates) / min(rates) == pytest.approx(factor) and run["args"]["learning_rate"] == 5e-5
        assert run["tokenizer"] == "gpt2" and run["gpt"]["vocab_size"] == 50258
    tokens = gpt.generate(torch.tensor([[50256, 15496, 995]]), 3)[0, 1:].tolist()
    expected = train.make_tokenizer("gpt2").decode([token for token in tokens if token < 50256])
    assert shell("sample.py --init gpt --prompt 'Hello world' --max_new_tokens 3") == f"{expected}\n"


def test_a_compiled_run_saves_what_any_run_saves(shell, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))  # needs no compiler
    shell("train.py TINY IMAGES --dropout 0 --steps 2 --out plain")
    shell("train.py TINY IMAGES --dropout 0 --steps 2 --compile --out compiled")
    torch.testing.assert_close(saved("plain")["model"], saved("compiled")["model"], atol=1e-4, rtol=1e-4)


# ---- sample.py ----

def expect(run, file, prompt="", **sampling):
    """What the model of a run says about a file."""
    model, tokenizer, args = load_run(run)
    pixels = load_frames(file, model.frames, args.image_size)[None]
    return model.caption(pixels, tokenizer, prompt, **sampling)[0]


def test_without_options_the_newest_run_shows_its_validation_rows_or_probes(shell):
    Path("runs").mkdir()
    Path("seen").rename("runs/seen")
    lines = shell("sample.py").splitlines()
    assert [re.fullmatch(r"images/images/(\d+)\.png: .*  \(right.*\)", line)[1] for line in lines] == ["9", "19"]
    Path("told").rename("runs/told")
    Path("runs/told/last.pt").touch()
    probe = json.loads(Path("probes.jsonl").read_text().split("\n")[0])
    lines = shell("sample.py").splitlines()
    assert len(lines) == 6 and lines[0].startswith(f"stated: {probe['prompt']}") and "  (right" in lines[0]


def test_files_animations_and_folders_of_frames_are_described(shell):
    Path("frames").mkdir()
    for name, color in (("9.png", "red"), ("10.png", "blue")):
        Image.new("RGB", (20, 16), color).save(Path("frames", name))
    files = ["clips/0.gif", "frames", "frames/9.png", "clips/5.gif"]
    lines = shell(f"sample.py --run moving --image {' '.join(files[:3])} --video clips/5.gif").splitlines()
    assert lines == [f"{file}: {expect('moving', file)}" for file in files]
    assert shell("sample.py --run seen --image images/images/3.png") == (
        f"images/images/3.png: {expect('seen', 'images/images/3.png')}\n")


def test_a_prompt_begins_the_text_or_the_caption_and_its_last_spaces_do_not_count(shell):
    for files in ("", "--image images/images/3.png"):
        out = shell(f"sample.py --run seen {files} --prompt 'a red ' --max_new_tokens 5")
        assert out == shell(f"sample.py --run seen {files} --prompt 'a red' --max_new_tokens 5") and "a red" in out


def test_sampling_options_reach_the_model(shell):
    def texts(options):
        line = f"sample.py --run seen --image images/images/3.png --prompt a --num_samples 3 --max_new_tokens 9 {options}"
        return shell(line).split("images/images/3.png: ")[1:]
    greedy = texts("")
    assert greedy == texts("--top_k 1") == texts("--temperature 1 --top_p 1e-6") and len(set(greedy)) == 1
    assert len(set(texts("--top_p 0.9"))) == len(set(texts("--top_k 50"))) == 3  # each means temperature 1
    drawn = texts("--temperature 1 --seed 1")
    assert drawn == texts("--temperature 1 --seed 1") != texts("--temperature 1 --seed 2")
    assert len("".join(texts("--temperature 1 --max_new_tokens 1"))) < len("".join(drawn))


@pytest.mark.parametrize("files", ["", "--image images/images/3.png"])
def test_choices_are_ranked_and_spaces_around_them_do_not_count(shell, files):
    out = shell(f"sample.py --run seen {files} --prompt a --choices 'blue one|red one|lime one'")
    assert out == shell(f"sample.py --run seen {files} --prompt 'a ' --choices ' blue one |red one  |  lime one '")
    shares = [float(share) for share in re.findall(r"^(0\.\d+)  a \w+ one", out, re.MULTILINE)]
    assert len(shares) == 3 and sum(shares) == pytest.approx(1, abs=2e-4) and shares == sorted(shares)[::-1]


def test_ask_goes_on_from_the_name_behind_the_caption(shell, monkeypatch):
    def caption(self, pixels, tokenizer, prompt="", **_):
        return [f"{prompt} tower." if prompt else "Ann, a red bat"]
    monkeypatch.setattr(MultimodalGPT, "caption", caption)
    files = ["images/images/3.png", "images/images/4.png"]
    lines = shell(f"sample.py --run seen --image {' '.join(files)} --ask 'lives in the'").splitlines()
    assert lines == sum([[f"{file}: Ann, a red bat", "Ann lives in the tower."] for file in files], [])


def test_a_folder_is_scored_as_the_validation_rows_are(shell):
    rows = Path("images/captions.jsonl").read_text().splitlines()[9::10]
    Path("images/captions.jsonl").write_text("\n".join(rows))
    told = dict(line.split() for line in shell("sample.py --run seen --data images").splitlines())
    record, = events("seen", "final")
    assert {name: float(value) for name, value in told.items()} == pytest.approx(
        {name: record[name] for name in SHOWN | {"val_loss"}}, rel=1e-3)


@pytest.mark.parametrize("image", ["", "images/images/3.png"])
def test_a_chat_answers_as_the_whole_dialogue_without_a_cache_would(shell, image):
    (model, tokenizer, args), dialogue, answers = load_run("seen"), [], []
    prefix = model.encode_images(load_frames(image, 1, 16)[None]) if image else None
    dialogue += [tokenizer.eot_token]
    for line in ("a red", "one."):
        dialogue += tokenizer.encode_ordinary(line + "\n" * line.endswith("."))
        answer = []
        while len(answer) < 6:
            token = model.gpt(torch.tensor([dialogue + answer]), prefix)[0, -1].argmax().item()
            if token == tokenizer.eot_token or b"\n" in tokenizer.decode_single_token_bytes(token):
                break
            answer.append(token)
        answers.append(tokenizer.decode(answer))
        dialogue += answer + tokenizer.encode_ordinary("\n")
    option = f"--image {image}" if image else ""
    out = shell(f"sample.py --run seen --chat {option} --max_new_tokens 6", typed="a red\none.\n")
    out = out.replace("(a new dialogue)", "")
    assert [text.strip() for text in out.split("> ")[1:]] == [answer.strip() for answer in answers] + [""]


def test_a_chat_survives_long_lines_a_full_context_and_a_closed_standard_input(shell):
    assert shell("sample.py --run told --chat", typed=None).strip() in ("", ">")
    talk = shell("sample.py --run told --chat --max_new_tokens 9", typed="z" * 99 + "\n" + "Ada lives\n" * 12)
    assert "too long" in talk and talk.count("> ") == 14 and talk.count("new dialogue") >= 1


def test_explain_writes_a_picture(shell):
    shell("sample.py --run moving --image clips/0.gif --explain words.png")
    assert Image.open("words.png").width > 400


def test_text_outside_the_encoding_of_the_console_is_escaped(shell):
    names = ["ليلى", "سامي", "نور", "هدى", "عمر", "دينا"]
    Path("kg.tsv").write_text("\n".join(f"{n}\tتعيش في\tروما" for n in names), encoding="utf-8")
    Path("text.txt").write_text("\n\n".join(f"{n} تعيش في روما." for n in names * 2), encoding="utf-8")
    shell("train.py adversarial TINY --text text.txt --kg kg.tsv --gan_warmup 100 --steps 1 --out run", encoding="ascii")
    process = shell.spawn("sample.py --run run --prompt ليلى", PYTHONIOENCODING="cp1252")
    out, err = process.communicate(timeout=100)
    assert process.returncode == 0 and out.startswith(r"\u0644\u064a\u0644\u0649".encode()), err.decode()


def test_the_library_is_used_as_the_design_says(shell):
    model, tokenizer, args = load_run("seen")
    pixels = load_frames("images/images/3.png", frames=1, size=args.image_size)[None]
    assert pixels.shape == (1, 1, 3, 16, 16) and pixels.dtype == torch.uint8 and not model.training
    text, = model.caption(pixels, tokenizer, top_p=0.9)
    assert isinstance(text, str)
