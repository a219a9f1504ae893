"""From votes to what the loop trains on: preference pairs, the tie policy, and the reversal that makes NPO.

Tie policy: a tie says that neither picture is better, and "both bad" that neither is good. Neither orders the pair, so
both are left out, as are skipped ballots. Counting a tie as a win for one side, as label 0.5 does in scripts that test
`label > 0`, would teach noise.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from npo_core.errors import InputError

if TYPE_CHECKING:
    from collection.account import Account
    from collection.store import Store
    from collection.types import PreferencePairs, PreferenceRecord

TIE_POLICY = "ties, both_bad and skipped ballots do not order a pair and are left out"

REASONS = {  # of the database, in words
    "repeat_or_check": "repeats and checks",
    "same_variant": "votes between pictures of one variant",
    "not_blind": "with the names visible",
    "missing_latents": "on pictures made elsewhere, which have no latents "
    "(`python -m collection export --format pickapic` writes them as a data set for --dataset)",
    "different_shapes": "on pictures of two sizes",
}


@dataclass(frozen=True, eq=False)
class PreferencePair:
    """Two pictures or clips of one prompt, of which a person (or a scorer) liked one better.

    preferred, rejected: float16 latents, (C, H, W) of a picture or (F, C, H, W) of a clip, at UNet scale, as a pipeline
    has them before VAE decoding.
    source: where the preference comes from, a vote id or FILE#ROW; votes: all votes on the pair where people voted.
    agreement: the share of them on the preferred side. weight: how much the pair counts in the loss.
    """

    prompt: str
    preferred: np.ndarray
    rejected: np.ndarray
    source: str
    weight: float = 1.0
    agreement: float = 1.0
    votes: tuple[str, ...] = ()


@dataclass(frozen=True)
class PairSet:
    """Pairs ready for training, how many preferences were left out for which reason, and how many people spoke.

    account: of a data set, which rows they were.
    """

    pairs: list[PreferencePair]
    dropped: dict[str, int]
    raters: int | None = None
    account: Account | None = None

    def told(self) -> str:
        """What became of everything that was looked at, for a person."""
        if self.account is not None:
            return str(self.account)
        reasons = [f"{count} {REASONS.get(reason, reason)}" for reason, count in self.dropped.items() if count]
        return f"left out: {', '.join(reasons) or 'none'}"


@dataclass(frozen=True)
class VoteRule:
    """Which pairs of pictures count as ordered. agreement: the share of the decided votes on the majority's side."""

    min_votes: int = 1
    min_agreement: float = 0.0


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
    rule: VoteRule = VoteRule(),
    only_votes: Sequence[str] | None = None,
    still_frames: int | None = None,
) -> PairSet:
    """The pictures or clips of `family` that votes put in order, oldest first, under TIE_POLICY and `rule`.

    Several votes on the same two pictures make one pair, ordered by their majority. With `only_votes` just those votes,
    in that order, so that an interrupted run goes on with what it began with; raises InputError when one of them is no
    longer there. Votes of the other modality never join, unless `still_frames` asks for those on pictures to, as clips
    of so many frames in which nothing moves.
    """
    records = store.preference_pairs(family, modality=modality, blind_only=blind_only, study=study)
    if still_frames is not None:
        pictures = store.preference_pairs(family, modality="image", blind_only=blind_only, study=study)
        records = _joined(records, pictures, still_frames)
    votes = records.pairs if only_votes is None else _pick(records.pairs, only_votes)
    raters = len({vote.participant_id for vote in votes})
    by_pictures: dict[frozenset[str], list[PreferenceRecord]] = {}
    for vote in votes:
        by_pictures.setdefault(frozenset((vote.preferred_id, vote.rejected_id)), []).append(vote)
    dropped = Counter(records.dropped)
    pairs = []
    for together in by_pictures.values():
        pair, reason = _decide(together, rule)
        if pair is None:
            dropped[reason] += len(together)
        else:
            pairs.append(pair)
    return usable(PairSet(pairs, dropped, raters))


def _joined(clips: PreferencePairs, pictures: PreferencePairs, frames: int) -> PreferencePairs:
    """Votes on clips and on pictures together, the latter as still clips: (C, H, W) -> (F, C, H, W)."""
    still = [
        replace(
            vote,
            preferred_latents=np.repeat(vote.preferred_latents[None], frames, axis=0),
            rejected_latents=np.repeat(vote.rejected_latents[None], frames, axis=0),
        )
        for vote in pictures.pairs
    ]
    return replace(
        clips, pairs=[*clips.pairs, *still], dropped=dict(Counter(clips.dropped) + Counter(pictures.dropped))
    )


