"""What must be true of image tokens: the nearest entries, drawn where their patches were, and k-means at rest."""

import numpy as np
import pytest
import torch
from PIL import Image

from mingpt_mm.model import codebook
from mingpt_mm.model.codebook import LENGTH, decode, encode, fit, to_patches


def noise(n, side=32):
    return torch.randint(256, (n, 3, side, side), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


def test_a_code_is_the_entry_with_the_smallest_distance():
    pixels, entries = noise(2), torch.rand(9, 48, generator=torch.Generator().manual_seed(1)) - 0.5
    for image, codes in zip(pixels.double() / 255 - 0.5, encode(entries, pixels)):
        assert codes.shape == (LENGTH,) == (64,)
        for i, code in enumerate(codes.tolist()):
            y, x = i // 8 * 4, i % 8 * 4
            patch = image[:, y:y + 4, x:x + 4].flatten()
            assert code == min(range(9), key=lambda k: ((patch - entries[k]) ** 2).sum())


@pytest.mark.parametrize("side", [32, 64, 96])
def test_an_image_whose_patches_are_entries_is_drawn_as_it_was(side):
    pixels = noise(3)
    entries = to_patches(pixels).flatten(0, 1)
    shown = decode(entries, encode(entries, pixels), side)
    assert shown.shape == (3, 3, side, side) and shown.dtype == torch.uint8
    small = [Image.fromarray(image.permute(1, 2, 0).numpy()).resize((32, 32), Image.BOX) for image in shown]
    drawn = torch.stack([torch.tensor(np.asarray(image)).permute(2, 0, 1) for image in small])
    assert torch.equal(drawn, pixels) if side == 32 else (drawn.int() - pixels).abs().float().mean() < 20


def test_fit_ends_where_each_entry_is_the_mean_of_its_patches(monkeypatch):
    monkeypatch.setattr(codebook, "ENTRIES", 8)
    pixels, errors = noise(5) // 4 + 60 * torch.arange(5, dtype=torch.uint8).view(5, 1, 1, 1) % 180, []
    x = to_patches(pixels).flatten(0, 1)  # 320 patches, 40 times the entries: all of them
    for rounds in (0, 3, 200):
        torch.manual_seed(0)
        entries = fit(pixels, rounds)
        errors.append((x - entries[encode(entries, pixels).flatten()]).square().sum().item())
    means = torch.stack([x[encode(entries, pixels).flatten() == k].mean(dim=0) for k in range(8)])
    torch.testing.assert_close(entries, means, rtol=0, atol=1e-5)
    assert errors[0] > errors[1] > errors[2] and len(fit(pixels[:1])) == 8
