"""Collect the emoji family's art: icons from npm packages -> one file of equal pictures.

    npm install @lobehub/fluent-emoji-3d@1.1.0 @iconify-json/noto@1.2.9 @iconify-json/fluent-emoji-flat@1.2.6 \
        @iconify-json/twemoji@1.2.5 emojibase-data@17.0.0
    python -m train.emoji.drawing.art --node-modules node_modules --out data/emoji/art.npz  # two minutes on two cores
    python -m train.emoji.drawing.art --jury --out data/emoji/art_jury.npz

Joined by code point; SVGs are drawn by resvg, which needs no system library. The jury's art (Twemoji, CC-BY 4.0) shows
the same concepts in a hand that no network for pictures ever learns from.
"""

from __future__ import annotations

import argparse
import io
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from train.emoji.drawing.concepts import concepts

ART_PX = 288
DRAWN_PX = 512  # SVGs are drawn larger than they are kept


def collect(node_modules: Path, jury: bool = False) -> list[Image.Image]:
    """All pictures, cropped to the object, 288 px RGBA, concept-major: every style of a concept, then the next.

    `jury`: the one picture that the jury's art has of each concept.
    """
    codes = {
        entry["label"]: entry["hexcode"].lower()
        for entry in json.loads((node_modules / "emojibase-data/en/data.json").read_text())
    }
    hands: list[Callable[[str], Image.Image]] = [
        lambda code: _fluent_3d(node_modules, code),
        _IconSet(node_modules / "@iconify-json/noto").draw,
        _IconSet(node_modules / "@iconify-json/fluent-emoji-flat").draw,
    ]
    if jury:
        hands = [_IconSet(node_modules / "@iconify-json/twemoji").draw]
    return [_crop_to_object(hand(codes[label])) for _, label in concepts().values() for hand in hands]


def _bare(code: str) -> str:
    return code.replace("-fe0f", "")


def _fluent_3d(node_modules: Path, code: str) -> Image.Image:
    folder = node_modules / "@lobehub/fluent-emoji-3d/assets"
    names = (code, _bare(code), _bare(code) + "-fe0f")
    path = next(folder / f"{name}.webp" for name in names if (folder / f"{name}.webp").exists())
    return Image.open(path).convert("RGBA")


class _IconSet:
    """An Iconify icon set: SVG bodies by code point."""

    def __init__(self, folder: Path) -> None:
        self.icons: dict[str, Any] = json.loads((folder / "icons.json").read_text())
        self.names: dict[str, str] = json.loads((folder / "chars.json").read_text())

    def draw(self, code: str) -> Image.Image:
        import resvg_py

        icon = self.icons["icons"][self.names.get(code) or self.names[_bare(code)]]
        side = icon.get("width", self.icons.get("width", 16))
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {side} {icon.get("height", self.icons.get("height", side))}" '
            f'width="{DRAWN_PX}" height="{DRAWN_PX}">{icon["body"]}</svg>'
        )
        return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


def _crop_to_object(picture: Image.Image) -> Image.Image:
    box = picture.getchannel("A").point(lambda alpha: 255 if alpha > 16 else 0).getbbox()
    assert box is not None, "the art is empty"
    side = max(box[2] - box[0], box[3] - box[1])
    square = Image.new("RGBA", (side, side))
    square.paste(picture.crop(box), ((side - box[2] + box[0]) // 2, (side - box[3] + box[1]) // 2))
    # premultiplied while it is resized, so that no dark fringe bleeds in from transparent pixels
    return square.convert("RGBa").resize((ART_PX, ART_PX), Image.Resampling.LANCZOS).convert("RGBA")


def save_art(pictures: Sequence[Image.Image], file: Path) -> None:
    """Writes the pictures as lossless WebP, one after the other: a tenth of their pixels' size."""
    encoded = []
    for picture in pictures:
        buffer = io.BytesIO()
        picture.save(buffer, "WEBP", lossless=True, exact=True)
        encoded.append(np.frombuffer(buffer.getvalue(), np.uint8))
    np.savez(file, webp=np.concatenate(encoded), sizes=np.array([len(one) for one in encoded]))


def load_art(file: Path, device: str = "cpu") -> torch.Tensor:
    """(pictures, 4, 288, 288) uint8 RGBA on `device`, as `save_art` wrote it.

    The jury's has one picture a concept: `load_art(file).repeat_interleave(len(STYLES), 0)` can be rendered like the
    family's own.
    """
    with np.load(file) as arrays:
        parts = np.split(arrays["webp"], np.cumsum(arrays["sizes"])[:-1])
    with ThreadPoolExecutor(os.cpu_count()) as threads:
        pictures = list(threads.map(lambda part: np.asarray(Image.open(io.BytesIO(part)).convert("RGBA")), parts))
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous().to(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--node-modules", type=Path, default=Path("node_modules"))
    parser.add_argument("--out", type=Path, default=Path("data/emoji/art.npz"))
    parser.add_argument("--jury", action="store_true", help="the jury's art instead of the family's")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    save_art(collect(arguments.node_modules, arguments.jury), arguments.out)


if __name__ == "__main__":
    main()
