"""Thousands of broken inputs for every reader: each is read, or refused in one line, quickly and in little memory."""

import io
import json
import pickle
import random
import resource
import time
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

import sample
import train
from mingpt_mm import BadInput
from mingpt_mm.data import read_captions
from mingpt_mm.gpt import GPT, GPTConfig
from mingpt_mm.images import read_clip, read_image
from mingpt_mm.run import FORMAT, load_checkpoint, parse, save
from mingpt_mm.text import read_documents, read_probes, read_triples

TRIES = 2000
VALUES = [None, True, False, 0, -1, 1e400, float("nan"), 2**70, "", " ", "a", "\0", "\ud800", "é" * 300, "../" * 20, "/",
          ".", [], [[]], {}, {"a": 1}, [None], ["a", 1], "images", "images/0.png", "x" * 5000]


def broken(rng, content):
    """`content` (bytes) with something of it cut off, changed, doubled, taken out or put in."""
    content = bytearray(content)
    for _ in range(rng.choice([1, 1, 2, 5, 20])):
        at, length = rng.randrange(len(content) + 1), rng.choice([1, 2, 4, 8, 64])
        change = rng.choice(["cut", "flip", "double", "drop", "insert", "fill"])
        if change == "cut":
            del content[at:]
        elif change == "flip" and at < len(content):
            content[at] ^= 1 << rng.randrange(8)
        elif change == "double":
            content[at:at] = content[at:at + length]
        elif change == "drop":
            del content[at:at + length]
        elif change == "insert":
            content[at:at] = rng.randbytes(length)
        else:
            content[at:at + length] = rng.choice([b"\0", b"\xff", b"\x7f", b"9", b"\n"]) * length
    return bytes(content)


def attempt(read, counts):
    """Call `read()`, which may raise the project's own error of one line, and be neither slow nor large."""
    began = time.perf_counter()
    try:
        read()
        counts["read"] += 1
    except BadInput as error:
        assert str(error).strip() and "\n" not in str(error), repr(str(error))
        counts["refused"] += 1
    assert time.perf_counter() - began < 5


@pytest.fixture
def counts(request):
    """How many inputs were read and refused, printed after the test; and the test's peak of memory is held."""
    before, result = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, {"read": 0, "refused": 0}
    yield result
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    print(f"{request.node.name}: {result['read']} read, {result['refused']} refused")
    assert sum(result.values()) >= TRIES and grown < 10**6  # in kB


def picture(kind, frames=1, mode="RGB"):
    """A small picture or animation of that format, as bytes."""
    rng, file = np.random.default_rng(0), io.BytesIO()
    images = [Image.fromarray(rng.integers(0, 255, (12, 10, 3), np.uint8)).convert(mode) for _ in range(frames)]
    options = {"save_all": True, "append_images": images[1:], "duration": [90, 0, 200, 50][:frames]} if frames > 1 else {}
    images[0].save(file, kind, **options)
    return file.getvalue()


@pytest.mark.parametrize("content", [picture(kind, mode=mode) for kind, mode in (
    ("PNG", "RGBA"), ("JPEG", "RGB"), ("GIF", "P"), ("WEBP", "RGB"), ("BMP", "RGB"), ("TIFF", "L"), ("PPM", "RGB"))],
    ids=["png", "jpeg", "gif", "webp", "bmp", "tiff", "ppm"])
def test_pictures(content, tmp_path, counts):
    rng, file = random.Random(0), tmp_path / "picture"
    for _ in range(TRIES):
        file.write_bytes(broken(rng, content))
        attempt(lambda: read_image(file), counts)


@pytest.mark.parametrize("content", [picture(kind, 4) for kind in ("GIF", "PNG", "WEBP")], ids=["gif", "png", "webp"])
def test_animations(content, tmp_path, counts):
    rng, file = random.Random(0), tmp_path / "clip"
    for _ in range(TRIES):
        file.write_bytes(broken(rng, content))
        attempt(lambda: read_clip(file, 3), counts)


