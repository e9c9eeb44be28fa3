"""What both training loops share: device and processes, optimizer and schedule, checkpoints and the log."""

import json
import math
import os
import sys
import time
from argparse import Namespace
from collections import Counter
from pathlib import Path
from statistics import fmean

import torch

from mingpt_mm.console import RANK, WORLD_SIZE, UserError, fail
from mingpt_mm.data.tokenizer import make_tokenizer
from mingpt_mm.model import gpt, multimodal, vit
from mingpt_mm.model.transformer import Block


def init_device(name):
    """(device, autocast): the torch device `name` ("auto": the best one), and bfloat16 on GPUs that have it.

    Under torchrun it also joins the process group; only the first process prints.
    """
    best = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
    devices = {"auto": best, "cpu": torch.device("cpu"), best.type: best}
    device = devices.get(name) or fail(f"--device {name}: not on this machine; it has {best.type}")
    cuda = device.type == "cuda"
    torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) if cuda else -1)  # -1: no effect
    if WORLD_SIZE > 1:
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
    sys.stdout = open(os.devnull, "w") if RANK else sys.stdout
    return device, torch.autocast(device.type, torch.bfloat16, cuda and torch.cuda.is_bf16_supported())


def parameter_groups(model, args):
    """(groups for AdamW, groups for Muon): weight decay on matrices and embeddings only, and a factor on the
    learning rate.

    With `args.optimizer` "muon" the matrices of the blocks go to Muon (An optimizer for hidden layers in
    neural networks, Jordan et al., 2024). Parts in `args.freeze` do not learn.
    """
    blocks = [module for module in model.modules() if isinstance(module, Block) and args.optimizer == "muon"]
    muon = dict.fromkeys(p for block in blocks for p in block.parameters() if p.dim() > 1)  # keeps the order
    for part, module in model.named_children():
        module.requires_grad_(part not in args.freeze)
    groups = [{"params": [p for p in module.parameters() if (p.dim() > 1) == matrices and p not in muon],
               "factor": args.connector_lr_factor if part in ("connector", "frame_embeddings") else 1.0,
               "weight_decay": args.weight_decay * matrices}
              for part, module in model.named_children() for matrices in (True, False)]
    return groups, [{"params": [*muon], "factor": 1.0, "weight_decay": args.weight_decay}] * bool(muon)


def get_lr(step, args):
    """Linear warm-up to the peak, then a cosine to 0 after the last step."""
    progress = (step - args.warmup_steps) / max(1, args.steps - args.warmup_steps)
    cosine = args.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))
    return args.learning_rate * (step + 1) / args.warmup_steps if progress < 0 else cosine


def set_step(optimizers, step, args):
    """Set learning rate and random seed, functions of the options and `step`, so that resume is exact."""
    torch.manual_seed(hash((args.seed, step, RANK)))
    for group in (group for optimizer in optimizers for group in optimizer.param_groups):
        group["lr"] = group["factor"] * get_lr(step, args)


def save_checkpoint(path, args, step, model, optimizers, tokenizer, events, synthetic=None):
    """Save all that a resume and `load_run` need after `step` steps, atomically.

    synthetic: the sentences of the GAN.
    """
    state = dict(args=vars(args), step=step, model=model.state_dict(), tokenizer=tokenizer.merges,
                 optimizers=[optimizer.state_dict() for optimizer in optimizers], events=events,
                 gpt=vars(getattr(model, "gpt", model).config), synthetic=synthetic,
                 vit=vars(model.vit.config) if hasattr(model, "vit") else None)
    if RANK == 0:
        torch.save(state, path.with_suffix(".tmp"))
        os.replace(path.with_suffix(".tmp"), path)


def load_checkpoint(path):
    """The dict that `save_checkpoint` saved to `path`, with its tensors on the CPU."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file can make torch raise anything
        raise UserError(f"{path}: no checkpoint, or a damaged one ({type(error).__name__})") from error


def restore(state):
    """(model, tokenizer) of a checkpoint's `state`: a MultimodalGPT or a GPT."""
    model = gpt.GPT(gpt.GPTConfig(**state["gpt"]))
    if config := state["vit"]:
        model = multimodal.MultimodalGPT(model, vit.ViT(vit.ViTConfig(**config)), state["args"]["frames"])
        model.codebook = state["model"].get("codebook")  # None if the model does not draw
    try:
        model.load_state_dict(state["model"], assign=True)  # with the saved strides, as resume must be exact
    except RuntimeError as error:
        raise UserError(f"the weights do not fit the edited code: {' '.join(str(error).split())}") from error
    return model, make_tokenizer(state["tokenizer"])


