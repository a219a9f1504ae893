"""Small pieces of HTML that the pages share. Everything that came from outside is escaped here."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any, Literal

from service.services import Services

ASSETS = Path(__file__).parents[1] / "assets"

PAGE_LINKS = (
    ("Compare", "./"),
    ("Vote", "./vote"),
    ("Results", "./results"),
    ("Retrain", "./retrain"),
    ("About", "./about"),
)

FAULT = "Something went wrong on the server's side; its log says what. Please try again."

MARK = (
    '<svg viewBox="0 0 24 24" width="26" height="26" aria-hidden="true"><rect x="2" y="5" width="9" height="14" rx="3"'
    ' fill="currentColor" opacity=".32"/><rect x="13" y="5" width="9" height="14" rx="3" fill="currentColor"/></svg>'
)


def data_uri(media: bytes, media_type: str) -> str:
    """`media` inside the address itself: no file name or URL that could tell where a picture came from."""
    return f"data:{media_type};base64,{base64.b64encode(media).decode('ascii')}"


def header(current: str) -> str:
    """The name of the lab and the links between its pages; `current` is the title of the one shown."""
    links = "".join(
        f'<a href="{address}"{" aria-current=page" if title == current else ""}>{title}</a>'
        for title, address in PAGE_LINKS
    )
    return (
        '<a class="npo-skip" href="#npo-title">Skip to the content</a>'
        f'<header class="npo-header"><a class="npo-name" href="./">{MARK}<span>Diffusion-NPO Lab</span></a>'
        f'<nav aria-label="Pages">{links}</nav></header>'
    )


def heading(title: str, text: str) -> str:
    """A page's title and one sentence under it."""
    return f'<div class="npo-heading"><h1 id="npo-title" tabindex="-1">{escape(title)}</h1><p>{escape(text)}</p></div>'


def message(text: str, kind: Literal["error", "note", "done"] = "note") -> str:
    """One sentence in the page; read out at once when it is an error. Nothing for no text."""
    if not text:
        return ""
    role = "alert" if kind == "error" else "status"
    return f'<p class="npo-message npo-{kind}" role="{role}">{escape(text)}</p>'


def notes(texts: Sequence[str]) -> str:
    """Several notes, one under the other."""
    return "".join(message(text) for text in texts)


def one_line(services: Services) -> dict[str, Any]:
    """gradio's options of what generates: so many at once that the service's own line decides who waits, and tells the
    place in it."""
    return {"concurrency_id": "generation", "concurrency_limit": services.compare.desk.most + 2}


def plural(count: int, one: str, many: str | None = None) -> str:
    """ "1 vote", "2 votes"."""
    return f"{count:,} {one if count == 1 else many or one + 's'}"
