"""Draws the figure of the page About from real outputs: rows of prompts, columns of variants, one noise a row.

    python -m service.about_figure --out ui/assets/about.png
    python -m service.about_figure --family emoji --seed 7 --prompts "a cat, 3d style" "a red rose" --out about.png

Takes a few seconds a row on a CPU. Exit status 2 means that the input was wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from npo_core.catalog.families import FAMILIES
from npo_core.console import exit_status, hush_libraries
from npo_core.generator import Generator
from npo_core.media.files import open_image, png_bytes
from npo_core.requests import GenerationRequest
from npo_core.variants import DEFAULT_VARIANTS, get_variant

PROMPTS = (
    "a red apple, 3d style",
    "a panda, cartoon style, blue background",
    "a rocket, flat style",
    "a castle, 3d style, yellow background",
)
CELL_PX = 256
GAP_PX = 12
BAND_PX = 40
TEXT_PX = 18
INK, PAPER = "#26302d", "#ffffff"


def draw_rows(rows: Sequence[tuple[str, Sequence[Image.Image]]], labels: Sequence[str]) -> Image.Image:
    """The labels on top, then for each (prompt, pictures) the pictures with the prompt under them."""
    width_px = GAP_PX + (CELL_PX + GAP_PX) * len(labels)
    sheet = Image.new("RGB", (width_px, BAND_PX + (CELL_PX + BAND_PX) * len(rows)), PAPER)
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(TEXT_PX)
    for column, label in enumerate(labels):
        centre_px = GAP_PX + column * (CELL_PX + GAP_PX) + CELL_PX / 2
        draw.text((centre_px, BAND_PX / 2), label, fill=INK, font=font, anchor="mm")
    for number, (prompt, images) in enumerate(rows):
        top_px = BAND_PX + number * (CELL_PX + BAND_PX)
        for column, image in enumerate(images):
            cell = image.resize((CELL_PX, CELL_PX), Image.Resampling.BICUBIC)
            sheet.paste(cell, (GAP_PX + column * (CELL_PX + GAP_PX), top_px))
        draw.text((width_px / 2, top_px + CELL_PX + BAND_PX / 2), prompt, fill=INK, font=font, anchor="mm")
    return sheet


def make_figure(generator: Generator, prompts: Sequence[str], seed: int) -> Image.Image:
    """The figure for `prompts`, row n with seed + n."""
    requests = [GenerationRequest(prompt, seed=seed + number) for number, prompt in enumerate(prompts)]
    rows = [
        (made.request.prompt, [open_image(sample.media) for sample in made.samples])
        for made in generator.generate_batch(requests)
    ]
    return draw_rows(rows, [get_variant(name).label for name in DEFAULT_VARIANTS])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m service.about_figure", description="Draw the figure of About.")
    parser.add_argument("--family", default="emoji", help=f"one of {', '.join(FAMILIES)} (%(default)s)")
    parser.add_argument("--prompts", nargs="+", default=PROMPTS, help="one row each")
    parser.add_argument("--seed", type=int, default=0, help="of the first row, one more for each next (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the PNG to write")
    options = parser.parse_args(arguments)

    def command() -> None:
        hush_libraries()
        figure = make_figure(Generator(options.family), options.prompts, options.seed)
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_bytes(png_bytes(figure))
        print(options.out)

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
