"""What a run survives: the real train.py, killed, starved and misled, and what its checkpoints are worth then.

    python -m tests.bench.faults [--kills 100] [--seed 0]

Killed: a run of either loop gets SIGKILL at a random moment, with the processes that read its data or without
them, and goes on by --resume (or, if it had saved nothing yet, from its beginning) until it ends. Its last
checkpoint must then be that of a run which nobody disturbed: parameters, both players of the GAN, and the states
of all optimizers, bit for bit. After each kill the checkpoint must load. The other faults are a row each.
"""

import argparse
import ctypes
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from mingpt_mm import BadInput
from mingpt_mm.run import load_checkpoint
from tests.bench.common import ROOT

SMALL = ["--eval_interval", "10", "--eval_rows", "32", "--log_interval", "5", "--dropout", "0.1"]
LOOPS = {"multimodal": ["multimodal", "--steps", "200", *SMALL],
         "multimodal, 2 workers": ["multimodal", "--steps", "200", "--workers", "2", "--cache_mb", "1", *SMALL],
         "adversarial": ["adversarial", "--gan_warmup", "150", "--gan_steps", "100", "--steps", "50", *SMALL]}
PARTS = ("model", "optimizer", "gan")  # of a checkpoint, which must be equal in the end


def start(argv, cwd, **options):
    """A process of train.py with one thread, so that all runs add up in the same order."""
    return subprocess.Popen([sys.executable, str(ROOT / "train.py"), *argv], cwd=cwd, text=True, start_new_session=True,
                            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                            env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, **options)


def finish(argv, cwd, **options):
    """(exit status, standard error) of train.py."""
    process = start(argv, cwd, **options)
    error = process.communicate()[1]
    return process.returncode, error


def same(a, b):
    """Whether two checkpoints, or parts of them, are equal to the last bit."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b


def equal(folder, whole):
    """Whether the runs in two folders have ended alike."""
    ours, theirs = load_checkpoint(folder / "last.pt"), load_checkpoint(whole / "last.pt")
    return all(same(ours.get(part), theirs.get(part)) for part in PARTS)


def go_on(argv, folder):
    """The command that begins or resumes the run in `folder`."""
    resumed = [argv[0], "--resume"] if (folder / "last.pt").exists() else argv
    return [*resumed, "--out", folder.name]


def kill(argv, folder, rng, longest):
    """Run train.py and kill it after at most so many seconds. (its exit status, the files half written)"""
    process = start(go_on(argv, folder), folder.parent)
    try:
        process.communicate(timeout=rng.uniform(0.2, longest))
    except subprocess.TimeoutExpired:
        if rng.random() < 0.5:
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()  # those who read its data are left behind
        process.communicate()
    return process.returncode, {path.name for path in folder.glob("*.draft")}


def killed(name, whole, kills, rng, longest):
    """Runs of a loop, killed so often in all: {measure: count}."""
    counts = dict.fromkeys(("kills", "half written", "before the first checkpoint", "lost", "runs", "equal"), 0)
    drafts = set()
    while counts["kills"] < kills:
        folder, status = whole.parent / f"killed-{counts['runs']}", None
        while status != 0:
            had = (folder / "last.pt").exists()
            status, half = kill(LOOPS[name], folder, rng, longest)
            if status not in (0, -signal.SIGKILL):
                sys.exit(f"{name}: train.py ended with {status}: {finish(go_on(LOOPS[name], folder), folder.parent)[1]}")
            counts["kills"] += status != 0
            drafts |= half
            counts["before the first checkpoint"] += status != 0 and not (folder / "last.pt").exists()
            try:
                if had or (folder / "last.pt").exists():
                    load_checkpoint(folder / "last.pt")
            except BadInput as error:
                print(error, file=sys.stderr)
                counts["lost"] += 1
        counts["runs"], counts["half written"] = counts["runs"] + 1, len(drafts)
        counts["equal"] += equal(folder, whole)
        print(f"{name}: {counts}", file=sys.stderr, flush=True)
        shutil.rmtree(folder)
    return counts


def limit_files():
    """What a full disk is: no file of the process may grow beyond 200 kB."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))


def heed_permissions():
    """Give up what lets root write into a read-only folder: CAP_DAC_OVERRIDE leaves the set that a program may have."""
    ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP; it does nothing for others


def stopped(argv, folder):
    """Begin a run in `folder` and let Ctrl-C end it after some steps."""
    process = start([*argv, "--out", folder.name], folder.parent)
    while process.poll() is None and not (folder / "last.pt").exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate()


