"""Images as tokens, so that a GPT can write them: for each patch the nearest entry of a codebook.

Neural Discrete Representation Learning (van den Oord et al., 2017) learns the codebook together with an
encoder and a decoder. Here k-means finds it on the pixels of patches, as Generative Pretraining from Pixels
(Chen et al., 2020) does on single pixels. A code is the number of an entry. The GPT's token of a code is the
number of text tokens plus the code.

Letters: N images, S height and width in pixels, L patches of a drawing, h patches on each side, M values of a
patch, K entries, n patches to learn from.
"""

import torch
from torch.nn import functional as F

SIZE, PATCH, ENTRIES = 32, 4, 1024  # a drawing has 32 x 32 pixels in 4 x 4 patches; it is enlarged when shown
LENGTH = (SIZE // PATCH)**2


def to_patches(pixels):
    """uint8 pixels (N, 3, S, S) -> patches (N, L, M) at the size of a drawing, values from -0.5 to 0.5."""
    x = F.interpolate(pixels / 255 - 0.5, size=(SIZE, SIZE), mode="area")  # (N, 3, 32, 32)
    return F.pixel_unshuffle(x, PATCH).flatten(2).transpose(1, 2)  # (N, L, M)


def encode(codebook, pixels):
    """uint8 pixels (N, 3, S, S) -> codes (N, L): for each patch the nearest entry of the `codebook` (K, M)"""
    return torch.cdist(to_patches(pixels), codebook).argmin(dim=2)  # (N, L)


def decode(codebook, codes, size):
    """codes (N, L) -> uint8 pixels (N, 3, S, S) with S = `size`"""
    x = codebook[codes].transpose(1, 2).unflatten(2, (SIZE // PATCH, -1))  # (N, M, h, h)
    x = F.interpolate(F.pixel_shuffle(x, PATCH), size=(size, size), mode="bicubic")  # (N, 3, S, S)
    return ((x + 0.5).clamp(0, 1) * 255).round().byte()


def fit(pixels, rounds=15):
    """A codebook (K, M) of the patches of uint8 `pixels` (N, 3, S, S), by k-means; K <= ENTRIES.

    Set torch's seed first.
    """
    x = torch.cat([to_patches(part) for part in pixels.split(100)]).flatten(0, 1)  # (N * L, M)
    # Plain patches are many and alike; those with more contrast are chosen more often.
    x = x[torch.multinomial(x.std(dim=1) + 0.01, min(len(x), 40 * ENTRIES))]  # (n, M)
    codebook = x[:ENTRIES]  # (K, M); k-means starts from random patches
    for _ in range(rounds):
        nearest = torch.cdist(x, codebook).argmin(dim=1)  # (n,)
        counts = torch.bincount(nearest, minlength=len(codebook))[:, None]  # (K, 1)
        sums = torch.zeros_like(codebook).index_add_(0, nearest, x)  # (K, M)
        codebook = torch.where(counts > 0, sums / counts, codebook)  # an entry nearest to no patch stays
    return codebook
