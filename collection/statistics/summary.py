"""The summary that the Results page and `python -m collection stats` show: the Store's counts through statistics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, Final

from collection.statistics.agreement import agreement
from collection.statistics.counts import Votes
from collection.statistics.rates import PositionBias, Power, WinRate, position_bias, power, win_rates
from collection.statistics.strengths import Rating, ratings, tie_chance
from collection.store import Store
from collection.types import Totals, VoteCount, WhichVotes

METHODOLOGY: Final = "3"
"""Which rules made the numbers; raised whenever the same votes would give others. 1: ties as half wins in the
strengths, Wilson's intervals on votes. 2: Davidson's ties, design effects, agreement with exchangeable sides. 3: all
intervals over people and prompts by one engine, none under 3 people; groups apart; a prior that does not grow."""

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
) -> Summary:
    """The blind votes on a family and modality, or of a study (None: all).

    Reads the count tables only: it costs the same for a thousand votes and for a million.
    """
    scope: dict[str, Any] = {"family": family, "modality": modality, "study": study}
    votes = store.votes_for_statistics(**scope)
    by_comparison = store.vote_counts_by_comparison(**scope)
    rates = win_rates(votes)
    best, worst = extremes(by_comparison)
    prompts = store.prompts_of({score.comparison_id for score in (*best, *worst)})
    return Summary(
        totals=store.totals(**scope),
        win_rates=rates,
        ratings=ratings(votes),
        position_bias=position_bias(votes),
        agreement=agreement(count for counts in by_comparison.values() for count in counts),
        tie_chance=tie_chance(votes),
        power=power(rates),
        by_category={
            category: win_rates(Votes.of_counts(ours))
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
        lines += ["", "Blind win rates (a tie is half a win; 95% intervals over people and prompts)"]
    for rate in summary.win_rates:
        names = f"{rate.variant_a} against {rate.variant_b}"
        lines.append(f"  {names:<40} {rate.rate:6.1%}  {_interval(rate, '.1%')}, {rate.votes} votes")
    if summary.ratings:
        lines += ["", "Bradley-Terry strength in Elo points (95% intervals over people and prompts)"]
    for before, rating in pairwise([None, *summary.ratings]):
        assert rating is not None
        if before is not None and before.group != rating.group:
            lines.append("  and apart from these, for no votes connect them:")
        lines.append(f"  {rating.variant:<40} {rating.points:6.0f}  {_interval(rating, '.0f')}")
    if summary.position_bias is not None:
        bias = summary.position_bias
        lines += ["", f"Left side won {bias.left_rate:.1%} {_interval(bias, '.1%')} of {bias.votes} votes"]
    if summary.agreement is not None:
        lines.append(f"Agreement between participants (Krippendorff's alpha): {summary.agreement:.2f}")
    if summary.power:
        lines += ["", "To tell two variants apart (5%, 80% power, if the rate stays as it is)"]
    for advice in summary.power:
        lines.append(f"  {f'{advice.variant_a} against {advice.variant_b}':<40} {_advice(advice)}")
    lines += ["", f"Methodology {summary.methodology}"]
    return "\n".join(lines)


def _interval(number: WinRate | Rating | PositionBias, form: str) -> str:
    if number.low is None or number.high is None:
        return f"(needs {number.missing})"
    return f"({number.low:{form}} to {number.high:{form}})"


def _advice(advice: Power) -> str:
    if advice.missing:
        return f"needs {advice.missing}"
    return {0: "they are told apart", None: "about as good"}.get(advice.more, f"needs {advice.more} more votes")


def as_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain values for `json.dump`."""
    fields = asdict(summary)
    last: datetime | None = summary.totals.last_vote_at
    fields["totals"]["last_vote_at"] = last.isoformat() if last else None
    return fields
