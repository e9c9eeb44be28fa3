"""What both training loops share: options, device, optimizer, schedule, checkpoints."""

import argparse
import inspect
import math
import os
import re
import sys
import time
from dataclasses import dataclass, fields
from itertools import count
from pathlib import Path
from zipfile import ZipFile

import torch

from mingpt_mm import BadInput
from mingpt_mm.system import RANK, WORLD, join, lost, part, write_file

FORMAT = 4  # of the checkpoints
# Options that a resumed run may have otherwise than before. Its data may lie elsewhere, but must be the same.
MAY_CHANGE = ("resume", "out", "steps", "eval_interval", "eval_rows", "log_interval", "device", "compile",
              "workers", "cache_mb", "accumulate", "data", "text", "kg", "probes")

TOO_LARGE = "not enough memory|allocate memory|Storage size calculation overflowed"  # torch says on a CPU

# The least and the most that some options may be; what must not be 1 may come near it.
RANGES = {"dropout": (0, 0.99), "keep": (0.01, 1), "two_relations": (0, 0.5), "top_p": (0, 1)}

SIZES = dict.fromkeys(("block_size", "n_layer", "n_head", "n_embd"), 0)


@dataclass
class Config:
    """The options of both loops. A field and its comment are an option of the command line and its help."""

    out: str = ""  # folder of the run; without it, a new numbered one under runs/
    resume: bool = False  # go on from last.pt in --out, or in the newest run under runs/
    steps: int = 1200  # updates of the parameters
    batch_size: int = 32  # examples a step
    init: str = "scratch"  # the GPT to begin with: scratch, gpt2 to gpt2-xl, a run, a folder or a file
    learning_rate: float = 1.5e-3  # its peak; with released weights, unless given, 5e-5
    warmup: int = 50  # steps until the learning rate reaches its peak; from there it falls as a cosine to 0
    weight_decay: float = 0.1  # on matrices and embeddings, not on biases and LayerNorms
    clip: float = 1.0  # the largest norm that the gradient may have
    dropout: float = 0.0  # in the GPT
    block_size: int = 64  # the most positions of the GPT: tokens, and the patches of a picture before them
    tokenizer: str = "bpe"  # bpe: trained on the text; gpt2: GPT-2's own, as with released weights
    vocab_size: int = 512  # the most tokens of a bpe
    eval_interval: int = 200  # steps between evaluations; last.pt is saved before each, and as a GAN learns
    eval_rows: int = 500  # the most validation rows that an evaluation takes
    log_interval: int = 50  # steps that a line of the log stands for
    seed: int = 0  # of the weights, the order of the data, and the castle
    device: str = "auto"  # auto, cpu, cuda or mps
    compile: bool = False  # compile the model: slow to start, then faster on a GPU
    workers: int = 0  # processes that read the data ahead; with 0 a thread of the training does

    # {(an option, its value or the kind of weights that it names): what the defaults of others become}; what
    # comes first counts, and a size of 0 is the weights' own
    presets = {("init", "run"): SIZES | {"tokenizer": "run"},
               ("init", "released"): SIZES | {"learning_rate": 5e-5, "tokenizer": "gpt2"}}


class Parser(argparse.ArgumentParser):
    """argparse, but an error is one line."""

    def error(self, message):
        """Called by argparse for what it cannot parse."""
        raise BadInput(f"{message} (--help lists the options)")


def parse(config_class, argv, prog):
    """The options that stand in `argv`, as a dict; each field of the dataclass `config_class` is an option.

    A number must be finite and at least 0; a whole number at least 1, unless its default is 0. Or see RANGES.
    """
    source = "".join(inspect.getsource(c) for c in reversed(config_class.__mro__[:-1]))  # the child's count
    comments = dict(re.findall(r"^    (\w+): .*?  # (.+)$", source, re.MULTILINE))
    parser = Parser(prog, description=inspect.getdoc(config_class), allow_abbrev=False,
                    argument_default=argparse.SUPPRESS)
    for field in fields(config_class):
        kind = {bool: {"action": "store_true"}, tuple: {"nargs": "+"}}.get(field.type, {"type": field.type})
        default = "" if field.type in (bool, tuple) or field.default == "" else f" (default: {field.default})"
        text = (comments[field.name] + default).replace("%", "%%")
        parser.add_argument(f"--{field.name}", help=text, **kind)
    given = vars(parser.parse_args(argv))
    for field in fields(config_class):
        least, most = RANGES.get(field.name, (int(field.type is int and field.default != 0), 2**63 - 1))
        if field.type in (int, float) and not least <= given.get(field.name, least) <= most:
            raise BadInput(f"--{field.name} {given[field.name]}: must be a number from {least} to {most:.3g}")
    return given


