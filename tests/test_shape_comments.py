"""No shape in a comment or a docstring is wrong: real passes of everything are traced, and each claim is checked.

See shapes.py for what is a claim. `pytest -s tests/test_shape_comments.py` prints how many were checked.
"""

import json
import re
import sys

import pytest
import torch

import sample
import train
from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.vit import ViT, ViTConfig
from tests.test_adversarial import write
from tests.conftest import add_clips, make_pictures
from tests.shapes import Checker, agree, dimensions, tracing
from tests.test_house import ROOT, sources

INTERNALS = {f"mingpt_mm/{room}.py" for room in ("transformer", "gpt", "vit", "multimodal", "gan")}
SMALL = ["--n_embd", "24", "--n_head", "2", "--batch_size", "4", "--warmup", "2", "--log_interval", "5"]
SEEING = [*SMALL, "--image_size", "32", "--patch_size", "8", "--vit_layers", "1", "--steps", "6", "--eval_interval", "3"]
# Ten comments made wrong, each in another way: (file, what stands there, what is planted).
PLANTED = [
    ("mingpt_mm/transformer.py", "q, k, v = self.heads(x)  # (B, nh, T, hs)", "(B, T, nh, hs)"),
    ("mingpt_mm/transformer.py", ".tril(S - T)  # (T, S)", "(S, T)"),
    ("mingpt_mm/gpt.py", "torch.cat([prefix, x], dim=1)  # (B, P + T, C)", "(B, T, C)"),
    ("mingpt_mm/gpt.py", "last=True)[:, -1]  # (B, V)", "(B, 1, V)"),
    ("mingpt_mm/vit.py", "x.flatten(2).transpose(1, 2)  # (B, N, C)", "(B, C, N)"),
    ("mingpt_mm/vit.py", "x + positions  # (B, 1 + N, C)", "(B, 2 + N, C)"),
    ("mingpt_mm/multimodal.py", "super().forward(seen)  # (B, P, C)", "(B, P, D)"),
    ("mingpt_mm/multimodal.py", ".transpose(2, 3)  # (N, H / 2, W / 2, 2, 2, D)", "(N, H, W, 2, 2, D)"),
    ("mingpt_mm/gan.py", "relation], dim=2)  # (B, L, 96)", "(B, L, 128)"),
    ("train.py", "next(source)  # (B, T)", "(B, T, 1)"),
]


def passes(folder, patch):
    """Run everything that has a shape: both loops, their evaluations, sample.py, and what these leave out."""
    lines = ["And then?", "Ulm is twinned with"]
    patch.setattr("builtins.input", lambda _: lines.pop() if lines else sys.exit())
    probe = {"prompt": "Ulm lies north of", "answer": "York", "group": "stated", "triple": ["Ulm", "north of", "York"]}
    train.main(["adversarial", *SMALL, *write(probes=json.dumps(probe)), "--steps", "4", "--eval_interval", "2", "--eval_rows", "8", "--gan_warmup", "20",
                "--gan_steps", "20", "--sentences", "3", "--out", "story"])
    train.main(["--data", str(folder), *SEEING, "--init", "story", "--vit_rate", "0", "--out", "mixed"])
    train.main(["--data", str(folder), *SEEING, "--vit_rate", "0", "--frames", "2", "--out", "frozen"])
    image = str(folder / "images/3.png")
    sample.main(["--run", "frozen", "--image", image, "--choices", "a red one|a blue one"])
    sample.main(["--run", "frozen", "--video", str(folder / "0.gif"), "--temperature", "1", "--top_k", "9", "--top_p", "0.9",
                 "--max_new_tokens", "9"])
    with pytest.raises(SystemExit):
        sample.main(["--run", "story", "--chat", "--max_new_tokens", "4"])
    sample.main(["--run", "story", "--prompt", "Ulm", "--max_new_tokens", "9", "--explain", "heads.png"])
    sample.main(["--run", "frozen", "--image", image, "--max_new_tokens", "9", "--explain", "words.png"])
    gpt, vit = GPT(GPTConfig(32, 60, 1, 3, 12)).eval(), ViT(ViTConfig(32, 16, 1, 3, 12))
    cache = gpt.new_cache(12)
    gpt(torch.randint(60, (2, 5)), torch.randn(2, 3, 12), cache)
    gpt(torch.randint(60, (2, 4)), cache=cache)  # a chunk after a cache
    gpt(torch.randint(60, (2, 5)), last=True)
    GPT(GPTConfig(32, 60, 1, 3, 12, vocab_multiple=64))(torch.randint(60, (2, 5)))
    vit(torch.randn(2, 3, 48, 64))  # positions of another resolution


