"""What happens on the Compare page: each handler takes values and returns a Screen, the page's outputs by name."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import gradio as gr

from npo_core.catalog.adapter_files import Role
from npo_core.variants import DEFAULT_VARIANTS
from service.arena.compare import ComparisonView, RevealedComparison
from service.arena.picks import Pick
from service.errors import INPUT_ERRORS
from service.generation.adapters_in_use import NEWEST
from service.services import Services
from ui.components import request_from_form
from ui.components.html import FAULT, message, notes
from ui.components.panels import blind_panels, empty_panels, progress_panels, revealed_panels, waiting_panels
from ui.components.versions import versions_line
from ui.components.vote_cards import NO_WORST, details_html, read_pick, slider_choices, verdict_html
from ui.live import LiveStep, LiveWait, follow

KEEP: Any = gr.skip()
WORKBENCH = (
    "Workbench: with a seed, settings or versions of your own your pick is kept but does not count as blind, for these "
    "pictures can be made again under their names. Leave them as they are, and the seed empty, for a pick that counts."
)

logger = logging.getLogger(__name__)


class Screen(NamedTuple):
    """What a handler changes; everything else is kept. The names are those of the page's components."""

    stage: Any = KEEP
    notice: Any = KEEP
    vote_card: Any = KEEP
    best: Any = KEEP
    worst: Any = KEEP
    vote_notice: Any = KEEP
    reveal_card: Any = KEEP
    verdict: Any = KEEP
    left: Any = KEEP
    right: Any = KEEP
    details: Any = KEEP
    revealed: Any = KEEP
    comparison_id: Any = KEEP
    participant: Any = KEEP
    generate: Any = KEEP
    again: Any = KEEP
    in_use: Any = KEEP


def generate(
    services: Services, participant: str, aligned: str, negative: str, prompt: str, seed: str, *settings: Any
) -> Iterator[Screen]:
    """Streams the comparison: bar and previews, then three blind pictures or clips and the question."""
    try:
        request = request_from_form.build_request(prompt, seed, *settings)
        services.compare.check(request)
        who = services.visitors.named(participant)
        versions: dict[Role, str] = {"aligned": aligned or NEWEST, "negative": negative or NEWEST}
        yield _starting(who)
        own_seed = request_from_form.has_own_seed(seed)
        for event in follow(partial(services.compare.compare, request, who, versions, own_seed=own_seed)):
            if isinstance(event, LiveWait):
                yield Screen(stage=waiting_panels(event.place))
            elif isinstance(event, LiveStep):
                yield Screen(stage=progress_panels(event.images, event.step, event.total_steps))
            else:
                yield _asking(event)
    except INPUT_ERRORS as error:
        yield _failed(str(error))
    except Exception:
        logger.exception("A comparison failed.")
        yield _failed(FAULT)


def vote(services: Services, participant: str, comparison_id: str, best: str | None, worst: str | None) -> Screen:
    """Saves the pick and reveals the names, or says what is missing."""
    try:
        revealed = services.compare.vote(comparison_id, participant, read_pick(best, worst))
    except INPUT_ERRORS as error:
        return Screen(vote_notice=message(str(error), "error"))
    left, right = slider_choices(revealed)
    return Screen(
        stage=revealed_panels(revealed),
        vote_card=gr.update(visible=False),
        vote_notice="",
        reveal_card=gr.update(visible=True),
        verdict=verdict_html(revealed),
        left=left,
        right=right,
        details=details_html(revealed),
        revealed=revealed,
    )


def undo(services: Services, participant: str, comparison_id: str, revealed: RevealedComparison | None) -> Screen:
    """Takes the pick back and asks again; the names stay in sight, for they are known."""
    try:
        services.compare.undo(comparison_id, participant)
    except INPUT_ERRORS as error:
        return Screen(verdict=message(str(error), "error"))
    return Screen(
        stage=revealed_panels(replace(revealed, pick=Pick())) if revealed else KEEP,
        vote_card=gr.update(visible=True),
        best=gr.update(value=None),
        worst=gr.update(value=NO_WORST),
        vote_notice=message(
            "Your pick was taken back. The names are known now, so a new pick here is kept as not blind; "
            "a new seed, drawn for you, gives you a fresh, blind comparison."
        ),
        reveal_card=gr.update(visible=False),
    )


def _starting(participant: str) -> Screen:
    return Screen(
        stage=progress_panels((), 0, 0),
        notice="",
        vote_card=gr.update(visible=False),
        reveal_card=gr.update(visible=False),
        revealed=None,
        comparison_id="",
        participant=participant,
        generate=gr.update(interactive=False, value="Generating…"),
        again=gr.update(interactive=False),
    )


def _asking(view: ComparisonView) -> Screen:
    return Screen(
        stage=blind_panels(view.panels),
        notice=notes((*view.notes, *([WORKBENCH] if view.workbench else []))),
        vote_card=gr.update(visible=True),
        best=gr.update(value=None),
        worst=gr.update(value=NO_WORST),
        vote_notice="",
        comparison_id=view.comparison_id,
        generate=gr.update(interactive=True, value="Generate"),
        again=gr.update(interactive=True),
        in_use=versions_line(f"These {view.request.plural} were made with", view.versions),
    )


def _failed(sentence: str) -> Screen:
    return Screen(
        stage=empty_panels(len(DEFAULT_VARIANTS)),
        notice=message(sentence, "error"),
        vote_card=gr.update(visible=False),
        reveal_card=gr.update(visible=False),
        comparison_id="",
        generate=gr.update(interactive=True, value="Generate"),
        again=gr.update(interactive=True),
    )
