"""The pages say what is there: links, quoted lines, commands, and recipes that do what they promise."""

import json
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from PIL import Image

from tests.bench.experiments import copy_code, read_blocks, read_sections

ROOT = Path(__file__).parent.parent
PAGES = {name: (ROOT / name).read_text(encoding="utf-8")
         for name in ("README.md", "mingpt_mm/README.md", "mingpt_mm/RECIPES.md", "tests/bench/README.md")}
IMAGE = "images/images/3.png"
TORCHVISION = """
from types import SimpleNamespace
from torch import nn
models = SimpleNamespace(resnet18=lambda weights: nn.Sequential(
    nn.Conv2d(3, 512, 32, 32), nn.BatchNorm2d(512), nn.AdaptiveAvgPool2d(1), nn.Linear(512, 9)))
"""
WANDB = """
run = None
def init(config):
    global run
    run = __import__("types").SimpleNamespace(log=lambda values: print(values, file=open("sent.txt", "a")))
    return run
"""
RECIPES = {  # a command after the edits of the recipe, and what must be true then
    "a drawn world": ("train.py TINY SMALL --world counts --steps 1 --eval_samples 2", """
        import json, glob
        rows = [json.loads(line) for line in open(glob.glob("runs/counts-0-*/captions.jsonl")[0])]
        assert {row["caption"][0] for row in rows} == set("1234")"""),
    "a relation": ("train.py adversarial TINY --gan_warmup 1 --gan_steps 1 --sentences 1 --steps 1", """
        import glob
        assert "\\tteaches\\t" in open(glob.glob("runs/story-0-*/kg.tsv")[0]).read()"""),
    "another vision encoder": ("train.py TINY IMAGES --out new", """
        import torch, mingpt_mm
        model, tokenizer, args = mingpt_mm.load_run("new")
        pixels = torch.zeros(1, 1, 3, 16, 16, dtype=torch.uint8)
        assert model.encode_images(pixels).shape == (1, 4, 24)
        model.vit.stages = model.vit.stages[:-1]  # patches of half the size
        try:
            assert not model.encode_images(pixels).numel()
        except ValueError as error:
            assert "patches" in str(error)"""),
    "a pretrained ResNet": ("train.py TINY --data images --patch_size 32 --image_size 64 --out new", """
        import mingpt_mm
        model, tokenizer, args = mingpt_mm.load_run("new")
        model.train()
        assert model.gpt.training and not model.vit.body[1].training and model.vit.body[1].running_mean.eq(0).all()
        assert model.connector.in_features == 512"""),
    "another connector": ("train.py TINY IMAGES --out new", """
        import mingpt_mm
        assert len(mingpt_mm.load_run("new")[0].connector) == 3"""),
    "grouped-query attention": ("train.py TINY IMAGES --n_head 8 --n_embd 32 --out new", """
        import torch, mingpt_mm
        gpt = mingpt_mm.GPT(mingpt_mm.GPTConfig(12, 30, 2, 8, 32)).eval()
        tokens, cache = torch.randint(30, (2, 12)), gpt.new_cache(12)
        cached = torch.cat([gpt(part, cache=cache) for part in tokens.split([5, 1, 4, 2], dim=1)], dim=1)
        torch.testing.assert_close(cached, gpt(tokens), atol=1e-5, rtol=1e-4)
        assert cache[0].buffer.shape == (2, 2, 2, 12, 4)"""),
    "a logger of your own": ("train.py TINY IMAGES --out new", """
        assert "eval/exact_match" in open("sent.txt").read()"""),
}


def commands(text):
    """The commands in blocks of the shell, without comments, and those in a line that name all options."""
    lines = "".join(read_blocks(text, "sh")).splitlines() + re.findall(r"`(python (?:train|sample)\.py [^`.]*)`", text)
    return [re.sub(r"\s+#.*", "", line) for line in lines if line.strip()]


def test_the_pages_keep_their_sizes_and_the_first_screen_has_a_picture():
    lines = PAGES["README.md"].splitlines()
    assert len(lines) <= 250 and len(PAGES["README.md"].split()) <= 2500
    assert any(line.startswith("![") for line in lines[:15])
    assert len(PAGES["mingpt_mm/README.md"].splitlines()) <= 300


@pytest.mark.parametrize("name", PAGES)
def test_links_and_pictures_of_a_page_lead_somewhere(name):
    for target, anchor in re.findall(r"\]\((?!http)([^)#]*)#?([^)]*)\)", PAGES[name]):
        page = (ROOT / name).parent / target if target else ROOT / name
        assert page.exists(), target
        titles = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE) if anchor else [anchor]
        assert anchor in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], anchor


