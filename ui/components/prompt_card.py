"""The card at the top of Compare: prompt, suggestions, chips, strange words, seed and advanced settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import gradio as gr

from npo_core.catalog.families import SCHEDULERS, ModelFamily
from npo_core.catalog.prompts import PromptGuide
from npo_core.requests import MIX_RANGE
from service.services import Services
from ui.components import request_from_form
from ui.components.grid import GridCard, build_grid_card
from ui.components.html import message

SUGGESTIONS = 6
MODALITY_LABELS = {"image": "Pictures", "video": "Clips"}


@dataclass(frozen=True)
class PromptCard:
    """The card's components that others read."""

    prompt: gr.Textbox
    seed: gr.Textbox
    generate: gr.Button
    modality: gr.Radio
    settings: tuple[gr.components.Component, ...]  # as build_request takes them after prompt and seed
    shares: tuple[gr.Slider, gr.Slider]  # alpha and beta
    grid: GridCard


def build_prompt_card(services: Services) -> PromptCard:
    """Draws the card and wires what happens inside it."""
    guide = services.guide
    with gr.Column(elem_classes="npo-card npo-prompt-card"):
        suggestions = services.suggestions
        prompt, generate = _prompt_row(suggestions)
        if suggestions:
            _suggestion_row(suggestions, prompt)
        modality = _modality(services.family)
        with gr.Row(elem_classes="npo-chips-row"):
            chips = _chips(guide, first_prompt(suggestions)) if guide else ()
            seed = _seed()
        if guide:
            _wire_guide(guide, prompt, *chips)
        advanced = _advanced(services.family)
    _wire_modality(services.family, guide, prompt, modality, chips[2:], advanced)
    settings = (*advanced.of_both, modality, *advanced.of_clips)
    return PromptCard(prompt, seed, generate, modality, settings, advanced.shares, advanced.grid)


def _prompt_row(suggestions: Sequence[str]) -> tuple[gr.Textbox, gr.Button]:
    with gr.Row(elem_classes="npo-prompt-row"):
        prompt = gr.Textbox(
            value=first_prompt(suggestions),
            label="What should the pictures show?",
            placeholder="a red apple, 3d style, blue background",
            lines=1,
            max_lines=3,
            scale=5,
            elem_id="npo-prompt",
        )
        generate = gr.Button("Generate", variant="primary", scale=1, min_width=140, elem_id="npo-generate")
    return prompt, generate


def _suggestion_row(suggestions: Sequence[str], prompt: gr.Textbox) -> None:
    with gr.Row(elem_classes="npo-suggestions"):
        gr.HTML('<span class="npo-row-label">Try</span>', elem_classes="npo-row-label-box")
        for suggestion in suggestions[:SUGGESTIONS]:
            button = gr.Button(suggestion, size="sm", min_width=0, elem_classes="npo-chip")
            button.click(partial(_same, suggestion), None, prompt, api_visibility="private", show_progress="hidden")


def first_prompt(suggestions: Sequence[str]) -> str:
    """What stands in the box at first."""
    return suggestions[0] if suggestions else ""


def _modality(family: ModelFamily) -> gr.Radio:
    """Pictures or clips, where the family makes both."""
    return gr.Radio(
        [(MODALITY_LABELS[modality], modality) for modality in family.modalities],
        value=family.modalities[0],
        label="Make",
        show_label=False,
        visible=len(family.modalities) > 1,
        elem_classes="npo-chips npo-switch",
        elem_id="npo-modality",
    )


def _chips(guide: PromptGuide, prompt: str) -> tuple[gr.Radio, gr.Radio, gr.Radio]:
    """Style, background, and a clip's motion; pressing one rewrites the prompt, so that it always says what the model
    will read."""
    style, background, motion = (
        gr.Radio(
            [(nothing, request_from_form.ANY), *((option, option) for option in options)],
            value=value,
            label=label,
            visible=label != "Motion",
            elem_classes="npo-chips",
            elem_id=f"npo-{label.lower()}",
            min_width=200,
            scale=4,
        )
        for label, nothing, options, value in (
            ("Style", "Any", guide.styles, request_from_form.named_style(prompt, guide)),
            ("Background", "Any", guide.backdrops, request_from_form.named_background(prompt, guide)),
            ("Motion", "None", guide.motions, request_from_form.named_motion(prompt, guide)),
        )
    )
    return style, background, motion


def _wire_guide(
    guide: PromptGuide, prompt: gr.Textbox, style: gr.Radio, background: gr.Radio, motion: gr.Radio
) -> None:
    """Chips follow the prompt and the prompt the chips; words that the model does not know are pointed out."""
    words = gr.HTML(elem_id="npo-words")
    near = gr.Radio([], label="Use instead", visible=False, elem_classes="npo-chips", elem_id="npo-near")
    quiet: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
    style.input(partial(request_from_form.with_style, guide), [prompt, style], prompt, **quiet)
    background.input(partial(request_from_form.with_background, guide), [prompt, background], prompt, **quiet)
    motion.input(partial(request_from_form.with_motion, guide), [prompt, motion], prompt, **quiet)
    near.input(request_from_form.replace_word, [prompt, near], prompt, **quiet)
    read = [style, background, motion, words, near]
    prompt.change(partial(read_prompt, guide), prompt, read, trigger_mode="always_last", **quiet)


