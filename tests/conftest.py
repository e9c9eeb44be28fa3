"""What the tests share: one thread, a folder of tiny data with three runs on it, and the commands in this process."""

import io
import itertools
import json
import os
import random
import shlex
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image

import sample
import train
from mingpt_mm.console import run_command
from mingpt_mm.data import datasets

torch.set_num_threads(1)  # for tensors as small as these, a second thread only waits for the first
ROOT = Path(__file__).parent.parent
MAIN = {"train.py": train.main, "sample.py": sample.main}
FAST = "--batch_size 4 --steps 8 --eval_interval 4 --log_interval 2 --warmup_steps 2"
SMALL = "--image_size 16 --patch_size 8 --vit_layers 1"
SHORT = {  # words that stand for options in the commands of the tests
    "FAST": FAST, "TINY": f"{FAST} --vocab_size 280 --n_embd 24 --n_head 2 --n_layer 1 --dropout 0.1", "SMALL": SMALL,
    "IMAGES": f"--data images {SMALL}", "CLIPS": f"--data clips --frames 2 {SMALL}",
    "STORY": "--text text.txt --kg kg.tsv --probes probes.jsonl --sentences 2 --gan_warmup 40 --gan_steps 12"}
NAMES = "Ada Bob Cleo Dan Eve Finn Gus Hal Ida Jon Kim Lea Max Nia Oto Pia Quin Ren Sue Tom".split()
RELATIONS = {"lives in": ["Rome", "Oslo", "Lima", "Baku"], "fears": ["bears", "owls", "rats", "eels", "ants"]}
WORDINGS = {"lives in": ["{} lives in {}.", "{} has a house in {}."], "fears": ["{} fears {}.", "{} runs from {}."]}


class Shell:
    """Runs the commands in this process, with streams of their own, as a console would."""

    def words(self, line):
        """The words of a command; those of SHORT are replaced."""
        return sum([SHORT[word].split() if word in SHORT else [word] for word in shlex.split(line)], [])

    def run(self, line, typed="", encoding="utf-8"):
        """(exit status, standard output, standard error with warnings); `typed` None closes standard input."""
        for value in vars(datasets).values():  # a new process has empty caches
            getattr(value, "cache_clear", int)()
        typed, *shown = [text if text is None else io.TextIOWrapper(io.BytesIO(text.encode()), encoding)
                         for text in (typed, "", "")]
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as told:
            for name, stream in zip(("stdin", "stdout", "stderr"), (typed, *shown)):
                patch.setattr(sys, name, stream)
            patch.setattr(sys, "argv", self.words(line))
            try:
                status = run_command(MAIN[sys.argv[0]]) or 0
            except SystemExit as error:
                status = error.code
        out, err = (stream.seek(0) or stream.read() for stream in shown)
        seen = [f"{w.message}\n" for w in told if issubclass(w.category, (UserWarning, RuntimeWarning))]
        return status, out, err + "".join(seen)

    def __call__(self, line, **options):
        """The standard output of a command that succeeds."""
        status, out, err = self.run(line, **options)
        assert status == 0, (line, err)
        return out

    def refuse(self, line):
        """The one line on standard error of a command that is refused with exit status 2."""
        status, _, err = self.run(line)
        assert status == 2 and err.startswith("error: ") and err.count("\n") == 1, (line, status, err)
        return err

    def spawn(self, line, *launcher, **env):
        """A process of its own with one thread."""
        program, *argv = self.words(line)
        return subprocess.Popen([sys.executable, *launcher, str(ROOT / program), *argv], stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE, env=os.environ | {"OMP_NUM_THREADS": "1"} | env)


def write_captions(folder, rows):
    """Write captions.jsonl with `rows` into `folder`."""
    Path(folder, "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def write_images(folder):
    """24 little images of one color."""
    (folder / "images").mkdir(parents=True)
    rng, rows = random.Random(0), []
    for i in range(24):
        color = rng.choice(["red", "blue", "lime"])
        Image.new("RGB", (20, 16), color).save(folder / f"images/{i}.png")
        rows.append({"image": f"images/{i}.png", "captions": [f"a {color} one", f"one in {color}"]})
    write_captions(folder, rows)


def write_clips(folder):
    """Twelve clips in which one color follows another."""
    folder.mkdir()
    pairs = [*itertools.permutations(["red", "blue", "lime"], 2)] * 2
    for i, pair in enumerate(pairs):
        first, then = (Image.new("RGB", (20, 16), color) for color in pair)
        first.save(folder / f"{i}.gif", save_all=True, append_images=[then], duration=100)
    write_captions(folder, [{"video": f"{i}.gif", "caption": f"{a}, then {b}"} for i, (a, b) in enumerate(pairs)])


def write_story(folder):
    """A graph of 20 names and two relations, a text that states the facts of 12 names, and probes."""
    triples = [(name, relation, tails[i % len(tails)]) for i, name in enumerate(NAMES)
               for relation, tails in RELATIONS.items()]
    text = [wording.format(head, tail) for head, relation, tail in triples[:24] for wording in WORDINGS[relation]]
    random.Random(0).shuffle(text)
    probes = [{"prompt": f"{head} {relation}", "answer": tail, "group": "stated" if i < 24 else "graph_only"}
              for i, (head, relation, tail) in enumerate(triples) if i % 4 < 2]
    (folder / "text.txt").write_text("\n\n".join(text))
    (folder / "kg.tsv").write_text("\n".join("\t".join(triple) for triple in triples))
    (folder / "probes.jsonl").write_text("\n".join(map(json.dumps, probes)))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with images/, clips/, text.txt, kg.tsv and probes.jsonl, and the runs seen/, moving/ and told/ on them."""
    folder = tmp_path_factory.mktemp("tiny")
    write_images(folder / "images")
    write_clips(folder / "clips")
    write_story(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for options in ("TINY IMAGES --out seen", "TINY CLIPS --out moving", "adversarial TINY STORY --out told"):
            Shell()(f"train.py {options}")
    return folder


@pytest.fixture
def shell(tiny, tmp_path, monkeypatch):
    """A Shell; the working directory is a copy of `tiny` of the test's own."""
    monkeypatch.chdir(shutil.copytree(tiny, tmp_path / "home"))
    return Shell()
