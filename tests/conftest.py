"""What the tests share: one thread, a folder of tiny data with three runs on it, and the commands in this process."""

import io
import itertools
import json
import os
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
RELATIONS = {"lives in": ["Rome", "Oslo", "Lima", "Baku"], "fears": ["bears", "owls", "rats", "eels"]}
WORDINGS = {"lives in": ["{} lives in {}.", "{} has a house in {}."], "fears": ["{} fears {}.", "{} runs from {}."]}


SHOWN = UserWarning, RuntimeWarning  # Python prints these warnings


class Shell:
    """Runs the commands in this process, with streams of their own, as a console would, and reads runs."""

    def words(self, line):
        """The words of a command; those of SHORT are replaced."""
        return sum([SHORT[word].split() if word in SHORT else [word] for word in shlex.split(line)], [])

    def run(self, line, typed="", encoding="utf-8"):
        """(exit status, standard output, standard error with warnings); `typed` None closes standard input."""
        for value in vars(datasets).values():  # a new process has empty caches
            getattr(value, "cache_clear", int)()
        streams = [text if text is None else io.TextIOWrapper(io.BytesIO(text.encode()), encoding)
                   for text in (typed, "", "")]
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings(record=True) as told:
            for name, value in zip(("stdin", "stdout", "stderr", "argv"), (*streams, self.words(line))):
                patch.setattr(sys, name, value)
            try:
                status = run_command(MAIN[sys.argv[0]]) or 0
            except SystemExit as error:
                status = error.code
        out, err = (stream.seek(0) or stream.read() for stream in streams[1:])
        return status, out, err + "".join(f"{w.message}\n" for w in told if issubclass(w.category, SHOWN))

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
        """(exit status, standard output, standard error), in bytes, of a process of its own with one thread."""
        program, *argv = self.words(line)
        done = subprocess.run([sys.executable, *launcher, str(ROOT / program), *argv], capture_output=True,
                              timeout=120, env=os.environ | {"OMP_NUM_THREADS": "1"} | env)
        return done.returncode, done.stdout, done.stderr

    def log(self, run, kind=None):
        """The events of a `kind`, or all, in the log of a run."""
        return [event for line in Path(run, "log.jsonl").open() if kind in (None, (event := json.loads(line))["event"])]

    def saved(self, run, name="last.pt"):
        """A checkpoint of a run."""
        return torch.load(Path(run, name), weights_only=True)


def write_captions(folder, rows):
    """Write captions.jsonl with `rows` into `folder`."""
    Path(folder, "captions.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")


def write_data(folder):
    """24 images of one color, 12 clips in which one color follows another, and a story.

    The story: a graph of 20 names and two relations, a text that states the facts of 12 names, and probes.
    """
    images = ["red", "blue", "lime", "lime", "red", "blue", "blue", "red"] * 3
    clips = [*itertools.permutations(["red", "blue", "lime"], 2)] * 2
    (folder / "images/images").mkdir(parents=True)
    (folder / "clips").mkdir()
    for i, color in enumerate(images):
        Image.new("RGB", (20, 16), color).save(folder / f"images/images/{i}.png")
    for i, pair in enumerate(clips):
        first, *then = [Image.new("RGB", (20, 16), color) for color in pair]
        first.save(folder / f"clips/{i}.gif", save_all=True, append_images=then, duration=100)
    write_captions(folder / "images", [{"image": f"images/{i}.png", "captions": [f"a {color} one", f"one in {color}"]}
                                       for i, color in enumerate(images)])
    write_captions(folder / "clips",
                   [{"video": f"{i}.gif", "caption": ", then ".join(clip)} for i, clip in enumerate(clips)])
    facts = [(name, relation, tails[i % 4]) for i, name in enumerate(NAMES) for relation, tails in RELATIONS.items()]
    text = [wording.format(head, tail) for head, relation, tail in facts[:24] for wording in WORDINGS[relation]]
    (folder / "text.txt").write_text("\n\n".join(sorted(text, key=lambda line: line[::-1])))
    (folder / "kg.tsv").write_text("\n".join(map("\t".join, facts)))
    (folder / "probes.jsonl").write_text("\n".join(
        json.dumps({"prompt": f"{head} {relation}", "answer": tail, "group": "stated" if i < 24 else "graph_only"})
        for i, (head, relation, tail) in enumerate(facts) if i % 4 < 2))


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """A folder with images/, clips/, text.txt, kg.tsv and probes.jsonl, and the runs seen/, moving/ and told/."""
    folder = tmp_path_factory.mktemp("tiny")
    write_data(folder)
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
