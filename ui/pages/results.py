"""The page Results: how many votes, who wins how often and how sure that is, and what to do with them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from html import escape
from typing import Any, Final

import gradio as gr

from collection.statistics.summary import Summary
from collection.types import StudyProgress
from service.errors import INPUT_ERRORS
from service.services import Services
from service.training.new_picks import WANTED_PICKS
from ui.components.charts import ratings_chart, tiles, win_rate_chart
from ui.components.family_menu import results_links
from ui.components.html import header, heading, message, plural
from ui.pages.study_results import cards

TITLE = "Results"
REFRESH_S = 10.0
ALL_VOTES: Final = ("All votes", "")
MODALITY_TITLES: Final = {"image": "Pictures", "video": "Clips", "text": "Texts"}

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
    """The row to choose from: all votes, or those of one study that is closed."""
    still_open = services.store.open_studies()
    studies = [study.name for study in services.store.study_progress() if study.name not in still_open]
    return gr.update(choices=[ALL_VOTES, *((name, name) for name in studies)], value="", visible=bool(studies))


def render(services: Services, study: str = "") -> str:
    """The page's content for the votes so far, of all or of a study; drawn once in a few seconds for all readers."""
    try:
        return services.reads.get(("page", services.family.name, study), lambda: _draw(services, study))
    except INPUT_ERRORS as error:
        return message(str(error), "error")


def _draw(services: Services, study: str) -> str:
    summaries = {"": services.results(study)} if study else services.results_by_modality()
    progress = services.store.study_progress(study) if study else []
    content = _content(services, summaries or {"": services.results()}, progress)
    return content + _training(services.decided_picks())


def _content(services: Services, summaries: Mapping[str, Summary], progress: Sequence[StudyProgress]) -> str:
    """One section for each modality, under its name where the page would not tell otherwise."""
    named = set(summaries) - {"", "image"}
    sections = []
    for modality, summary in summaries.items():
        told = MODALITY_TITLES.get(modality, modality) if named else ""
        title = f'<h2 class="npo-section">{escape(told)}</h2>' if told else ""
        prefix = f"{told.lower()}-" if told else ""
        sections.append(title + _section(services, summary, progress, prefix))
    return "".join(sections)


def _section(services: Services, summary: Summary, progress: Sequence[StudyProgress], prefix: str) -> str:
    if not summary.win_rates:
        return (
            f'{tiles(summary)}<section class="npo-card npo-blank"><h2>No votes yet</h2><p>Compare three pictures and '
            "pick the best; the first win rates appear here at once.</p>"
            '<a class="npo-button npo-primary" href="./">Compare</a></section>'
        )
    charts = [tiles(summary), win_rate_chart(summary), ratings_chart(summary)]
    return "".join([*charts, *cards(summary, services.study.showable_media, progress, prefix)])


def _training(decided: Mapping[str, int]) -> str:
    """How far it is to the next negative model, of pictures and of clips."""
    ways = "".join(_way_to_training(modality, picks) for modality, picks in decided.items())
    return (
        f'<section class="npo-card"><h2>Close the loop</h2>{ways}'
        '<p>Who runs this lab starts the training on the page <a href="./retrain">Retrain</a>; '
        "Compare offers the new version by itself.</p></section>"
    )


def _way_to_training(modality: str, decided: int) -> str:
    missing = max(0, WANTED_PICKS - decided)
    what = MODALITY_TITLES[modality].lower()
    picks = f"{MODALITY_TITLES[modality]}: {plural(decided, 'decided pick')}"
    told = (
        f"{picks}, enough to retrain their negative model."
        if not missing
        else f"{picks}; {missing} more make {WANTED_PICKS}, enough to retrain."
    )
    share = min(100.0, 100 * decided / WANTED_PICKS)
    return (
        f'<p>{told}</p><div class="npo-progress" role="progressbar" aria-label="Picks on {what} towards a training" '
        f'aria-valuemin="0" aria-valuemax="{WANTED_PICKS}" aria-valuenow="{min(decided, WANTED_PICKS)}">'
        f'<span style="width:{share:.0f}%"></span></div>'
    )
