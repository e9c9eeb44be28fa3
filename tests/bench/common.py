"""What the benches share: options, runs of train.py in processes of their own, timing, and tables in Markdown."""

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean

import torch

ROOT = Path(__file__).parents[2]


def make_parser(doc):
    """The command line of a bench whose docstring is `doc`."""
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the measures to this file")
    return parser


def start(argv, folder, threads=1, patch="", root=ROOT, **options):
    """A process in `folder` that runs `train.py ARGV` of the code in `root`.

    patch: code to run between `import train` and its main function.
    """
    program = ["-c", f"import train\n{patch}\ntrain.run_command(train.main)"] if patch else [root / "train.py"]
    return subprocess.Popen([sys.executable, *map(str, [*program, *argv])], cwd=folder, text=True,
                            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, **options,
                            env=os.environ | {"OMP_NUM_THREADS": str(threads), "PYTHONPATH": str(root)})


def run(argv, out, threads=1, patch="", root=ROOT):
    """The final record of `train.py ARGV --out OUT`. A finished run is not repeated, an unfinished one is resumed."""
    log = out / "log.jsonl"
    if '"event": "final"' not in (log.read_text() if log.exists() else ""):
        argv = ["--resume"] if (out / "last.pt").exists() else argv
        process = start([*argv, "--out", out.name], out.parent, threads, patch, root)
        error = process.communicate()[1]
        if process.returncode:
            sys.exit(f"{out.name}: {error}")
        print(f"finished {out.name}", file=sys.stderr, flush=True)
    return json.loads(log.read_text().splitlines()[-1])


def bench(parser, variants, measure, columns):
    """Measure each of the named `variants` for each seed, and print the table of the `columns`.

    measure: a function (options, variant, new folder of the run, seed) -> record.
    """
    parser.add_argument("--seeds", type=int, default=3, help="seeds 0 to N - 1 (default: 3)")
    parser.add_argument("--variants", nargs="+", default=list(variants), choices=list(variants), metavar="NAME",
                        help="some of: " + ", ".join(variants))
    parser.add_argument("--threads", type=int, default=1, help="threads of each run (default: 1)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time (default: 1)")
    parser.add_argument("--runs", help="folder that keeps the runs; those that it holds are not repeated")
    parser.add_argument("options", nargs="*", help="after --: options of train.py")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, ThreadPoolExecutor(options.jobs) as pool:
        folder = Path(options.runs or temporary).absolute()
        folder.mkdir(parents=True, exist_ok=True)
        records = {(name, seed): pool.submit(measure, options, name, folder / f"{name.replace(' ', '-')}-{seed}", seed)
                   for seed in range(options.seeds) for name in options.variants}
        try:
            results = {name: [records[name, seed].result() for seed in range(options.seeds)]
                       for name in options.variants}
        finally:
            pool.shutdown(cancel_futures=True)
    report(options, results, columns, f"{options.jobs} run(s) at a time, each with {options.threads} thread(s)")


def show(value):
    """A number with 0 to 2 decimals, by its size."""
    digits = 0 if isinstance(value, int) or value >= 100 else 1 if value >= 10 else 2
    return f"{value:,.{digits}f}"


def report(options, results, columns, how):
    """Print {name: records} as a table: for each column the mean, and the smallest and largest of several."""
    columns = [column for column in columns if any(column in record for rows in results.values() for record in rows)]
    cpu = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()) if sys.platform == "linux" else None
    print(f"\n{cpu[1] if cpu else platform.processor()}, torch {torch.__version__}, {how}\n")
    print("| | " + " | ".join(column.replace("_", " ") for column in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, records in results.items():
        cells = []
        for column in columns:
            values = [record[column] for record in records if column in record]
            spread = f" ({show(min(values))}-{show(max(values))})" if len(values) > 1 else ""
            cells.append(show(mean(values)) + spread if values else "")
        print(f"| {name} | " + " | ".join(cells) + " |")
    if options.json:
        options.json.write_text(json.dumps(results, indent=1))
