"""Pictures as bytes and back, and their hashes. Nothing else in the project writes or reads media formats."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, UnidentifiedImageError

from npo_core.errors import InputError

PNG_MEDIA_TYPE = "image/png"


def png_bytes(image: Image.Image) -> bytes:
    """`image` as PNG without any metadata: two pictures with the same pixels are the same bytes."""
    bare = image.convert("RGB").copy()
    bare.info.clear()
    buffer = io.BytesIO()
    bare.save(buffer, format="PNG")
    return buffer.getvalue()


def open_image(data: bytes) -> Image.Image:
    """The RGB picture in `data` (any format that Pillow reads); raises InputError when there is none."""
    try:
        return Image.open(io.BytesIO(data)).convert("RGB")
    except (UnidentifiedImageError, OSError, ValueError) as error:
        raise InputError(f"These {len(data)} bytes are not a picture ({error}); give PNG, JPEG or WebP.") from None


def sha256_hex(data: bytes) -> str:
    """The SHA-256 of `data` as 64 hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: Path) -> str:
    """The SHA-256 of the file at `path`, read in pieces."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def side_by_side(images: Sequence[Image.Image], labels: Sequence[str]) -> Image.Image:
    """One row of pictures at their own size, each under its label.

    Raises ValueError when there is not exactly one label for each of at least one picture.
    """
    if not images or len(images) != len(labels):
        raise ValueError(f"one label for each of at least one picture, not {len(labels)} for {len(images)}")
    height_px = max(image.height for image in images)
    gap_px = max(4, height_px // 32)
    band_px = max(20, height_px // 8)
    width_px = sum(image.width for image in images) + gap_px * (len(images) + 1)
    strip = Image.new("RGB", (width_px, band_px + height_px + gap_px), "white")
    draw = ImageDraw.Draw(strip)
    font = _font_that_fits(labels, min(image.width for image in images), band_px * 0.6)
    left_px = gap_px
    for image, label in zip(images, labels, strict=True):
        draw.text((left_px + image.width / 2, band_px / 2), label, fill="black", font=font, anchor="mm")
        strip.paste(image, (left_px, band_px))
        left_px += image.width + gap_px
    return strip


def _font_that_fits(
    labels: Sequence[str], width_px: int, size_px: float
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of `size_px`, or smaller so that the longest label is no wider than `width_px`."""
    font = ImageFont.load_default(size_px)
    too_wide = max(font.getlength(label) for label in labels) / width_px
    return font if too_wide <= 1 else ImageFont.load_default(max(6.0, size_px / too_wide))