def refused(argv, folder, whole, line, spoil, mend, **options):
    """1 if a run, interrupted and spoilt by `spoil()`, is refused with `line` while its checkpoint stays, and ends as
    `whole` after `mend()`.
    """
    shutil.rmtree(folder, ignore_errors=True)
    stopped(argv, folder)
    before = (folder / "last.pt").read_bytes()
    spoil()
    status, error = finish([argv[0], "--resume", "--out", folder.name], folder.parent, **options)
    kept = (folder / "last.pt").read_bytes() == before
    mend()
    fine = status == 2 and line in error and error.startswith("error: ") and error.count("\n") == 1 and kept
    print(f"{status} {error.strip()}", file=sys.stderr)
    ended = finish([argv[0], "--resume", "--out", folder.name], folder.parent)
    return int(fine and ended[0] == 0 and equal(folder, whole))


def damaged(whole, rng, flips=200):
    """{fault: (tried, refused in one line, or read with every value right)} of a damaged checkpoint."""
    content, right = (whole / "last.pt").read_bytes(), load_checkpoint(whole / "last.pt")
    path, counts = whole.parent / "damaged.pt", {}
    cuts = [content[:len(content) * tenth // 10] for tenth in range(10)]
    places = [rng.randrange(len(content)) for _ in range(flips)]
    flipped = (content[:at] + bytes([content[at] ^ 1 << rng.randrange(8)]) + content[at + 1:] for at in places)
    for name, versions in (("cut at each tenth of its length", cuts), ("a bit flipped", flipped)):
        survived = []
        for version in versions:
            path.write_bytes(version)
            try:
                survived.append(same(load_checkpoint(path), right))
            except BadInput as error:
                survived.append("\n" not in str(error))
        counts[f"last.pt, {name}"] = len(survived), sum(survived)
    return counts


def two_at_once(argv, folder, whole):
    """1 if a second run in the folder of a first one is refused, and the first one ends as if alone."""
    first = start([*argv, "--out", folder.name], folder.parent)
    while not (folder / "log.jsonl").exists():
        time.sleep(0.02)
    status, error = finish([*argv, "--out", folder.name], folder.parent)
    again, also = finish([argv[0], "--resume", "--out", folder.name], folder.parent)
    print(f"{status} {error.strip()}\n{again} {also.strip()}", file=sys.stderr)
    first.communicate()
    return int(status == again == 2 and first.returncode == 0 and equal(folder, whole))


def others(home, whole, rng):
    """{fault: (tried, survived)} of all but kills."""
    argv, folder = LOOPS["multimodal"], home / "run"
    rows = {"disk full while saving": (1, refused(argv, folder, whole, "is the disk full?", lambda: None, lambda: None,
                                                  preexec_fn=limit_files)),
            "output folder read-only": (1, refused(argv, folder, whole, "ermission denied",
                                                   lambda: folder.chmod(0o555), lambda: folder.chmod(0o755),
                                                   preexec_fn=heed_permissions))}
    captions = next(home.glob("runs/scenes-*")) / "captions.jsonl"
    text = captions.read_text()
    rows["data changed before the resume"] = 1, refused(
        argv, folder, whole, "the data are not what they were", lambda: captions.write_text(text.replace("red", "blue")),
        lambda: captions.write_text(text))
    rows["two more runs started in its folder"] = 1, two_at_once(argv, home / "shared", whole)
    return rows | damaged(whole, rng)


def main():
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng, results = random.Random(options.seed), {}
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        for i, (name, argv) in enumerate(LOOPS.items()):
            whole, began = home / f"whole-{i}", time.perf_counter()
            status, error = finish([*argv, "--out", whole.name], home)
            if status:
                sys.exit(error)
            seconds = time.perf_counter() - began
            share = options.kills // len(LOOPS) + (i < options.kills % len(LOOPS))
            results[name] = killed(name, whole, share, rng, longest=0.8 * seconds)
        rows = others(home, home / "whole-0", rng)
    columns = list(next(iter(results.values())))
    print("| SIGKILL | " + " | ".join(columns) + " |\n|---" + "|---" * len(columns) + "|")
    for name, counts in results.items():
        print(f"| {name} | " + " | ".join(map(str, counts.values())) + " |")
    print("\n| fault | tried | survived |\n|---|---|---|")
    for name, (tried, survived) in rows.items():
        print(f"| {name} | {tried} | {survived} |")


if __name__ == "__main__":
    main()
