"""Pictures and texts that were made elsewhere, of which little is known."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from collection.texts import UNWRITABLE, unwritable
from collection.types import Generation, StoredBallot, StoredVote

LONGEST_NAME: Final = 64  # characters that the columns for ids and names hold


@dataclass(frozen=True)
class LeftOut:
    """An entry of a file that is no vote, or none that can be kept. place: which entry, from 1."""

    reason: str
    place: int


Importable = Generation | StoredBallot | StoredVote | LeftOut


class UnusableError(ValueError):
    """Why an entry is no vote that can be kept."""


def fitted(name: str) -> str:
    """`name`; where it is too long or cannot be kept, what of it can and a hash of the whole, so that different names
    stay different."""
    if len(name) <= LONGEST_NAME and unwritable(name) is None:
        return name
    return f"{UNWRITABLE.sub('', name)[: LONGEST_NAME - 17]}~{digest(name)[:16]}"


def digest(text: str) -> str:
    """64 hexadecimal digits for a text, whatever is in it."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def comparison_of(prompt: str) -> str:
    """The comparison that pictures made elsewhere belong to, and the ballots on them: all those on one prompt."""
    return digest(prompt)[:32]


def made_elsewhere(
    uid: str,
    family: str,
    variant: str,
    prompt: str,
    modality: str,
    media: bytes,
    media_type: str,
    created_at: datetime,
) -> Generation:
    """A generation of which only this much is known: no seed, no settings, no adapters."""
    return Generation(
        comparison_id=comparison_of(prompt),
        prompt=prompt,
        negative_prompt="",
        seed=-1,
        family=fitted(family),
        modality=modality,
        variant=fitted(variant),
        aligned_id=None,
        aligned_sha256=None,
        negative_id=None,
        negative_sha256=None,
        alpha=0.0,
        beta=0.0,
        guidance_scale=0.0,
        steps=0,
        scheduler="unknown",
        width_px=0,
        height_px=0,
        frames=1,
        fps=None,
        versions={},
        elapsed_s=0.0,
        media=media,
        media_type=media_type,
        media_sha256=hashlib.sha256(media).hexdigest(),
        latents=None,
        id=fitted(uid),
        created_at=created_at,
    )
