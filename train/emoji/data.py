"""Build the emoji family's pictures: art from npm packages -> captioned views, good and bad.

    npm install @lobehub/fluent-emoji-3d@1.1.0 @iconify-json/noto@1.2.9 @iconify-json/fluent-emoji-flat@1.2.6 \
        emojibase-data@17.0.0
    python -m train.emoji.data --node-modules node_modules --out data/emoji        # about 3 minutes on two cores

One view is a concept in one style, perhaps recoloured, on one of six backgrounds, perhaps shifted and scaled. A third
of the views are spoiled (blurred, washed out, badly cropped, off-colour, ...) WITHOUT the caption saying so, as in the
uncurated data that real base models learn from: that is what gives people something to prefer.
"""

from __future__ import annotations

import argparse
import colorsys
import io
import json
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from train.emoji.concepts import BACKGROUNDS, COLOURS, STYLES, concepts

SIZE_PX = 128
FIT_PX = 108  # longest side of the object in a canonical view
VIEWS_PER_PICTURE = 60
BACKGROUND_NAMES = tuple(BACKGROUNDS)
COLOUR_NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class View:
    """What one training picture shows; colour is -1 for the art's own colours, flaw is "" for a clean view."""

    concept: int
    style: int
    background: int
    colour: int
    flaw: str


def caption(view: View, rng: np.random.Generator) -> str:
    """A caption of `view`, worded at random; the flaw is never mentioned."""
    name = list(concepts())[view.concept]
    thing = f"{COLOUR_NAMES[view.colour]} {name}" if view.colour >= 0 else name
    if rng.random() < 0.9:
        thing = ("an " if thing[0] in "aeiou" else "a ") + thing
    style = f"{STYLES[view.style]} style" if rng.random() < 0.95 else ""
    background = f"{BACKGROUND_NAMES[view.background]} background"
    if view.background == 0 and rng.random() < 0.8:  # white goes without saying
        background = ""
    if background and rng.random() < 0.15:
        return ", ".join(filter(None, (f"{thing} on a {background}", style)))
    return ", ".join(filter(None, (thing, style, background)))


def load_art(node_modules: Path) -> np.ndarray:
    """All pictures, cropped to the object: (concepts * styles, 256, 256, 4) uint8 RGBA, concept-major."""
    codes = {
        entry["label"]: entry["hexcode"].lower()
        for entry in json.loads((node_modules / "emojibase-data/en/data.json").read_text())
    }
    noto = _IconSet(node_modules / "@iconify-json/noto")
    flat = _IconSet(node_modules / "@iconify-json/fluent-emoji-flat")
    pictures = []
    for _, label in concepts().values():
        code = codes[label]
        for picture in (_fluent_3d(node_modules, code), noto.render(code), flat.render(code)):
            pictures.append(_crop_to_object(picture))
    return np.stack(pictures)


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

    def render(self, code: str) -> Image.Image:
        import resvg_py

        icon = self.icons["icons"][self.names.get(code) or self.names[_bare(code)]]
        side = icon.get("width", self.icons.get("width", 16))
        svg = (
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="0 0 {side} {icon.get("height", self.icons.get("height", side))}" '
            f'width="256" height="256">{icon["body"]}</svg>'
        )
        return Image.open(io.BytesIO(bytes(resvg_py.svg_to_bytes(svg_string=svg)))).convert("RGBA")


