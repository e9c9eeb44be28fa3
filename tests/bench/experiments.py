"""The experiments of the tour and the variants of tests/bench/README.md, each on an edited copy of the code.

    python -m tests.bench.experiments --seeds 3 --jobs 2

A block that begins with ```diff holds edits: "@@ FILE @@", then lines of the file. Those with "-" are removed, those
with "+" inserted. A block that begins with ```sh holds the command, if it is not `python train.py`.
"""

import re
import shlex
import shutil
from functools import partial
from pathlib import Path

from tests.bench.common import ROOT, bench, make_parser, run
from tests.bench.story_grammar import measure_run

PAGES = {"Experiment": ROOT / "mingpt_mm/README.md", "Recipe": ROOT / "mingpt_mm/RECIPES.md",
         "Variant": ROOT / "tests/bench/README.md"}
COLUMNS = ("exact_match", "val_loss", "recall_stated", "recall_graph_only", "faithfulness", "right_wordings", "seconds")


def read_sections(kind):
    """{name: text} of the sections with a heading "KIND: name"."""
    page = PAGES[kind].read_text(encoding="utf-8")
    return dict(re.findall(rf"^#+ {kind}: (.*)\n((?:(?!#+ ).*\n)+)", page, re.MULTILINE))


def read_blocks(text, language):
    """The blocks of code in a `language`."""
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def copy_code(folder, edits):
    """Copy the code to the new `folder` and apply the `edits`, the text of a ```diff block or ""."""
    folder.mkdir()
    shutil.copytree(ROOT / "mingpt_mm", folder / "mingpt_mm")
    for name in ("train.py", "sample.py"):
        shutil.copy(ROOT / name, folder)
    for part in edits.split("@@ ")[1:]:
        name, hunk = part.split(" @@\n")
        old, new = ("".join(f"{line[1:]}\n" for line in hunk.splitlines() if line[:1] in {" ", sign} or not line)
                    for sign in "-+")
        text = (folder / name).read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise ValueError(f"{name}: these lines occur {text.count(old)} times:\n{old}")
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")


def measure(experiments, options, name, out, seed):
    """The final record of a run of an experiment."""
    text, code = experiments.get(name, ""), out.with_name(f"code-{out.name}")
    command, = read_blocks(text, "sh") or ["python train.py"]
    shutil.rmtree(code, ignore_errors=True)
    copy_code(code, "".join(read_blocks(text, "diff")))
    argv = shlex.split(command.strip(), comments=True)[2:]
    record = run([*argv, "--seed", seed, *options.options], out, options.threads, root=code)
    return record | (measure_run(out) if argv[:1] == ["adversarial"] else {})


def main():
    """Run what the options say."""
    experiments = read_sections("Experiment") | read_sections("Variant")
    bench(make_parser(__doc__), ["default", *experiments], partial(measure, experiments), COLUMNS)


if __name__ == "__main__":
    main()
