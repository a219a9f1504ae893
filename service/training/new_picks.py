"""How many picks a training of now would learn from that the last one did not; pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import Final

import numpy as np

from collection.types import PreferenceRecord

WANTED_PICKS: Final = 20  # what train.npo asks for unless told otherwise


def count_new(votes: Sequence[PreferenceRecord], known: Collection[str]) -> int:
    """How many of the decided `votes` would change the pairs to train on, after a training on the votes `known`.

    Votes on the same two pictures make one pair, by their majority (as train.pairs.pairs has it). Where they balance
    out, or the latents cannot be trained on, there is none, and they are news only if the last training
    did learn from it.
    """
    pairs: dict[frozenset[str], list[PreferenceRecord]] = {}
    for vote in votes:
        pairs.setdefault(frozenset((vote.preferred_id, vote.rejected_id)), []).append(vote)
    shapes = {key: _shape(together) for key, together in pairs.items()}
    sizes = Counter(shape for shape in shapes.values() if shape is not None)
    common = max(sizes, key=lambda size: sizes[size], default=None)
    new = 0
    for key, together in pairs.items():
        unknown = sum(vote.vote_id not in known for vote in together)
        makes_one = shapes[key] is not None and shapes[key] == common
        learned_from = unknown < len(together)
        new += unknown if makes_one or learned_from else 0
    return new


def _shape(together: Sequence[PreferenceRecord]) -> tuple[int, ...] | None:
    """Of the latents of the pair that the votes on two pictures make; None where they make none."""
    return together[0].preferred_latents.shape if _is_ordered(together) and _is_whole(together[0]) else None


def _is_ordered(together: Sequence[PreferenceRecord]) -> bool:
    """Whether more of the votes prefer one picture than the other."""
    return 2 * sum(vote.preferred_id == together[0].preferred_id for vote in together) != len(together)


def _is_whole(vote: PreferenceRecord) -> bool:
    latents = (vote.preferred_latents, vote.rejected_latents)
    return latents[0].shape == latents[1].shape and all(bool(np.isfinite(each).all()) for each in latents)