def read_prompt(guide: PromptGuide, prompt: str) -> tuple[str, str, str, str, dict[str, Any]]:
    """What the chips and the notice say about `prompt`: style, background, motion, strange words, their near ones."""
    words = request_from_form.strange_words(prompt, guide)
    near = request_from_form.replacements(words)
    return (
        request_from_form.named_style(prompt, guide),
        request_from_form.named_background(prompt, guide),
        request_from_form.named_motion(prompt, guide),
        message(request_from_form.strange_words_text(words)),
        gr.update(choices=near, value=None, visible=bool(near)),
    )


def _seed() -> gr.Textbox:
    with gr.Column(min_width=220, scale=4), gr.Row(elem_classes="npo-seed-row"):
        seed = gr.Textbox(
            label="Seed of the noise", placeholder="drawn anew", max_lines=1, elem_id="npo-seed", min_width=120
        )
        dice = gr.Button("🎲 New", size="md", min_width=84, scale=0, elem_id="npo-dice")
    dice.click(fn=None, js="() => ''", outputs=seed, api_visibility="private", show_progress="hidden")
    return seed


@dataclass(frozen=True)
class Advanced:
    """The advanced settings: those of pictures and clips alike, as build_request takes them, and a clip's."""

    of_both: tuple[gr.components.Component, ...]
    of_clips: tuple[gr.Number, gr.Number]
    shares: tuple[gr.Slider, gr.Slider]
    clip_row: gr.Row
    by_modality: dict[str, gr.components.Component]  # those whose defaults are others for clips, by setting
    grid: GridCard


def _advanced(family: ModelFamily) -> Advanced:
    """What a guess would rarely get right, with an explanation each."""
    with gr.Accordion("Advanced settings", open=False, elem_classes="npo-advanced"):
        negative = gr.Textbox(
            label="Negative prompt",
            info="What guidance steers away from, in words. Empty as the models were trained.",
            max_lines=2,
            elem_id="npo-negative-prompt",
        )
        with gr.Row():
            steps = gr.Number(
                value=family.steps,
                label="Steps",
                info="Denoising steps, 1 to 200. More take longer and change little beyond the default.",
                elem_id="npo-steps",
            )
            guidance = gr.Number(
                value=family.guidance_scale,
                label="Guidance",
                info="How far to go from the negative answer to the prompt's, up to 30. More is crisper, then harsh.",
                step=0.5,
                elem_id="npo-guidance",
            )
        alpha, beta = _shares(family)
        scheduler = gr.Dropdown(
            list(SCHEDULERS),
            value=family.scheduler,
            label="Scheduler",
            info="The rule that takes a denoising step. The default is what this model looks best with.",
            elem_id="npo-scheduler",
        )
        with gr.Row(visible=False) as clip_row:
            frames, fps = (
                gr.Number(value=family.default(name, "video"), label=label, info=info, elem_id=f"npo-{name}")
                for name, label, info in (
                    ("frames", "Frames", f"2 to {family.video.max_frames if family.video else 2} of a clip."),
                    ("fps", "Frames a second", "How fast they follow each other, 1 to 60."),
                )
            )
        grid = build_grid_card()
    return Advanced(
        grid=grid,
        of_both=(negative, steps, guidance, alpha, beta, scheduler),
        of_clips=(frames, fps),
        shares=(alpha, beta),
        clip_row=clip_row,
        by_modality={"steps": steps, "guidance_scale": guidance, "scheduler": scheduler},
    )


def _shares(family: ModelFamily) -> tuple[gr.Slider, gr.Slider]:
    """Alpha and beta, side by side."""
    with gr.Row():
        alpha = gr.Slider(
            *MIX_RANGE,
            value=family.alpha,
            label="Alpha",
            info="How much alignment is in the negative model: 0 the base, 1 all of it.",
            step=0.05,
            elem_id="npo-alpha",
        )
        beta = gr.Slider(
            *MIX_RANGE,
            value=family.beta,
            label="Beta",
            info="How much of the NPO offset is in the negative model: 0 gives plain Aligned (at alpha 1).",
            step=0.05,
            elem_id="npo-beta",
        )
    return alpha, beta


def _wire_modality(
    family: ModelFamily,
    guide: PromptGuide | None,
    prompt: gr.Textbox,
    modality: gr.Radio,
    motion: Sequence[gr.Radio],
    advanced: Advanced,
) -> None:
    """The switch brings the settings that look best and the chips that mean something."""
    moving = guide if guide and guide.motions else None

    def switch(chosen: str, text: str) -> list[Any]:
        clip = chosen == "video"
        return [
            *(gr.update(value=family.default(name, chosen)) for name in advanced.by_modality),
            gr.update(visible=clip),
            *(gr.update(visible=clip and moving is not None) for _ in motion),
            request_from_form.for_modality(moving, text, chosen) if moving else gr.skip(),
        ]

    outputs = [*advanced.by_modality.values(), advanced.clip_row, *motion, prompt]
    modality.change(switch, [modality, prompt], outputs, api_visibility="private", show_progress="hidden")


def _same(text: str) -> str:
    return text


def settings_of(card: PromptCard) -> Sequence[gr.components.Component]:
    """The inputs of a generation in the order of request_from_form.build_request."""
    return (card.prompt, card.seed, *card.settings)
