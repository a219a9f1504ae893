"""Who votes: an opaque id that the browser keeps, encrypted, across visits and restarts of the app."""

from __future__ import annotations

import gradio as gr

from service.services import Services

STORAGE_KEY = "diffusion-npo-lab-participant"


def participant_state(services: Services) -> gr.BrowserState:
    """The id, empty until the first comparison. Fixed key and secret: gradio's own change at every start."""
    return gr.BrowserState("", storage_key=STORAGE_KEY, secret=services.secret)
