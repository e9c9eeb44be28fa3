"""What must be true of `[patches | tokens]`: who sees what, how frames become positions, what padding must not do."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from mingpt_mm import GPT, GPTConfig, MultimodalGPT, ViT, ViTConfig
from mingpt_mm.console import UserError
from mingpt_mm.data.tokenizer import make_tokenizer, train_bpe
from mingpt_mm.model.vit import normalize

TOKENS = torch.arange(12).view(2, 6) * 7


def small_model(frames=1):
    torch.manual_seed(0)
    return MultimodalGPT(GPT(GPTConfig(60, 280, n_layer=2, n_head=2, n_embd=32)),
                         ViT(ViTConfig(32, 8, n_layer=1, n_head=2, n_embd=24)), frames).eval()


def random_pixels(frames=1, sides=(32, 32), B=2):
    return torch.randint(256, (B, frames, 3, *sides), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)


@torch.no_grad()
@pytest.mark.parametrize("frames", [1, 3])
def test_every_patch_and_the_order_of_frames_change_every_text_logit_and_only_text_has_logits(frames):
    model, pixels = small_model(frames), random_pixels(frames)
    logits, others = model(pixels, TOKENS), [pixels.roll(frame, dims=1) for frame in range(1, frames)]
    for f, y, x in product(range(frames), range(3, 32, 8), range(3, 32, 8)):
        others.append(pixels.clone())
        others[-1][:, f, :, y, x] ^= 128
    assert logits.shape == (2, 6, 280) and torch.equal(model(None, TOKENS), model.gpt(TOKENS))
    assert all(((model(other, TOKENS) - logits).abs().amax(dim=2) > 0).all() for other in others)


@torch.no_grad()
@pytest.mark.parametrize("frames, sides", [(1, (32, 32)), (1, (24, 40)), (3, (32, 32)), (3, (16, 48))])
def test_frames_follow_one_another_each_with_its_patches_merged_and_its_own_embedding(frames, sides):
    model, pixels, (h, w) = small_model(frames), random_pixels(frames, sides), (side // 8 for side in sides)
    rows, merge = [], 1 if frames == 1 else 2
    for f, y, x in product(range(frames), range(0, h, merge), range(0, w, merge)):
        features = model.vit(normalize(pixels[:, f]))[:, 1:]  # without the class token
        square = [features[:, (y + dy) * w + x + dx] for dy, dx in product(range(merge), range(merge))]
        merged = torch.stack(square, dim=2).flatten(1)  # each channel's neighbors side by side
        rows.append(model.connector(merged) + model.frame_embeddings.weight[f])
    torch.testing.assert_close(model.encode_images(pixels), torch.stack(rows, dim=1), rtol=1e-4, atol=1e-5)
    assert h != w or len(rows) == MultimodalGPT.prefix_length(32, 8, frames)


def test_padding_after_the_text_changes_no_gradient():
    model, gradients = small_model(), []
    for pad in (0, 5):
        logits = model(random_pixels(), F.pad(TOKENS, (0, pad), value=279)).transpose(1, 2)
        loss = F.cross_entropy(logits, F.pad(TOKENS + 1, (0, pad), value=-100))
        gradients.append(torch.autograd.grad(loss, list(model.parameters())))
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-6)


def test_a_caption_begins_with_the_prompt_and_does_not_depend_on_other_rows():
    tokenizer, model, pixels = make_tokenizer(train_bpe(["a red bat"], 280)), small_model(), random_pixels(B=5)
    together = model.caption(pixels, tokenizer, "a red", max_new_tokens=9)
    assert together == [model.caption(image[None], tokenizer, "a red", max_new_tokens=9)[0] for image in pixels]
    assert all(caption.startswith("a red") for caption in together)


# L3
@pytest.mark.parametrize("frames, pixels, stride, words", [
    (3, random_pixels(2), 8, "2 frames"), (1, random_pixels(3), 8, "3 frames"),
    (1, random_pixels(), 4, "49 patches")], ids=["2", "3", "vit"])
def test_what_the_model_cannot_place_is_refused_in_one_line(frames, pixels, stride, words):
    model = small_model(frames)
    model.vit.patch_embeddings = nn.Conv2d(3, 24, 8, stride)  # with another stride it gives more patches
    with pytest.raises(UserError, match=rf"\A.*{words}.*\Z"):
        model(pixels, TOKENS)


def drawing_model():
    """A tokenizer, and a model that has entries of 50 gray levels after its tokens."""
    tokenizer, model = make_tokenizer(train_bpe(["a red bat"], 280)), small_model()
    model.gpt = GPT(GPTConfig(80, tokenizer.n_vocab, n_layer=2, n_head=2, n_embd=32))
    model.add_codebook(torch.linspace(-0.5, 0.5, 50)[:, None].expand(50, 48), tokenizer.n_vocab)
    return tokenizer, model.eval()


def test_entries_become_tokens_after_those_of_the_text_which_stay_as_they_were():
    model, entries = small_model(), torch.randn(50, 48, generator=torch.Generator().manual_seed(0)) + 3
    before, text = model(random_pixels(), TOKENS), model.gpt.wte.weight.detach()
    for _ in range(2):  # a second codebook replaces the first
        model.add_codebook(entries, 280)
        assert model.gpt.wte.weight.shape == (330, 32) and model.gpt.config.vocab_size == 330
        torch.testing.assert_close(model(random_pixels(), TOKENS)[..., :280], before)
    patches = model.gpt.wte.weight[280:].detach()
    assert torch.equal(model.gpt.wte.weight[:280], text) and patches.std().item() == pytest.approx(text.std().item(), rel=0.1)
    assert torch.corrcoef(torch.stack([torch.pdist(entries), torch.pdist(patches)]))[0, 1] > 0.5


def test_drawings_are_those_of_the_drawn_tokens_differ_and_repeat_with_the_seed(monkeypatch):
    tokenizer, model = drawing_model()
    rng = torch.Generator()
    first, again = (model.draw("a red", tokenizer, 32, 4, generator=rng.manual_seed(s)) for s in (1, 1))
    assert first.shape == (4, 1, 3, 32, 32) and torch.equal(first, again) and len(first.unique(dim=0)) == 4
    assert len(model.draw("a red", tokenizer, 32, 4, temperature=0).unique(dim=0)) == 1
    drawn = torch.cat([torch.arange(50) + tokenizer.n_vocab, torch.arange(14)])  # 64 tokens; the last ones are text
    monkeypatch.setattr(GPT, "generate", lambda self, tokens, n, **_: torch.cat([tokens, drawn[None]], dim=1))
    patches = model.draw("a red", tokenizer, 32)[0, 0].unfold(1, 4, 4).unfold(2, 4, 4).flatten(3).float().mean(dim=(0, 3))
    assert patches.flatten().tolist() == [round(255 * i / 49) for i in range(50)] + [0] * 14


def test_a_caption_without_tokens_or_room_for_the_drawing_is_refused():
    tokenizer, model = drawing_model()
    model.draw("#" * 16, tokenizer, 32)  # with the first token and 63 of the image they fill the block of 80
    for caption in ("", "#" * 17):
        with pytest.raises(UserError, match=rf"{len(caption)} tokens.*1 to 16"):
            model.draw(caption, tokenizer, 32)
    with pytest.raises(UserError, match="does not draw"):
        small_model().draw("a red", tokenizer, 32)
