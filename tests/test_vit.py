"""ViT: its patches against patches cut by hand, its sizes against the published ones."""

import numpy as np
import pytest
import torch
from PIL import Image

from mingpt_mm.vit import ViT, ViTConfig, normalize, preprocess

SMALL = ViTConfig(image_size=24, patch_size=8, n_layer=2, n_head=2, n_embd=32)


def test_a_patch_embedding_is_a_linear_layer_of_the_patch():
    torch.manual_seed(0)
    vit, pixels = ViT(ViTConfig(24, 8, n_layer=0, n_head=2, n_embd=32)), torch.randn(2, 3, 24, 24)
    weight, bias = vit.patch_embeddings.weight.flatten(1), vit.patch_embeddings.bias
    rows = [vit.cls_token[0].expand(2, -1)]  # the class token comes first
    for y in (0, 8, 16):  # then the patches, as one reads: row by row, from the left
        for x in (0, 8, 16):
            rows.append(pixels[:, :, y:y + 8, x:x + 8].flatten(1) @ weight.T + bias)
    expected = vit.layernorm(torch.stack(rows, dim=1) + vit.position_embeddings)
    torch.testing.assert_close(vit(pixels), expected, rtol=1e-5, atol=1e-5)


def test_every_patch_sees_every_patch():
    torch.manual_seed(0)
    vit, pixels = ViT(SMALL), torch.randn(1, 3, 24, 24)
    for y in (0, 8, 16):
        changed = pixels.clone()
        changed[:, :, y, y] += 1
        assert ((vit(changed) - vit(pixels)).abs().amax(dim=2) > 0).all()


def test_positions_at_another_resolution_are_the_same_places():
    torch.manual_seed(0)
    vit = ViT(ViTConfig(image_size=48, patch_size=8, n_layer=1, n_head=2, n_embd=32))
    y, x = torch.meshgrid(torch.arange(6.0), torch.arange(6.0), indexing="ij")
    with torch.no_grad():  # two channels tell where a patch lies, in units of the picture's side
        vit.position_embeddings[0, 1:, 0] = ((y + 0.5) / 6).flatten()
        vit.position_embeddings[0, 1:, 1] = ((x + 0.5) / 6).flatten()
    assert vit.positions(6, 6) is vit.position_embeddings
    for rows, columns in ((12, 12), (3, 18)):
        positions = vit.positions(rows, columns)
        assert positions.shape == (1, 1 + rows * columns, 32)
        assert torch.equal(positions[:, 0], vit.position_embeddings[:, 0])
        grid = positions[0, 1:, :2].unflatten(0, (rows, columns))
        y, x = torch.meshgrid(torch.arange(rows) + 0.5, torch.arange(columns) + 0.5, indexing="ij")
        expected = torch.stack([y / rows, x / columns], dim=2)
        inside = ((expected > 0.3) & (expected < 0.7)).all(dim=2)  # at the edges there is nothing to go on from
        torch.testing.assert_close(grid[inside], expected[inside], rtol=0, atol=0.01)
    assert vit(torch.randn(1, 3, 24, 56)).shape == (1, 1 + 3 * 7, 32)


@pytest.mark.parametrize("size", [(1, 1), (7, 300), (64, 64), (375, 500), (1200, 31)])
@pytest.mark.parametrize("side", [24, 224])
def test_preprocess_is_pils_bilinear_filter_mapped_to_minus_one_to_one(size, side):
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8))
    resized = np.asarray(image.resize((side, side), Image.Resampling.BILINEAR), dtype=np.float64)
    expected = (resized.transpose(2, 0, 1) / 255 - 0.5) / 0.5
    assert np.abs(preprocess(image, side).double().numpy() - expected).max() < 1e-6


def test_preprocess_resizes_and_maps_to_minus_one_to_one():
    pixels = np.random.default_rng(0).integers(0, 256, (30, 50, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    whole = preprocess(image.crop((0, 0, 30, 30)), 30)  # nothing to resize: the closed form
    expected = torch.from_numpy((pixels[:, :30].transpose(2, 0, 1) / 255 - 0.5) / 0.5).float()
    torch.testing.assert_close(whole, expected, rtol=0, atol=1e-6)
    halved = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR)).transpose(2, 0, 1)
    torch.testing.assert_close(preprocess(image, 16), normalize(torch.from_numpy(halved.copy())), rtol=0, atol=0)
    assert preprocess(Image.new("L", (9, 5), 255), 8).eq(1).all()
    assert preprocess(Image.new("1", (9, 5)), 8).eq(-1).all()


def test_mid_grey_is_zero():
    assert normalize(torch.tensor([128], dtype=torch.uint8)).abs().item() < 0.005
