"""Pictures and clips from files that Pillow, or the test's own hands, wrote with frames known beforehand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mingpt_mm import BadInput
from mingpt_mm.draw import tile
from mingpt_mm.images import at_times, frame_files, read_clip, read_image

ROOT = Path(__file__).parent.parent
BORDERS = {"gif": b"\x21\xf9\x04", "webp": b"ANMF", "png": b"....fcTL"}  # what each frame of a file begins with


def grey(number, size=(8, 6), mode="RGB"):
    """A picture whose grey level tells its number."""
    return Image.new("L", size, 6 * number).convert(mode)


def numbers(images):
    """What `grey` pictures tell, as read."""
    assert all(image.mode == "RGB" and len(image.getcolors()) == 1 for image in images)
    return [image.getpixel((0, 0))[1] / 6 for image in images]


def write(path, frames, durations):
    """`frames` as an animation that loses nothing."""
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=durations, lossless=True, disposal=2)
    return path


def slowly(durations, count):
    """What `at_times` says, from a list with an entry a millisecond."""
    shown = [i for i, duration in enumerate(durations) for _ in range(duration or 100)]
    return [shown[len(shown) * (2 * part + 1) // (2 * count)] for part in range(count)]


def test_frames_are_those_in_the_middle_of_equal_parts_of_time():
    rng = np.random.default_rng(0)
    for _ in range(300):
        durations = rng.choice([0, 10, 30, 70, 400], rng.integers(1, 9)).tolist()
        count = int(rng.integers(1, 13))
        assert list(at_times(durations, count)) == slowly(durations, count), (durations, count)


@pytest.mark.parametrize("kind", BORDERS)
@pytest.mark.parametrize("durations", [[100, 700, 50, 150, 500], [10, 20, 700, 10], [0] * 5, [0, 0, 300, 0, 50],
                                       [90, 400], [70]], ids=str)
def test_each_kind_of_animation_keeps_its_own_time(kind, durations, tmp_path):
    path = write(tmp_path / f"clip.{kind}", [grey(i) for i in range(len(durations))], durations)
    for count in (1, 2, 4, 5, 12):
        assert numbers(read_clip(path, count)) == slowly(durations, count), count


@pytest.mark.parametrize("name", ["still.jpg", "still.png", "still.webp", "still.gif", "turned.jpg"])
def test_a_still_picture_is_a_clip_in_which_nothing_moves(name, tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6 if "turned" in name else 1
    Image.radial_gradient("L").crop((0, 0, 90, 60)).save(tmp_path / name, exif=exif)
    picture = np.asarray(read_image(tmp_path / name))
    assert picture.shape == ((90, 60, 3) if "turned" in name else (60, 90, 3))
    assert np.array_equal([np.asarray(frame) for frame in read_clip(tmp_path / name, 3)], [picture] * 3)


def test_the_frames_of_a_folder_are_its_pictures_in_natural_order(tmp_path):
    modes = {"2.png": "1", "9.JPG": "L", "10.webp": "RGBA", "11.gif": "P", "100.tif": "I;16", "fading 9.png": "LA",
             "fading 10.png": "RGB", "main 1.jpeg": "CMYK"}  # in the order that they must have
    for i, (name, mode) in reversed([*enumerate(modes.items())]):
        sixteen = Image.fromarray(np.full((5, 5), 257 * 6 * i, np.uint16))
        picture = sixteen if mode == "I;16" else grey(i, (9 + i, 5), mode)
        picture.save(tmp_path / name, lossless=True, quality=100)
    for other in ("notes.txt", "sound.mp4", "captions.jsonl", "Thumbs.db", "1", ".1.png", "._2.png"):
        (tmp_path / other).write_text("no frame")
    (tmp_path / "raw").mkdir()
    assert [path.name for path in frame_files(tmp_path)] == [*modes]
    assert numbers(read_clip(tmp_path, 8)) == [*range(8)]
    assert numbers(read_clip(tmp_path, 4)) == [1, 3, 5, 7] and numbers(read_clip(tmp_path, 1)) == [4]


@pytest.mark.parametrize("name, told", [
    ("empty", "no frames in it"), ("others", "no frames in it"), ("broken/1.png", "not a picture that can be read"),
    ("none.gif", "no such clip"), ("none", "no such clip"), ("text.gif", "not a clip that can be read"),
    ("film.mp4", "not a clip that can be read"), ("zero.webp", "not a clip that can be read")])
def test_what_is_no_clip_is_named(name, told, tmp_path):
    for folder in ("empty", "others", "broken"):
        (tmp_path / folder).mkdir()
    for file in ("others/notes.txt", "others/.1.png", "broken/1.png", "text.gif", "film.mp4"):
        (tmp_path / file).write_text("no picture")
    (tmp_path / "zero.webp").touch()
    with pytest.raises(BadInput) as error:
        read_clip(tmp_path / name.partition("/")[0], 4)
    assert str(error.value).startswith(f"{tmp_path / name}: {told}") and "\n" not in str(error.value)


@pytest.mark.parametrize("kind", BORDERS)
def test_an_animation_that_is_cut_off_is_named_even_where_no_wanted_frame_is_missing(kind, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (8, 20, 20, 3), np.uint8)
    path = write(tmp_path / f"clip.{kind}", [Image.fromarray(frame) for frame in noise], [100] * 7 + [10])
    whole, seen = path.read_bytes(), [np.asarray(frame) for frame in read_clip(path, 4)]
    borders = [match.start() for match in re.finditer(BORDERS[kind], whole, re.DOTALL)]
    assert len(borders) == 8
    for cut in [len(whole) * tenth // 10 for tenth in range(10)] + borders:
        path.write_bytes(whole[:cut])
        with pytest.raises(BadInput, match=f"clip.{kind}: not a clip that can be read") as error:
            read_clip(path, 4)
        assert "\n" not in str(error.value)
    path.write_bytes(whole + b"\0\0\r\n")  # as some programs end a file
    assert np.array_equal([np.asarray(frame) for frame in read_clip(path, 4)], seen)


@pytest.mark.parametrize("kind", BORDERS)
def test_what_is_transparent_in_a_frame_is_grey_and_not_the_frame_before(kind, tmp_path):
    frames = [Image.new("RGBA", (16, 8), (0, 0, 0, 0)) for _ in range(3)]
    for i, frame in enumerate(frames):
        frame.paste((255, 0, 0, 255), (5 * i, 2, 5 * i + 5, 6))
    for i, frame in enumerate(read_clip(write(tmp_path / f"clip.{kind}", frames, 40), 3)):
        expected = np.full((8, 16, 3), 128)
        expected[2:6, 5 * i:5 * i + 5] = 255, 0, 0
        assert np.array_equal(np.asarray(frame), expected), i


def test_of_ten_thousand_frames_in_a_folder_the_wanted_are_read(tmp_path):
    for i in range(10000):
        if i % 250 == 0:
            grey(i // 250).save(tmp_path / f"{i}.png")
        else:
            os.link(tmp_path / f"{i // 250 * 250}.png", tmp_path / f"{i}.png")
    assert numbers(read_clip(tmp_path, 4)) == [5, 15, 25, 35]


MEMORY = """
import re, sys
from pathlib import Path
from mingpt_mm.draw import tile
from mingpt_mm.images import read_clip
peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
before = peak()
print([frame.getpixel((0, 0))[1] // 6 for frame in read_clip(Path(sys.argv[1]), 4)], peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="this system does not tell of peak memory")
def test_of_ten_thousand_frames_in_a_file_only_the_wanted_stay_in_memory(tmp_path):
    write(tmp_path / "clip.gif", [grey(i, (32, 32)) for i in range(40)], 50)
    head, *frames = re.split(rb"(?=\x21\xf9\x04)", (tmp_path / "clip.gif").read_bytes()[:-1])
    (tmp_path / "clip.gif").write_bytes(head + b"".join(frame * 250 for frame in frames) + b";")
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "clip.gif")]
    told = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert told.stdout.startswith("[5, 15, 25, 35] "), told.stderr
    assert int(told.stdout.split()[-1]) < 15000  # kB; all frames would take 40,000


def test_the_frames_of_a_clip_are_drawn_row_by_row_with_white_lines_between():
    frames = np.stack([np.full((3, 4, 4), 10 * i, np.uint8) for i in range(3)])
    image = np.asarray(tile(frames))  # two columns of 4 pixels, and a line
    corners = [[image[y, x].tolist() for x in (0, 4, 5)] for y in (0, 4, 5)]
    white = [255] * 3
    assert image.shape == (9, 9, 3) and corners == [[[0] * 3, white, [10] * 3], [white] * 3, [[20] * 3, white, white]]
    assert np.array_equal(np.asarray(tile(frames[1])), np.full((4, 4, 3), 10))
