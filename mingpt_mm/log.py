"""What a run tells while it goes on: lines on the screen, and the same as events in `log.jsonl`."""

import json
import math
import time
from shlex import quote

import torch

from mingpt_mm import BadInput
from mingpt_mm.run import learning_rate
from mingpt_mm.system import RANK, WORLD, claim, total, write_file


def read_events(path, step, gan_step):
    """The events of the log at `path` up to so many steps of the run, or of its GAN's learning."""
    until = {"step": step, "gan": gan_step}
    try:
        lines = path.read_text().splitlines()
        events = [json.loads(line) for line in lines if line.endswith("}")]  # the last one may be torn
        return [event for event in events if event["step"] <= until.get(event["event"], step - 1)]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{path}: not the log of a run, or damaged ({error}): take it away") from None


def must_be_finite(step, values, remedy):
    """End the run if one of the `values` {name: number} of this `step` is not finite; tell the `remedy`."""
    for name, value in values.items():
        if not math.isfinite(value):
            raise BadInput(f"step {step}: {name} is {value:.3g}{remedy}")


class Log:
    """`log.jsonl`, an event a line, told on the screen too; of several processes the first one has it.

    A run that goes on from a `checkpoint` forgets what came later, and evaluates there once more.
    """

    def __init__(self, folder, checkpoint, config):
        self.path, self.config, self.events = folder / "log.jsonl", config, []
        if RANK == 0:
            self.lock = claim(folder, new=checkpoint is None)
            if checkpoint and self.path.exists():
                self.events = read_events(self.path, checkpoint["step"], checkpoint.get("gan_step", 0))
            lines = "".join(json.dumps(event) + "\n" for event in self.events).encode()
            write_file(self.path, lambda file: file.write(lines))
        self.steps, self.tokens, self.since = {}, 0, time.perf_counter()

    def write(self, event, step, **values):
        """Append {"event": event, "step": step, **values}; a run whose numbers are not finite ends here."""
        numbers = {name: value for name, value in values.items() if isinstance(value, (int, float))}
        must_be_finite(step, numbers, ": lower --learning_rate")
        self.events.append({"event": event, "step": step} | values)
        if RANK == 0:
            with open(self.path, "a") as file:
                file.write(json.dumps(self.events[-1]) + "\n")
        told = (f"{name} {value:{',.0f' if value >= 1000 else '.4g'}}" for name, value in numbers.items())
        print(f"{event} {step}: " + ", ".join(told), flush=True)

    def check(self):
        """End the run if one of the steps since the last line had a loss or a gradient that is not finite."""
        for step, values in self.steps.items():
            where = (f"learning rate {learning_rate(step - 1, self.config):.3g}, the batch of seed "
                     f"{self.config.seed}, step {step - 1}")
            must_be_finite(step, values, f" ({where}): lower --learning_rate; what was saved is from before")

    def step(self, step, norm, tokens, **losses):
        """Note a step's gradient norm and positions, and this process's part of its losses (tensors).

        Every `log_interval` steps, write their means.
        """
        self.steps[step] = losses | {"gradient_norm": norm}
        self.tokens += WORLD * tokens
        if step % self.config.log_interval == 0:
            self.check()
            seconds, n = time.perf_counter() - self.since, len(self.steps)
            means = {name: total(torch.stack([each[name] for each in self.steps.values()]).mean()).item()
                     for name in losses}
            self.write("step", step, **means, gradient_norm=norm.item(),
                       learning_rate=learning_rate(step - 1, self.config), ms=1000 * seconds / n,
                       tokens_per_second=self.tokens / seconds,
                       seconds_left=seconds / n * (self.config.steps - step))
            self.steps, self.tokens, self.since = {}, 0, time.perf_counter()

    def finish(self, began, measures):
        """Write the "final" record with the last `measures` of a run that `began` then; say what to do."""
        speeds = [event["tokens_per_second"] for event in self.events if event["event"] == "step"]
        self.write("final", self.config.steps, **measures, seconds=time.perf_counter() - began,
                   tokens_per_second=sum(speeds) / max(1, len(speeds)))
        print(f"python sample.py --run {quote(str(self.path.parent))}")
