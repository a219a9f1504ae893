"""The summary that the Results page and `python -m collection stats` show: the Store's counts through statistics.
report.py tells it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any, Final

from collection.statistics.agreement import agreement
from collection.statistics.counts import Votes
from collection.statistics.rates import PositionBias, Power, WinRate, position_bias, power, win_rates
from collection.statistics.strengths import Rating, ratings, tie_chance
from collection.store import Store
from collection.types import Totals, VoteCount, WhichVotes
from collection.votes.contenders import Contender, differences, pooled

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
class VersionStep:
    """How one version of a variant did against an opponent; version: what the adapter that is new in it is called."""

    variant: str
    contender: str
    version: str | None
    against: str
    contender_against: str
    first_made_at: datetime
    rate: float
    low: float | None
    high: float | None
    votes: int
    missing: str


@dataclass(frozen=True)
class Summary:
    """What the blind votes say so far; None where there is nothing to say it from.

    totals count the votes that were not blind too. Numbers are of contenders, each for itself: see contenders.py.
    pooled: what was counted together because somebody asked for it.
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
    contenders: list[Contender] = field(default_factory=list)
    progress: list[VersionStep] = field(default_factory=list)
    pooled: list[str] = field(default_factory=list)

    def called(self, variant: str, contender: str) -> str:
        """`variant` as people call it, with what tells the contender from others of the same variant."""
        told = self._names.get(contender)
        return f"{variant} ({told})" if told else variant

    @cached_property
    def _names(self) -> dict[str, str]:
        return {one.id: one.name for one in self.contenders}


def summarise(
    store: Store,
    family: str | None = None,
    modality: str | None = None,
    study: WhichVotes = None,
    pool: Collection[str] = (),
) -> Summary:
    """The blind votes on a family and modality, or of a study (None: all), each contender for itself but for what
    `pool`, some of contenders.POOLS, counts together.

    Reads the count tables only: it costs the same for a thousand votes and for a million.
    """
    scope: dict[str, Any] = {"family": family, "modality": modality, "study": study}
    votes, by_category = store.votes_for_statistics(**scope)
    counted = {one.id: pooled(one, pool) for one in store.contenders(votes.contenders).values()}
    names = {one: kept.id for one, kept in counted.items()}
    contenders = _told_apart(counted.values())
    by_comparison = store.vote_counts_by_comparison(**scope)
    votes = votes.renamed(names)
    rates = _rates(votes, contenders)
    best, worst = extremes(by_comparison)
    prompts = store.prompts_of({score.comparison_id for score in (*best, *worst)})
    return Summary(
        totals=store.totals(**scope),
        win_rates=rates,
        ratings=[
            replace(rating, variant=contenders[rating.variant].variant, contender=rating.variant)
            for rating in ratings(votes)
        ],
        position_bias=position_bias(votes),
        agreement=agreement(count for counts in by_comparison.values() for count in counts),
        tie_chance=tie_chance(votes),
        power=power(rates),
        by_category={name: _rates(ours.renamed(names), contenders) for name, ours in by_category.items()},
        by_hour=store.votes_by_hour(**scope),
        best_prompts=[replace(score, prompt=prompts[score.comparison_id]) for score in best],
        worst_prompts=[replace(score, prompt=prompts[score.comparison_id]) for score in worst],
        contenders=list(contenders.values()),
        progress=version_steps(rates, contenders),
        pooled=sorted(pool),
    )


def _told_apart(contenders: Iterable[Contender]) -> dict[str, Contender]:
    """id -> contender, of those that are counted as one the earliest, with what tells each from the others."""
    found: dict[str, Contender] = {}
    for one in sorted(contenders, key=lambda one: (one.variant, one.first_made_at, one.id)):
        found.setdefault(one.id, one)
    names = differences(list(found.values()))
    return {one.id: replace(one, name=names[one.id]) for one in found.values()}


def _rates(votes: Votes, contenders: Mapping[str, Contender]) -> list[WinRate]:
    """The win rates under the variants' names, in their order; of the same pair those with the most votes first, then
    the older."""
    rates = [
        replace(
            rate,
            variant_a=contenders[rate.variant_a].variant,
            variant_b=contenders[rate.variant_b].variant,
            contender_a=rate.variant_a,
            contender_b=rate.variant_b,
        )
        for rate in win_rates(votes)
    ]

    def order(rate: WinRate) -> tuple[Any, ...]:
        made = max(contenders[side].first_made_at for side in (rate.contender_a, rate.contender_b))
        return rate.variant_a, rate.variant_b, -rate.votes, made, rate.contender_a, rate.contender_b

    return sorted(rates, key=order)


def version_steps(rates: Sequence[WinRate], contenders: Mapping[str, Contender]) -> list[VersionStep]:
    """How each new version did against the same opponent with the same settings, in the order in which they were made;
    only where there was more than one."""
    alike: dict[tuple[str, str], list[WinRate]] = defaultdict(list)
    for rate in rates:
        sides = (contenders[rate.contender_a], contenders[rate.contender_b])
        alike[pooled(sides[0], ["versions"]).id, pooled(sides[1], ["versions"]).id].append(rate)
    found = []
    for same in alike.values():
        changes = [len({getattr(rate, side) for rate in same}) for side in ("contender_a", "contender_b")]
        if max(changes) > 1:
            steps = (_step(rate, contenders, turned=changes[1] > changes[0]) for rate in same)
            found += sorted(steps, key=lambda step: step.first_made_at)
    return found


def _step(rate: WinRate, contenders: Mapping[str, Contender], *, turned: bool) -> VersionStep:
    """`turned` where the second is the one that there are versions of."""
    told = rate.turned() if turned else rate
    versions = contenders[told.contender_a].versions
    sides = (contenders[told.contender_a], contenders[told.contender_b])
    version = versions.get("negative") or versions.get("aligned")
    first = max(side.first_made_at for side in sides)
    bounds = (told.rate, told.low, told.high, told.votes, told.missing)
    return VersionStep(told.variant_a, told.contender_a, version, told.variant_b, told.contender_b, first, *bounds)


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
