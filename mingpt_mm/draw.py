"""Pictures of a run: progress.png with curves, captions and the GAN's sentences, and the sheets of sample.py.

Letters: F frames, S pixels a side.
"""

import math
import textwrap

from PIL import Image, ImageDraw, ImageFont

from mingpt_mm.system import RANK, write_file
from mingpt_mm.text import GROUPS

INK, GRID, RIGHT, WRONG = "#555555", "#dddddd", "#117733", "#cc2222"
COLOURS = ("#7788aa", "#dd6600", "#332288")  # one a curve
FONT = ImageFont.load_default(14)


def draw_chart(draw, top, height, curves, title, shares=False):
    """Draw `curves` {name: [(step, value), ...]} from `top` on: losses on a logarithmic axis, or `shares`."""
    points = [point for curve in curves.values() for point in curve]
    last, bottom = max(1, *(step for step, _ in points)), top + height - 30
    values = [max(1e-4, value) for _, value in points]
    low, high = (0, 1) if shares else (math.log(0.9 * min(values)), math.log(1.1 * max(values)))

    def place(step, value):
        """Where the point lies, in pixels."""
        level = value if shares else max(low, math.log(max(1e-9, value)))
        return 60 + 740 * step / last, bottom - (height - 50) * (level - low) / (high - low)

    digits = (1, 2, 5) if high - low > math.log(10) else range(1, 10)
    ticks = (0, 0.25, 0.5, 0.75, 1) if shares else (d * 10.0**power for power in range(-5, 3) for d in digits)
    for tick in ticks:
        if shares or math.exp(low) < tick < math.exp(high):
            draw.line([place(0, tick), place(last, tick)], fill=GRID)
            draw.text((52, place(0, tick)[1]), f"{tick:g}", fill=INK, font=FONT, anchor="rm")
    labels = []
    for (name, curve), colour in zip(curves.items(), COLOURS):
        draw.line([place(*point) for point in curve], fill=colour, width=3)
        for x, y in (place(*point) for point in curve[-1:]):
            away = 18 if y < bottom - height / 2 else -18
            while any(abs(y - label) < 18 for label in labels):  # too close to a label before
                y += away
            labels.append(y)
            draw.text((x + 8, y), f"{name} {curve[-1][1]:.3g}", fill=colour, font=FONT, anchor="lm")
    for x, text in ((60, "0"), (430, title), (800, f"{last:,} steps")):
        draw.text((x, bottom + 10), text, fill=INK, font=FONT, anchor="mt")


def draw_pictures(image, draw, top, samples, across):
    """Draw (PIL image, caption, right captions) from `top` on, so many `across`; return where they end.

    The caption is green if it is right; if not, it is red and a right one stands below it. Where the right
    ones are None, nobody is judged.
    """
    step, side = 942 // across, 942 // across - 16
    for i in range(0, len(samples), across):
        bottom = top
        for x, (picture, caption, truths) in zip(range(16, 960, step), samples[i:i + across]):
            image.paste(picture.resize((side, side)), (x, top + 10))
            texts = [(caption, INK if truths is None else RIGHT if caption in truths else WRONG)]
            texts += [(truths[0], INK)] if texts[0][1] == WRONG else []
            y = top + side + 15
            for text, colour in texts:
                text = textwrap.fill(text, step // 8)
                draw.multiline_text((x, y), text, fill=colour, font=FONT)
                y = draw.multiline_textbbox((x, y), text, font=FONT)[3] + 8
            bottom = max(bottom, int(y))
        top = bottom
    return top


def draw_sheet(path, charts=(), pictures=(), lines=(), across=6):
    """Draw `charts`, each the last arguments of `draw_chart`, one below the other to `path`.

    Below them come `pictures`, lists of `samples` (see `draw_pictures`) that begin in a new row each, and
    `lines`, each a list of (x, text, colour).
    """
    height = 370 if len(charts) == 1 else 270
    bottom = height * len(charts)
    most = bottom + 900 * sum(math.ceil(len(row) / across) for row in pictures) + 20 * len(lines) + 10
    image = Image.new("RGB", (960, most), "white")
    draw = ImageDraw.Draw(image)
    for i, chart in enumerate(charts):
        draw_chart(draw, height * i, height, *chart)
    for samples in pictures:
        bottom = draw_pictures(image, draw, bottom, samples, across)
    for line in lines:
        for x, text, colour in line:
            draw.text((x, bottom), text, fill=colour, font=FONT)
        bottom += 20
    if RANK == 0:
        write_file(path, lambda file: image.crop((0, 0, 960, bottom + 10)).save(file, "PNG"))


def tile(pixels):
    """A PIL image of a picture (3, S, S), or of the frames of a clip (F, 3, S, S), row by row."""
    frames = pixels.reshape(-1, *pixels.shape[-3:])
    side, step = math.ceil(math.sqrt(len(frames))), pixels.shape[-1] + 1  # a white line between them
    image = Image.new("RGB", (side * step - 1, side * step - 1), "white")
    for i, frame in enumerate(frames):
        image.paste(Image.fromarray(frame.transpose(1, 2, 0)), (i % side * step, i // side * step))
    return image


def curve(events, kind, name):
    """The [(step, value of `name`), ...] of all `events` of that kind."""
    return [(e["step"], e[name]) for e in events if e["event"] == kind and name in e]


def draw_captions(path, events, data, captions):
    """Draw the curves of a run's `events`, and six pictures of `data` with their `captions`, to `path`."""
    curves = {"training": curve(events, "step", "loss"), "validation": curve(events, "eval", "val_loss")}
    samples = [(tile(data.pixels(i)), captions[i], data.rows[i].captions)
               for i in range(0, len(captions), -(-len(captions) // 6))]
    draw_sheet(path, [(curves, "loss a token")], [samples])


def draw_story(path, events, parse=None, most=7):
    """Draw the curves of a run's `events`, and what the GAN wrote at `most` times with its scores, to `path`.

    parse: see `story.make_parser`; with it, sentences that state their triple are green, and others red.
    """
    charts = [({"real text": curve(events, "step", "loss"),
                "synthetic": curve(events, "step", "synthetic_loss"),
                "held out": curve(events, "eval", "val_loss")}, "loss a token"),
              ({group.replace("_", " "): curve(events, "eval", f"recall_{group}") for group in GROUPS},
               "share of the facts recalled", True),
              ({"real": curve(events, "gan", "believes_real"),
                "the GAN's": curve(events, "gan", "believes_fake")},
               "share of sentences that the discriminator believes, after the warm-up", True)]
    told, lines = [event for event in events if event["event"] == "gan"], []
    for event in told[::-math.ceil(len(told) / most) or -1][::-1]:  # the last one, and others evenly
        for i, (score, triple, text) in enumerate(event["sentences"]):
            colour = INK if parse is None else RIGHT if parse(text) == tuple(triple) else WRONG
            lines.append([(16, "" if i else f"{event['step']:,}", INK), (120, triple[1], INK),
                          (70, "" if score is None else f"{score:.1f}", INK), (260, text, colour)])
    draw_sheet(path, [chart for chart in charts if any(chart[0].values())], lines=lines)
