"""A badly degraded copy of a picture or clip: the wrong side of a check with a known answer. Pure."""

from __future__ import annotations

from PIL import Image, ImageOps

from npo_core.media.files import MP4_MEDIA_TYPE, mp4_bytes, open_clip, open_image, png_bytes

VARIANT = "degraded"
MOSAIC = 10  # cells along the longer side: the outline stays, everything else goes
BITS = 2  # of each colour


def degraded(media: bytes, media_type: str, fps: float | None) -> bytes:
    """`media` as a coarse mosaic in a few colours, of the same type, size and length."""
    if media_type == MP4_MEDIA_TYPE:
        return mp4_bytes([_coarse(frame) for frame in open_clip(media)], fps or 8.0)
    return png_bytes(_coarse(open_image(media)))


def _coarse(image: Image.Image) -> Image.Image:
    cell_px = max(1, max(image.size) / MOSAIC)
    small = image.resize((round(image.width / cell_px) or 1, round(image.height / cell_px) or 1), Image.Resampling.BOX)
    return ImageOps.posterize(small, BITS).resize(image.size, Image.Resampling.NEAREST)