def test_captions(folder, counts):
    rng, file = random.Random(0), folder / "captions.jsonl"
    whole = file.read_bytes()
    for i in range(TRIES):
        rows = [json.loads(line) for line in whole.splitlines()]
        for row in rng.sample(rows, 2):
            row[rng.choice(["image", "video", "caption", "captions", "split", "a"])] = rng.choice(VALUES)
        content = "\n".join(map(json.dumps, rows)).encode()
        file.write_bytes(content if i % 2 else broken(rng, whole))
        attempt(lambda: read_captions(folder), counts)


@pytest.mark.parametrize("read, content", [
    (read_triples, "Ada\tlives in\tRome\nBob\tfears\tAda\n" * 3),
    (read_documents, "Ada lives in Rome.\n\nBob fears Ada.\n\n" * 8),
    (read_probes, '{"prompt": "Ada lives in", "answer": "Rome", "group": "stated", "triple": ["A", "b", "C"]}\n' * 3),
], ids=["triples", "documents", "probes"])
def test_texts(read, content, tmp_path, counts):
    rng, file = random.Random(0), tmp_path / "text"
    for i in range(TRIES):
        file.write_bytes(broken(rng, content.encode()))
        if read is read_probes and i % 2:
            row = json.loads(content.splitlines()[0]) | {rng.choice(["prompt", "answer", "group", "triple"]): rng.choice(VALUES)}
            file.write_text(json.dumps(row))
        attempt(lambda: read(file), counts)


def test_checkpoints(tmp_path, counts):
    rng, file = random.Random(0), tmp_path / "last.pt"
    save(file, {"format": FORMAT, "step": 3, "model": {"a": torch.ones(5)}, "texts": [["a"]]})
    whole = file.read_bytes()
    for i in range(TRIES):
        file.write_bytes(broken(rng, whole) if i % 4 else pickle.dumps(rng.choice(VALUES)))
        attempt(lambda: load_checkpoint(file), counts)


@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "config.json"])
def test_released_weights(name, tmp_path, counts):
    rng, gpt = random.Random(0), GPT(GPTConfig(8, 11, 1, 1, 8))
    gpt.save_pretrained(tmp_path)
    if name == "pytorch_model.bin":
        torch.save({f"transformer.{key}": value for key, value in gpt.state_dict().items()}, tmp_path / name)
        (tmp_path / "model.safetensors").unlink()
    whole = (tmp_path / name).read_bytes()
    for _ in range(TRIES):
        (tmp_path / name).write_bytes(broken(rng, whole))
        attempt(lambda: GPT.from_pretrained(tmp_path), counts)


def test_command_lines(counts):
    rng = random.Random(0)
    classes = (train.MultimodalConfig, train.AdversarialConfig, sample.SampleConfig)
    words = [f"--{name}" for c in classes for name in c.__dataclass_fields__]
    words += ["", "-", "--", "-1", "0", "1e400", "nan", "inf", "9" * 30, "é", "\0", "%s", "a b", "--steps=5", "@file", "0x1"]
    for _ in range(TRIES):
        argv = rng.choices(words, k=rng.randrange(6))
        attempt(lambda: parse(rng.choice(classes), argv, "train.py"), counts)


@pytest.mark.parametrize("read", [read_image, lambda file: read_clip(file, 3)], ids=["picture", "clip"])
@pytest.mark.parametrize("side", [8000, 12000, 60000])  # to be decoded, warned of and refused by Pillow
def test_a_picture_that_claims_to_be_huge_is_not_decoded(read, side, tmp_path):
    content = bytearray(picture("PNG"))
    content[16:24] = side.to_bytes(4, "big") * 2  # the header of a PNG, with its checksum
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (tmp_path / "bomb.png").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with warnings.catch_warnings(), pytest.raises(BadInput, match="pixels"):
        warnings.simplefilter("ignore")
        read(tmp_path / "bomb.png")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 10**5  # in kB


def test_a_name_that_no_file_can_have_is_told_with_its_line(folder):
    """Found by `test_captions`."""
    with open(folder / "captions.jsonl", "a") as file:
        file.write(json.dumps({"image": "x" * 5000, "caption": "a"}) + "\n")
    with pytest.raises(BadInput, match="captions.jsonl:25: the picture .*xxx is missing or empty"):
        read_captions(folder)
