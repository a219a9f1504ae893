"""Pictures laid out beside each other: rows and columns with or without labels, strips of a clip's frames."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont


def draw_grid(
    rows: Sequence[Sequence[Image.Image]], row_labels: Sequence[str] = (), column_labels: Sequence[str] = ()
) -> Image.Image:
    """Pictures at their own size in rows and columns, each row labelled on the left and each column above, where there
    are labels. A column is as wide as its widest picture, a row as high as its highest."""
    widths_px = [max(image.width for image in column) for column in zip(*rows, strict=True)]
    heights_px = [max(image.height for image in row) for row in rows]
    gap_px = max(4, max(heights_px) // 32)
    band_px = max(20, max(heights_px) // 8)
    font = _font_that_fits([*row_labels, *column_labels], min(widths_px), band_px * 0.6)
    left_px = gap_px + (round(max(map(font.getlength, row_labels))) + gap_px if row_labels else 0)
    lefts_px = [left_px + sum(widths_px[:column]) + gap_px * column for column in range(len(widths_px))]
    top_px = band_px if column_labels else gap_px
    tops_px = [top_px + sum(heights_px[:row]) + gap_px * row for row in range(len(rows))]
    size_px = (lefts_px[-1] + widths_px[-1] + gap_px, tops_px[-1] + heights_px[-1] + gap_px)
    grid = Image.new("RGB", size_px, "white")
    draw = ImageDraw.Draw(grid)
    for label, left_px, width_px in zip(column_labels, lefts_px, widths_px, strict=bool(column_labels)):
        draw.text((left_px + width_px / 2, band_px / 2), label, fill="black", font=font, anchor="mm")
    for label, top_px, height_px in zip(row_labels, tops_px, heights_px, strict=bool(row_labels)):
        draw.text((lefts_px[0] - gap_px, top_px + height_px / 2), label, fill="black", font=font, anchor="rm")
    for row, top_px in zip(rows, tops_px, strict=True):
        for image, left_px in zip(row, lefts_px, strict=True):
            grid.paste(image, (left_px, top_px))
    return grid


def side_by_side(images: Sequence[Image.Image], labels: Sequence[str]) -> Image.Image:
    """One row of pictures at their own size, each under its label.

    Raises ValueError when there is not exactly one label for each of at least one picture.
    """
    if not images or len(images) != len(labels):
        raise ValueError(f"one label for each of at least one picture, not {len(labels)} for {len(images)}")
    return draw_grid([images], column_labels=labels)


def clips_side_by_side(clips: Sequence[Sequence[Image.Image]], labels: Sequence[str]) -> list[Image.Image]:
    """`side_by_side` frame by frame: one row of clips that run together. Raises ValueError unless all are as long."""
    return [side_by_side(frames, labels) for frames in zip(*clips, strict=True)]


def film_strip(frames: Sequence[Image.Image], height_px: int) -> Image.Image:
    """All frames in one row, each `height_px` high."""
    small = [frame.resize((round(frame.width * height_px / frame.height), height_px)) for frame in frames]
    strip = Image.new("RGB", (sum(frame.width for frame in small), height_px))
    left_px = 0
    for frame in small:
        strip.paste(frame, (left_px, 0))
        left_px += frame.width
    return strip


def _font_that_fits(
    labels: Sequence[str], width_px: int, size_px: float
) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """The font of `size_px`, or smaller so that the longest label is no wider than `width_px`."""
    font = ImageFont.load_default(size_px)
    too_wide = max(map(font.getlength, labels), default=0) / width_px
    return font if too_wide <= 1 else ImageFont.load_default(max(6.0, size_px / too_wide))
