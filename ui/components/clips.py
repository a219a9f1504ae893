"""Clips on a page: muted, looping, in step with each other. assets/clips.js plays them; here is what it finds.

Everything inside one element of class npo-clips runs together, under the one control inside it.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from npo_core.media.files import PNG_MEDIA_TYPE, open_clip, png_bytes
from npo_core.media.layout import film_strip
from ui.components.html import data_uri

FILM_FRAME_PX = 96

CLIP_CONTROLS = (
    '<div class="npo-clip-bar">'
    '<button type="button" data-clip-do="toggle" aria-label="Pause" class="npo-clip-toggle"></button>'
    '<button type="button" data-clip-do="back" aria-label="One frame back">‹</button>'
    '<input type="range" min="0" max="0" value="0" step="1" data-clip-do="scrub" aria-label="Frame">'
    '<button type="button" data-clip-do="forward" aria-label="One frame forward">›</button>'
    '<output class="npo-clip-frame" aria-live="off"></output></div>'
)


def clip_html(source: str, poster: str, label: str) -> str:
    """One clip. The script turns `source`, a data: address, into one of its own: Safari does not play data: ones."""
    return (
        f'<video class="npo-clip" muted playsinline loop disablepictureinpicture preload="auto" poster="{poster}" '
        f'data-clip="{source}" aria-label="{escape(label)}"></video>'
    )


def filmstrips(clips: Sequence[tuple[str, str, bytes]]) -> str:
    """All frames of the clips (letter, name or nothing, MP4), a row each; a press on a frame goes there."""
    rows = []
    for letter, name, media in clips:
        frames = open_clip(media)
        strip = data_uri(png_bytes(film_strip(frames, FILM_FRAME_PX)), PNG_MEDIA_TYPE)
        named = f'<span class="npo-variant">{escape(name)}</span>' if name else ""
        rows.append(
            f'<div class="npo-film"><p><span class="npo-letter">{letter}</span>{named}</p>'
            f'<div class="npo-film-scroll"><button type="button" data-film="{len(frames)}" '
            f'aria-label="The {len(frames)} frames of clip {letter}; press one to go there">'
            f'<img src="{strip}" alt="" draggable="false"><i></i></button></div></div>'
        )
    return f'<details class="npo-films"><summary>Filmstrip</summary>{"".join(rows)}</details>'
