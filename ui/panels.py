"""The three pictures: empty, while they come into being, blind, and with their names."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from PIL import Image

from npo_core.media import PNG_MEDIA_TYPE, png_bytes
from service.compare import BlindProgress, Panel, RevealedComparison
from service.picks import LETTERS
from ui.parts import data_uri

PREVIEWS = 8  # how often the pictures are decoded on the way; each costs a pass of the VAE
PREVIEW_PX = 384  # large models' previews are sent smaller than they are


def empty_panels(count: int = 3) -> str:
    """Where the pictures will be."""
    return _stage([_figure(letter, None, "") for letter in LETTERS[:count]])


def progress_panels(images: Sequence[Image.Image], step: int, total_steps: int) -> str:
    """Previews (or empty panels while there are none) under a bar; all panels alike."""
    shown: list[str | None] = [data_uri(png_bytes(_small(image)), PNG_MEDIA_TYPE) for image in images]
    figures = [
        _figure(letter, source, "", f"Picture {letter} in the making")
        for letter, source in zip(LETTERS, shown or [None] * 3, strict=False)
    ]
    text = f"Step {step} of {total_steps}" if step else "Starting: the first time the model is loaded"
    share = 100 * step / max(1, total_steps)
    bar = (
        f'<div class="npo-progress" role="progressbar" aria-label="Denoising" aria-valuemin="0" '
        f'aria-valuemax="{total_steps}" aria-valuenow="{step}"><span style="width:{share:.1f}%"></span></div>'
        f'<p class="npo-step">{text}</p>'
    )
    return _stage(figures, bar, busy=True)


def blind_panels(panels: Sequence[Panel]) -> str:
    """The finished pictures with nothing but their letters."""
    return _stage([_figure(panel.letter, data_uri(panel.media, panel.media_type), "") for panel in panels])


def revealed_panels(revealed: RevealedComparison) -> str:
    """The pictures with their names and what was picked."""
    figures = []
    for panel in revealed.panels:
        badge = {revealed.pick.best: "best", revealed.pick.worst: "worst"}.get(panel.letter, "")
        figures.append(_figure(panel.letter, data_uri(panel.media, PNG_MEDIA_TYPE), badge, name=panel.label))
    return _stage(figures)


def wants_preview(progress: BlindProgress) -> bool:
    """Whether this step's pictures are worth decoding: about PREVIEWS times on the way, never the last step."""
    every = max(1, progress.total_steps // PREVIEWS)
    return progress.step % every == 0 and progress.step < progress.total_steps


def _stage(figures: Sequence[str], extra: str = "", busy: bool = False) -> str:
    return (
        f'<div class="npo-stage" aria-busy="{str(busy).lower()}"><div class="npo-panels">{"".join(figures)}</div>'
        f"{extra}</div>"
    )


def _figure(letter: str, source: str | None, badge: str, alt: str = "", name: str = "") -> str:
    alt = alt or f"Picture {letter}" + (f", {name}" if name else "")
    picture = (
        '<span class="npo-empty" aria-hidden="true"></span>'
        if source is None
        else f'<button type="button" data-enlarge aria-label="Enlarge picture {letter}">'
        f'<img src="{source}" alt="{escape(alt)}" draggable="false"></button>'
    )
    caption = f'<span class="npo-letter">{letter}</span>'
    if name:
        caption += f'<span class="npo-variant">{escape(name)}</span>'
    if badge:
        caption += f'<span class="npo-badge npo-badge-{badge}">{badge}</span>'
    return f'<figure class="npo-panel npo-panel-{letter.lower()}">{picture}<figcaption>{caption}</figcaption></figure>'


def _small(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((PREVIEW_PX, PREVIEW_PX))
    return small
