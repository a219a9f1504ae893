"""From what was typed and chosen to a GenerationRequest, and the words of a prompt. Plain functions, no gradio."""

from __future__ import annotations

import secrets
from typing import Any

from npo_core.catalog import prompts
from npo_core.catalog.prompts import PromptGuide, UnknownWord, compose, unknown_words
from npo_core.requests import MAX_SEED, GenerationRequest
from service.arena.compare import DRAWN_SEEDS
from service.errors import InputError

ANY = "any"
"""The chip that leaves a style or background to the prompt."""


def build_request(
    prompt: str,
    seed: str | int | None,
    negative_prompt: str = "",
    steps: float | None = None,
    guidance_scale: float | None = None,
    alpha: float | None = None,
    beta: float | None = None,
    scheduler: str | None = None,
    modality: str = "image",
    frames: float | None = None,
    fps: float | None = None,
) -> GenerationRequest:
    """The request of a form; an empty number means the family's default, an empty seed a random one (see
    `has_own_seed`). Raises InputError for a seed in words.

    `frames` and `fps` are for clips: a form keeps them while pictures are asked for.
    """
    clip = modality == "video"
    return GenerationRequest(
        prompt=(prompt or "").strip(),
        negative_prompt=(negative_prompt or "").strip(),
        seed=parse_seed(seed) if has_own_seed(seed) else secrets.randbelow(DRAWN_SEEDS),
        steps=_whole(steps),
        guidance_scale=guidance_scale,
        alpha=alpha,
        beta=beta,
        scheduler=scheduler or None,
        modality=modality or "image",
        frames=_whole(frames) if clip else None,
        fps=fps if clip else None,
    )


def parse_seed(text: Any) -> int:
    """The seed in `text`; its range is checked with the rest of the request."""
    try:
        return int(str(text).strip())
    except ValueError:
        raise InputError(f"The seed is {str(text)!r}; give a whole number from 0 to {MAX_SEED}.") from None


def has_own_seed(seed: str | int | None) -> bool:
    """Whether a form says which seed; what it does not say is drawn."""
    return seed is not None and bool(str(seed).strip())


def _whole(number: Any) -> Any:
    """20.0 as 20, for browsers send floats; anything else as it is, for the core to judge."""
    return int(number) if isinstance(number, float) and number.is_integer() else number


def named_style(prompt: str, guide: PromptGuide) -> str:
    """The style that the prompt names, or ANY."""
    kept = compose(prompt)
    return next((style for style in guide.styles if compose(prompt, style=style) == kept), ANY)


def named_background(prompt: str, guide: PromptGuide) -> str:
    """The background that the prompt names, or ANY."""
    kept = compose(prompt, grounds=guide.grounds)
    said = (each for each in guide.backdrops if compose(prompt, background=each, grounds=guide.grounds) == kept)
    return next(said, ANY)


def with_style(guide: PromptGuide, prompt: str, style: str) -> str:
    """`prompt` in another style; ANY takes it out."""
    return compose(prompt, style="" if style == ANY else style, grounds=guide.grounds)


def with_background(guide: PromptGuide, prompt: str, background: str) -> str:
    """`prompt` on another background; ANY takes it out."""
    return compose(prompt, background="" if background == ANY else background, grounds=guide.grounds)


def named_motion(prompt: str, guide: PromptGuide) -> str:
    """The motion that the prompt names, or ANY."""
    return prompts.named_motion(prompt, guide) or ANY


def with_motion(guide: PromptGuide, prompt: str, motion: str) -> str:
    """`prompt` with another motion; ANY takes it out."""
    return prompts.with_motion(prompt, "" if motion == ANY else motion, guide)


def for_modality(guide: PromptGuide, prompt: str, modality: str) -> str:
    """`prompt` for a clip names a motion, or nothing would move; for a picture it names none."""
    if modality != "video":
        return prompts.with_motion(prompt, "", guide)
    return prompt if prompts.named_motion(prompt, guide) else prompts.with_motion(prompt, guide.motions[0], guide)


def strange_words(prompt: str, guide: PromptGuide | None) -> tuple[UnknownWord, ...]:
    """The words the model has never seen; none where there is no vocabulary to tell."""
    return unknown_words(prompt, guide) if guide and prompt.strip() else ()


def strange_words_text(words: tuple[UnknownWord, ...]) -> str:
    """One sentence about them."""
    if not words:
        return ""
    named = ", ".join(f"“{word.word}”" for word in words)
    near = "; nearest known words below" if any(word.near for word in words) else ""
    return f"The model has never seen {named}, so it will guess{near}."


def replacements(words: tuple[UnknownWord, ...]) -> list[tuple[str, str]]:
    """(what a chip says, its value) for every near word: with several strange words it says which one it replaces."""
    several = len(words) > 1
    return [
        (f"{word.word} → {near}" if several else near, f"{word.word}\t{near}") for word in words for near in word.near
    ]


def replace_word(prompt: str, replacement: str) -> str:
    """`prompt` after a chip of `replacements` was pressed."""
    word, _, near = replacement.partition("\t")
    return prompts.replace_word(prompt, word, near)
