"""The page Vote: an arena that anybody may vote in (assets/arena.js), or, while a study is open, a person's way through
it, full screen (assets/vote.js)."""

from __future__ import annotations

from functools import partial

import gradio as gr

from service.services import Services
from ui.components.html import header
from ui.http.identity import participant_state

TITLE = "Vote"


def build(services: Services) -> gr.Blocks:
    """The page; it says nothing about any study, for the script asks when it is opened."""
    with gr.Blocks() as page:
        visitor = participant_state(services)
        gr.HTML(header(TITLE))
        gr.HTML(
            '<div id="npo-study"><p>One moment…</p><noscript>This page needs JavaScript.</noscript></div>',
            elem_id="npo-study-box",
        )
        name = gr.HTML()
        page.load(
            partial(introduce, services), visitor, [visitor, name], api_visibility="private", show_progress="hidden"
        )
    return page


def introduce(services: Services, visitor: str) -> tuple[str, str]:
    """The same person as on Compare, whose names may have been told there: for the browser to keep, and the script."""
    who = services.visitors.named(visitor)
    return who, f'<span id="npo-visitor" data-id="{who}" hidden></span>'
