"""Contact sheets of the emoji family's training views with the truth beside the caption, to look at before training.

python -m train.emoji.drawing.sheet --art data/emoji/art.npz --out views.png --seed 1
python -m train.emoji.drawing.sheet --flaws --out flaws.png                 # every kind of flaw, from faint to strong
"""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from train.emoji.drawing.art import load_art
from train.emoji.drawing.flaws import FLAW_NAMES
from train.emoji.drawing.render import SIZE_PX, render, to_bytes
from train.emoji.drawing.views import CLEAN, PICTURES, WRONG_KINDS, Views, captions, draw_views

LINE_PX = 13
STRENGTHS = (0.2, 0.4, 0.5, 0.7, 1.0)


def truth_of(views: Views) -> list[str]:
    """What is spoiled about each view, and what its caption gets wrong; "" for nothing."""
    notes = []
    for flaw, strength, wrong in zip(views.flaw, views.strength, views.wrong, strict=True):
        spoiled = f"{FLAW_NAMES[flaw]} {strength:.1f}" if flaw >= 0 else ""
        notes.append(" / ".join(filter(None, (spoiled, f"wrong {WRONG_KINDS[wrong]}" if wrong >= 0 else ""))))
    return notes


def sheet(pictures: np.ndarray, texts: Sequence[str], columns: int = 8) -> Image.Image:
    """Pictures (N, H, W, 3) in rows, each over its text."""
    height = pictures.shape[1] + 4 * LINE_PX
    page = Image.new("RGB", (columns * (SIZE_PX + 4), -(-len(pictures) // columns) * height), "white")
    draw = ImageDraw.Draw(page)
    for number, (picture, text) in enumerate(zip(pictures, texts, strict=True)):
        x, y = number % columns * (SIZE_PX + 4), number // columns * height
        page.paste(Image.fromarray(picture), (x, y))
        lines = [line for part in text.split("\n") for line in textwrap.wrap(part, 42)]
        draw.text((x + 2, y + SIZE_PX), "\n".join(lines), "black", spacing=1)
    return page


def flaw_views(rng: np.random.Generator) -> Views:
    """One row for each kind of flaw: the same scene at every strength."""
    rows = len(FLAW_NAMES)
    drawn = replace(draw_views(rng.integers(PICTURES, size=rows), rng), flaw=np.full(rows, CLEAN))
    views = drawn[np.repeat(np.arange(rows), len(STRENGTHS))]
    return replace(
        views,
        flaw=np.repeat(np.arange(rows), len(STRENGTHS)),
        strength=np.tile(STRENGTHS, rows),
        colour=np.full_like(views.colour, -1),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--art", type=Path, default=Path("data/emoji/art.npz"))
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--flaws", action="store_true", help="one row for each kind of flaw instead")
    arguments = parser.parse_args()
    art, rng = load_art(arguments.art), np.random.default_rng(arguments.seed)
    views = flaw_views(rng) if arguments.flaws else draw_views(rng.integers(PICTURES, size=arguments.count), rng)
    texts = [f"{told}\n{note}" for told, note in zip(captions(views, rng), truth_of(views), strict=True)]
    page = sheet(to_bytes(render(art, views)), texts, len(STRENGTHS) if arguments.flaws else 8)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    page.save(arguments.out)


if __name__ == "__main__":
    main()