def load_run(folder):
    """(model, tokenizer, args) of the run in `folder`: its best checkpoint, the options of its training."""
    checkpoint = load_checkpoint(Path(folder, "best.pt"))
    model, tokenizer = restore(checkpoint)
    return model.eval(), tokenizer, Namespace(**checkpoint["args"])


def latest_run(file="last.pt", root="runs"):
    """The folder under `root` with the newest checkpoint of the name `file`."""
    newest = max(Path(root).glob(f"*/{file}"), key=os.path.getmtime, default=None)
    return newest.parent if newest else fail(f"{root}: no run in it; python train.py makes one")


class Logger:
    """`log.jsonl`, one event on each line, also printed. A resumed run drops events after its checkpoint.

    A new run also gets a `last.pt` of step 0 without weights, from which it can be resumed.
    """

    def __init__(self, args, checkpoint):
        self.args, self.events, self.sums = args, checkpoint["events"] if checkpoint else [], Counter()
        self.start = self.since = time.perf_counter() - (self.events[-1]["seconds"] if self.events else 0)
        Path(args.out).mkdir(parents=True, exist_ok=True)
        if checkpoint is None:
            torch.save({"args": vars(args), "step": 0}, Path(args.out, "last.pt"))
        self.file = open(Path(args.out, "log.jsonl"), "w", buffering=1)
        self.file.writelines(json.dumps(event) + "\n" for event in self.events)

    def begin(self, first, total):
        """Begin a phase of the steps from `first` to `total`."""
        self.first, self.total, self.began = first, total, time.perf_counter()

    def log(self, event, step, **values):
        """Append {"event", "step", **values, "seconds"} and print the numbers.

        Raises UserError, and logs nothing, if a number is not finite.
        """
        now = self.since = time.perf_counter()
        numbers = {k: v for k, v in values.items() if k != "sentences"} | {"seconds": now - self.start}
        if not all(map(math.isfinite, numbers.values())):
            raise UserError(f"step {step}: a loss is not finite; lower --learning_rate; last.pt is kept")
        self.events.append({"event": event, "step": step} | values | numbers)
        self.file.write(json.dumps(self.events[-1]) + "\n")
        left = (now - self.began) / max(1, step - self.first) * (self.total - step)
        shown = (f"{name} {value:{',.0f' if value >= 1000 else '.4g'}}" for name, value in numbers.items())
        print(f"{event} {step}/{self.total}: {', '.join(shown)}, {left:,.0f} s left")

    def step(self, step, tokens, **values):
        """Add up the `values` (tensors) of a step. At the end of an interval, log their means.

        The sums are empty at each checkpoint, so it does not store them.
        """
        self.sums.update({name: value.detach() for name, value in values.items()}, steps=1, tokens=tokens)
        if any(step % n == 0 for n in (self.args.log_interval, self.args.eval_interval, self.args.steps)):
            sums, self.sums = self.sums, Counter()
            rate = sums["tokens"] * WORLD_SIZE / (time.perf_counter() - max(self.began, self.since))
            means = {name: (sums[name] / sums["steps"]).item() for name in values}
            self.log("step", step, **means, learning_rate=get_lr(step - 1, self.args), tokens_per_second=rate)

    def finish(self, best_step, metrics):
        """Log the "final" event, the `metrics` of the best checkpoint, and say in words what they mean."""
        self.log("final", self.total, **metrics, best_step=best_step,
                 gan_seconds=max((e["seconds"] for e in self.events if e["event"] == "gan"), default=0),
                 tokens_per_second=fmean(e["tokens_per_second"] for e in self.events if e["event"] == "step"))
        if [e["val_loss"] for e in self.events if e["event"] == "eval"][-1] > (loss := metrics["val_loss"]):
            print(f"the validation loss rose after step {best_step}: try fewer steps, more data or --dropout")
        if (other := metrics.get("val_loss_shuffled", loss)) != loss:  # equal in batches of one row
            verb = "uses" if other > 1.02 * loss else "ignores"
            print(f"the model {verb} the image: loss {loss:.3f}, with another image {other:.3f}")
        print(f"python sample.py --run {self.args.out}")
