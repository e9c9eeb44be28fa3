"""Hundreds of broken inputs for every reader: each is read, or refused in one line."""

import io
import json
import random

import numpy as np
import pytest
from PIL import Image

from mingpt_mm.console import UserError
from mingpt_mm.data.datasets import load_captions, load_documents, load_frames, load_probes, load_triples

VALUES = [None, True, 0, -1, 1e400, float("nan"), 2**70, "", " ", "a\nb", "\0", "\ud800", "é" * 300, "../" * 20, "/", ".",
          [], [[]], {}, {"a": 1}, [None], ["a", 1], "x" * 5000]
ROWS = {"captions": {"image": "1.png", "caption": "a cat", "split": "val"},
        "probes": {"prompt": "Ada lives in", "answer": "Rome", "group": "stated"}}
READERS = {"captions": lambda path: load_captions(path.parent), "probes": load_probes, "triples": load_triples,
           "documents": lambda path: load_documents([path])}


def broken(rng, content):
    """`content` (bytes) with parts of it cut off, changed, doubled, removed or replaced."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at, length = rng.randrange(len(content) + 1), rng.choice([1, 2, 4, 8, 64])
        part = content[at:at + length]
        content[at:at + length] = rng.choice([
            b"", part * 2, part[::-1], rng.randbytes(length % 99), b"\xff" * len(part), bytes(b ^ 4 for b in part), b"9\n\t"])
    return bytes(content)


def animation(kind, frames):
    """A small image or animation of that format, as bytes."""
    rng, file = np.random.default_rng(0), io.BytesIO()
    images = [Image.fromarray(rng.integers(0, 255, (12, 10, 3), np.uint8)) for _ in range(frames)]
    images[0].save(file, kind, **{"save_all": True, "append_images": images[1:], "duration": 50} if frames > 1 else {})
    return file.getvalue()


@pytest.mark.parametrize("kind", [*READERS, "PNG 1", "PNG 4", "GIF 1", "GIF 4", "WEBP 1", "WEBP 4", "JPEG 1"])
def test_a_broken_file_is_read_or_refused_in_one_line(kind, tmp_path, capfd):
    rng, path, row = random.Random(0), tmp_path / "captions.jsonl", ROWS.get(kind)
    (tmp_path / "1.png").touch()
    read = READERS.get(kind, lambda path: load_frames(path, 3, 8))
    text = json.dumps(row) if row else "Ada\tlives in\tRome" if kind == "triples" else "Ada lives in Rome.\n\nBob does."
    whole = (f"{text}\n" * 3).encode() if kind in READERS else animation(kind.split()[0], int(kind.split()[1]))
    read_once = read(path) if path.write_bytes(whole) else None
    assert len(read_once) in (1, 3, 4)  # the whole file is good
    for i in range(400):
        path.write_bytes(broken(rng, whole))
        if row and i % 2:
            path.write_text(json.dumps(row | {rng.choice([*row, "video", "captions"]): rng.choice(VALUES)}))
        try:
            read(path)
        except (UserError, OSError) as error:
            assert str(error).strip() and "\n" not in str(error), path.read_bytes()
    assert capfd.readouterr().err == ""
