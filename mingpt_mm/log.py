"""What a run tells while it goes on: lines on the screen, `log.jsonl` and the picture `progress.png`."""

import json
import math
import textwrap
import time

import torch
from PIL import Image, ImageDraw, ImageFont

from mingpt_mm import BadInput
from mingpt_mm.pretrained import write_file
from mingpt_mm.run import learning_rate

INK, GRID, RIGHT, WRONG = "#555555", "#dddddd", "#117733", "#cc2222"
COLOURS = ("#7788aa", "#dd6600")  # one a curve


def draw_progress(path, curves, samples):
    """Draw `curves` {name: [(step, loss), ...]} on a logarithmic axis, and `samples` below, to `path`.

    A sample is (PIL image, caption, right captions): the caption is green if it is right; if not, it is red
    and a right one stands below it.
    """
    image, font, bottom = Image.new("RGB", (960, 1200), "white"), ImageFont.load_default(14), 370
    draw = ImageDraw.Draw(image)
    points = [point for curve in curves.values() for point in curve]
    last = max(1, *(step for step, _ in points))
    losses = [max(1e-4, loss) for _, loss in points]
    low, high = 0.9 * min(losses), 1.1 * max(losses)

    def place(step, loss):
        """Where the point lies, in pixels."""
        return 60 + 740 * step / last, 20 + 320 * math.log(high / max(loss, low)) / math.log(high / low)

    digits = (1, 2, 5) if high > 10 * low else range(1, 10)
    for loss in (digit * 10.0**power for power in range(-5, 3) for digit in digits):
        if low < loss < high:
            draw.line([place(0, loss), place(last, loss)], fill=GRID)
            draw.text((52, place(0, loss)[1]), f"{loss:g}", fill=INK, font=font, anchor="rm")
    labels = []
    for (name, curve), colour in zip(curves.items(), COLOURS):
        draw.line([place(*point) for point in curve], fill=colour, width=3)
        for x, y in (place(*point) for point in curve[-1:]):
            if labels and abs(y - labels[-1]) < 18:  # too close to the label before
                y = labels[-1] + (18 if y > labels[-1] else -18)
            labels.append(y)
            draw.text((x + 8, y), f"{name} {curve[-1][1]:.3f}", fill=colour, font=font, anchor="lm")
    draw.text((60, 350), "0", fill=INK, font=font, anchor="mt")
    draw.text((800, 350), f"{last:,} steps", fill=INK, font=font, anchor="mt")
    draw.text((430, 350), "loss a token", fill=INK, font=font, anchor="mt")
    for i, (picture, caption, truths) in enumerate(samples):
        x, y = 16 + 157 * i, 526
        image.paste(picture.resize((141, 141)), (x, 380))
        texts = [(caption, RIGHT)] if caption in truths else [(caption, WRONG), (truths[0], INK)]
        for text, colour in texts:
            text = textwrap.fill(text, 19)
            draw.multiline_text((x, y), text, fill=colour, font=font)
            y = draw.multiline_textbbox((x, y), text, font=font)[3] + 8
        bottom = max(bottom, int(y))
    write_file(path, lambda file: image.crop((0, 0, 960, bottom)).save(file, "PNG"))


class Log:
    """`log.jsonl`, an event a line, told on the screen too.

    A run that goes on after `first` steps forgets what came later, and evaluates there once more.
    """

    def __init__(self, folder, first, config):
        folder.mkdir(parents=True, exist_ok=bool(config.out or first))  # a numbered folder is nobody else's
        self.path, self.config, self.events = folder / "log.jsonl", config, []
        if first > 0 and self.path.exists():
            lines = self.path.read_text().splitlines()
            events = [json.loads(line) for line in lines if line.endswith("}")]  # the last one may be torn
            self.events = [e for e in events if e["step"] < first + (e["event"] == "step")]
        lines = "".join(json.dumps(event) + "\n" for event in self.events).encode()
        write_file(self.path, lambda file: file.write(lines))
        self.losses, self.tokens, self.since = [], 0, time.perf_counter()

    def write(self, event, step, **values):
        """Append {"event": event, "step": step, **values}; a run whose numbers are not finite ends here."""
        if not all(map(math.isfinite, values.values())):
            raise BadInput(f"step {step}: the loss is not finite any more: lower --learning_rate")
        self.events.append({"event": event, "step": step} | values)
        with open(self.path, "a") as file:
            file.write(json.dumps(self.events[-1]) + "\n")
        told = (f"{name} {value:{',.0f' if value >= 1000 else '.4g'}}" for name, value in values.items())
        print(f"{event} {step}: " + ", ".join(told), flush=True)

    def step(self, step, loss, norm, tokens):
        """Note a step's loss and gradient norm (tensors) and positions; sum up each `log_interval` steps."""
        self.losses.append(loss)
        self.tokens += tokens
        if step % self.config.log_interval == 0:
            seconds, n = time.perf_counter() - self.since, len(self.losses)
            self.write("step", step, loss=torch.stack(self.losses).mean().item(), gradient_norm=norm.item(),
                       learning_rate=learning_rate(step - 1, self.config), ms=1000 * seconds / n,
                       tokens_per_second=self.tokens / seconds,
                       seconds_left=seconds / n * (self.config.steps - step))
            self.losses, self.tokens, self.since = [], 0, time.perf_counter()

    def curve(self, event, name):
        """The [(step, value of `name`), ...] of all events of that kind."""
        return [(e["step"], e[name]) for e in self.events if e["event"] == event]
