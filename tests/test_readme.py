"""The README cannot lie: its files exist, its commands parse, its lines of code stand in the code, the quick ones run."""

import importlib
import re
import shlex
import sys
from pathlib import Path

import pytest
import torch

import sample
import train
from mingpt_mm.run import parse
from tests.bench import parallel
from tests.bench.experiments import CONVNET, CROWDS, EXPERIMENTS, LOOPS, OPTIONS, RELATION, TWO_LAYERS, edited
from tests.conftest import make_pictures
from tests.test_house import ROOT, SIZES, sources

PAGES = {name: (ROOT / name).read_text(encoding="utf-8") for name in ("README.md", "tests/bench/README.md")}
TEXT = "\n".join(PAGES.values())
QUICK = ["python tests/test_house.py", "python train.py --help", "python -m tests.bench.parallel"]


def blocks(kind):
    """What stands in the fenced blocks of that kind."""
    return re.findall(rf"^```{kind}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


def commands():
    """All commands, in blocks and within sentences, options behind a line break included."""
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    prose = re.sub(r"^```.*?^```", "", TEXT, flags=re.MULTILINE | re.DOTALL)
    inline = [" ".join(text.split()) for text in re.findall(r"`((?:python|torchrun|pip|pytest)\b[^`]*)`", prose)]
    return sorted({line for line in lines + inline if line.strip()})


def test_every_file_that_is_named_is_there():
    named = set(re.findall(r"`((?:mingpt_mm|tests|\.ci)/[\w./]+|\w+\.(?:py|txt))`", TEXT))
    made = {"text.txt", "graph.tsv"}  # by a reader
    rooms = {Path(name).name for name in SIZES} | {"story.txt"}
    missing = [name for name in named if not ((ROOT / name).exists() or name in rooms | made)]
    assert not missing and len(named) > 40


@pytest.mark.parametrize("command", commands())
def test_every_command_has_options_that_there_are(command, capsys, monkeypatch):
    words = shlex.split(re.sub(r"\b(N|W|NAME|X|PATH|LOOP)\b", "1", command.replace("...", "")), comments=True)
    program = words[words.index("-m") + 1] if "-m" in words else next((w for w in words if w.endswith(".py")), words[0])
    if program == "train.py":
        after = words[words.index(program) + 1:]
        loop = after.pop(0) if after and after[0] in train.LOOPS else "multimodal"
        config = {"multimodal": train.MultimodalConfig, "adversarial": train.AdversarialConfig}[loop]
        if "--help" not in after:
            parse(config, [word for word in after if word != "1" or "--" in after[after.index(word) - 1]], "train.py")
    elif program == "sample.py":
        parse(sample.SampleConfig, words[words.index(program) + 1:], program)
    elif program.startswith("tests.bench."):
        monkeypatch.setattr(sys, "argv", [program, "--help"])
        with pytest.raises(SystemExit, match="0"):
            importlib.import_module(program).main()
        told = capsys.readouterr().out
        own = words[:words.index("--")] if "--" in words else words
        assert all(word in told for word in own if word.startswith("--"))
    else:
        assert program in ("pip", "pytest", "mkdir", "ffmpeg") or (ROOT / program).is_file()


@pytest.mark.parametrize("command", QUICK)
def test_quick_commands_print_what_stands_here(command, capsys, monkeypatch):
    assert command in TEXT
    words = shlex.split(command)
    monkeypatch.setattr(sys, "argv", words[1:] if words[1] != "-m" else [words[2]])
    monkeypatch.setattr(parallel, "SIZES", {"gpt2": parallel.SIZES["gpt2"]})  # the larger ones take their time
    if words[1] == "-m":
        importlib.import_module(words[2]).main()
    elif words[1] == "train.py":
        with pytest.raises(SystemExit, match="0"):
            train.main(words[2:])
    else:
        print(*(f"{size:5d}  {name}" for name, size in SIZES.items()), sep="\n")
    told = capsys.readouterr().out
    if words[-1] == "tests.bench.parallel":  # the table, to the last digit
        rows = [line for line in told.splitlines() if line.startswith("| ")]
        assert len(rows) == 2 and all(row in TEXT for row in rows)
    assert told


def test_the_lines_worth_staring_at_stand_in_the_code():
    tour = re.search(r"^## The tour\n(.*?)^## ", PAGES["README.md"], re.MULTILINE | re.DOTALL)[1]
    rooms = re.split(r"^### \d+\. ", tour, flags=re.MULTILINE)[1:]
    texts = sources()
    for room in rooms:
        title, _, body = room.partition("\n")
        code = "\n".join(texts[name] for name in re.findall(r"`(\S+\.py)`", title))
        lines = [line.strip() for block in re.findall(r"```python\n(.*?)```", body, re.DOTALL) for line in block.splitlines()]
        assert 2 <= len(lines) <= 3
        for line in lines:
            assert line in code, (title, line)
    toured = {name for room in rooms for name in re.findall(r"`(\S+\.py)`", room.partition("\n")[0])}
    assert toured == set(SIZES) - {"mingpt_mm/__init__.py"}


def test_what_is_named_in_tables_of_places_and_tests_is_there():
    code = "\n".join(sources().values())
    tests = "\n".join(path.read_text() for path in (ROOT / "tests").glob("*.py"))
    for name in re.findall(r"`(test_\w+)`", TEXT):
        assert re.search(rf"def {name}\b", tests) or (ROOT / f"tests/{name}.py").exists(), name
    for heading in ("Check yourself", "The sketch, mended"):
        section = re.search(rf"^## {heading}\n(.*?)^## ", PAGES["README.md"], re.MULTILINE | re.DOTALL)[1]
        places = re.findall(r"`([A-Za-z_.]+)`", section)
        assert len(places) > 15
        for place in places:
            if not place.endswith(".py"):
                assert all(re.search(rf"\b{part}\b", code) for part in place.split(".")), place


def test_recipes_and_experiments_stand_in_the_readme_as_they_are_tried():
    readme = PAGES["README.md"]
    for recipe in (CROWDS, CONVNET, RELATION):
        assert recipe.strip() in readme
    assert re.sub(r"\s+", " ", TWO_LAYERS) in re.sub(r"\s+", " ", readme)
    rows = re.findall(r"^\| ([^|]*) \|", readme, re.MULTILINE)
    assert set(EXPERIMENTS) <= {row.split(" (")[0].strip("*") for row in rows}


@pytest.mark.parametrize("name", [name for name in EXPERIMENTS if EXPERIMENTS[name]])
def test_every_experiment_is_an_edit_of_the_code_as_it_is(name, tmp_path):
    folder = edited(tmp_path / "code", EXPERIMENTS[name])
    for path in folder.rglob("*.py"):
        compile(path.read_text(), path, "exec")
    assert name in EXPERIMENTS and set(OPTIONS) | set(LOOPS) <= set(EXPERIMENTS)


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = make_pictures(tmp_path / "data")
    train.main(["--data", str(data), "--image_size", "16", "--patch_size", "8", "--steps", "1", "--eval_rows", "1"])
    block, = (block for block in blocks("python") if "save_pretrained" in block and "restore" in block)
    exec(block, {})
    assert (tmp_path / "gpt/model.safetensors").exists() and (tmp_path / "vit/config.json").exists()
    assert torch.is_grad_enabled()
