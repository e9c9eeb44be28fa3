"""Pictures in front of text: who sees what, what padding and cutting a batch must not change."""

import itertools

import pytest
import torch

from mingpt_mm import BadInput
from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.multimodal import MultimodalGPT, loss_sum, pool
from mingpt_mm.tokenizer import train_bpe
from mingpt_mm.vit import ViT, ViTConfig, normalize


@pytest.fixture
def model():
    torch.manual_seed(0)
    return MultimodalGPT(GPT(GPTConfig(32, 280, n_layer=2, n_head=2, n_embd=32)),
                         ViT(ViTConfig(24, 8, n_layer=1, n_head=2, n_embd=48)))


def random_batch(B=4, T=6):
    generator = torch.Generator().manual_seed(1)
    return (torch.randint(256, (B, 3, 24, 24), generator=generator, dtype=torch.uint8),
            torch.randint(280, (B, T), generator=generator), torch.randint(280, (B, T), generator=generator))


def test_every_patch_changes_every_text_logit_and_only_text_has_logits(model):
    pixels, tokens, _ = random_batch()
    pixels = normalize(pixels)
    logits = model(pixels, tokens)
    assert logits.shape == (4, 6, 280)
    for y in (0, 8, 16):
        for x in (0, 8, 16):
            changed = pixels.clone()
            changed[:, :, y + 3, x + 5] += 1
            assert ((model(changed, tokens) - logits).abs().amax(dim=2) > 0).all()


def test_a_later_token_never_changes_an_earlier_logit(model):
    pixels, tokens, _ = random_batch()
    changed = tokens.clone()
    changed[:, 3] = (changed[:, 3] + 1) % 280
    moved = (model(normalize(pixels), changed) - model(normalize(pixels), tokens)).abs().amax(dim=(0, 2))
    assert (moved[:3] == 0).all() and (moved[3:] > 0).all()


def gradients(model, *batch, parts=1):
    """The gradient of the mean loss of a batch, computed in so many parts."""
    model.zero_grad()
    count = (batch[2] >= 0).sum()
    for pixels, tokens, targets in zip(*(tensor.chunk(parts) for tensor in batch)):
        (loss_sum(model(pixels, tokens), targets) / count).backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def test_padding_changes_no_gradient(model):
    pixels, tokens, targets = random_batch()
    padded = torch.cat([tokens, torch.full((4, 5), 279)], dim=1)
    ignored = torch.cat([targets, torch.full((4, 5), -100)], dim=1)
    for a, b in zip(gradients(model, pixels, tokens, targets), gradients(model, pixels, padded, ignored)):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_a_batch_in_parts_of_unequal_length_has_the_gradient_of_the_whole(model):
    pixels, tokens, targets = random_batch(B=6)
    targets[:2, 2:] = -100
    whole = gradients(model, pixels, tokens, targets)
    for parts in (2, 3, 6):
        for a, b in zip(whole, gradients(model, pixels, tokens, targets, parts=parts)):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_one_batch_of_pictures_can_be_overfitted(model):
    pixels, tokens, targets = random_batch(B=3)
    tokens[:] = tokens[0]  # the same words before each target: only the picture can tell them apart
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(300):
        loss = loss_sum(model(pixels, tokens), targets) / targets.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.01


def test_a_caption_is_greedy_begins_with_the_prompt_and_knows_no_neighbours(model):
    encoding = train_bpe(["a red bat left of a green ghost"], 280)
    pixels = torch.randn(5, 3, 24, 24)
    model.eval()
    together = model.caption(pixels, encoding, "a red", max_new_tokens=9)
    alone = [model.caption(picture[None], encoding, "a red", max_new_tokens=9)[0] for picture in pixels]
    assert together == alone and all(caption.startswith("a red") for caption in together)