def run_command(command, argv):
    """Call `command(argv)`. What the user can mend ends it with one line and exit status 2."""
    try:
        command(argv)
        part()
    except (BadInput, OSError) as error:
        # From a process that reads data, an error comes as the text of its traceback: the last line is the
        # message.
        line = str(error).strip().splitlines()[-1].removeprefix("mingpt_mm.BadInput: ")
        if getattr(error, "filename", None):
            line = f"{error.filename}: {error.strerror}"
    except (MemoryError, RuntimeError) as error:
        line = (str(error).splitlines() or ["MemoryError"])[0]
        if lost(error):
            line = "another process of this run has ended; its own error says why; then go on with --resume"
        elif isinstance(error, (MemoryError, torch.OutOfMemoryError)) or re.search(TOO_LARGE, line):
            line = (f"out of memory ({line}): lower --batch_size, --image_size, --block_size or "
                    "--num_samples, or raise --accumulate")
        else:
            raise
    else:
        return
    print(f"error{f' in process {RANK}' if WORLD > 1 else ''}: {line}", file=sys.stderr)
    sys.exit(2)


def choose_device(name, quiet=False):
    """(device, autocast): the torch device `name`, or the best one for "auto", and its precision."""
    apple = torch.backends.mps.is_available() and WORLD == 1
    found = "cuda" if torch.cuda.is_available() else "mps" if apple else "cpu"
    if name not in ("auto", "cpu", found):
        raise BadInput(f"--device {name}: not here; this machine has " + " and ".join({"cpu": 1, found: 1}))
    device = torch.device(found if name == "auto" else name)
    if device.type == "cuda":
        local = int(os.environ.get("LOCAL_RANK", 0))  # a GPU for each process on this machine
        if local >= torch.cuda.device_count():
            raise BadInput(f"--nproc_per_node: more than this machine's {torch.cuda.device_count()} GPUs")
        torch.cuda.set_device(local)
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS needs to be deterministic
        torch.use_deterministic_algorithms(True, warn_only=True)
    join("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    bfloat16 = device.type == "cuda" and torch.cuda.is_bf16_supported(False)  # not emulated
    precision = "bfloat16" if bfloat16 else f"float32, {torch.get_num_threads()} threads"
    if not quiet:
        print(f"device {device}, {precision}")
    return device, torch.autocast(device.type, torch.bfloat16, enabled=bfloat16)


def make_optimizer(parts, config, checkpoint=None):
    """AdamW (Loshchilov and Hutter, 2019), with weight decay on matrices and embeddings only.

    parts: pairs of a module and its rate, by which the learning rate is multiplied; 0 freezes the module.
    With a `checkpoint` it goes on where that one was.
    """
    groups = []
    for module, rate in parts:
        module.requires_grad_(rate > 0)
        matrices = [parameter for parameter in module.parameters() if parameter.dim() > 1]
        vectors = [parameter for parameter in module.parameters() if parameter.dim() <= 1]
        groups += [{"params": matrices, "rate": rate, "weight_decay": config.weight_decay},
                   {"params": vectors, "rate": rate, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.95), fused=True)
    if checkpoint:
        optimizer.load_state_dict(checkpoint["optimizer"])
    return optimizer


def learning_rate(step, config):
    """Linear warm-up to the peak, then half a cosine down to 0 at the last step."""
    if step < config.warmup:
        return config.learning_rate * (step + 1) / config.warmup
    progress = (step - config.warmup) / (config.steps - config.warmup)
    return config.learning_rate * 0.5 * (1 + math.cos(math.pi * progress))


def begin_step(optimizer, step, config):
    """Make the learning rate and the dropout of this `step` what (seed, step) says, whatever came before."""
    torch.manual_seed(hash((config.seed, step)) + RANK)
    for group in optimizer.param_groups:
        group["lr"] = group["rate"] * learning_rate(step, config)


def finish_step(model, optimizer, config):
    """Clip the gradient and follow it; return its norm before (a tensor)."""
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), config.clip)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    return norm


