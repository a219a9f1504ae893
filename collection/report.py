"""The summary that the Results page and `python -m collection stats` show: the Store's counts through statistics."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import numpy as np

from collection.records import Totals
from collection.statistics import PositionBias, Rating, WinRate, agreement, position_bias, ratings, win_rates
from collection.store import Store


@dataclass(frozen=True)
class Summary:
    """What the votes say so far; None where there is nothing to say it from."""

    totals: Totals
    win_rates: list[WinRate]
    ratings: list[Rating]
    position_bias: PositionBias | None
    agreement: float | None


def summarise(
    store: Store, family: str | None = None, modality: str | None = None, *, seed: int = 0, rounds: int = 500
) -> Summary:
    """The blind votes on a family and modality (None: all); `seed` makes the resampled intervals repeatable.

    The totals count every vote in the database, whatever the family and blind or not.
    """
    counts_by_participant = store.vote_counts_by_participant(family, modality)
    return Summary(
        totals=store.totals(),
        win_rates=win_rates(store.vote_counts(family, modality)),
        ratings=ratings(counts_by_participant, np.random.default_rng(seed), rounds),
        position_bias=position_bias(*store.side_counts(family, modality)),
        agreement=agreement(store.judgements(family, modality)),
    )


def as_text(summary: Summary) -> str:
    """The summary in lines for a terminal."""
    totals = summary.totals
    lines = [
        f"Votes: {totals.votes} by {totals.participants} participants on {totals.comparisons} comparisons"
        + (f", the last at {totals.last_vote_at:%Y-%m-%d %H:%M} UTC" if totals.last_vote_at else "")
    ]
    if summary.win_rates:
        lines += ["", "Blind win rates (a tie is half a win; 95% Wilson intervals)"]
    for rate in summary.win_rates:
        names = f"{rate.variant_a} against {rate.variant_b}"
        lines.append(f"  {names:<40} {rate.rate:6.1%}  ({rate.low:.1%} to {rate.high:.1%}), {rate.votes} votes")
    if summary.ratings:
        lines += ["", "Bradley-Terry strength in Elo points (95% intervals, participants resampled)"]
    for rating in summary.ratings:
        interval = "" if rating.low is None else f"  ({rating.low:.0f} to {rating.high:.0f})"
        lines.append(f"  {rating.variant:<40} {rating.points:6.0f}{interval}")
    if summary.position_bias is not None:
        bias = summary.position_bias
        lines += ["", f"Left side won {bias.left_rate:.1%} ({bias.low:.1%} to {bias.high:.1%}) of {bias.votes} votes"]
    if summary.agreement is not None:
        lines.append(f"Agreement between participants (Krippendorff's alpha): {summary.agreement:.2f}")
    return "\n".join(lines)


def as_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain values for `json.dump`."""
    fields = asdict(summary)
    last: datetime | None = summary.totals.last_vote_at
    fields["totals"]["last_vote_at"] = last.isoformat() if last else None
    return fields