def test_the_blocks_are_of_the_released_kinds(model):
    gpt, vit = model.gpt, model.vit
    assert [block.mlp.act.approximate for block in (*gpt.h, *vit.h)] == ["tanh", "tanh", "none"]
    assert [block.attn.causal for block in (*gpt.h, *vit.h)] == [True, True, False]
    norms = {module.eps for block in gpt.h for module in (block.ln_1, block.ln_2, gpt.ln_f)}
    assert norms == {1e-5} and {vit.h[0].ln_1.eps, vit.h[0].ln_2.eps, vit.layernorm.eps} == {1e-12}


# ---- clips ----

F = 3  # frames


@pytest.fixture
def clip_model():
    torch.manual_seed(0)
    return MultimodalGPT(GPT(GPTConfig(40, 280, n_layer=2, n_head=2, n_embd=32)),
                         ViT(ViTConfig(32, 8, n_layer=1, n_head=2, n_embd=48)), frames=F).eval()


def random_clips(B=2, T=6, sides=(32, 32)):
    generator = torch.Generator().manual_seed(1)
    return (torch.randint(256, (B, F, 3, *sides), generator=generator, dtype=torch.uint8),
            torch.randint(280, (B, T), generator=generator))


def test_pool_puts_the_four_neighbours_of_each_square_side_by_side():
    patches = torch.randn(2, 6, 4, 5)
    pooled = pool(patches)
    assert pooled.shape == (2, 6, 20)
    for n, y, x in itertools.product(range(2), range(3), range(2)):
        square = [patches[n, 2 * y + dy, 2 * x + dx] for dy in (0, 1) for dx in (0, 1)]
        assert torch.equal(pooled[n, 2 * y + x], torch.cat(square))


@torch.no_grad()
@pytest.mark.parametrize("sides", [(32, 32), (16, 48)])
def test_a_clip_is_frame_after_frame_what_the_vit_sees_in_each_with_an_embedding_of_its_own(clip_model, sides):
    pixels, _ = random_clips(sides=sides)
    rows, columns = sides[0] // 8, sides[1] // 8
    prefix = clip_model.embed(pixels)
    assert prefix.shape == (2, F * rows * columns // 4, 32)
    connector, expected = clip_model.connector, []
    for f in range(F):
        patches = clip_model.vit(normalize(pixels[:, f]))[:, 1:].unflatten(1, (rows, columns))
        expected.append(pool(patches) @ connector.weight.T + connector.bias + connector.frame_embeddings[f, 0])
    torch.testing.assert_close(prefix, torch.cat(expected, dim=1))
    assert len(connector.frame_embeddings.flatten(1).unique(dim=0)) == F


@torch.no_grad()
def test_a_picture_is_a_clip_in_which_nothing_moves_and_what_was_seen_before_is_seen_again(clip_model):
    pixels, tokens = random_clips()
    for picture in (pixels[:, 0], normalize(pixels[:, 0])):
        still = picture.unsqueeze(1).repeat(1, F, 1, 1, 1)
        torch.testing.assert_close(clip_model(picture, tokens), clip_model(still, tokens))
        torch.testing.assert_close(clip_model(clip_model.look(picture), tokens), clip_model(still, tokens))


@torch.no_grad()
def test_every_frame_and_their_order_change_every_text_logit(clip_model):
    pixels, tokens = random_clips()
    logits, others = clip_model(pixels, tokens), []
    for f in range(F):
        changed = pixels.clone()
        changed[:, f, :, 3, 5] ^= 128
        others.append(changed)
    for order in ([1, 0, 2], [0, 2, 1], [2, 1, 0], [0, 0, 0]):
        others.append(pixels[:, order])
    for other in others:
        assert ((clip_model(other, tokens) - logits).abs().amax(dim=2) > 1e-5).all()


def test_a_clip_of_another_length_is_refused(model, clip_model):
    pixels, tokens = random_clips()
    with pytest.raises(BadInput, match=f"a clip of {F - 1} frames: this model sees {F}"):
        clip_model(pixels[:, 1:], tokens)
    with pytest.raises(BadInput, match=f"a clip of {F} frames: this model sees pictures"):
        model(pixels, tokens)
