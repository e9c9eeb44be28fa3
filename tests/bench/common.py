"""What the benches share: runs of train.py, and tables of what they measured."""

import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import mean

ROOT = Path(__file__).parent.parent.parent


def run(loop, folder, options, alone, root=ROOT):
    """The "final" record of a run of train.py, of the checkout at `root`, in the new `folder`; it has one thread if it is
    not alone.
    """
    command = [sys.executable, str(root / "train.py"), loop, "--out", str(folder), *map(str, options)]
    environment = os.environ | ({} if alone else {"OMP_NUM_THREADS": "1"})
    process = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder.parent)
    if process.returncode:
        sys.exit(process.stderr)
    record = json.loads((folder / "log.jsonl").read_text().splitlines()[-1])
    print(f"{folder.name}: {record['seconds']:.0f} s", file=sys.stderr, flush=True)
    return record


def table(results, columns):
    """Print {name: records}, their means with the smallest and the largest, as a table in Markdown."""
    columns = [column for column in columns if any(column in record for rows in results.values() for record in rows)]
    print("| | " + " | ".join(column.replace("_", " ") for column in columns) + " |")
    print("|---" * (len(columns) + 1) + "|")
    for name, records in results.items():
        cells = []
        for column in columns:
            values = [record[column] for record in records if column in record]
            form = "{:.0f}" if max(values, default=0) > 20 else "{:.2f}"
            cell = form.format(mean(values)) if values else ""
            if len(values) > 1:
                cell += f" ({form.format(min(values))}-{form.format(max(values))})"
            cells.append(cell)
        print(f"| {name} | " + " | ".join(cells) + " |")
