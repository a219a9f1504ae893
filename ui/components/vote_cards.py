"""The cards under the pictures: first the question, then the answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from PIL import Image

from npo_core.media.files import PNG_MEDIA_TYPE
from service.arena.compare import RevealedComparison
from service.arena.picks import LETTERS, Pick
from service.arena.strip import frames_of, strip_clips, strip_json, strip_png
from ui.components.html import data_uri, message

NO_DIFFERENCE = "no_difference"
NO_WORST = "no_worst"


@dataclass(frozen=True)
class VoteCard:
    """The question."""

    card: gr.Column
    best: gr.Radio
    worst: gr.Radio
    save: gr.Button
    notice: gr.HTML


@dataclass(frozen=True)
class RevealCard:
    """The answer."""

    card: gr.Column
    verdict: gr.HTML
    undo: gr.Button
    again: gr.Button
    left: gr.Radio
    right: gr.Radio
    slider: gr.ImageSlider
    details: gr.HTML


def build_vote_card(count: int = 3) -> VoteCard:
    """Best, worst, save."""
    letters = LETTERS[:count]
    with gr.Column(visible=False, elem_classes="npo-card npo-vote", elem_id="npo-vote") as card:
        best = gr.Radio(
            [*((letter, letter) for letter in letters), ("No difference", NO_DIFFERENCE)],
            label="Which one is best?",
            elem_classes="npo-chips npo-best",
            elem_id="npo-best",
        )
        worst = gr.Radio(
            [*((letter, letter) for letter in letters), ("None", NO_WORST)],
            value=NO_WORST,
            label="And the worst? (optional)",
            elem_classes="npo-chips npo-worst",
            elem_id="npo-worst",
        )
        notice = gr.HTML(elem_id="npo-vote-notice")
        save = gr.Button("Save and show the names", variant="primary", elem_id="npo-save")
    return VoteCard(card, best, worst, save, notice)


def build_reveal_card() -> RevealCard:
    """Verdict, undo, slider between any two, settings and downloads."""
    with gr.Column(visible=False, elem_classes="npo-card npo-reveal", elem_id="npo-reveal") as card:
        with gr.Row(elem_classes="npo-verdict-row"):
            verdict = gr.HTML(elem_id="npo-verdict")
            undo = gr.Button("Undo", size="md", min_width=90, scale=0, elem_id="npo-undo")
            again = gr.Button(
                "Same prompt, new seed", variant="primary", size="md", min_width=190, scale=0, elem_id="npo-again"
            )
        with gr.Row(elem_classes="npo-look-row"):
            with gr.Column(min_width=260):
                slider = gr.ImageSlider(
                    label="Drag to compare",
                    show_label=False,
                    format="png",
                    interactive=False,
                    buttons=["fullscreen"],
                    elem_id="npo-slider",
                    max_height=420,
                )
            with gr.Column(min_width=260):
                left = gr.Radio([], label="Left of the slider", elem_classes="npo-chips", elem_id="npo-slider-left")
                right = gr.Radio([], label="Right of the slider", elem_classes="npo-chips", elem_id="npo-slider-right")
                details = gr.HTML(elem_id="npo-details")
    return RevealCard(card, verdict, undo, again, left, right, slider, details)


def read_pick(best: str | None, worst: str | None) -> Pick:
    """What the two rows of chips say."""
    if best == NO_DIFFERENCE:
        return Pick(no_difference=True, worst=None if worst == NO_WORST else worst)
    return Pick(best=best, worst=None if worst in (None, NO_WORST) else worst)


def verdict_html(revealed: RevealedComparison) -> str:
    """Thanks, and what was said, with the names."""
    labels = {panel.letter: panel.label for panel in revealed.panels}
    pick = revealed.pick
    if pick.no_difference or pick.best is None:
        said = "You saw no difference."
    else:
        said = f"You preferred {labels[pick.best]}"
        said += f" and liked {labels[pick.worst]} least." if pick.worst else "."
    thanks = message("Thank you, your pick is saved.", "done")
    if not revealed.blind:
        reason = "this was a workbench comparison" if revealed.workbench else "the names were known"
        thanks = message(f"Saved as not blind, because {reason}: it counts neither in the results nor in training.")
    return f'{thanks}<p class="npo-said">{escape(said)}</p>'


def slider_choices(revealed: RevealedComparison) -> tuple[dict[str, Any], dict[str, Any]]:
    """The two rows under the slider: the first variant against the last, in the order of the method."""
    panels = sorted(revealed.panels, key=lambda panel: (len(panel.variant), panel.variant))
    options = [(panel.label, panel.variant) for panel in panels]
    return (
        gr.update(choices=options, value=panels[0].variant),
        gr.update(choices=options, value=panels[-1].variant),
    )


def slider_images(revealed: RevealedComparison | None, left: str | None, right: str | None) -> Any:
    """The pictures (of clips the middle frames) of two variants, or nothing to change before the reveal."""
    panels = {panel.variant: panel for panel in revealed.panels} if revealed else {}
    if left not in panels or right not in panels:
        return gr.skip()
    first, second = (frames_of(panels[name]) for name in (left, right))
    return (_enlarged(first[len(first) // 2]), _enlarged(second[len(second) // 2]))


def details_html(revealed: RevealedComparison) -> str:
    """The settings as a list, and the downloads: the strip, of clips in every format, and the record."""
    told = revealed.settings
    rows: Sequence[tuple[str, Any]] = (
        ("Prompt", told["prompt"]),
        *([("Negative prompt", told["negative_prompt"])] if told["negative_prompt"] else []),
        ("Seed", told["seed"]),
        ("Steps", f"{told['steps']}, {told['scheduler']}"),
        ("Guidance", f"{told['guidance_scale']:g}"),
        ("Alpha, beta", f"{told['alpha']:g}, {told['beta']:g}"),
        *([("Frames", f"{told['frames']} at {told['fps']:g} a second")] if told["fps"] else []),
    )
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in rows)
    stem = f"comparison-seed-{told['seed']}"
    strips = strip_clips(revealed) if told["fps"] else {"png": (PNG_MEDIA_TYPE, strip_png(revealed))}
    links = [
        f'<a class="npo-button" href="{data_uri(strip, media_type)}" download="{stem}.{suffix}">'
        f"{suffix.upper() if number else f'Download the strip ({suffix.upper()})'}</a>"
        for number, (suffix, (media_type, strip)) in enumerate(strips.items())
    ]
    record = data_uri(strip_json(revealed), "application/json")
    return (
        f'<dl class="npo-settings">{listed}</dl><p class="npo-downloads">{"".join(links)}'
        f'<a class="npo-button" href="{record}" download="{stem}.json">Settings (JSON)</a></p>'
    )


def _enlarged(image: Image.Image) -> Image.Image:
    """Small pictures are enlarged smoothly: the slider draws them pixel by pixel."""
    factor = -(-512 // image.height)
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.BICUBIC)
