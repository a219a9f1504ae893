"""The page Results: how many votes, who wins how often and how sure that is, and what to do with them."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any, Final

import gradio as gr

from service.errors import INPUT_ERRORS
from service.services import Services
from ui.charts import ratings_chart, tiles, win_rate_chart
from ui.family_menu import results_links
from ui.parts import header, heading, message
from ui.study_results import cards

TITLE = "Results"
REFRESH_S = 10.0
ALL_VOTES: Final = ("All votes", "")
WANTED_PICKS = 20  # what train.npo asks for unless told otherwise

logger = logging.getLogger(__name__)


def build(services: Services) -> gr.Blocks:
    """The page; it follows the database."""
    with gr.Blocks() as page:
        gr.HTML(header(TITLE))
        gr.HTML(heading("What people preferred", "Blind picks only, every model against every other, ties as halves."))
        if links := results_links(services):
            gr.HTML(links)
        which = gr.Radio(
            [ALL_VOTES],
            value="",
            label="Votes of",
            show_label=False,
            container=False,
            elem_classes="npo-chips",
            elem_id="npo-which",
            visible=False,
        )
        body = gr.HTML(elem_id="npo-results")
        timer = gr.Timer(REFRESH_S)
        quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        page.load(partial(offer_studies, services), None, which, **quiet)
        gr.on(
            [page.load, timer.tick, which.input],
            partial(render, services),
            which,
            body,
            api_visibility="private",
            show_progress="hidden",
            concurrency_limit=4,
        )
    return page


def offer_studies(services: Services) -> dict[str, Any]:
    """The row to choose from: all votes, or those of one study."""
    studies = [study.name for study in services.store.study_progress()]
    return gr.update(choices=[ALL_VOTES, *((name, name) for name in studies)], value="", visible=bool(studies))


def render(services: Services, study: str = "") -> str:
    """The page's content for the votes so far, of all or of a study."""
    try:
        summary = services.results(study or None)
        progress = services.store.study_progress(study) if study else []
        decided = sum(count.wins_a + count.wins_b for count in services.store.vote_counts(services.family.name))
    except INPUT_ERRORS as error:
        return message(str(error), "error")
    content = [tiles(summary)]
    if not summary.win_rates:
        content.append(
            '<section class="npo-card npo-blank"><h2>No votes yet</h2><p>Compare three pictures and pick the best; '
            'the first win rates appear here at once.</p><a class="npo-button npo-primary" href="./">Compare</a>'
            "</section>"
        )
    else:
        content += [win_rate_chart(summary), ratings_chart(summary)]
        content += cards(summary, services.study.showable_media, progress)
    content.append(_training(decided))
    return "".join(content)


def _training(decided: int) -> str:
    """How far it is to the next negative model."""
    missing = max(0, WANTED_PICKS - decided)
    told = (
        f"{decided:,} decided picks are there: enough to retrain the negative model."
        if not missing
        else f"{decided:,} decided picks are there; {missing} more make {WANTED_PICKS}, enough to retrain."
    )
    share = min(100.0, 100 * decided / WANTED_PICKS)
    return (
        f'<section class="npo-card"><h2>Close the loop</h2><p>{told}</p>'
        f'<div class="npo-progress" role="progressbar" aria-label="Picks towards a training" aria-valuemin="0" '
        f'aria-valuemax="{WANTED_PICKS}" aria-valuenow="{min(decided, WANTED_PICKS)}">'
        f'<span style="width:{share:.0f}%"></span></div>'
        "<p>Run this where the app runs; Compare offers the new version by itself, no restart needed.</p>"
        '<pre class="npo-code"><code>python -m train.npo --from-db</code></pre></section>'
    )
