"""An image or a video becomes the pixels that a viewer shows, or is refused in one line."""

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from mingpt_mm.console import UserError
from mingpt_mm.data.datasets import load_frames

S = 16  # pixels on each side of most files, so that nothing is resized
RED, GREEN, BLUE = (220, 30, 30), (30, 200, 30), (30, 30, 220)
CORRUPT = b"Exif\0\0II*\0\x08\0\0\0"  # EXIF data that make Pillow warn
RAMP = np.tile(np.linspace(0, 1, S, dtype="f4"), (S, 1))


@pytest.fixture(autouse=True)
def quiet(recwarn, capfd):
    """No test in this file may write a warning or anything else to standard error."""
    yield
    assert capfd.readouterr().err == "" and not recwarn.list


def plain(color, mode="RGB"):
    return Image.new("RGB", (S, S), color).convert("L" if len({*color}) == 1 else "RGB").convert(mode)


def colors(path, frames):
    """The color of each frame, which has only one."""
    pixels = load_frames(path, frames, S).numpy()
    assert pixels.shape == (frames, 3, S, S) and pixels.dtype == np.uint8 and (pixels == pixels[:, :, :1, :1]).all()
    return [tuple(color) for color in pixels[:, :, 0, 0].tolist()]


def refusal(path):
    """The one line that refuses `path`."""
    with pytest.raises(UserError, match=rf"\A.*{path.name}.+\Z") as error:
        load_frames(path, 3, S)
    return str(error.value)


