"""The three pictures or clips: empty, while they come into being, blind, and with their names."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from PIL import Image

from npo_core.media.files import MP4_MEDIA_TYPE, PNG_MEDIA_TYPE, png_bytes, poster_png
from service.arena.compare import BlindProgress, Panel, RevealedComparison, RevealedPanel
from service.arena.picks import LETTERS
from ui.components.clips import CLIP_CONTROLS, clip_html, filmstrips
from ui.components.html import data_uri

PREVIEWS = 8  # how often the pictures are decoded on the way; each costs a pass of the VAE
PREVIEW_PX = 384  # large models' previews are sent smaller than they are


def empty_panels(count: int = 3) -> str:
    """Where the pictures will be."""
    return _stage([_figure(letter, None) for letter in LETTERS[:count]])


def progress_panels(images: Sequence[Image.Image], step: int, total_steps: int) -> str:
    """Previews (or empty panels while there are none) under a bar; all panels alike."""
    shown: list[bytes | None] = [png_bytes(_small(image)) for image in images]
    figures = [
        _figure(letter, media, alt=f"Picture {letter} in the making")
        for letter, media in zip(LETTERS, shown or [None] * 3, strict=False)
    ]
    text = f"Step {step} of {total_steps}" if step else "Starting: the first time the model is loaded"
    share = 100 * step / max(1, total_steps)
    bar = (
        f'<div class="npo-progress" role="progressbar" aria-label="Denoising" aria-valuemin="0" '
        f'aria-valuemax="{total_steps}" aria-valuenow="{step}"><span style="width:{share:.1f}%"></span></div>'
        f'<p class="npo-step">{text}</p>'
    )
    return _stage(figures, bar, busy=True)


def waiting_panels(place: int) -> str:
    """Empty panels, and the place in the line of those that wait for the device."""
    text = "You are next" if place == 1 else f"You are number {place} in line"
    figures = [_figure(letter, None) for letter in LETTERS[:3]]
    return _stage(
        figures, f'<p class="npo-step" role="status">{text}; one comparison is made at a time.</p>', busy=True
    )


def blind_panels(panels: Sequence[Panel]) -> str:
    """The finished pictures or clips with nothing but their letters."""
    return _finished([_figure(panel.letter, panel.media, panel.media_type) for panel in panels], panels)


def revealed_panels(revealed: RevealedComparison) -> str:
    """The pictures or clips with their names and what was picked."""
    figures = []
    for panel in revealed.panels:
        badge = {revealed.pick.best: "best", revealed.pick.worst: "worst"}.get(panel.letter, "")
        figures.append(_figure(panel.letter, panel.media, panel.media_type, badge, panel.label))
    return _finished(figures, revealed.panels)


def _finished(figures: Sequence[str], panels: Sequence[Panel | RevealedPanel]) -> str:
    """Clips come with one control for all of them and, on demand, their frames in a row."""
    if any(panel.media_type != MP4_MEDIA_TYPE for panel in panels):
        return _stage(figures)
    strips = [(panel.letter, getattr(panel, "label", ""), panel.media) for panel in panels]
    return _stage(figures, CLIP_CONTROLS + filmstrips(strips), clips=True)


def wants_preview(progress: BlindProgress) -> bool:
    """Whether this step's pictures are worth decoding: about PREVIEWS times on the way, never the last step."""
    every = max(1, progress.total_steps // PREVIEWS)
    return progress.step % every == 0 and progress.step < progress.total_steps


def _stage(figures: Sequence[str], extra: str = "", busy: bool = False, clips: bool = False) -> str:
    return (
        f'<div class="npo-stage{" npo-clips" if clips else ""}" aria-busy="{str(busy).lower()}">'
        f'<div class="npo-panels">{"".join(figures)}</div>{extra}</div>'
    )


def _figure(
    letter: str, media: bytes | None, media_type: str = PNG_MEDIA_TYPE, badge: str = "", name: str = "", alt: str = ""
) -> str:
    caption = f'<span class="npo-letter">{letter}</span>'
    if name:
        caption += f'<span class="npo-variant">{escape(name)}</span>'
    if badge:
        caption += f'<span class="npo-badge npo-badge-{badge}">{badge}</span>'
    return (
        f'<figure class="npo-panel npo-panel-{letter.lower()}">{_shown(letter, media, media_type, name, alt)}'
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _shown(letter: str, media: bytes | None, media_type: str, name: str, alt: str) -> str:
    """The picture, the clip, or the place where it will be."""
    if media is None:
        return '<span class="npo-empty" aria-hidden="true"></span>'
    source, named = data_uri(media, media_type), f", {name}" if name else ""
    if media_type == MP4_MEDIA_TYPE:
        poster = data_uri(poster_png(media), PNG_MEDIA_TYPE)
        return clip_html(source, poster, f"Clip {letter}{named}")
    return (
        f'<button type="button" data-enlarge aria-label="Enlarge picture {letter}">'
        f'<img src="{source}" alt="{escape(alt or f"Picture {letter}{named}")}" draggable="false"></button>'
    )


def _small(image: Image.Image) -> Image.Image:
    small = image.copy()
    small.thumbnail((PREVIEW_PX, PREVIEW_PX))
    return small
