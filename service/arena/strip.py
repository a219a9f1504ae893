"""The labelled strip of a revealed comparison with its settings: a PNG or a clip to share, a JSON to make it again."""

from __future__ import annotations

import io
import json
import textwrap
from typing import Any

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from npo_core.media.files import CLIP_EXPORTS, MP4_MEDIA_TYPE, mp4_bytes, open_clip, open_image
from npo_core.media.layout import side_by_side
from service.arena.compare import RevealedComparison, RevealedPanel

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
    chunks = PngInfo()
    chunks.add_itxt("diffusion-npo-lab", json.dumps(strip_record(revealed), ensure_ascii=False))
    buffer = io.BytesIO()
    _sheets(revealed)[0].save(buffer, format="PNG", pnginfo=chunks)
    return buffer.getvalue()


def strip_clips(revealed: RevealedComparison) -> dict[str, tuple[str, bytes]]:
    """The clips side by side in the same way, running together: file suffix -> (media type, content)."""
    sheets, fps = _sheets(revealed), revealed.settings["fps"]
    made = {"mp4": (MP4_MEDIA_TYPE, mp4_bytes(sheets, fps))}
    return made | {name: (media_type, write(sheets, fps)) for name, (media_type, write) in CLIP_EXPORTS.items()}


def frames_of(panel: RevealedPanel) -> list[Image.Image]:
    """The frames of a panel's clip, or its one picture."""
    return open_clip(panel.media) if panel.media_type == MP4_MEDIA_TYPE else [open_image(panel.media)]


def _sheets(revealed: RevealedComparison) -> list[Image.Image]:
    """One sheet for each frame: the panels under their names, and the settings below."""
    labels = [panel.label for panel in revealed.panels]
    strips = [
        side_by_side([_enlarged(image) for image in images], labels)
        for images in zip(*(frames_of(panel) for panel in revealed.panels), strict=True)
    ]
    font = ImageFont.load_default(TEXT_PX)
    characters = int((strips[0].width - 2 * MARGIN_PX) / (font.getlength("n") * 0.97))
    lines = [line for text in settings_lines(revealed) for line in textwrap.wrap(text, characters)]
    band = Image.new("RGB", (strips[0].width, LINE_PX * len(lines) + 2 * MARGIN_PX), "white")
    draw = ImageDraw.Draw(band)
    for number, line in enumerate(lines):
        draw.text((MARGIN_PX, MARGIN_PX + LINE_PX * number), line, fill="#444444", font=font)
    sheets = []
    for strip in strips:
        sheet = Image.new("RGB", (strip.width, strip.height + band.height), "white")
        sheet.paste(strip, (0, 0))
        sheet.paste(band, (0, strip.height))
        sheets.append(sheet)
    return sheets


def settings_lines(revealed: RevealedComparison) -> list[str]:
    """The settings in a few short lines for a person."""
    told = revealed.settings
    lines = [f"“{told['prompt']}”"]
    if told["negative_prompt"]:
        lines.append(f"Negative prompt: “{told['negative_prompt']}”")
    lines.append(
        f"{told['family']}, seed {told['seed']}, {told['steps']} steps, {told['scheduler']}, "
        f"guidance {told['guidance_scale']:g}, alpha {told['alpha']:g}, beta {told['beta']:g}"
        + (f", {told['frames']} frames at {told['fps']:g} a second" if told["fps"] else "")
    )
    return lines


def _enlarged(image: Image.Image) -> Image.Image:
    factor = -(-SMALLEST_PICTURE_PX // image.height)  # a whole number, rounded up
    size = (image.width * factor, image.height * factor)
    return image if factor == 1 else image.resize(size, Image.Resampling.BICUBIC)
