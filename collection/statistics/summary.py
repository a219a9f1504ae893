"""The summary that the Results page and `python -m collection stats` show: the Store's counts through statistics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from typing import Any, Final

import numpy as np

from collection.statistics.ratings import (
    PersonCounts,
    PositionBias,
    Power,
    Rating,
    WinRate,
    agreement,
    position_bias,
    power,
    ratings,
    tie_chance,
    win_rates,
)
from collection.store import Store
from collection.types import Totals, VoteCount, WhichVotes

METHODOLOGY: Final = "2"
"""Which rules made the numbers; raised whenever the same votes would give others. 1: ties as half wins in the
strengths, Wilson's intervals on votes. 2: Davidson's ties, design effects, agreement with exchangeable sides."""

EXTREMES: Final = 3


@dataclass(frozen=True)
class PromptScore:
    """How a variant did on one comparison (a prompt and seed): its share of wins, ties as halves, and the votes."""

    variant: str
    comparison_id: str
    prompt: str
    share: float
    votes: int


@dataclass(frozen=True)
class Summary:
    """What the blind votes say so far; None where there is nothing to say it from.

    totals count the votes that were not blind too. by_prompt holds every comparison's counts.
    """

    totals: Totals
    win_rates: list[WinRate]
    ratings: list[Rating]
    position_bias: PositionBias | None
    agreement: float | None
    tie_chance: float | None = None
    power: list[Power] = field(default_factory=list)
    by_category: dict[str, list[WinRate]] = field(default_factory=dict)
    by_hour: dict[str, int] = field(default_factory=dict)
    best_prompts: list[PromptScore] = field(default_factory=list)
    worst_prompts: list[PromptScore] = field(default_factory=list)
    methodology: str = METHODOLOGY


def summarise(
    store: Store,
    family: str | None = None,
    modality: str | None = None,
    study: WhichVotes = None,
    *,
    seed: int = 0,
    rounds: int = 500,
) -> Summary:
    """The blind votes on a family and modality, or of a study (None: all); `seed` makes the intervals repeatable.

    Reads the count tables only: it costs the same for a thousand votes and for a million.
    """
    scope: dict[str, Any] = {"family": family, "modality": modality, "study": study}
    by_person = store.vote_counts_by_participant(**scope)
    by_comparison = store.vote_counts_by_comparison(**scope)
    counts = store.vote_counts(**scope)
    rates = win_rates(by_person)
    best, worst = extremes(by_comparison)
    prompts = store.prompts_of({score.comparison_id for score in (*best, *worst)})
    return Summary(
        totals=store.totals(**scope),
        win_rates=rates,
        ratings=ratings(by_person, np.random.default_rng(seed), rounds),
        position_bias=position_bias(*store.side_counts(**scope)),
        agreement=agreement(count for counts in by_comparison.values() for count in counts),
        tie_chance=tie_chance(counts),
        power=power(rates, counts),
        by_category={
            category: win_rates(PersonCounts.of(("", *count) for count in ours))
            for category, ours in store.vote_counts_by_category(**scope).items()
        },
        by_hour=store.votes_by_hour(**scope),
        best_prompts=[replace(score, prompt=prompts[score.comparison_id]) for score in best],
        worst_prompts=[replace(score, prompt=prompts[score.comparison_id]) for score in worst],
    )


def extremes(by_comparison: Mapping[str, Sequence[VoteCount]]) -> tuple[list[PromptScore], list[PromptScore]]:
    """Each variant's EXTREMES best and worst comparisons (without their prompts), ordered by (wins + 1) / (votes + 2),
    so that one lucky vote is no extreme."""
    scores: dict[str, list[PromptScore]] = defaultdict(list)
    for comparison_id, counts in by_comparison.items():
        tallies: dict[str, list[float]] = defaultdict(lambda: [0.0, 0])
        for a, b, wins_a, wins_b, ties, both_bad in counts:
            equal = ties + both_bad
            for variant, won in ((a, wins_a), (b, wins_b)):
                tallies[variant][0] += won + equal / 2
                tallies[variant][1] += wins_a + wins_b + equal
        for variant, (wins, votes) in tallies.items():
            scores[variant].append(PromptScore(variant, comparison_id, "", wins / votes, int(votes)))
    best, worst = [], []
    for variant in sorted(scores):
        ranked = sorted(scores[variant], key=lambda score: (score.share * score.votes + 1) / (score.votes + 2))
        shown = min(EXTREMES, len(ranked) // 2)
        best += ranked[::-1][:shown]
        worst += ranked[:shown]
    return best, worst


def as_text(summary: Summary) -> str:
    """The summary in lines for a terminal."""
    totals = summary.totals
    lines = [
        f"Votes: {totals.votes} by {totals.participants} participants on {totals.comparisons} comparisons"
        + (f", the last at {totals.last_vote_at:%Y-%m-%d %H:%M} UTC" if totals.last_vote_at else "")
    ]
    if summary.win_rates:
        lines += ["", "Blind win rates (a tie is half a win; 95% intervals, votes of one person hang together)"]
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
    if summary.power:
        lines += ["", "To tell two variants apart (5%, 80% power, if the rate stays as it is)"]
    for advice in summary.power:
        told = {0: "they are told apart", None: "out of reach"}.get(advice.more, f"{advice.more} more votes")
        lines.append(f"  {f'{advice.variant_a} against {advice.variant_b}':<40} {told}")
    lines += ["", f"Methodology {summary.methodology}"]
    return "\n".join(lines)


def as_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain values for `json.dump`."""
    fields = asdict(summary)
    last: datetime | None = summary.totals.last_vote_at
    fields["totals"]["last_vote_at"] = last.isoformat() if last else None
    return fields
