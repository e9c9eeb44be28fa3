"""What both training loops share: device and processes, optimizer and schedule, checkpoints and the log."""

import json
import math
import os
import sys
import time
from argparse import Namespace
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from statistics import fmean

import torch
from torch import distributed

from mingpt_mm.console import RANK, WORLD_SIZE, UserError
from mingpt_mm.data.tokenizer import make_tokenizer
from mingpt_mm.model.gpt import GPT, GPTConfig
from mingpt_mm.model.multimodal import MultimodalGPT
from mingpt_mm.model.vit import ViT, ViTConfig


def init_device(name):
    """(device, autocast): the torch device `name` ("auto": the best one), and bfloat16 on GPUs that have it.

    Under torchrun it also joins the process group; only the first process prints.
    """
    best = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    if name not in ("auto", "cpu", best.type):
        raise UserError(f"--device {name}: not on this machine; it has {best.type}")
    device = best if name == "auto" else torch.device(name)
    if device.type == "cuda":
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    if WORLD_SIZE > 1:
        distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    if RANK:
        sys.stdout = open(os.devnull, "w")
    bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported()
    return device, torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)


def parameter_groups(model, args):
    """Groups for AdamW: weight decay on matrices and embeddings only, and a factor on the learning rate.

    The parts in `args.freeze` do not learn.
    """
    groups = []
    for part, module in model.named_children():
        module.requires_grad_(part not in args.freeze)
        factor = args.connector_lr_factor if part in ("connector", "frame_embeddings") else 1.0
        for matrices in (True, False):
            params = [parameter for parameter in module.parameters() if (parameter.dim() > 1) == matrices]
            groups.append({"params": params, "factor": factor, "weight_decay": args.weight_decay * matrices})
    return groups


def get_lr(step, args):
    """Linear warm-up to the peak, then a cosine down to 0 at the last step."""
    if step < args.warmup_steps:
        return args.learning_rate * (step + 1) / args.warmup_steps
    progress = (step - args.warmup_steps) / max(1, args.steps - args.warmup_steps)
    return args.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def set_step(optimizer, step, args):
    """Set the learning rate and the random seed of `step`; both depend on (seed, step) alone: exact resume."""
    torch.manual_seed(hash((args.seed, step, RANK)))
    for group in optimizer.param_groups:
        group["lr"] = group["factor"] * get_lr(step, args)


def save_checkpoint(path, args, step, model, optimizer, tokenizer, events, synthetic=None):
    """Save all that a resume and `load_run` need after `step` steps: whole, or the old file stays.

    synthetic: the sentences of the GAN.
    """
    gpt, vit = getattr(model, "gpt", model), getattr(model, "vit", None)
    checkpoint = {"args": vars(args), "step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict(),
                  "gpt": asdict(gpt.config), "vit": vit and asdict(vit.config), "tokenizer": tokenizer.merges,
                  "events": events, "synthetic": synthetic}
    if RANK == 0:
        torch.save(checkpoint, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)


def load_checkpoint(path):
    """The dict that `save_checkpoint` saved to `path`, with its tensors on the CPU."""
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        return checkpoint | {"args": Namespace(**checkpoint["args"])}
    except Exception as error:  # a damaged file can make torch raise anything
        raise UserError(f"{path}: no checkpoint, or a damaged one ({type(error).__name__})") from error


def restore(checkpoint):
    """(model, tokenizer) of a `checkpoint`: a MultimodalGPT or a GPT."""
    model = GPT(GPTConfig(**checkpoint["gpt"]))
    if checkpoint["vit"]:
        model = MultimodalGPT(model, ViT(ViTConfig(**checkpoint["vit"])), checkpoint["args"].frames)
    try:
        model.load_state_dict(checkpoint["model"])
    except RuntimeError as error:
        raise UserError(f"the weights do not fit the edited code: {' '.join(str(error).split())}") from error
    return model, make_tokenizer(checkpoint["tokenizer"])


