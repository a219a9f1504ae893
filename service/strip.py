"""The labelled strip of a revealed comparison with its settings: one PNG to share, one JSON to make it again."""

from __future__ import annotations

import io
import json
import textwrap
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from npo_core.media import open_image, side_by_side
from service.compare import RevealedComparison

SMALLEST_PICTURE_PX = 256  # small pictures are enlarged, or the settings under them could not be read
TEXT_PX = 15
LINE_PX = 21
MARGIN_PX = 12


def strip_record(revealed: RevealedComparison) -> dict[str, Any]:
    """Everything about the comparison as plain JSON values: settings, which panel was which, what was picked."""
    pick = revealed.pick
    return {
        "settings": revealed.settings,
        "panels": {panel.letter: panel.variant for panel in revealed.panels},
        "pick": {"best": pick.best, "worst": pick.worst, "no_difference": pick.no_difference, "blind": revealed.blind},
    }


def strip_json(revealed: RevealedComparison) -> bytes:
    """`strip_record` as readable UTF-8."""
    return (json.dumps(strip_record(revealed), indent=2, ensure_ascii=False) + "\n").encode()


def strip_png(revealed: RevealedComparison) -> bytes:
    """The pictures side by side under their names with the settings below, and the record in a PNG text chunk."""
    images = [_enlarged(open_image(panel.media)) for panel in revealed.panels]
    strip = side_by_side(images, [panel.label for panel in revealed.panels])
    font = ImageFont.load_default(TEXT_PX)
    characters = int((strip.width - 2 * MARGIN_PX) / (font.getlength("n") * 0.97))
    lines = [line for text in settings_lines(revealed) for line in textwrap.wrap(text, characters)]
    sheet = Image.new("RGB", (strip.width, strip.height + LINE_PX * len(lines) + 2 * MARGIN_PX), "white")
    sheet.paste(strip, (0, 0))
    draw = ImageDraw.Draw(sheet)
    for number, line in enumerate(lines):
        draw.text((MARGIN_PX, strip.height + MARGIN_PX + LINE_PX * number), line, fill="#444444", font=font)
    chunks = PngInfo()
    chunks.add_itxt("diffusion-npo-lab", json.dumps(strip_record(revealed), ensure_ascii=False))
    buffer = io.BytesIO()
    sheet.save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


def settings_lines(revealed: RevealedComparison) -> list[str]:
    """The settings in a few short lines for a person."""
    told = revealed.settings
    lines = [f"“{told['prompt']}”"]
    if told["negative_prompt"]:
        lines.append(f"Negative prompt: “{told['negative_prompt']}”")
    lines.append(
        f"{told['family']}, seed {told['seed']}, {told['steps']} steps, {told['scheduler']}, "
        f"guidance {told['guidance_scale']:g}, alpha {told['alpha']:g}, beta {told['beta']:g}"
    )
    return lines


def _enlarged(image: Image.Image) -> Image.Image:
    factor = -(-SMALLEST_PICTURE_PX // image.height)  # a whole number, rounded up
    size = (image.width * factor, image.height * factor)
    return image if factor == 1 else image.resize(size, Image.Resampling.BICUBIC)
