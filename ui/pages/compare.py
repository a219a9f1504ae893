"""The page Compare: a prompt, three blind pictures or clips from one noise, a pick, the names."""

from __future__ import annotations

from functools import partial
from typing import Any

import gradio as gr

from npo_core.variants import DEFAULT_VARIANTS
from service.services import Services
from ui.components.family_menu import menu
from ui.components.grid import wire_grid
from ui.components.html import header, heading, message, one_line
from ui.components.panels import empty_panels
from ui.components.prompt_card import PromptCard, build_prompt_card, settings_of
from ui.components.versions import VersionPicker, build_version_picker, refresh, wire_shares
from ui.components.vote_cards import RevealCard, VoteCard, build_reveal_card, build_vote_card, slider_images
from ui.components.warming import build_warming_line
from ui.http.identity import participant_state
from ui.pages import compare_handlers as handlers
from ui.pages.compare_handlers import Screen

TITLE = "Compare"
IDLE_S = 3600  # what a page that nobody touches for so long keeps on the server is forgotten
AT_ONCE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
FILL_FORM = """(prompt, seed) => {
  const asked = new URLSearchParams(location.search);
  return [asked.get("prompt") ?? sessionStorage.getItem("npo-prompt") ?? prompt, asked.get("seed") ?? seed];
}"""
SHOW_STAGE = "() => document.getElementById('npo-stage').scrollIntoView({behavior: 'smooth', block: 'start'})"


def build(services: Services) -> gr.Blocks:
    """The page; everything it does goes through `services`."""
    with gr.Blocks() as page:
        gr.HTML(header(TITLE))
        gr.HTML(
            heading(
                "Which one is best?",
                "Three models paint your prompt from the same noise, in hidden order. Pick the one you like; "
                "picks retrain the model that says what to avoid. Others may be asked about what is made here, prompt "
                "included, without a name.",
            )
        )
        if services.notice:
            gr.HTML(message(services.notice))
        if services.offers:
            gr.HTML(menu(services))
        build_warming_line(page, services)
        participant = participant_state(services)
        comparison_id = gr.State("", time_to_live=IDLE_S)
        revealed = gr.State(None, time_to_live=IDLE_S)  # the pictures, in the server's memory
        prompt_card = build_prompt_card(services)
        notice = gr.HTML(elem_id="npo-notice")
        stage = gr.HTML(empty_panels(len(DEFAULT_VARIANTS)), elem_id="npo-stage")
        vote_card = build_vote_card(len(DEFAULT_VARIANTS))
        reveal_card = build_reveal_card()
        versions = build_version_picker(services, prompt_card.modality)
        wire_shares(services, page, versions, prompt_card.modality, prompt_card.shares)
        screen = Screen(
            stage=stage,
            notice=notice,
            vote_card=vote_card.card,
            best=vote_card.best,
            worst=vote_card.worst,
            vote_notice=vote_card.notice,
            reveal_card=reveal_card.card,
            verdict=reveal_card.verdict,
            left=reveal_card.left,
            right=reveal_card.right,
            details=reveal_card.details,
            revealed=revealed,
            comparison_id=comparison_id,
            participant=participant,
            generate=prompt_card.generate,
            again=reveal_card.again,
            in_use=versions.line,
        )
        _wire_generation(services, screen, prompt_card, versions, reveal_card)
        _wire_votes(services, screen, vote_card, reveal_card)
        asked = [versions.aligned, versions.negative, *settings_of(prompt_card)]
        wire_grid(services, prompt_card.grid, participant, asked)
        typed = [prompt_card.prompt, prompt_card.seed]
        page.load(None, typed, typed, js=FILL_FORM, **AT_ONCE)
        shown = [versions.aligned, versions.negative, versions.line, versions.seen]
        page.load(partial(refresh, services.shelf), [versions.seen, prompt_card.modality], shown, **AT_ONCE)
    return page


def _wire_generation(
    services: Services, screen: Screen, card: PromptCard, versions: VersionPicker, reveal: RevealCard
) -> None:
    inputs = [screen.participant, versions.aligned, versions.negative, *settings_of(card)]
    run: dict[str, Any] = {
        "fn": partial(handlers.generate, services),
        "inputs": inputs,
        "outputs": list(screen),
        **one_line(services),
        **AT_ONCE,
    }
    gr.on([card.generate.click, card.prompt.submit], **run)
    gr.on([card.generate.click, card.prompt.submit, reveal.again.click], fn=None, js=SHOW_STAGE, **AT_ONCE)
    reveal.again.click(fn=None, js="() => ''", outputs=card.seed, **AT_ONCE).then(**run)


def _wire_votes(services: Services, screen: Screen, card: VoteCard, reveal: RevealCard) -> None:
    outputs = list(screen)
    quick: dict[str, Any] = {"concurrency_limit": 8, **AT_ONCE}
    ask = [screen.participant, screen.comparison_id]
    card.save.click(partial(handlers.vote, services), [*ask, card.best, card.worst], outputs, **quick)
    reveal.undo.click(partial(handlers.undo, services), [*ask, screen.revealed], outputs, **quick)
    gr.on(
        [screen.revealed.change, reveal.left.input, reveal.right.input],
        fn=slider_images,
        inputs=[screen.revealed, reveal.left, reveal.right],
        outputs=reveal.slider,
        **quick,
    )
