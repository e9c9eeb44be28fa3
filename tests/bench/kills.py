"""Runs of train.py that are killed at random moments and resumed until they end, beside runs that nobody disturbs.

    python -m tests.bench.kills [--kills 100] [--seed 0]

equal: the runs whose last checkpoint has the same parameters, optimizer state (but for the learning rate, which
each step sets) and synthetic sentences, to the last bit, as the undisturbed run's. lost: the checkpoints that a
kill damaged or removed. at_the_beginning: the kills before the first checkpoint after step 0, so also those in the
GAN's game.
"""

import os
import random
import shutil
import signal
import subprocess
import tempfile
import time
from pathlib import Path

import torch

from mingpt_mm.console import UserError
from mingpt_mm.training import load_checkpoint
from tests.bench.common import make_parser, report, run, start

SMALL = "--eval_interval 10 --eval_samples 32 --log_interval 5 --dropout 0.1"
LOOPS = {"multimodal": f"--steps 200 {SMALL}", "multimodal, 2 workers": f"--steps 200 --num_workers 2 {SMALL}",
         "adversarial": f"adversarial --gan_warmup 150 --gan_steps 100 --sentences 5 --steps 50 {SMALL}"}


def same(a, b):
    """Whether two values of checkpoints are equal to the last bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def kill(argv, out, seconds, group):
    """Start or resume the run in the folder `out` and kill it after so many `seconds` (None: never); its exit status.

    Without `group` the processes that read its data are left behind, and must end by themselves.
    """
    resumed = ["--resume"] if (out / "last.pt").exists() else argv
    process = start([*resumed, "--out", out.name], out.parent, start_new_session=True)
    try:
        error = process.communicate(timeout=seconds)[1]
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL) if group else process.kill()
        error = process.communicate()[1]
    if process.returncode not in (0, -signal.SIGKILL):
        raise RuntimeError(f"train.py ended with status {process.returncode}: {error}")
    return process.returncode


def measure(argv, whole, kills, rng, longest):
    """Counts for runs with `argv` that are killed `kills` times in all, compared with the run in `whole`."""
    counts = dict.fromkeys(("kills", "at_the_beginning", "lost", "runs", "equal"), 0)
    while counts["kills"] < kills:
        out, step, status = whole.parent / f"killed-{counts['runs']}", None, -1
        while status != 0:
            seconds = rng.uniform(0.2, longest) if counts["kills"] < kills else None
            status = kill(argv, out, seconds, group=rng.random() < 0.5)
            counts["kills"] += status != 0
            try:
                if step is not None or (out / "last.pt").exists():
                    step = load_checkpoint(out / "last.pt")["step"]
            except UserError:
                counts["lost"], step = counts["lost"] + 1, None
                shutil.rmtree(out)
            counts["at_the_beginning"] += status != 0 and (step or 0) < 1
        ours, theirs = load_checkpoint(out / "last.pt"), load_checkpoint(whole / "last.pt")
        counts["runs"] += 1
        ours["optimizer"], theirs["optimizer"] = (run["optimizer"]["state"] for run in (ours, theirs))
        counts["equal"] += all(same(ours[part], theirs[part]) for part in ("step", "model", "optimizer", "synthetic"))
        shutil.rmtree(out)
    return counts


def main():
    """Print the table."""
    parser = make_parser(__doc__)
    parser.add_argument("--kills", type=int, default=100, help="in all (default: 100)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--loops", nargs="+", default=list(LOOPS), choices=LOOPS, metavar="LOOP", help=", ".join(LOOPS))
    parser.add_argument("options", nargs="*", help="after --: options of train.py")
    options = parser.parse_args()
    rng, results = random.Random(options.seed), {}
    with tempfile.TemporaryDirectory() as folder:
        for i, name in enumerate(options.loops):
            argv, whole = LOOPS[name].split() + options.options, Path(folder, f"whole-{i}")
            run(argv, whole)  # writes the built-in data, too
            shutil.rmtree(whole)
            began = time.perf_counter()
            run(argv, whole)
            longest = 0.8 * (time.perf_counter() - began)
            kills = options.kills // len(options.loops) + (i < options.kills % len(options.loops))
            results[name] = [measure(argv, whole, kills, rng, longest)]
            print(name, results[name], flush=True)
    report(options, results, list(results[name][0]), "one thread")


if __name__ == "__main__":
    main()
