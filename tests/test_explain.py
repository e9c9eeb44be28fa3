"""What explain.py says the model looks at: against PyTorch's own attention, and on models whose attention is known."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import sample
import train
from mingpt_mm.explain import attention, explain_caption, explain_text, lit, words
from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.multimodal import MultimodalGPT
from mingpt_mm.tokenizer import train_bpe
from mingpt_mm.vit import ViT, ViTConfig
from tests.test_adversarial import TINY as STORY
from tests.test_commands import TINY, refuse

torch.manual_seed(0)
ENCODING = train_bpe(["a red bat above a green ghost"] * 9, 300)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Each test has a working directory of its own."""
    monkeypatch.chdir(tmp_path)


@torch.no_grad()
def test_attention_is_that_of_pytorch():
    gpt = GPT(GPTConfig(20, 30, 2, 3, 12)).eval()
    tokens, prefix = torch.randint(30, (2, 5)), torch.randn(2, 4, 12)
    x = gpt.embed(tokens, prefix)
    for block, weights in zip(gpt.h, attention(gpt, tokens, prefix)):
        reference = torch.nn.MultiheadAttention(12, 3, batch_first=True)
        reference.in_proj_weight.copy_(block.attn.c_attn.weight)
        reference.in_proj_bias.copy_(block.attn.c_attn.bias)
        later = torch.ones(9, 9, dtype=torch.bool).triu(1)
        normed = block.ln_1(x)
        _, expected = reference(normed, normed, normed, attn_mask=later, average_attn_weights=False)
        assert torch.allclose(weights, expected, atol=1e-6) and weights.shape == (2, 3, 9, 9)
        x = block(x)


@torch.no_grad()
def test_a_word_lights_the_patch_that_its_choice_takes_from(monkeypatch):
    """Every position is made to take from patch 2 alone: that patch keeps its light, and its share is all."""
    model = MultimodalGPT(GPT(GPTConfig(40, ENCODING.n_vocab, 1, 2, 24)), ViT(ViTConfig(32, 16, 1, 2, 24))).eval()
    weights = torch.zeros(1, 2, 40, 40)
    weights[..., 2] = 1
    monkeypatch.setattr("mingpt_mm.explain.attention", lambda gpt, text, prefix: [weights[:, :, :4 + text.size(1)]])
    (shown, caption, _), *told = explain_caption(model, ENCODING, torch.ones(1, 3, 32, 32), "a red bat")
    assert caption == "a red bat" and np.asarray(shown).min() == 255
    assert [label for _, label, _ in told] == ["a (100%)", "red (100%)", "bat (100%)"]
    for picture, _, _ in told:
        pixels = np.asarray(picture)
        assert (pixels[16:, :16] == 255).all() and (pixels[:16] < 80).all() and (pixels[16:, 16:] < 80).all()


@torch.no_grad()
def test_the_row_before_a_word_is_the_one_that_chooses_it(monkeypatch):
    """Row i of the attention takes from patch i of 9: the words, of several tokens, show the means of their rows."""
    model = MultimodalGPT(GPT(GPTConfig(60, ENCODING.n_vocab, 1, 2, 24)), ViT(ViTConfig(48, 16, 1, 2, 24))).eval()
    caption = "red zz bat"
    parts = [part for _, part in words(ENCODING, ENCODING.encode_ordinary(caption))]
    assert [part.stop - part.start for part in parts][1] > 1

    def rows(gpt, text, prefix):
        weights = torch.zeros(1, 1, 9 + text.size(1), 9 + text.size(1))
        for i in range(text.size(1)):
            weights[0, 0, 9 + i, i % 9] = 1
        return [weights]
    monkeypatch.setattr("mingpt_mm.explain.attention", rows)
    _, *told = explain_caption(model, ENCODING, torch.ones(1, 3, 48, 48), caption)
    for (picture, _, _), part in zip(told, parts):
        light = np.asarray(picture)[8::16, 8::16, 0].flatten()
        assert sorted(np.flatnonzero(light == 255)) == sorted({i % 9 for i in range(part.start, part.stop)})


def test_of_a_clip_each_frame_has_its_light():
    weights = torch.zeros(2 * 4)
    weights[5] = 1  # the second patch of the second of two frames
    pixels = np.asarray(lit(torch.ones(2, 3, 8, 8), weights, frames=2))
    assert pixels.shape == (17, 17, 3)
    assert (pixels[:4, 13:17] == 255).all() and (pixels[:8, :8] < 80).all() and (pixels[4:8, 9:] < 80).all()


def test_words_are_those_between_spaces():
    tokens = ENCODING.encode_ordinary("a red zebra, above")
    found = words(ENCODING, tokens)
    assert [word for word, _ in found] == ["a", "red", "zebra,", "above"]
    assert sum((tokens[part] for _, part in found), []) == tokens


@torch.no_grad()
def test_a_head_that_takes_from_the_token_before_is_a_line_below_the_diagonal(monkeypatch):
    gpt = GPT(GPTConfig(40, ENCODING.n_vocab, 2, 2, 24)).eval()
    weights = torch.eye(8).roll(1, 0)[None, None].expand(1, 2, 8, 8)
    monkeypatch.setattr("mingpt_mm.explain.attention", lambda gpt, text: [weights] * 2)
    monkeypatch.setattr(ENCODING.__class__, "encode_ordinary", lambda self, text: [97] * 7)
    sheet = explain_text(gpt, ENCODING, "aaaaaaa")
    assert [[label for _, label, _ in row] for row in sheet] == [[f"block {i}, head {j}" for j in (1, 2)] for i in (1, 2)]
    square = np.asarray(sheet[0][0][0])[:, 70:, 0]
    dark = [[square[int((i + 0.5) * 219 / 8), int((j + 0.5) * 149 / 8)] == 0 for j in range(8)] for i in range(8)]
    assert np.array_equal(dark, np.roll(np.eye(8), 1, 0) == 1)


def test_sample_draws_pictures_clips_texts_and_what_a_gan_wrote(folder, capsys):
    train.main(["--data", str(folder), *TINY, "--steps", "2", "--out", "run"])
    train.main([*STORY, "--steps", "2", "--out", "story"])
    capsys.readouterr()
    image = str(folder / "images/3.png")
    sizes = {}
    for name, argv in (("one", ["--image", image]), ("two", ["--image", image, image]), ("own", []),
                       ("text", ["--prompt", "a red one"])):
        sample.main(["--run", "run", *argv, "--explain", f"{name}.png"])
        sizes[name] = Image.open(f"{name}.png").size
    sample.main(["--run", "story", "--explain", "gan.png"])
    assert all(width == 960 for width, _ in sizes.values()) and sizes["one"][1] <= sizes["two"][1] < sizes["own"][1] * 9
    events = [json.loads(line) for line in Path("story/log.jsonl").open()]
    wrote = sum(len(event["sentences"]) for event in events if event["event"] == "gan")
    assert Image.open("gan.png").height > 20 * wrote


def test_sample_refuses_what_it_cannot_draw(folder, capsys):
    train.main(["--data", str(folder), *TINY, "--steps", "2", "--out", "run"])
    for argv, message in ((["--chat", "--explain", "a.png"], "--explain: of pictures, a prompt or a run"),
                          (["--explain", "nowhere/a.png"], "nowhere/a.png: cannot be written")):
        assert message in refuse(capsys, sample, ["--run", "run", *argv])