def load_run(folder):
    """(model, tokenizer, args) of the run in `folder`: its best checkpoint, and the options of its training."""
    checkpoint = load_checkpoint(Path(folder, "best.pt"))
    model, tokenizer = restore(checkpoint)
    return model.eval(), tokenizer, checkpoint["args"]


def latest_run(root="runs"):
    """The folder under `root` with the newest checkpoint."""
    runs = sorted(Path(root).glob("*/last.pt"), key=os.path.getmtime)
    if not runs:
        raise UserError(f"{root}: no run in it; python train.py makes one")
    return runs[-1].parent


class Logger:
    """`log.jsonl`, an event on each line, also printed. A resumed run drops what came after its checkpoint."""

    def __init__(self, args, checkpoint):
        self.path = Path(args.out, "log.jsonl") if RANK == 0 else Path(os.devnull)
        self.args, self.events, self.sums = args, checkpoint["events"] if checkpoint else [], Counter()
        self.start = time.perf_counter() - (self.events[-1]["seconds"] if self.events else 0)
        self.path.write_text("".join(json.dumps(event) + "\n" for event in self.events))

    def begin(self, first, total):
        """Begin a phase of the steps from `first` to `total`."""
        self.first, self.total, self.began = first, total, time.perf_counter()
        self.since = self.began

    def log(self, event, step, **values):
        """Append {"event", "step", **values, "seconds"} and print the numbers; UserError if one is not finite."""
        now = time.perf_counter()
        self.events.append({"event": event, "step": step} | values | {"seconds": now - self.start})
        with open(self.path, "a") as file:
            file.write(json.dumps(self.events[-1]) + "\n")
        numbers = {k: v for k, v in self.events[-1].items() if isinstance(v, (int, float)) and k != "step"}
        left = (now - self.began) / max(1, step - self.first) * (self.total - step)
        shown = (f"{name} {value:{',.0f' if value >= 1000 else '.4g'}}" for name, value in numbers.items())
        print(f"{event} {step}/{self.total}: {', '.join(shown)}, {left:,.0f} s left", flush=True)
        if not all(map(math.isfinite, numbers.values())):
            raise UserError("the loss is not finite: lower --learning_rate; last.pt is from before")
        self.since = time.perf_counter()

    def step(self, step, tokens, **values):
        """Add up the `values` (tensors) of a step; at the end of an interval, and so before each checkpoint, log
        their means.
        """
        self.sums.update({name: value.detach() for name, value in values.items()}, steps=1, tokens=tokens)
        if any(step % n == 0 for n in (self.args.log_interval, self.args.eval_interval, self.args.steps)):
            steps, tokens = self.sums.pop("steps"), self.sums.pop("tokens") * WORLD_SIZE
            means = {name: (value / steps).item() for name, value in self.sums.items()}
            self.log("step", step, **means, learning_rate=get_lr(step - 1, self.args),
                     tokens_per_second=tokens / (time.perf_counter() - self.since))
            self.sums.clear()

    def finish(self, best_step, metrics):
        """Log the "final" event, the `metrics` of the best checkpoint, and say in words what they mean."""
        self.log("final", self.total, **metrics, best_step=best_step,
                 gan_seconds=max((e["seconds"] for e in self.events if e["event"] == "gan"), default=0),
                 tokens_per_second=fmean(e["tokens_per_second"] for e in self.events if e["event"] == "step"))
        loss, other = metrics["val_loss"], metrics.get("val_loss_shuffled")
        if [e["val_loss"] for e in self.events if e["event"] == "eval"][-1] > loss:
            print(f"the validation loss has risen since step {best_step}: try fewer steps, more data or --dropout")
        if other:
            verb = "uses" if other > 1.02 * loss else "ignores"
            print(f"the model {verb} the image: the loss is {loss:.3f} with it and {other:.3f} with another one")
        print(f"python sample.py --run {self.args.out}")
