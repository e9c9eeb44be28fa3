"""What a model looks at, as pictures: `python sample.py ... --explain out.png`.

`scaled_dot_product_attention` never writes down the weights with which a position takes from the others. Here
they are computed once more, by the formula: softmax(q k^T / sqrt(hs)) (Attention Is All You Need, Vaswani et
al., 2017, section 3.2.1). They tell from where something is taken, and not what is made of it (Attention is
not Explanation, Jain and Wallace, 2019).

Letters: B batch, T tokens, P prefix, C width, S = P + T positions, nh heads, hs head size, F frames, H pixels
a side, h patches a side.
"""

import math

import torch
from PIL import Image, ImageDraw
from torch.nn import functional as F

from mingpt_mm.draw import FONT, INK, tile


@torch.no_grad()
def attention(gpt, tokens, prefix=None):
    """For each block, weights (B, nh, S, S) over tokens (B, T) behind a prefix (B, P, C).

    A row says how much its position takes from each.
    """
    x, found = gpt.embed(tokens, prefix), []  # (B, S, C)
    for block in gpt.h:
        q, k, _ = block.attn.heads(block.ln_1(x))  # (B, nh, S, hs)
        scores = q @ k.mT / math.sqrt(q.size(3))  # (B, nh, S, S)
        later = torch.ones_like(scores[0, 0], dtype=torch.bool).triu(1) & block.attn.causal  # (S, S)
        found.append(scores.masked_fill(later, -torch.inf).softmax(dim=3))
        x = block(x)  # (B, S, C)
    return found


def words(encoding, tokens):
    """[(word, slice of its `tokens`), ...]; a word begins with a space."""
    pieces = [encoding.decode_single_token_bytes(token) for token in tokens]
    starts = [i for i, piece in enumerate(pieces) if i == 0 or piece.startswith(b" ")]
    parts = map(slice, starts, starts[1:] + [len(pieces)])
    return [(b"".join(pieces[part]).decode(errors="replace").strip(), part) for part in parts]


def lit(pixels, weights, frames=1):
    """A PIL image of pixels (3, H, H), or of the `frames` of a clip (F, 3, H, H), in [-1, 1].

    The patch with the most of `weights` (P,) is as it was, and the others are darker.
    """
    light = weights.view(frames, 1, -1) / weights.max().clamp(min=1e-9)  # (F, 1, h * h)
    light = light.unflatten(2, (math.isqrt(light.size(2)), -1))  # (F, 1, h, h)
    light = F.interpolate(light, pixels.shape[-2:])  # (F, 1, H, H)
    return tile(((pixels + 1) * 127.5 * (0.3 + 0.7 * light)).round().byte().cpu().numpy())


@torch.no_grad()
def explain_caption(model, encoding, pixels, caption):
    """For `draw_sheet`: pixels (1, 3, H, H) or (1, F, 3, H, H), and what each word of `caption` looks at.

    That is, for each block, how much the choice of the word took from each patch, in the mean of the heads;
    and below it the share that it took from all patches together. The caption is encoded anew: of one that
    was sampled these may be other tokens than those that were drawn.
    """
    prefix = model.embed(pixels)  # (1, P, C)
    P, frames = prefix.size(1), model.frames or 1
    tokens = encoding.encode_ordinary(caption)[:model.gpt.config.block_size - P - 1]
    text = torch.tensor([[encoding.eot_token, *tokens]], device=prefix.device)  # (1, T)
    sheet = [(lit(pixels[0], prefix.new_ones(P), frames), caption, None)]
    for i, weights in enumerate(attention(model.gpt, text, prefix), 1):
        seen = weights.mean(dim=1)[0, P:, :P]  # (T, P); the row before a token is the one that chooses it
        for word, part in words(encoding, tokens):
            patches = seen[part].mean(dim=0)  # (P,)
            label = f"{word} ({patches.sum():.0%}{f', block {i}' if len(model.gpt.h) > 1 else ''})"
            sheet.append((lit(pixels[0], patches, frames), label, None))
    return sheet


def explain_text(gpt, encoding, text, side=219):
    """For `draw_sheet`: for each head a table, row by row its `attention`, dark where a token takes much.

    The first token is the one that begins every text.
    """
    tokens = [encoding.eot_token, *encoding.encode_ordinary(text)][:gpt.config.block_size]
    labels = ["(begin)"] + [encoding.decode([token]).strip()[:9] for token in tokens[1:]]
    blocks = attention(gpt, torch.tensor([tokens], device=gpt.wte.weight.device))
    sheet = [[] for _ in blocks]
    for i, weights in enumerate(blocks):
        for j, head in enumerate(weights[0], 1):
            image = Image.new("RGB", (side, side), "white")
            square = Image.fromarray((255 - 255 * head).byte().cpu().numpy())
            image.paste(square.resize((side - 70, side), Image.Resampling.BOX), (70, 0))
            for row in range(0, len(tokens), math.ceil(len(tokens) * 14 / side)):  # as many as can be read
                place = 64, (row + 0.5) * side / len(tokens)
                ImageDraw.Draw(image).text(place, labels[row], INK, FONT, "rm")
            sheet[i].append((image, f"block {i + 1}, head {j}", None))
    return sheet
