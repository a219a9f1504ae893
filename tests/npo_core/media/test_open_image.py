"""A picture is read as a viewer shows it, whatever its format keeps beside plain RGB."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from npo_core.errors import InputError
from npo_core.media.files import MOST_PIXELS, open_image, png_bytes

WHITE, RED, BLACK = (255, 255, 255), (255, 0, 0), (0, 0, 0)
ORIENTATION = 0x0112


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def red_above_blue() -> Image.Image:
    image = Image.new("RGB", (60, 100), "blue")
    image.paste("red", (0, 0, 60, 50))
    return image


TURNED = {  # how the camera stored it -> what brings the upright picture into that form
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("format", ["PNG", "WEBP", "JPEG", "TIFF"])
def test_it_stands_upright(format: str, orientation: int) -> None:
    upright = red_above_blue()
    upright.paste("white", (0, 0, 20, 20))  # so that mirrored is not the same
    turn = TURNED[orientation]
    stored = upright if turn is None else upright.transpose(turn)
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    options: Any = (
        {"lossless": True} if format == "WEBP" else {"quality": 100, "subsampling": 0} if format == "JPEG" else {}
    )
    image = open_image(encoded(stored, format, exif=exif, **options))
    assert (image.size, image.mode) == ((60, 100), "RGB")
    np.testing.assert_allclose(np.asarray(image, int), np.asarray(upright, int), atol=3 if format == "JPEG" else 0)


def test_exif_that_cannot_be_read_turns_nothing() -> None:
    assert open_image(encoded(red_above_blue(), exif=b"Exif\0\0nonsense")).tobytes() == red_above_blue().tobytes()


def see_through(mode: str) -> Image.Image:
    """A disc, here a square, of black on nothing."""
    image = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    image.paste((0, 0, 0, 255), (1, 1, 3, 3))
    if mode == "P":
        indexed = Image.new("P", (4, 4), 1)
        indexed.putpalette([0, 0, 0, 7, 7, 7])
        indexed.paste(0, (1, 1, 3, 3))
        indexed.info["transparency"] = 1
        return indexed
    return image.convert(mode)


@pytest.mark.parametrize(
    ("mode", "format"), [("RGBA", "PNG"), ("LA", "PNG"), ("P", "PNG"), ("P", "GIF"), ("RGBA", "WEBP"), ("RGBA", "TIFF")]
)
def test_what_is_transparent_shows_white(mode: str, format: str) -> None:
    options: Any = {"lossless": True} if format == "WEBP" else {}
    image = open_image(encoded(see_through(mode), format, **options))
    assert image.getpixel((0, 0)) == WHITE
    assert image.getpixel((1, 1)) == BLACK


def test_one_colour_may_be_the_transparent_one_and_half_transparent_is_half_white() -> None:
    named = Image.new("RGB", (4, 4), (1, 2, 3))
    assert open_image(encoded(named, transparency=(1, 2, 3))).getpixel((0, 0)) == WHITE
    half = Image.new("RGBA", (4, 4), (255, 0, 0, 128))
    assert open_image(encoded(half)).getpixel((0, 0)) == (255, 127, 127)


@pytest.mark.parametrize("format", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_become_the_nearest_eight(format: str) -> None:
    values = np.array([[0, 128, 129, 257, 32768, 65406, 65535]], np.uint16)
    image = open_image(encoded(Image.fromarray(values), format))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 0, 1, 1, 128, 254, 255]


def test_sixteen_bits_a_colour_are_read_too() -> None:
    header = struct.pack(">IIBBBBB", 1, 1, 16, 2, 0, 0, 0)
    row = b"\0" + struct.pack(">HHH", 0xFFFF, 0x8080, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(row)), (b"IEND", b"")]
    whole = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    assert open_image(b"\x89PNG\r\n\x1a\n" + whole).getpixel((0, 0)) == (255, 128, 0)


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG"])
def test_of_an_animation_the_first_frame_is_read(format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ("red", "blue")]
    options: Any = {"lossless": True} if format == "WEBP" else {}
    assert (
        open_image(encoded(frames[0], format, save_all=True, append_images=frames[1:], **options)).getpixel((0, 0))
        == RED
    )


@pytest.mark.parametrize(
    ("mode", "colour", "format", "seen"),
    [
        ("CMYK", (0, 255, 255, 0), "JPEG", RED),
        ("CMYK", (0, 0, 0, 255), "TIFF", BLACK),
        ("1", 1, "PNG", WHITE),
        ("L", 100, "PNG", (100, 100, 100)),
        ("YCbCr", (76, 85, 255), "JPEG", (254, 0, 0)),
    ],
)
def test_other_colours_are_the_same_colours_in_rgb(mode: str, colour: Any, format: str, seen: tuple[int, ...]) -> None:
    image = open_image(encoded(Image.new(mode, (8, 8), colour), format))
    assert image.mode == "RGB"
    np.testing.assert_allclose(image.getpixel((4, 4)), seen, atol=2)


@pytest.mark.parametrize("side_px", [20_000, 9_000])
def test_a_picture_that_would_fill_the_memory_is_refused_before_it_is_decoded(side_px: int) -> None:
    data = encoded(Image.new("1", (side_px, side_px)))
    assert side_px**2 > MOST_PIXELS
    with pytest.raises(InputError, match=r"too large|at most 80,000,000 are read"):
        open_image(data)


@pytest.mark.parametrize("pixels", [np.full((2, 2), 1e-3, np.float32), np.full((2, 2), 1 << 20, np.int32)])
def test_pixels_without_a_known_white_are_refused(pixels: np.ndarray) -> None:
    with pytest.raises(InputError, match="save it"):
        open_image(encoded(Image.fromarray(pixels), "TIFF"))


def test_what_is_cut_short_is_no_picture() -> None:
    whole = png_bytes(Image.effect_noise((64, 64), 80))
    for end in (0, 7, 20, 60, len(whole) // 2):
        with pytest.raises(InputError, match="not a picture"):
            open_image(whole[:end])