def _crop_to_object(picture: Image.Image) -> np.ndarray:
    box = picture.getchannel("A").point(lambda alpha: 255 if alpha > 16 else 0).getbbox()
    assert box is not None, "the art is empty"
    side = max(box[2] - box[0], box[3] - box[1])
    square = Image.new("RGBA", (side, side))
    square.paste(picture.crop(box), ((side - box[2] + box[0]) // 2, (side - box[3] + box[1]) // 2))
    return np.asarray(_resize(square, 256))


def _resize(picture: Image.Image, side: int) -> Image.Image:
    """Resize with premultiplied alpha, so that no dark fringe bleeds in from transparent pixels."""
    return picture.convert("RGBa").resize((side, side), Image.Resampling.LANCZOS).convert("RGBA")


def tint(rgba: np.ndarray, hue: float) -> np.ndarray:
    """The object in one hue, light and shade kept. rgba: (H, W, 4) uint8."""
    value = rgba[..., :3].max(-1).astype(np.float32) / 255
    spread = value - rgba[..., :3].min(-1).astype(np.float32) / 255
    saturation = np.clip(0.6 + 0.35 * spread / np.maximum(value, 1e-3), 0, 1)
    pure = np.array(colorsys.hsv_to_rgb(hue, 1, 1), np.float32)
    rgb = value[..., None] * (1 - saturation[..., None] * (1 - pure))
    return np.dstack([(rgb * 255).astype(np.uint8), rgba[..., 3]])


def _place(rgba: np.ndarray, side: int, centre: tuple[float, float], background: tuple[int, int, int]) -> Image.Image:
    canvas = Image.new("RGB", (SIZE_PX, SIZE_PX), background)
    picture = _resize(Image.fromarray(rgba), side)
    canvas.paste(picture, (round(centre[0] - side / 2), round(centre[1] - side / 2)), picture)
    return canvas


def _blur(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(2.0, 4.5)))


def _washed(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    grey = Image.new("RGB", image.size, tuple([int(rng.uniform(150, 220))] * 3))
    return Image.blend(image, grey, rng.uniform(0.45, 0.7))


def _dark(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    factor = rng.uniform(0.35, 0.6)
    return image.point(lambda value: int(value * factor))


def _blocky(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    small = image.resize((int(rng.integers(14, 24)),) * 2, Image.Resampling.BOX)
    return small.resize(image.size, Image.Resampling.BILINEAR)


def _warped(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    rows, columns = np.mgrid[:SIZE_PX, :SIZE_PX].astype(np.float32)
    phase, waves = rng.uniform(0, 6.28, 2), rng.uniform(1.5, 3.0, 2) * 6.28 / SIZE_PX
    reach = rng.uniform(5, 10)
    moved = (rows + reach * np.sin(columns * waves[0] + phase[0]), columns + reach * np.sin(rows * waves[1] + phase[1]))
    at = [np.clip(axis, 0, SIZE_PX - 1).astype(int) for axis in moved]
    return Image.fromarray(np.asarray(image)[at[0], at[1]])


def _blotchy(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    cells = rng.normal(0, rng.uniform(25, 50), (12, 12, 3))
    noise = np.stack(
        [np.asarray(Image.fromarray(cells[..., c]).resize(image.size, Image.Resampling.BICUBIC)) for c in range(3)], -1
    )
    return Image.fromarray(np.clip(np.asarray(image) + noise, 0, 255).astype(np.uint8))


FLAWS = {"blur": _blur, "washed": _washed, "dark": _dark, "blocky": _blocky, "warped": _warped, "blotchy": _blotchy}
FLAW_NAMES = (*FLAWS, "crop", "hue")


def place(art: np.ndarray, view: View, background: tuple[int, int, int]) -> np.ndarray:
    """The clean, centred picture of `view` before any background of its own. art: (256, 256, 4) uint8."""
    rgba = tint(art, COLOURS[COLOUR_NAMES[view.colour]]) if view.colour >= 0 else art
    return np.asarray(_place(rgba, FIT_PX, (SIZE_PX / 2, SIZE_PX / 2), background))


def render(art: np.ndarray, view: View, rng: np.random.Generator) -> np.ndarray:
    """Draw one view. art: (256, 256, 4) uint8; returns (128, 128, 3) uint8."""
    rgba, half = art, SIZE_PX / 2
    if view.colour >= 0:
        rgba = tint(rgba, COLOURS[COLOUR_NAMES[view.colour]])
    if view.flaw == "hue":
        rgba = tint(rgba, rng.random()) if rng.random() < 0.5 else rgba[..., [1, 2, 0, 3]]
    side, centre = float(FIT_PX), (half, half)
    if view.flaw == "crop":
        side = rng.uniform(1.3, 1.8) * FIT_PX
        reach = side * 0.3
        centre = (half + rng.uniform(-reach, reach), half + rng.uniform(-reach, reach))
    elif rng.random() < 0.35:  # room to move, which clips will need
        side = rng.uniform(0.6, 1.0) * FIT_PX
        reach = (SIZE_PX - side) / 2
        centre = (half + rng.uniform(-reach, reach), half + rng.uniform(-reach, reach))
    image = _place(rgba, round(side), centre, BACKGROUNDS[BACKGROUND_NAMES[view.background]])
    if view.flaw in FLAWS:
        image = FLAWS[view.flaw](image, rng)
    return np.asarray(image)


def draw_view(picture: int, rng: np.random.Generator) -> View:
    """A random view of one picture (concept-major index)."""
    concept, style = divmod(picture, len(STYLES))
    background = 0 if rng.random() < 0.35 else int(rng.integers(1, len(BACKGROUNDS)))
    colour = int(rng.integers(len(COLOURS))) if rng.random() < 0.25 else -1
    flaw = str(rng.choice(FLAW_NAMES)) if rng.random() < 0.33 else ""
    if flaw == "hue" and colour >= 0:  # the caption's colour would be a lie
        flaw = "blur"
    return View(concept, style, background, colour, flaw)


def _render_many(job: tuple[np.ndarray, int, int]) -> tuple[list[View], np.ndarray]:
    art, picture, views = job
    rng = np.random.default_rng((2026, picture))
    drawn = [draw_view(picture, rng) for _ in range(views)]
    return drawn, np.stack([render(art, view, rng) for view in drawn])


def build(node_modules: Path, out: Path, views_per_picture: int = VIEWS_PER_PICTURE) -> None:
    """Write art.npy, images.npy (N, 128, 128, 3) uint8 and views.json to `out`; a finished build is not redone."""
    if (out / "views.json").exists():
        print(f"{out} is complete already; delete it to build again")
        return
    out.mkdir(parents=True, exist_ok=True)
    art = load_art(node_modules)
    np.save(out / "art.npy", art)
    images = np.lib.format.open_memmap(
        out / "images.npy", "w+", np.uint8, (len(art) * views_per_picture, SIZE_PX, SIZE_PX, 3)
    )
    views: list[View] = []
    with ProcessPoolExecutor() as pool:
        jobs = ((art[i], i, views_per_picture) for i in range(len(art)))
        for index, (drawn, rendered) in enumerate(pool.map(_render_many, jobs, chunksize=4)):
            views += drawn
            images[index * views_per_picture : (index + 1) * views_per_picture] = rendered
            if index % 100 == 0:
                print(f"{index}/{len(art)} pictures", flush=True)
    images.flush()
    (out / "views.json").write_text(json.dumps([list(vars(view).values()) for view in views]))


def load_views(folder: Path) -> list[View]:
    """The views that `build` wrote, in the order of images.npy."""
    return [View(*row) for row in json.loads((folder / "views.json").read_text())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--node-modules", type=Path, default=Path("node_modules"))
    parser.add_argument("--out", type=Path, default=Path("data/emoji"))
    parser.add_argument("--views-per-picture", type=int, default=VIEWS_PER_PICTURE)
    arguments = parser.parse_args()
    build(arguments.node_modules, arguments.out, arguments.views_per_picture)


if __name__ == "__main__":
    main()