def test_a01_every_frame_of_a_palette_apng_is_decoded(tmp_path):
    def frame(number, color):
        control = struct.pack(">IIIIIHHBB", number, S, S, 0, 0, 1, 10, 0, 0)
        data = zlib.compress((b"\0" + bytes([color]) * S) * S)
        return [(b"fcTL", control), (b"fdAT", struct.pack(">I", number + 1) + data) if number else (b"IDAT", data)]

    chunks = [(b"IHDR", struct.pack(">IIBBBBB", S, S, 8, 3, 0, 0, 0)), (b"acTL", struct.pack(">II", 3, 0)),
              (b"PLTE", bytes(RED + GREEN)), *frame(0, 0), *frame(1, 1), *frame(3, 0), (b"IEND", b"")]
    (tmp_path / "p.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in chunks))
    assert colors(tmp_path / "p.png", 3) == [RED, GREEN, RED]


@pytest.mark.parametrize("mode", ["P", "RGB", "RGBA"])
@pytest.mark.parametrize("suffix, options", [
    *(("gif", {"disposal": disposal}) for disposal in (0, 1, 2, 3, [1, 3, 2, 1, 0, 2])), ("webp", {"lossless": True}),
    *(("png", {"disposal": disposal, "blend": blend}) for disposal in range(3) for blend in range(2))])
def test_every_frame_is_that_of_a_freshly_opened_file(suffix, options, mode, tmp_path):
    rng, path, expected = np.random.default_rng(0), tmp_path / f"a.{suffix}", []
    frames = [Image.new("RGBA", (S, S), (0, 0, 0, 0)) for _ in range(6)]
    for frame in frames:
        x, y, *color = rng.integers([S // 2, S // 2, 256, 256, 256]).tolist()
        frame.paste((*color, 255), (x, y, x + S // 2, y + S // 2))
    first, *others = [frame.convert(mode) for frame in frames]
    first.save(path, save_all=True, append_images=others, duration=100, **options)
    for i in range(6):
        with Image.open(path) as image:
            image.seek(i)
            rgba = np.asarray(image.convert("RGBA")).transpose(2, 0, 1)
        expected.append(np.where(rgba[3] == 0, 128, rgba[:3]))
    assert np.array_equal(load_frames(path, 6, S), expected)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
@pytest.mark.parametrize("durations", [[100, 700, 50, 150, 500], [10, 20, 700, 10], [0, 0, 300, 0, 50], [100, 300]])
def test_durations_choose_the_frames(durations, suffix, tmp_path):
    first, *others = [plain((40 * i,) * 3) for i in range(len(durations))]
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=others, duration=durations, lossless=True)
    shown = [i for i, duration in enumerate(durations) for _ in range(duration or 100)]  # one entry a millisecond
    for n in (2, 4, 5, 12):
        expected = [(40 * shown[len(shown) * (2 * part + 1) // (2 * n)],) * 3 for part in range(n)]
        assert colors(tmp_path / f"a.{suffix}", n) == expected
    assert colors(tmp_path / f"a.{suffix}", 1) == [(0, 0, 0)]


@pytest.mark.parametrize("frames, expected", [(1, [RED]), (2, [RED, GREEN]), (4, [RED, RED, GREEN, GREEN])])
def test_a03_the_poster_of_an_apng_is_not_one_of_its_frames(frames, expected, tmp_path):
    others = [plain(RED), plain(GREEN)]
    plain(BLUE).save(tmp_path / "d.png", save_all=True, default_image=True, append_images=others, duration=200)
    assert colors(tmp_path / "d.png", frames) == expected


@pytest.mark.parametrize("name, pixels", [
    ("f.tif", RAMP), ("f.tif", RAMP * 255), ("f.pfm", RAMP), ("i.tif", (RAMP * 255).astype("i4"))])
def test_a04_grayscale_of_32_bits_is_refused(name, pixels, tmp_path):
    Image.fromarray(pixels).save(tmp_path / name)
    assert "32-bit" in refusal(tmp_path / name)


@pytest.mark.parametrize("bits", [2, 4])
def test_transparency_in_depths_that_pillow_does_not_scale_is_refused(bits, tmp_path):
    Image.new("L", (S, S)).save(tmp_path / "k.png", bits=bits, transparency=1)
    assert "RGBA" in refusal(tmp_path / "k.png")


@pytest.mark.parametrize("mode, suffix, key", [
    ("1", "png", 255), ("L", "png", 200), ("P", "png", 200), ("P", "gif", 200), ("RGB", "png", (200,) * 3),
    ("I;16", "png", 51400), ("LA", "png", None), ("PA", "tif", None), ("RGBA", "tga", None), ("RGBA", "gif", None)])
def test_a06_what_is_transparent_becomes_mid_gray_in_every_mode(mode, suffix, key, tmp_path):
    levels = np.array([[60] * 8 + [200] * 8] * S, np.uint8)
    image = Image.fromarray(levels.astype("u2") * 257 if mode == "I;16" else levels)
    if key is None:  # an alpha channel
        image = image.convert("RGBA")
        image.putalpha(Image.fromarray(255 * (levels == 60).astype(np.uint8)))
    image.convert(mode, dither=0).save(tmp_path / f"t.{suffix}", **({"transparency": key} if key else {}))
    expected = np.where(levels == 200, 128, 0 if mode == "1" else 60)
    assert np.array_equal(load_frames(tmp_path / f"t.{suffix}", 2, S), [[expected] * 3] * 2)


@pytest.mark.parametrize("change", [
    lambda gif: gif + b"\0" * 64, lambda gif: gif + b"\x21\xfe\x05hello\0", lambda gif: gif[:-1]])
def test_a07_what_follows_the_last_frame_of_a_gif_does_not_matter(change, tmp_path):
    plain(RED).save(tmp_path / "a.gif", save_all=True, append_images=[plain(GREEN)], duration=100)
    (tmp_path / "a.gif").write_bytes(change((tmp_path / "a.gif").read_bytes()))
    assert colors(tmp_path / "a.gif", 2) == [RED, GREEN]


def test_a15_too_many_pixels_are_refused_also_where_a_later_frame_claims_them(tmp_path):
    Image.new("1", (10000, 10000)).save(tmp_path / "b.png")
    plain(RED).save(tmp_path / "b.gif", save_all=True, append_images=[plain(GREEN)])
    head, mark, tail = (tmp_path / "b.gif").read_bytes().rpartition(struct.pack("<cHHHH", b",", 0, 0, S, S))
    (tmp_path / "b.gif").write_bytes(head + mark[:5] + struct.pack("<HH", 10000, 10000) + tail)
    assert "pixels" in refusal(tmp_path / "b.png") and "pixels" in refusal(tmp_path / "b.gif")


@pytest.mark.parametrize("suffix", ["png", "tif", "webp"])
@pytest.mark.parametrize("orientation, upright", [*enumerate([
    lambda a: a, np.fliplr, lambda a: np.rot90(a, 2), np.flipud, lambda a: a.swapaxes(0, 1), lambda a: np.rot90(a, -1),
    lambda a: np.rot90(a, 2).swapaxes(0, 1), np.rot90], 1)])
def test_a_still_image_is_upright_and_repeated_as_a_static_clip(orientation, upright, suffix, tmp_path):
    pixels, exif = np.random.default_rng(0).integers(0, 256, (S, S, 3), np.uint8), Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(pixels).save(tmp_path / f"e.{suffix}", exif=exif, lossless=True)
    assert np.array_equal(load_frames(tmp_path / f"e.{suffix}", 3, S), [upright(pixels).transpose(2, 0, 1)] * 3)


def test_a_folder_gives_its_images_in_the_order_of_their_numbers(tmp_path):
    modes = {"2.png": "1", "9.PNG": "L", "10.tga": "RGBA", "11.gif": "P", "100.tif": "CMYK", "end 9.png": "LA",
             "end 10.png": "RGB"}  # in the order that they must have
    for i, (name, mode) in enumerate(modes.items()):
        plain((30 * i,) * 3, mode).resize((9 + i, 5)).save(tmp_path / name, exif=b"" if "tif" in name else CORRUPT)
    for other in ("notes.txt", "1", ".1.png", "._2.png"):
        (tmp_path / other).write_text("not a frame")
    assert colors(tmp_path, 7) == [(30 * i,) * 3 for i in range(7)] and colors(tmp_path, 3)[2] == (150,) * 3


@pytest.mark.parametrize("name", ["none.png", "none", "empty", "broken", "a.gif", "zero.webp", "cut.png", "cut.jpg"])
def test_what_cannot_be_read_is_named_in_one_line(name, tmp_path):
    for file in ("empty/notes.txt", "empty/.1.png", "broken/1.png", "a.gif", "zero.webp"):
        (tmp_path / file).parent.mkdir(exist_ok=True)
        (tmp_path / file).write_text("" if "zero" in file else "not an image")
    if "cut" in name:
        Image.effect_noise((50, 50), 90).save(tmp_path / name)
        (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:1000])
    refusal(tmp_path / name)
