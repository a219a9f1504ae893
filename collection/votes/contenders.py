"""What a vote is about: a variant as it was made, so that unlike things are never counted as one.

Two pictures have the same contender when variant, family and modality, the adapters that the variant uses (by the
sha256 of their files) and the settings are the same. Whoever retrains, or moves a slider, makes a new one.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

USES: Final[dict[str, frozenset[str]]] = {  # which of these a variant's pictures depend on; unknown ones on all
    "base": frozenset(),
    "aligned": frozenset({"aligned_sha256"}),
    "aligned_npo": frozenset({"aligned_sha256", "negative_sha256", "alpha", "beta"}),
    "base_npo": frozenset({"negative_sha256", "beta"}),
    "aligned_vs_base": frozenset({"aligned_sha256"}),
}
OF_VARIANT: Final = ("aligned_sha256", "negative_sha256", "alpha", "beta")
SETTINGS: Final = ("negative_prompt", "guidance_scale", "steps", "scheduler", "width_px", "height_px", "frames", "fps")
TRAITS: Final = ("variant", "family", "modality", *OF_VARIANT, *SETTINGS)
NUMBERS: Final = frozenset({"alpha", "beta", "guidance_scale", "fps"})

POOLS: Final[dict[str, tuple[str, ...]]] = {
    "family": ("family",),
    "modality": ("modality",),
    "versions": ("aligned_sha256", "negative_sha256"),
    "settings": ("alpha", "beta", *SETTINGS),
}
"""What a reader may ask to be counted together, and the traits that are then not looked at."""

ID_LENGTH: Final = 32


@dataclass(frozen=True)
class Contender:
    """One of those that are compared. traits: those of TRAITS that its pictures depend on; versions: what the adapters
    that it uses are called, by role; first_made_at: when the first picture of it was made; name: what tells it from the
    others of the same variant beside it, in words."""

    id: str
    variant: str
    traits: Mapping[str, Any]
    versions: Mapping[str, str | None]
    first_made_at: datetime
    name: str = ""


def traits_of(made: Mapping[str, Any]) -> dict[str, Any]:
    """What the pictures of a generation (its columns by name) depend on."""
    uses = USES.get(made["variant"], frozenset(OF_VARIANT))
    kept = {name: made[name] for name in TRAITS if name in uses or name not in OF_VARIANT}
    return {name: float(value) if name in NUMBERS and value is not None else value for name, value in kept.items()}


def contender_id(traits: Mapping[str, Any]) -> str:
    """The same for equal traits on every database."""
    return hashlib.sha256(json.dumps(traits, sort_keys=True).encode()).hexdigest()[:ID_LENGTH]


def pooled(contender: Contender, pool: Collection[str]) -> Contender:
    """The contender that this one is counted as where `pool`, some of POOLS, are counted together."""
    left_out = {trait for name in pool for trait in POOLS[name]}
    traits = {name: value for name, value in contender.traits.items() if name not in left_out}
    versions = {} if "versions" in pool else contender.versions
    return Contender(contender_id(traits), contender.variant, traits, versions, contender.first_made_at)


def differences(contenders: Sequence[Contender]) -> dict[str, str]:
    """contender id -> in words, what tells it from the others of the same variant; empty where it is the only one.

    Where words do not do (two files of one name), with its id.
    """
    values: dict[tuple[str, str], set[Any]] = defaultdict(set)
    for contender in contenders:
        for trait, value in contender.traits.items():
            values[contender.variant, trait].add(value)
    told = {
        one.id: ", ".join(_trait(one, trait) for trait in one.traits if len(values[one.variant, trait]) > 1)
        for one in contenders
    }
    times = Counter((one.variant, told[one.id]) for one in contenders)
    return {
        one.id: told[one.id] + (f" [{one.id[:8]}]" if times[one.variant, told[one.id]] > 1 else "")
        for one in contenders
    }


def _trait(contender: Contender, name: str) -> str:
    value = contender.traits[name]
    if name in ("aligned_sha256", "negative_sha256"):
        role = name.removesuffix("_sha256")
        return f"{role} {contender.versions.get(role) or (value[:8] if value else 'of its own')}"
    if name in ("family", "modality"):
        return str(value)
    if name == "negative_prompt":
        return f"negative prompt {value!r}"
    return f"{name.removesuffix('_px').replace('_', ' ')} {value:g}" if isinstance(value, int | float) else f"{value}"
