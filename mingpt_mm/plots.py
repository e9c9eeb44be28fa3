"""Pictures of a run: progress.png with its curves and samples, and the attention of each token over an image.

Letters: F frames, S size in pixels, C embedding width, T tokens, P prefix positions, N = P + T
positions, nh heads, hs head size, h patches on each side, r rows and c columns of a grid of frames.
"""

import math
import textwrap

import torch
from PIL import Image, ImageDraw, ImageFont
from torch.nn import functional as F

INK, GRID, RIGHT, WRONG = "#555555", "#dddddd", "#117733", "#cc2222"
COLORS = ("#7788aa", "#dd6600", "#332288", RIGHT, WRONG, "#aa4499", "#44aa99", "#999933")
FONT = ImageFont.load_default(14)
# {title: values in the log}; losses have a logarithmic axis, shares one from 0 to 1
CHARTS = {"loss": {"loss", "synthetic_loss", "text_loss", "image_text_loss", "draw_loss", "val_loss"},
          "share right": {"exact_match", "recall_stated", "recall_graph_only", "recall_neither"},
          "the discriminator's probability of real": {"D(x)", "D(G(z))"}}


def make_grid(pixels):
    """A PIL image of the frames of uint8 `pixels` (F, 3, S, S), row by row in a square."""
    c = math.ceil(len(pixels)**0.5)
    frames = F.pad(pixels, (0, 1, 0, 1, 0, 0, 0, -len(pixels) % c), value=255)  # (r * c, 3, S + 1, S + 1)
    grid = frames.unflatten(0, (-1, c)).permute(0, 3, 1, 4, 2)  # (r, S + 1, c, S + 1, 3)
    return Image.fromarray(grid.flatten(2, 3).flatten(0, 1)[:-1, :-1].cpu().numpy())


def caption_samples(dataset, captions, model, tokenizer):
    """Yield (image, text, color) for six of the `captions`: green if right, else red with a right one.

    If the model draws, its drawing of the right caption follows each image.
    """
    for i, said in [*enumerate(captions)][::math.ceil(len(captions) / 6) or 1]:
        right = dataset.rows[i].captions
        text, color = (said, RIGHT) if said in right else (f"{said} (right: {right[0]})", WRONG)
        yield make_grid(dataset[i, 0][0]), text, color
        if model.codebook is not None:
            yield make_grid(model.draw(right[0], tokenizer, dataset.size)[0]), f"drawn: {right[0]}", INK


def plot_run(path, events, samples=(), across=6, charts=CHARTS):
    """Draw the curves of the `events`, the last sentences of a GAN and `samples` to the PNG file `path`.

    `samples` are (PIL image, text, color) each, `across` of them in a row. `charts`: see CHARTS.
    """
    logged = set().union(*events)
    charts = {title: sorted(names & logged) for title, names in charts.items() if names & logged}
    # The font has ASCII only: ascii() escapes other letters.
    sentences = [ascii(f"{e['step']:,}: {text}")[1:-1] for e in events for text in e.get("sentences", [])]
    samples, width = [(picture, ascii(text)[1:-1], color) for picture, text, color in samples], 942 // across
    # The samples end at `top`; the longest text decides on their height. A chart takes 240 pixels.
    height = width + 40 + max((len(text) for _, text, _ in samples), default=0) * 170 // width
    top = math.ceil(len(samples) / across) * height + 10
    image = Image.new("RGB", (960, top + 240 * (len(charts) + bool(sentences))), "white")
    draw = ImageDraw.Draw(image)
    for base, (title, names) in zip(range(top + 195, 9999, 240), charts.items()):  # up to base - 185
        curves = [[(e["step"], max(e[name], 1e-4)) for e in events if name in e] for name in names]
        steps, values = zip(*sum(curves, []))
        last, log = max(steps) or 1, title == "loss"
        low, ratio = min(values) * 0.9, max(values) / min(values) * 1.2  # ratio: top of the axis by low
        for y in range(0, 186, 37):
            draw.line([(60, base - y), (760, base - y)], GRID)
            draw.text((52, base - y), f"{low * ratio**(y / 185) if log else y / 185:.2g}", INK, FONT, "rm")
        for i, (name, color, curve) in enumerate(zip(names, COLORS, curves)):
            levels = [math.log(value / low, ratio) if log else value for _, value in curve]
            draw.line([(60 + 700 * s / last, base - 185 * y) for (s, _), y in zip(curve, levels)], color, 3)
            draw.text((772, base - 180 + 20 * i), f"{name} {curve[-1][1]:.3f}", color, FONT)
        draw.text((410, base + 8), f"{title}, {last:,} steps", INK, FONT, "mt")
    draw.text((16, top + 240 * len(charts)), "\n".join(sentences[-12:]), INK, FONT)
    for i, (picture, text, color) in enumerate(samples):
        x, y = 16 + i % across * width, 10 + i // across * height
        image.paste(picture.resize((width - 16, width - 16)), (x, y))
        draw.text((x, y + width - 12), textwrap.fill(text, width // 8), color, FONT)
    image.save(path, "PNG")


@torch.no_grad()
def plot_attention(path, model, tokenizer, pixels, caption):
    """Draw where each token of `caption` attends on the image `pixels` (1, F, 3, S, S).

    For each block, darker patches had less attention (mean of the heads) when the token was chosen. The
    number is the sum over all patches.

    Attention tells where the model reads, not what it makes of it (Attention is not Explanation, Jain and
    Wallace, 2019). scaled_dot_product_attention returns its weights if the values are the identity matrix.
    """
    gpt, prefix = model.gpt, model.encode_images(pixels)  # (1, P, C)
    P, samples = prefix.size(1), [(make_grid(pixels[0]), caption, INK)]
    tokens = [tokenizer.eot_token, *tokenizer.encode_ordinary(caption)][:gpt.config.block_size - P]
    x = torch.cat([prefix, gpt.wte(torch.tensor([tokens], device=prefix.device))], dim=1)  # (1, N, C)
    x, identity = x + gpt.wpe.weight[:x.size(1)], torch.eye(x.size(1)).to(x)  # (1, N, C) and (N, N)
    for i, block in enumerate(gpt.h, 1):
        qkv = block.attn.c_attn(block.ln_1(x)).unflatten(2, (3, block.attn.n_head, -1))  # (1, N, 3, nh, hs)
        q, k, _ = qkv.permute(2, 0, 3, 1, 4)  # (1, nh, N, hs)
        weights = F.scaled_dot_product_attention(q, k, identity, is_causal=True)  # (1, nh, N, N)
        for token, shares in zip(tokens[1:], weights[0].mean(dim=0)[P:, :P]):  # a row chooses the next token
            label = f"{tokenizer.decode([token])} ({shares.sum():.0%}, block {i})"
            shares = shares.view(model.frames, 1, math.isqrt(P // model.frames), -1)  # (F, 1, h, h)
            light = F.interpolate(shares / shares.max(), pixels.shape[-2:])  # (F, 1, S, S)
            samples.append((make_grid((pixels[0] * (0.3 + 0.7 * light)).byte()), label, INK))
        x = block(x)
    plot_run(path, [], samples, across=9)