def _decide(votes: Sequence[PreferenceRecord], rule: VoteRule) -> tuple[PreferencePair | None, str]:
    """The pair that votes on the same two pictures make, or why they make none."""
    sides = Counter(vote.preferred_id for vote in votes)
    (winner, count), *others = sides.most_common()
    agreement = count / len(votes)
    if others and others[0][1] == count:
        return None, "votes that balance out"
    if len(votes) < rule.min_votes:
        return None, "on pairs with too few votes"
    if agreement < rule.min_agreement:
        return None, "on pairs with too little agreement"
    said = next(vote for vote in votes if vote.preferred_id == winner)
    pair = PreferencePair(
        said.prompt,
        said.preferred_latents,
        said.rejected_latents,
        said.vote_id,
        agreement=agreement,
        votes=tuple(vote.vote_id for vote in votes),
    )
    return pair, ""


def _pick(votes: Sequence[PreferenceRecord], vote_ids: Sequence[str]) -> list[PreferenceRecord]:
    by_id = {vote.vote_id: vote for vote in votes}
    missing = [vote_id for vote_id in vote_ids if vote_id not in by_id]
    if missing:
        raise InputError(
            f"{len(missing)} of the {len(vote_ids)} picks that this run began with are no longer in the database; "
            "start a new run without --resume."
        )
    return [by_id[vote_id] for vote_id in vote_ids]


def sources_of(pairs: Iterable[PreferencePair]) -> list[str]:
    """Every vote (or row) behind the pairs, in order."""
    return [source for pair in pairs for source in pair.votes or (pair.source,)]


def _by_agreement(pairs: Sequence[PreferencePair]) -> list[float]:
    return [2 * pair.agreement - 1 for pair in pairs]


def _by_prompt(pairs: Sequence[PreferencePair]) -> list[float]:
    count = Counter(pair.prompt for pair in pairs)
    return [1 / count[pair.prompt] for pair in pairs]


WEIGHTINGS: dict[str, Callable[[Sequence[PreferencePair]], list[float]]] = {
    "none": lambda pairs: [1.0] * len(pairs),
    "agreement": _by_agreement,  # 0 where raters are split, 1 where they are of one mind
    "prompt": _by_prompt,  # every prompt counts the same, however many of its pairs were judged
}


def weigh_pairs(pairs: Sequence[PreferencePair], how: str) -> list[PreferencePair]:
    """The pairs with the weights of WEIGHTINGS[how], scaled to 1 on average; raises InputError for an unknown name."""
    if how not in WEIGHTINGS:
        raise InputError(f"Unknown pair weights {how!r}; choose from {', '.join(WEIGHTINGS)}.")
    weights = WEIGHTINGS[how](pairs)
    mean = sum(weights) / len(weights)
    return [replace(pair, weight=weight / mean) for pair, weight in zip(pairs, weights, strict=True)]


def split_by_prompt(
    pairs: Sequence[PreferencePair], held_out: float
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """(to train on, held out): about the share `held_out` of the prompts, and with a prompt all its pairs.

    A prompt's side depends on its words alone, so that it stays there when more votes come in.
    """
    sides: tuple[list[PreferencePair], list[PreferencePair]] = ([], [])
    for pair in pairs:
        place = int.from_bytes(hashlib.sha256(pair.prompt.encode()).digest()[:8]) / 2**64
        sides[place < held_out].append(pair)
    return sides


def split_as_before(
    pairs: Sequence[PreferencePair], held_out: Sequence[str]
) -> tuple[list[PreferencePair], list[PreferencePair]]:
    """(to train on, held out) of a run that goes on: the pairs from the sources in `held_out` stay held out."""
    before = set(held_out)
    sides: tuple[list[PreferencePair], list[PreferencePair]] = ([], [])
    for pair in pairs:
        sides[pair.source in before].append(pair)
    return sides


def usable(found: PairSet) -> PairSet:
    """Without the pairs that cannot be in one batch: broken latents, and sizes other than the most common one."""
    dropped = Counter(found.dropped)
    whole = [pair for pair in found.pairs if _is_whole(pair)]
    dropped["broken latents"] += len(found.pairs) - len(whole)
    sizes = Counter(pair.preferred.shape for pair in whole)
    common = max(sizes, key=lambda size: sizes[size], default=None)
    pairs = [pair for pair in whole if pair.preferred.shape == common]
    dropped["another size"] += len(whole) - len(pairs)
    return PairSet(pairs, {reason: count for reason, count in dropped.items() if count}, found.raters, found.account)


def _is_whole(pair: PreferencePair) -> bool:
    return (
        pair.preferred.ndim in (3, 4)
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
