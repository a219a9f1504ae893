"""The alpha x beta grid in the advanced settings: one prompt and noise, every strength of the negative model."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from npo_core.catalog.adapter_files import Role
from npo_core.grid import Grid, grid_requests
from npo_core.media.files import PNG_MEDIA_TYPE, png_bytes
from npo_core.requests import parse_numbers
from service.errors import INPUT_ERRORS
from service.generation.adapters_in_use import NEWEST
from service.generation.low_priority import start_apart
from service.services import Services
from ui.components import request_from_form
from ui.components.html import FAULT, data_uri, message, one_line, plural

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class GridCard:
    """The components of the grid."""

    alphas: gr.Textbox
    betas: gr.Textbox
    draw: gr.Button
    result: gr.HTML


def build_grid_card() -> GridCard:
    """Draws what a grid is asked for with, and the place where it will be."""
    with gr.Accordion("Grid of alpha and beta", open=False, elem_classes="npo-advanced", elem_id="npo-grid"):
        with gr.Row():
            alphas = gr.Textbox(
                "0, 0.5, 1", label="Alphas", info="Down, with commas between.", max_lines=1, elem_id="npo-grid-alphas"
            )
            betas = gr.Textbox("0, 0.5, 1, 1.5", label="Betas", info="Across.", max_lines=1, elem_id="npo-grid-betas")
            draw = gr.Button("Draw the grid", min_width=140, elem_id="npo-grid-draw")
        result = gr.HTML(elem_id="npo-grid-result")
    return GridCard(alphas, betas, draw, result)


def wire_grid(
    services: Services, card: GridCard, participant: gr.BrowserState, inputs: Sequence[gr.components.Component]
) -> None:
    """inputs: the versions of both roles, then the settings of a generation."""
    card.draw.click(
        partial(draw_grid, services),
        [participant, card.alphas, card.betas, *inputs],
        [card.result, card.draw, participant],
        **one_line(services),
        api_visibility="private",
        show_progress="hidden",
    )


def draw_grid(
    services: Services,
    participant: str,
    alphas: str,
    betas: str,
    aligned: str,
    negative: str,
    prompt: str,
    seed: str,
    *settings: Any,
) -> Iterator[tuple[Any, Any, Any]]:
    """Says how many pictures are being drawn, then shows them."""
    try:
        shares = parse_numbers(alphas, "The list of alphas"), parse_numbers(betas, "The list of betas")
        request = request_from_form.build_request(prompt, seed, *settings)
        count = len(grid_requests(request, *shares))
        who = services.visitors.named(participant)
        yield message(f"Drawing {plural(count, 'picture')} in one batch…"), gr.update(interactive=False), who
        versions: dict[Role, str] = {"aligned": aligned or NEWEST, "negative": negative or NEWEST}
        made = start_apart(lambda: services.compare.grid(request, *shares, who, versions), "grid")
        shown = grid_html(made.result())
    except INPUT_ERRORS as error:
        shown = message(str(error), "error")
    except Exception:
        logger.exception("A grid failed.")
        shown = message(FAULT, "error")
    yield shown, gr.update(interactive=True), gr.skip()


def grid_html(grid: Grid) -> str:
    """The labelled picture, to be enlarged with a click."""
    source = data_uri(png_bytes(grid.picture()), PNG_MEDIA_TYPE)
    seconds = sum(cell.elapsed_s for row in grid.rows for cell in row)
    return (
        '<figure class="npo-grid"><button type="button" data-enlarge aria-label="Enlarge the grid">'
        f'<img src="{source}" alt="Aligned + NPO: alphas down, betas across" draggable="false"></button>'
        f"<figcaption>Aligned + NPO from one noise, drawn in {seconds:.1f} s. Alpha 1, beta 0 is plain Aligned."
        "</figcaption></figure>"
    )
