"""No shape in a comment or a docstring is wrong: both loops and a few direct calls are traced (see shapes.py)."""

import json
import re
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
from mingpt_mm import GPT, GPTConfig, ViT, ViTConfig
from tests.shapes import COMMENT, DIMENSION, SHAPE, Checker, match, tracing

ROOT = Path(train.__file__).parent
FILES = [*ROOT.glob("mingpt_mm/[mg]*/*.py"), ROOT / "mingpt_mm/evaluation.py", ROOT / "train.py"]  # model/ and graph/
COMMANDS = ["adversarial --kg kg.tsv --probes probes.jsonl --out a --gan_warmup 9 --gan_steps 2 --sentences 3",
            "--data . --out b --image_size 32 --patch_size 8 --vit_layers 1 --frames 3 --draw"]
SMALL = ("--text text.txt --n_embd 24 --n_head 2 --n_layer 1 --batch_size 4 --steps 2 --eval_interval 2 "
         "--eval_samples 9 --device cpu")


def passes(patch):
    """Run everything that has a shape, on a few lines of data in the working directory."""
    facts = [f"{name} {fact}" for name in "Ada Bob Cyd Dee Eve Flo".split() for fact in ("sees Rome", "fears Ulm")]
    Path("text.txt").write_text("\n\n".join(f"{fact}." for fact in facts))
    Path("kg.tsv").write_text("\n".join(fact.replace(" ", "\t") for fact in facts))
    Path("probes.jsonl").write_text(json.dumps({"prompt": "Ada sees", "answer": "Rome", "group": "stated"}))
    Image.new("RGB", (20, 16)).save("a.gif", save_all=True, append_images=[Image.new("RGB", (20, 16), "red")])
    Path("captions.jsonl").write_text(12 * (json.dumps({"video": "a.gif", "caption": "black, then red"}) + "\n"))
    for command in COMMANDS:
        patch.setattr("sys.argv", f"train.py {command} {SMALL}".split())
        train.main()
    GPT(GPTConfig(32, 60, 1, 3, 12)).generate(torch.zeros(2, 5, dtype=torch.long), 3, top_p=0.9)
    ViT(ViTConfig(32, 16, 1, 3, 12))(torch.randn(2, 3, 48, 64))  # positions of another resolution


@pytest.fixture(scope="module")
def checkers(tmp_path_factory):
    """{path: [Checker of the file, Checker of the file with a dimension too many in each claim]}"""
    changes = (lambda claim: claim, lambda claim: [*claim, "1"])
    checkers = {str(path): [Checker(path.read_text(), change) for change in changes] for path in FILES}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("passes"))
        with tracing(checkers):
            passes(patch)
    return checkers


def test_every_shape_is_checked_and_none_is_wrong(checkers):
    found = {path: (right.wrong, right.claims.keys() - right.checked) for path, (right, _) in checkers.items()}
    assert not (problems := {path: lines for path, lines in found.items() if any(lines)}), f"wrong, missed: {problems}"
    assert sum(len(right.checked) for right, _ in checkers.values()) > 60


def test_every_planted_error_is_caught(checkers):
    assert all(right.checked <= planted.wrong.keys() and not planted.checked for right, planted in checkers.values())


@pytest.mark.parametrize("claim, shape, known, found", [
    ("(B, T, 3)", (2, 5, 3), {}, {"B": 2, "T": 5}), ("(B, T, 3)", (2, 5, 4), {}, None), ("(B, B)", (2, 3), {}, None),
    ("(B, P + T)", (2, 7), {"T": 5}, {"T": 5, "B": 2, "P": 2}), ("(B, P + T)", (2, 7), {"T": 5, "P": 3}, None),
    ("(P + T, T)", (7, 5), {}, {"T": 5, "P": 2}), ("(P + T,)", (7,), {}, None), ("(B,)", (2, 1), {}, None)])
def test_a_claim_is_read_as_a_reader_would(claim, shape, known, found):
    assert re.search(COMMENT, f"x = y  # {claim}") and match(re.findall(DIMENSION, claim), shape, known) == found
    assert not any(re.fullmatch(SHAPE, text) for text in ("(B)", "(the first, of two)", "(f(x), 2)", "(Li et al., 2)"))
