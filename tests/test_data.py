"""The readers: any picture, any line; and batches that depend on (seed, step) alone."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from mingpt_mm import BadInput
from mingpt_mm.data import Batches, Captions, read_captions
from mingpt_mm.images import read_clip, read_image
from mingpt_mm.text import IGNORE
from mingpt_mm.tokenizer import train_bpe
from mingpt_mm.vit import normalize, preprocess

ROOT = Path(__file__).parent.parent


def captions_of(folder, **options):
    """The training split of `folder` as Captions."""
    options = {"size": 8, "room": 40, "cache_mb": 10} | options
    return Captions(read_captions(folder)[0], train_bpe(["a red one", "one in blue"], 270), **options)


def add_clips(folder):
    """`folder` with two clips as its training rows 22 and 23, a GIF of 800 ms and a folder of two frames; in row
    24 the GIF again, as a picture."""
    (folder / "frames").mkdir()
    levels = [Image.new("RGB", (20, 16), (level,) * 3) for level in (0, 100, 200, 250)]
    levels[0].save(folder / "clip.gif", save_all=True, append_images=levels[1:3], duration=[100, 200, 500])
    for i, level in enumerate(levels[2:]):
        level.resize((30 + i, 20)).save(folder / "frames" / f"{i}.png")
    with open(folder / "captions.jsonl", "a") as file:
        for key, name in (("video", "clip.gif"), ("video", "frames"), ("image", "clip.gif")):
            file.write(json.dumps({key: name, "caption": "one that is brighter in the end"}) + "\n")
    return folder


def colours(path):
    """The colours of a picture's four corners, as read: top left, top right, bottom left, bottom right."""
    pixels = np.asarray(read_image(path))
    return [tuple(map(int, pixels[y, x])) for y in (0, -1) for x in (0, -1)]


