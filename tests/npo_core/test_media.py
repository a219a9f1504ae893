from __future__ import annotations

import io

import pytest
from PIL import Image, PngImagePlugin

from npo_core.errors import InputError
from npo_core.media import open_image, png_bytes, sha256_hex, side_by_side


def test_a_png_carries_nothing_but_its_pixels() -> None:
    info = PngImagePlugin.PngInfo()
    info.add_text("variant", "aligned_npo")
    buffer = io.BytesIO()
    plain = Image.new("RGB", (8, 8), "red")
    plain.save(buffer, "PNG", pnginfo=info, dpi=(72, 72))
    tagged = Image.open(io.BytesIO(buffer.getvalue()))
    assert tagged.info
    assert png_bytes(tagged) == png_bytes(plain)
    assert Image.open(io.BytesIO(png_bytes(tagged))).info == {}


def test_png_bytes_keep_every_pixel() -> None:
    image = Image.effect_noise((16, 16), 80).convert("RGB")
    assert open_image(png_bytes(image)).tobytes() == image.tobytes()


def test_bytes_that_are_no_picture_are_refused() -> None:
    with pytest.raises(InputError, match="These 4 bytes are not a picture"):
        open_image(b"text")
    with pytest.raises(InputError, match="not a picture"):
        open_image(png_bytes(Image.effect_noise((64, 64), 80))[:200])


def test_the_hash_is_that_of_the_published_example() -> None:
    assert sha256_hex(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2


def test_pictures_stand_side_by_side_at_their_own_size_under_their_labels() -> None:
    colours = ["red", "green", "blue"]
    strip = side_by_side([Image.new("RGB", (64, 64), colour) for colour in colours], ["A", "B", "A very long label"])
    assert strip.width == 3 * 64 + 4 * 4
    for number, colour in enumerate(colours):
        left = 4 + number * 68
        panel = strip.crop((left, 20, left + 64, 84))
        assert panel.tobytes() == Image.new("RGB", (64, 64), colour).tobytes()
        band = strip.crop((left, 0, left + 64, 20)).convert("L")
        assert min(band.tobytes()) < 128, "there is a label"
    gaps = strip.crop((68, 0, 72, strip.height)).convert("L")
    assert gaps.getextrema() == (255, 255), "a long label does not run into its neighbour"


def test_every_picture_needs_a_label() -> None:
    with pytest.raises(ValueError, match="not 1 for 2"):
        side_by_side([Image.new("RGB", (8, 8))] * 2, ["A"])
    with pytest.raises(ValueError, match="not 0 for 0"):
        side_by_side([], [])
