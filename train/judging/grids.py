"""Pictures side by side."""

from __future__ import annotations

from collections.abc import Sequence

from PIL import Image

GAP_PX = 2


def draw_grid(rows: Sequence[Sequence[Image.Image]]) -> Image.Image:
    """One row a prompt, one column a way to make it, GAP_PX apart; all pictures of one size."""
    width_px, height_px = rows[0][0].size
    across, down = len(rows[0]), len(rows)
    size_px = (across * (width_px + GAP_PX) - GAP_PX, down * (height_px + GAP_PX) - GAP_PX)
    grid = Image.new("RGB", size_px, "white")
    for y, row in enumerate(rows):
        for x, image in enumerate(row):
            grid.paste(image, (x * (width_px + GAP_PX), y * (height_px + GAP_PX)))
    return grid
