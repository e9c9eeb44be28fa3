"""No shape in a comment or a docstring is wrong: both training loops and a few direct calls are traced (see shapes.py)."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

import train
from mingpt_mm import GPT, GPTConfig, ViT, ViTConfig
from tests.shapes import Checker, dimensions, match, tracing

ROOT = Path(train.__file__).parent
FILES = [*ROOT.glob("mingpt_mm/model/*.py"), *ROOT.glob("mingpt_mm/graph/*.py"), ROOT / "mingpt_mm/evaluation.py",
         ROOT / "train.py"]
COMMANDS = ["adversarial --kg kg.tsv --probes probes.jsonl --out a --gan_warmup 9 --gan_steps 2 --sentences 3",
            "multimodal --data . --out b --image_size 32 --patch_size 8 --vit_layers 1 --frames 3"]
SMALL = ("--text text.txt --n_embd 24 --n_head 2 --n_layer 1 --batch_size 4 --steps 2 --eval_interval 2 --eval_samples 9 "
         "--device cpu")


def passes():
    """Run everything that has a shape, on a few lines of data in the working directory."""
    facts = [(name, *fact) for name in "Ada Bob Cyd Dee Eve Flo Gus Hal".split() for fact in (("sees", "Rome"), ("fears", "Ulm"))]
    Path("text.txt").write_text("\n\n".join(f"{' '.join(fact)}." for fact in facts))
    Path("kg.tsv").write_text("\n".join("\t".join(fact) for fact in facts))
    Path("probes.jsonl").write_text(json.dumps({"prompt": "Ada sees", "answer": "Rome", "group": "stated"}))
    Image.new("RGB", (20, 16)).save("a.gif", save_all=True, append_images=[Image.new("RGB", (20, 16), "red")])
    Path("captions.jsonl").write_text(12 * (json.dumps({"video": "a.gif", "caption": "black, then red"}) + "\n"))
    for command in COMMANDS:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("sys.argv", f"train.py {command} {SMALL}".split())
            train.main()
    gpt = GPT(GPTConfig(32, 60, 1, 3, 12))
    cache = gpt.new_cache(12)
    gpt(torch.zeros(2, 5, dtype=torch.long), torch.randn(2, 3, 12), cache)
    gpt(torch.zeros(2, 4, dtype=torch.long), cache=cache)  # a chunk after a cache
    gpt.generate(torch.zeros(2, 5, dtype=torch.long), 3, top_p=0.9, eos_token_id=59)
    ViT(ViTConfig(32, 16, 1, 3, 12))(torch.randn(2, 3, 48, 64))  # positions of another resolution


@pytest.fixture(scope="module")
def checkers(tmp_path_factory):
    """{path: [Checker as it is, with a dimension too many in each claim, with all dimensions reversed]}"""
    changes = (lambda claim: claim, lambda claim: [*claim, "1"], lambda claim: claim[::-1])
    checkers = {str(path): [Checker(path.read_text(), change) for change in changes] for path in FILES}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("passes"))
        with tracing(checkers):
            passes()
    return checkers


def test_every_shape_is_checked_and_none_is_wrong(checkers):
    for path, (checker, *_) in checkers.items():
        assert not checker.wrong, (path, checker.wrong)
        missed = checker.claims - checker.checked
        assert not missed, f"{path}: no pass reaches {missed}"
    assert sum(len(checker.checked) for checker, *_ in checkers.values()) > 60


def test_every_planted_error_is_caught(checkers):
    for path, (right, longer, reverse) in checkers.items():
        assert longer.wrong.keys() == right.checked and not longer.checked, path
        assert len(reverse.wrong) >= len(right.checked) / 2, path  # a letter may have its first use there


@pytest.mark.parametrize("claim, shape, known, bound", [
    ("(B, T, 3)", (2, 5, 3), {}, {"B": 2, "T": 5}), ("(B, T, 3)", (2, 5, 4), {}, None), ("(B, B)", (2, 3), {}, None),
    ("(B, P + T)", (2, 7), {"T": 5}, {"T": 5, "B": 2, "P": 2}), ("(B, P + T)", (2, 7), {"T": 5, "P": 3}, None),
    ("(P + T, T)", (7, 5), {}, {"T": 5, "P": 2}), ("(P + T,)", (7,), {}, None), ("(B,)", (2, 1), {}, None),
])
def test_a_claim_is_read_as_a_reader_would(claim, shape, known, bound):
    assert match(dimensions(claim), shape, known) == bound


@pytest.mark.parametrize("text", ["(Williams, et al.)", "(B)", "(the first, of two)", "(f(x), 2)"])
def test_what_is_no_shape_is_not_read_as_one(text):
    assert not dimensions(text)