def test_lines_that_the_tour_quotes_stand_in_the_code():
    stops = re.findall(r"^## \d\. `(.*)`\n((?:(?!## ).*\n)+)", PAGES["mingpt_mm/README.md"], re.MULTILINE)
    assert [Path(name).stem for name, _ in stops] == "transformer gpt vit multimodal codebook alignment gan train".split()
    step, = re.findall(r"## The training step\n(.*?)\n## ", PAGES["README.md"], re.DOTALL)
    for name, text in [*stops, ("train.py", step)]:
        lines = "\n".join(read_blocks(text, "python")).splitlines()
        code = (ROOT / name).read_text(encoding="utf-8")
        quoted = [line.strip() for line in lines if line.strip() not in ("", "...")]
        assert quoted and not [line for line in quoted if line not in code and line.split("  # ")[0] not in code], name


def test_tests_that_the_pages_name_exist():
    tests = "".join(file.read_text(encoding="utf-8") for file in ROOT.glob("tests/**/test_*.py"))
    named = set(re.findall(r"\btest_\w{20,}", "".join(PAGES.values())))
    assert len(named) > 9 and not [name for name in named if f"def {name}(" not in tests]


@pytest.mark.skipif(not (ROOT / ".ci/run").exists(), reason="no .ci/run")
def test_every_command_of_the_pages_runs_in_ci_or_is_a_bench():
    run = (ROOT / ".ci/run").read_text()
    for command in commands(PAGES["README.md"]):
        assert f"'{command}" in run, command
    for bench in re.findall(r"python -m tests\.bench\.(\w+)(?![^`]*` at commit)", "".join(PAGES.values())):
        assert (ROOT / f"tests/bench/{bench}.py").exists(), bench


@pytest.mark.parametrize("kind", ["Experiment", "Variant"])
def test_the_edits_of_experiments_fit_the_code(kind, tmp_path):
    for name, text in read_sections(kind).items():
        copy_code(tmp_path / name, "".join(read_blocks(text, "diff")))


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_does_what_it_says_on_a_copy_of_the_code(name, shell, tmp_path):
    edits, = read_blocks(read_sections("Recipe")[name], "diff")
    assert sum(line.startswith("+") for line in edits.splitlines()) <= 15
    code, (line, check) = tmp_path / "code", RECIPES[name]
    copy_code(code, edits)
    (code / "wandb.py").write_text(WANDB)
    (code / "torchvision.py").write_text(TORCHVISION)
    program, *argv = shell.words(line)
    for command in ([code / program, *argv], ["-c", textwrap.dedent(check)]):
        done = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, timeout=120,
                              env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(code)})
        assert done.returncode == 0, done.stderr


def run_recipe(name, **scope):
    """Run the Python code of a recipe with the variables `scope`; return all its variables."""
    exec("".join(read_blocks(read_sections("Recipe")[name], "python")), scope)
    return scope


def test_the_recipe_for_own_images_writes_what_train_py_reads(shell):
    Path("FOLDER").mkdir()
    for i in range(12):
        Image.open(IMAGE).save(f"FOLDER/{i}.jpg")
        Path(f"FOLDER/{i}.txt").write_text(f"a lime one, number {i}\n")
    run_recipe("own images")
    assert len(Path("FOLDER/captions.jsonl").read_text().splitlines()) == 12
    shell("train.py TINY SMALL --data FOLDER --steps 1")


def test_the_recipe_for_two_images_trains_on_them_and_puts_both_into_a_prompt(shell, capsys):
    Path("runs").mkdir()
    Path("seen").rename("runs/multimodal-1")
    for name in ("photo.jpg", "portrait.png"):
        Image.new("RGB", (20, 16), "red" if name == "photo.jpg" else "blue").save(name)
    scope = run_recipe("a second image in the prompt")
    assert scope["prefix"].size(1) == 2 * 4 + scope["words"].size(1) and not scope["a"].equal(scope["b"])
    assert capsys.readouterr().out
    rows = []
    for i in range(12):
        Path(f"pairs/{i}").mkdir(parents=True)
        for j in range(2):
            Image.open(f"images/images/{i + j}.png").save(f"pairs/{i}/{j}.png")
        rows.append(json.dumps({"video": f"{i}", "caption": f"two images, {i % 3}"}))
    Path("pairs/captions.jsonl").write_text("\n".join(rows))
    shell("train.py TINY SMALL --data pairs --frames 2 --steps 1")


def test_the_scripts_of_readme_and_recipe_describe_an_image_and_continue_a_text(shell, capsys):
    Path("runs").mkdir()
    Path("seen").rename("runs/multimodal-1")
    Path("told").rename("runs/story")
    Image.open(IMAGE).save("photo.jpg")
    for script in (*read_blocks(PAGES["README.md"], "python"), None):
        if script is None or "load_run" in script:
            exec(script, {}) if script else run_recipe("top-p in a script")
            assert capsys.readouterr().out.strip()
