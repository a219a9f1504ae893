"""The page Vote: takes a person through a study, full screen. What happens there is in assets/vote.js."""

from __future__ import annotations

import gradio as gr

from service.services import Services
from ui.components.html import header

TITLE = "Vote"


def build(services: Services) -> gr.Blocks:
    """The page; it says nothing about any study, for the script asks when it is opened."""
    with gr.Blocks() as page:
        gr.HTML(header(TITLE))
        gr.HTML(
            '<div id="npo-study"><p>One moment…</p><noscript>This page needs JavaScript.</noscript></div>',
            elem_id="npo-study-box",
        )
    return page