def test_what_a_frozen_vit_sees_is_kept_only_if_it_fits(folder, capsys):
    for cache_mb, kept in ((1, False), (3, True)):
        captions = Captions(read_captions(folder)[0], train_bpe(["a red one", "one in blue"], 270), 24, 99, cache_mb)
        looks, expected = [], captions.batch([3, 0])[0].mean(axis=(2, 3))

        def look(pixels):  # 22 pictures of 80 kB, and the blank one
            looks.append(len(pixels))
            return np.repeat(pixels.mean(axis=(2, 3))[:, None], 10**5 // 15, axis=1).astype(np.float32)
        captions.remember(look, batch_size=8)
        assert looks == ([1, 8, 8, 6] if kept else [1]) and ("--cache_mb 2 " in capsys.readouterr().out) != kept
        seen = captions.batch([3, 0])[0]
        if kept:
            np.testing.assert_allclose(seen[:, 0], expected, rtol=1e-6)
            assert captions.blank.shape == (1, 10**5 // 15, 3) and captions.blank.max() == 128 and not captions.cache
        else:
            assert seen.shape == (2, 3, 24, 24)


def test_rows_keep_their_split_or_every_tenth_is_held_out(folder):
    train, val = read_captions(folder)
    assert (len(train), len(val)) == (22, 2)
    assert [row.where.rsplit(":")[-1] for row in val] == ["10", "20"]
    lines = [json.loads(line) | {"split": split, "more": 1} for line, split in
             zip((folder / "captions.jsonl").read_text().splitlines(), ["val", "train", "test"] * 8)]
    (folder / "captions.jsonl").write_text("\n\n".join(map(json.dumps, lines)))
    train, val = read_captions(folder)
    assert (len(train), len(val)) == (8, 8) and val[0].captions == lines[0]["captions"]


@pytest.mark.parametrize("line, message", [
    ("{broken", "captions.jsonl:3: not JSON"), ("[1]", "captions.jsonl:3: names no picture"),
    ('{"caption": "a"}', "captions.jsonl:3: names no picture"), ("\xff", "captions.jsonl:3: not JSON"),
    ('{"image": "images/1.png"}', "captions.jsonl:3: no \"caption\""),
    ('{"image": "images/1.png", "caption": 7}', "captions.jsonl:3: no \"caption\""),
    ('{"image": "images/1.png", "captions": []}', "captions.jsonl:3: no \"caption\""),
    ('{"image": "images/1.png", "caption": "a", "split": "dev"}', "captions.jsonl:3: the split 'dev'"),
    ('{"image": "images/none.png", "caption": "a"}', r"captions.jsonl:3: the picture .*none.png is missing"),
    ('{"image": "images", "caption": "a"}', r"captions.jsonl:3: the picture .*images is missing"),
    ('{"image": "images/1.png", "video": "images", "caption": "a"}', "captions.jsonl:3: names a picture and a clip"),
    ('{"video": ["images/1.png"], "caption": "a"}', "captions.jsonl:3: names no picture"),
    ('{"video": "images/none.gif", "caption": "a"}', r"captions.jsonl:3: the clip .*none.gif is missing"),
    ('{"video": "images/zero", "caption": "a"}', r"captions.jsonl:3: the clip .*zero is missing or empty"),
    ('{"image": "images/zero", "caption": "a"}', r"captions.jsonl:3: the picture .*zero is missing or empty"),
])
def test_a_broken_line_is_named(folder, line, message):
    lines = (folder / "captions.jsonl").read_text().splitlines()
    (folder / "images/zero").touch()
    (folder / "captions.jsonl").write_bytes("\n".join([*lines[:2], line, *lines[2:]]).encode("latin-1"))
    with pytest.raises(BadInput, match=message):
        read_captions(folder)


def test_missing_and_too_small_folders_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere/captions.jsonl"):
        read_captions(tmp_path / "nowhere")
    (folder / "captions.jsonl").write_text('{"image": "images/1.png", "caption": "a"}')
    with pytest.raises(BadInput, match="1 rows to learn from and 0 to be tested on"):
        read_captions(folder)


def test_every_mode_is_read_as_what_one_sees(tmp_path):
    red, blue, grey = (255, 0, 0), (0, 0, 255), (128, 128, 128)
    corners = Image.new("RGB", (4, 2), red)
    corners.paste(blue, (2, 0, 4, 2))  # red on the left, blue on the right
    see = {}
    for mode in ("RGB", "P", "RGBA"):
        corners.convert(mode).save(tmp_path / f"{mode}.png")
        see[f"{mode}.png"] = [red, blue, red, blue]
    half = corners.convert("RGBA")
    half.paste((0, 0, 0, 0), (2, 0, 4, 2))
    half.save(tmp_path / "half.png")
    half.quantize(4).save(tmp_path / "half_palette.png")
    see["half.png"] = see["half_palette.png"] = [red, grey, red, grey]
    Image.fromarray(np.array([[0, 65535], [257 * 7, 256 * 128]], dtype=np.uint16)).save(tmp_path / "16bit.png")
    see["16bit.png"] = [(0,) * 3, (255,) * 3, (7,) * 3, (127,) * 3]
    Image.fromarray(np.array([[0, 255], [9, 200]], dtype=np.uint8)).save(tmp_path / "grey.png")
    see["grey.png"] = [(0,) * 3, (255,) * 3, (9,) * 3, (200,) * 3]
    Image.new("LA", (2, 2), (255, 0)).save(tmp_path / "grey_alpha.png")
    see["grey_alpha.png"] = [grey] * 4
    Image.new("1", (2, 2), 1).save(tmp_path / "bits.png")
    see["bits.png"] = [(255,) * 3] * 4
    for name, expected in see.items():
        assert colours(tmp_path / name) == expected, name
    big, exif = corners.resize((64, 32), Image.Resampling.NEAREST), Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the left of the file is the top of the picture
    big.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    big.convert("CMYK").save(tmp_path / "print.jpg", quality=95)
    for name, expected in {"turned.jpg": [red, red, blue, blue], "print.jpg": [red, blue, red, blue]}.items():
        assert np.abs(np.subtract(colours(tmp_path / name), expected)).max() < 12, name


def test_a_picture_that_cannot_be_read_is_named(tmp_path):
    Image.effect_noise((50, 50), 90).save(tmp_path / "whole.png")
    Image.effect_noise((50, 50), 90).save(tmp_path / "whole.jpg")
    (tmp_path / "text.png").write_text("not a picture")
    (tmp_path / "empty.png").touch()
    for kind in ("png", "jpg"):
        (tmp_path / f"cut.{kind}").write_bytes((tmp_path / f"whole.{kind}").read_bytes()[:1000])
    for name in ("text.png", "empty.png", "cut.png", "cut.jpg", "none.png"):
        with pytest.raises(BadInput, match=name) as error:
            read_image(tmp_path / name)
        assert "\n" not in str(error.value)


def test_pixels_are_those_of_the_released_preprocessing(folder):
    data = captions_of(folder)
    expected = preprocess(read_image(data.rows[3].file), 8)
    assert torch.equal(normalize(torch.from_numpy(data.pixels(3).copy())), expected)


def test_a_batch_holds_captions_between_end_tokens_and_targets_one_ahead(folder):
    data = captions_of(folder)
    pixels, tokens, targets = data.batch([0, 1, 2])
    assert pixels.shape == (3, 3, 8, 8) and pixels.dtype == np.uint8 and tokens.dtype == targets.dtype == np.int64
    for row in range(3):
        caption, end = data.tokens[row][0], data.end
        n = len(caption)
        assert tokens[row, :n + 1].tolist() == [end, *caption]
        assert targets[row, :n + 1].tolist() == [*caption, end] and (targets[row, n + 1:] == -100).all()


def test_a_caption_over_the_context_says_by_how_much(folder):
    longest = captions_of(folder).longest
    captions_of(folder, room=longest)
    for frames, remedy in ((0, "or lower --image_size$"), (4, "or lower --image_size or --frames$")):
        with pytest.raises(BadInput, match=rf"captions.jsonl:\d+: a caption is 1 tokens too long .* {remedy}"):
            captions_of(folder, room=longest - 1, frames=frames)


def test_the_cache_keeps_to_its_budget_and_changes_nothing(folder):
    few, none = captions_of(folder, cache_mb=5 * 192 / 1e6), captions_of(folder, cache_mb=0)
    for data in (few, none):
        for step in range(8):
            for ours, theirs in zip(Batches(data, 4, 0)[step], Batches(captions_of(folder), 4, 0)[step]):
                assert np.array_equal(ours, theirs)
    assert len(few.cache) == 5 and len(none.cache) == 0


def test_a_row_says_whether_it_moves(folder):
    lines = (add_clips(folder) / "captions.jsonl").read_text().splitlines()
    lines[0] = json.dumps(json.loads(lines[0]) | {"video": None, "split": "val"})  # an empty column is no clip
    (folder / "captions.jsonl").write_text("\n".join(lines))
    train, val = read_captions(folder)
    assert [(row.moves, row.file) for row in val + train[-3:]] == [
        (False, folder / "images/0.png"), (True, folder / "clip.gif"), (True, folder / "frames"),
        (False, folder / "clip.gif")]


@pytest.mark.parametrize("cache_mb", [0, 10])
def test_pictures_and_clips_share_a_batch_and_a_picture_is_a_clip_in_which_nothing_moves(folder, cache_mb):
    data = captions_of(add_clips(folder), frames=4, cache_mb=cache_mb)
    for _ in range(2):  # the second time from the cache
        pixels, tokens, _ = data.batch([22, 3, 23, 24])
        assert pixels.shape == (4, 4, 3, 8, 8) and pixels.dtype == np.uint8 and len(tokens) == 4
        assert pixels[[0, 2, 3], :, 1, 4, 4].tolist() == [[100, 200, 200, 200], [200, 200, 250, 250], [0] * 4]
        assert np.array_equal(pixels[1], [captions_of(folder, frames=0).pixels(3)] * 4)
    assert len(data.cache) == (4 if cache_mb else 0) and data.blank.shape == (1, 4, 3, 8, 8)
    few = captions_of(folder, frames=4, cache_mb=5 * 768 / 1e6)
    for step in range(4):
        assert all(map(np.array_equal, Batches(few, 8, 0)[step], Batches(data, 8, 0)[step]))
    assert len(few.cache) == 5


def test_each_frame_is_preprocessed_as_a_picture_and_remembered_as_seen(folder):
    data = captions_of(add_clips(folder), frames=3)
    Image.effect_noise((20, 16), 90).save(folder / "frames/0.png")
    expected = torch.stack([preprocess(frame, 8) for frame in read_clip(folder / "frames", 3)])
    assert torch.equal(normalize(torch.from_numpy(data.pixels(23).copy())), expected)
    seen = data.batch([22, 0])[0].mean(axis=(3, 4))
    data.remember(lambda pixels: pixels.mean(axis=(3, 4)), batch_size=7)  # (B, F, 3)
    assert np.array_equal(data.batch([22, 0])[0], seen)


def test_an_epoch_shows_every_row_once_and_no_two_are_alike(folder):
    class Rows:
        def __len__(self):
            return 10

        def batch(self, indices, rng, mine):
            return list(indices[mine])

    batches = Batches(Rows(), 4, seed=0)
    places = [i for step in range(15) for i in batches[step]]  # six epochs, whose borders lie inside of batches
    epochs = [places[start:start + 10] for start in range(0, 60, 10)]
    assert all(sorted(epoch) == list(range(10)) for epoch in epochs) and len(set(map(tuple, epochs))) == 6
    assert places != [i for step in range(15) for i in Batches(Rows(), 4, seed=1)[step]]


def test_each_of_several_captions_is_taken(folder):
    data = captions_of(folder)
    seen = {tuple(row[row != -100]) for step in range(20) for row in Batches(data, 4, 0)[step][2]}
    assert seen == {(*tokens, data.end) for captions in data.tokens for tokens in captions}


DIGEST = """
import sys
sys.path.insert(0, {root!r})
from tests.test_data import digest
print(digest({folder!r}))
"""


def digest(folder):
    """A hash of some batches of `folder`."""
    batches = Batches(captions_of(folder), 4, seed=3)
    return hashlib.sha256(b"".join(array.tobytes() for step in (0, 7, 31) for array in batches[step])).hexdigest()


def test_a_batch_is_the_same_in_a_new_process(folder):
    code = DIGEST.format(root=str(ROOT), folder=str(folder))
    environment = os.environ | {"PYTHONHASHSEED": "7"}
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert other.stdout.strip() == digest(str(folder)), other.stderr


def test_reading_processes_give_the_same_batches(folder):
    batches = Batches(captions_of(folder), 4, seed=0)
    loaders = [iter(DataLoader(batches, batch_size=None, sampler=range(3, 12), num_workers=n)) for n in (0, 2)]
    for ours, theirs in zip(*loaders):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs))
