"""Hundreds of broken inputs for every reader: each is read, or refused in one line."""

import json
import random

import pytest
from PIL import Image

from mingpt_mm import GPT, GPTConfig
from mingpt_mm.console import UserError
from mingpt_mm.data.datasets import load_captions, load_documents, load_frames, load_probes, load_triples

VALUES = [None, True, 0, 1e400, float("nan"), 2**70, "", " ", "a\nb", "\0", "\ud800", "é" * 300, "../" * 20, ".", [],
          [[]], {}, {"a": 1}, [None], ["a", 1], "x" * 5000]
READERS = {"captions": lambda path: load_captions(path.parent), "probes": load_probes, "triples": load_triples,
           "documents": lambda path: load_documents([path])}
GOOD = {"captions": '{"image": "1.png", "caption": "a cat", "split": "val"}\n' * 3, "documents": "Ada.\n\nBob.\n",
        "probes": '{"prompt": "Ada is in", "answer": "Rome", "group": "a"}\n' * 3, "triples": "Ada\tsees\tRome\n" * 3}


def broken(rng, content):
    """`content` (bytes) with parts of it cut off, changed, doubled, removed or replaced."""
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at, length = rng.randrange(len(content) + 1), rng.choice([1, 2, 4, 8, 64])
        part = content[at:at + length]
        other = rng.choice([b"", part * 2, part[::-1], rng.randbytes(length), b"\xff" * length, b"9\n"])
        content = content[:at] + other + content[at + length if rng.random() < 0.9 else len(content):]
    return content


@pytest.mark.parametrize("kind, frames", [*((kind, 0) for kind in READERS), ("PNG", 1), ("PNG", 4), ("GIF", 1),
                                          ("GIF", 4), ("WEBP", 1), ("WEBP", 4), ("JPEG", 1),
                                          ("model.safetensors", 0)])
def test_a_broken_file_is_read_or_refused_in_one_line(kind, frames, tmp_path, capfd, monkeypatch):
    rng, path = random.Random(0), tmp_path / "captions.jsonl"
    read, whole = READERS.get(kind, lambda path: load_frames(path, 3, 8)), GOOD.get(kind, "").encode()
    Image.new("L", (1, 1)).save(tmp_path / "1.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10**6)  # for speed
    if kind == "model.safetensors":
        GPT(GPTConfig(8, 20, 1, 1, 4)).save_pretrained(tmp_path)
        path, read = tmp_path / kind, lambda path: [GPT.from_pretrained(path)]
        whole = path.read_bytes()
    if frames:
        first, *others = [Image.effect_noise((12, 10), 90).convert("RGB") for _ in range(frames)]
        first.save(path, kind, **({"save_all": True, "append_images": others, "duration": 50} if others else {}))
        whole = path.read_bytes()
    for i in range(200):
        path.write_bytes(broken(rng, whole) if i else whole)
        if whole[:1] == b"{" and i % 2:
            row = json.loads(whole.splitlines()[0])
            path.write_text(json.dumps(row | {rng.choice([*row, "video", "captions"]): rng.choice(VALUES)}))
        try:
            assert len(read(path)) or i
        except (UserError, OSError) as error:
            assert i and str(error).strip() and "\n" not in str(error), path.read_bytes()
    assert capfd.readouterr().err == ""
