"""What must be true of ViT: its patches against patches cut by hand, its positions, its pixels."""

import pytest
import torch

from mingpt_mm import ViT, ViTConfig
from mingpt_mm.model.vit import normalize


def small_vit(n_layer=1):
    torch.manual_seed(0)
    return ViT(ViTConfig(48, 8, n_layer, n_head=2, n_embd=32))


def grid(h, w):
    """The centers (y, x) of `h` x `w` patches in reading order, in units of the image's sides."""
    return torch.cartesian_prod((torch.arange(h) + 0.5) / h, (torch.arange(w) + 0.5) / w)


def test_a_patch_is_embedded_by_one_linear_layer_and_the_class_token_comes_first():
    vit, pixels = small_vit(n_layer=0), torch.randn(2, 3, 48, 48)
    rows = [vit.cls_token[0].expand(2, -1)]
    for y, x in (grid(6, 6) * 48 - 4).long().tolist():
        patch = pixels[:, :, y:y + 8, x:x + 8].flatten(1)
        rows.append(patch @ vit.patch_embeddings.weight.flatten(1).T + vit.patch_embeddings.bias)
    expected = vit.layernorm(torch.stack(rows, dim=1) + vit.position_embeddings)
    torch.testing.assert_close(vit(pixels), expected, rtol=1e-4, atol=1e-5)


def test_every_patch_reaches_every_position_and_pixels_beyond_the_last_patch_reach_none():
    vit, pixels = small_vit(), torch.randn(1, 3, 54, 48)
    assert torch.equal(vit(pixels), vit(pixels[:, :, :48]))
    for y, x in (grid(6, 6) * 48).long().tolist():
        changed = pixels.clone()
        changed[:, :, y, x] += 1
        assert ((vit(changed) - vit(pixels)).abs().amax(dim=2) > 0).all()


@pytest.mark.parametrize("h, w", [(12, 12), (3, 18)])
def test_positions_at_another_resolution_are_those_of_the_same_places(h, w):
    vit = small_vit()
    vit.position_embeddings.data[0, 1:, :2] = grid(6, 6)  # two channels say where a patch lies
    assert torch.equal(vit.interpolate_positions(6, 6), vit.position_embeddings)
    positions = vit.interpolate_positions(h, w)
    assert torch.equal(positions[:, 0], vit.position_embeddings[:, 0])  # the class token has no place
    inside = ((grid(h, w) - 0.5).abs() < 0.2).all(dim=1)  # the edges have neighbors on one side only
    torch.testing.assert_close(positions[0, 1:, :2][inside], grid(h, w)[inside], rtol=0, atol=0.01)
    assert vit(torch.randn(2, 3, 8 * h, 8 * w)).shape == (2, 1 + h * w, 32)


def test_pixels_are_scaled_by_255_and_normalized_with_mean_and_deviation_one_half():
    pixels = torch.arange(256, dtype=torch.uint8)
    torch.testing.assert_close(normalize(pixels), (pixels.double() / 255 - 0.5).float() / 0.5, rtol=0, atol=1e-6)
    assert normalize(pixels[128]).abs() < 0.005  # mid-gray is 0