def save(path, checkpoint):
    """Save the dict `checkpoint` at `path`, whole or not at all; the first of several processes does."""
    if RANK == 0:
        write_file(path, lambda file: torch.save(checkpoint, file))


def load_checkpoint(path):
    """The dict that a run saved at `path`, its tensors on the CPU."""
    if not path.is_file():
        raise BadInput(f"{path}: no such file: is {path.parent} the folder of a run?")
    try:
        if torn := ZipFile(path).testzip():  # torch.load looks at no checksum
            raise ValueError(torn)
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
        found = checkpoint["format"]
    except Exception as error:  # a damaged file makes the reader raise nearly anything
        raise BadInput(f"{path}: not a checkpoint, or damaged ({type(error).__name__}): take "
                       "a copy of it, or begin a new run") from error
    if found != FORMAT:
        raise BadInput(f"{path}: a checkpoint of format {found}, but this program reads {FORMAT}: use the "
                       "version that wrote it, or begin a new run")
    return checkpoint


def kind_of(source):
    """What --init or --vit names: "scratch", a "run" or "released" weights."""
    if source == "scratch":
        return source
    return "run" if (Path(source) / "last.pt").exists() else "released"


def load_run(folder):
    """The best checkpoint in the `folder` of a run, or else the last."""
    return load_checkpoint(folder / ("best.pt" if (folder / "best.pt").exists() else "last.pt"))


def newest_run():
    """The folder under runs/ with the newest checkpoint."""
    newest = max(Path("runs").glob("*/last.pt"), key=lambda path: path.stat().st_mtime, default=None)
    if newest is None:
        raise BadInput("runs/: no run there yet: python train.py makes one")
    return newest.parent


def same_data(checkpoint, found):
    """`found` (see `text.fingerprint`), which must be what the `checkpoint` has, if there is one."""
    if checkpoint and checkpoint["data"] != found:
        raise BadInput("--resume: the data are not what they were when the run began: bring these back, or "
                       "begin a new run")
    return found


def start_run(config_class, argv, name):
    """(config, folder, checkpoint, steps taken, when it began) of a new run, or with --resume of an old one.

    A new run has no checkpoint (None). The time is that of `time.perf_counter`, pauses left out.
    """
    given, now = parse(config_class, argv, f"train.py {name}"), time.perf_counter()
    if "resume" in given:
        folder = Path(given["out"]) if "out" in given else newest_run()
        checkpoint = load_checkpoint(folder / "last.pt")
        before, steps, loop = checkpoint["config"], checkpoint["step"], checkpoint["loop"]
        if loop != name:
            raise BadInput(f"--resume: {folder} is of another loop: python train.py {loop} --resume "
                           f"--out {folder}")
        for option, value in given.items():
            if option not in MAY_CHANGE and value != before.get(option):
                raise BadInput(f"--{option} {value}: {folder} was started with {before.get(option)} and "
                               "keeps it: leave it out, or begin a new run")
        if given.get("steps", steps) < steps:
            raise BadInput(f"--steps {given['steps']}: {folder} has taken {steps} steps already: ask for "
                           "more")
        return config_class(**before | given), folder, checkpoint, steps, now - checkpoint["seconds"]
    for (option, value), presets in config_class.presets.items():
        chosen = given.get(option, "scratch")
        if value == (chosen if option == "world" else kind_of(chosen)):
            given = presets | given
    free = (folder for i in count(1) if not (folder := Path(f"runs/{name}-{i}")).exists())
    folder = Path(given["out"]) if "out" in given else next(free)
    if (folder / "last.pt").exists():
        raise BadInput(f"--out {folder}: holds another run: go on with it (--resume), or name another folder")
    return config_class(**given), folder, None, 0, now
