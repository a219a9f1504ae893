"""From votes to what the loop trains on: preference pairs, the tie policy, and the reversal that makes NPO.

Tie policy: a tie says that neither picture is better, and "both bad" that neither is good. Neither orders the pair, so
both are left out, as are skipped ballots. Counting a tie as a win for one side, as label 0.5 does in scripts that test
`label > 0`, would teach noise.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from npo_core.errors import InputError

if TYPE_CHECKING:
    from collection.store import Store

TIE_POLICY = "ties, both_bad and skipped ballots do not order a pair and are left out"


@dataclass(frozen=True, eq=False)
class PreferencePair:
    """Two pictures of one prompt, of which a person (or a scorer) liked one better.

    preferred, rejected: float16 latents (C, H, W) at UNet scale, as a pipeline has them before VAE decoding.
    source: where the preference comes from, a vote id or FILE#ROW. weight: how much the pair counts, 1 on average.
    """

    prompt: str
    preferred: np.ndarray
    rejected: np.ndarray
    source: str
    weight: float = 1.0


@dataclass(frozen=True)
class PairSet:
    """Pairs ready for training, and how many preferences were left out for which reason."""

    pairs: list[PreferencePair]
    dropped: dict[str, int]


def reverse_pairs(pairs: Iterable[PreferencePair]) -> list[PreferencePair]:
    """The same pairs with preferred and rejected exchanged: what makes a negative model (arXiv 2505.11245, sec. 4).

    Training any preference method on the result teaches what people dislike.
    """
    return [replace(pair, preferred=pair.rejected, rejected=pair.preferred) for pair in pairs]


def from_store(
    store: Store,
    family: str,
    modality: str = "image",
    *,
    blind_only: bool = True,
    study: str | None = None,
    only_votes: Sequence[str] | None = None,
) -> PairSet:
    """The decided votes of `family` as pairs, oldest first, under TIE_POLICY.

    With `only_votes` just those votes, in that order, so that an interrupted run goes on with what it began with;
    raises InputError when one of them is no longer there.
    """
    records = store.preference_pairs(family, modality=modality, blind_only=blind_only, study=study)
    pairs = [
        PreferencePair(record.prompt, record.preferred_latents, record.rejected_latents, record.vote_id)
        for record in records.pairs
    ]
    if only_votes is not None:
        return PairSet(_pick(pairs, only_votes), records.dropped)
    return usable(PairSet(pairs, records.dropped))


def _pick(pairs: Sequence[PreferencePair], vote_ids: Sequence[str]) -> list[PreferencePair]:
    by_vote = {pair.source: pair for pair in pairs}
    missing = [vote_id for vote_id in vote_ids if vote_id not in by_vote]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(vote_ids)} picks that this run began with are no longer in the database; "
            "start a new run without --resume."
        )
    return [by_vote[vote_id] for vote_id in vote_ids]


def usable(found: PairSet) -> PairSet:
    """Without the pairs that cannot be in one batch: broken latents, and sizes other than the most common one."""
    dropped = Counter(found.dropped)
    whole = [pair for pair in found.pairs if _is_whole(pair)]
    dropped["broken latents"] += len(found.pairs) - len(whole)
    sizes = Counter(pair.preferred.shape for pair in whole)
    common = max(sizes, key=lambda size: sizes[size], default=None)
    pairs = [pair for pair in whole if pair.preferred.shape == common]
    dropped["another size"] += len(whole) - len(pairs)
    return PairSet(pairs, {reason: count for reason, count in dropped.items() if count})


def _is_whole(pair: PreferencePair) -> bool:
    return (
        pair.preferred.ndim == 3
        and pair.preferred.shape == pair.rejected.shape
        and bool(np.isfinite(pair.preferred).all())
        and bool(np.isfinite(pair.rejected).all())
    )


def hash_pairs(pairs: Iterable[PreferencePair]) -> str:
    """sha256 over prompts, weights and latents in order: two sets with the same hash train the same adapter."""
    digest = hashlib.sha256()
    for pair in pairs:
        digest.update(pair.prompt.encode() + b"\0" + repr(pair.weight).encode())
        for latents in (pair.preferred, pair.rejected):
            digest.update(str(latents.shape).encode())
            digest.update(np.ascontiguousarray(latents, dtype=np.float16).tobytes())
    return digest.hexdigest()
