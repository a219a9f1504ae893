"""Which weights answer the prompt and which answer the negative prompt.

Classifier-free guidance contrasts two predictions,

    prediction = unconditional + guidance_scale * (conditional - unconditional)

Plain sampling asks one model for both. Diffusion-NPO (arXiv 2505.11245) asks a second model, trained on what people
reject, for the unconditional one. With theta the base weights, eta = aligned - theta and delta the NPO offset,
`Mix(a, n)` stands for the weights theta + a*eta + n*delta, and a variant is a pair of them, nothing more.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from npo_core.errors import InputError


@dataclass(frozen=True)
class Mix:
    """The weights theta + aligned*eta + negative*delta. Mix() is the base, Mix(1) the aligned model."""

    aligned: float = 0.0
    negative: float = 0.0


BASE = Mix(0.0, 0.0)
ALIGNED = Mix(1.0, 0.0)


@dataclass(frozen=True)
class Variant:
    """A way to sample: `mixes(alpha, beta)` gives the (conditional, unconditional) weights."""

    name: str
    label: str
    description: str
    mixes: Callable[[float, float], tuple[Mix, Mix]]


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant(
            "base",
            "Base",
            "The untuned model on both sides of guidance.",
            lambda alpha, beta: (BASE, BASE),
        ),
        Variant(
            "aligned",
            "Aligned",
            "The preference-aligned model on both sides of guidance.",
            lambda alpha, beta: (ALIGNED, ALIGNED),
        ),
        Variant(
            "aligned_npo",
            "Aligned + NPO",
            "The aligned model answers the prompt, the negative model answers the negative prompt.",
            lambda alpha, beta: (ALIGNED, Mix(alpha, beta)),
        ),
        Variant(
            "base_npo",
            "Base + NPO",
            "Ablation: the base answers the prompt, base + beta*delta answers the negative prompt.",
            lambda alpha, beta: (BASE, Mix(0.0, beta)),
        ),
        Variant(
            "aligned_vs_base",
            "Aligned against base",
            "Ablation: the aligned model answers the prompt, the base answers the negative prompt.",
            lambda alpha, beta: (ALIGNED, BASE),
        ),
    )
}

DEFAULT_VARIANTS = ("base", "aligned", "aligned_npo")


def get_variant(name: str) -> Variant:
    """The variant called `name`; raises InputError naming the known ones."""
    try:
        return VARIANTS[name]
    except KeyError:
        raise InputError(f"Unknown variant {name!r}; choose from {', '.join(VARIANTS)}.") from None