@pytest.fixture(scope="module")
def checked(tmp_path_factory):
    """{"as it is": Checkers, "planted": Checkers}, by file, after the passes."""
    folder, texts = add_clips(make_pictures(tmp_path_factory.mktemp("data") / "clips")), sources()
    planted = dict(texts)
    for name, there, wrong in PLANTED:
        assert texts[name].count(there) == 1, there
        planted[name] = planted[name].replace(there, re.sub(r"# \(.*\)", f"# {wrong}", there))
    kinds = {"as it is": texts, "planted": planted}
    checkers = {kind: {name: Checker(name, text, name in INTERNALS) for name, text in kinds[kind].items()} for kind in kinds}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("passes"))
        with tracing({str(ROOT / name): [own[name] for own in checkers.values()] for name in texts}):
            passes(folder, patch)
    return checkers


def test_no_claim_is_wrong(checked):
    wrong = [text for checker in checked["as it is"].values() for text in checker.wrong.values()]
    assert not wrong, "\n".join(wrong)


def test_each_claim_is_reached(checked):
    missed = [f"{name}:{line}" for name, checker in checked["as it is"].items()
              for line in sorted((set(checker.comments) - checker.reached) | checker.unread)]
    assert not missed, f"no pass reaches the shapes in {', '.join(missed)}"
    print(sum(len(checker.comments) for checker in checked["as it is"].values()), "shape comments checked")


def test_ten_planted_errors_are_caught(checked):
    for name, there, wrong in PLANTED:
        text = sources()[name]
        line = text[:text.index(there)].count("\n") + 1 + there.count("\n")
        told = checked["planted"][name].wrong.get(line, "")
        assert told.startswith(f"{name}:{line}: says {wrong}, is ("), (there, told)
    assert sum(len(checker.wrong) for checker in checked["planted"].values()) == len(PLANTED)


@pytest.mark.parametrize("claim, shape, known, found", [
    ("(B, T, 3)", (2, 5, 3), {}, {"B": 2, "T": 5}), ("(B, T, 3)", (2, 5, 4), {}, None), ("(B, B)", (2, 3), {}, None),
    ("(B, P + T)", (2, 7), {"T": 5}, {"B": 2, "P": 2}), ("(B, P + T)", (2, 7), {"T": 5, "P": 3}, None),
    ("(P + T, T)", (7, 5), {}, {"T": 5, "P": 2}), ("(P + T,)", (7,), {}, {"open": True}),
    ("(N, H / 2)", (1, 4), {"H": 8}, {"N": 1}), ("(N, H / 2)", (1, 4), {"H": 9}, None),
    ("(..., K)", (1, 2, 3), {}, {"K": 3}), ("(..., K)", (1, 2, 3), {"K": 4}, None), ("(B,)", (2, 1), {}, None),
])
def test_a_claim_is_read_as_a_reader_would(claim, shape, known, found):
    assert agree(dimensions(claim), shape, known) == found


@pytest.mark.parametrize("text", ["(Williams, 1992) et al.", "(B)", "(the first, of two)", "(f(x), 2)"])
def test_what_is_no_shape_is_none(text):
    assert dimensions(text) is None
