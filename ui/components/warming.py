"""The line that says, while the app starts, that the model is not ready yet."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from service.services import Services
from ui.components.html import message

EVERY_S = 1.5
WORDS = "Warming up: the model is being loaded. You can write your prompt; the first pictures start when it is ready."


def build_warming_line(page: gr.Blocks, services: Services) -> None:
    """Draws the line and takes it away by itself."""
    line = gr.HTML(elem_id="npo-warming", visible=False)
    timer = gr.Timer(EVERY_S)
    look: dict[str, Any] = {
        "fn": partial(look_again, services),
        "inputs": None,
        "outputs": [line, timer],
        "api_visibility": "private",
        "show_progress": "hidden",
    }
    page.load(**look)
    timer.tick(**look)


def look_again(services: Services) -> tuple[Any, gr.Timer]:
    """The line as it should be now; nobody asks again once the model is ready."""
    warming_up = services.compare.warming_up
    return gr.update(value=message(WORDS if warming_up else ""), visible=warming_up), gr.Timer(active=warming_up)
