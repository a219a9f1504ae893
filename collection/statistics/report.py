"""The summary in lines for a terminal, and as plain values."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from datetime import datetime
from typing import Any

from collection.statistics.rates import PositionBias, Power, WinRate
from collection.statistics.strengths import Rating
from collection.statistics.summary import Summary, VersionStep


def as_text(summary: Summary) -> str:
    """The summary in lines for a terminal."""
    totals = summary.totals
    lines = [
        f"Votes: {totals.votes} by {totals.participants} participants on {totals.comparisons} comparisons"
        + (f", the last at {totals.last_vote_at:%Y-%m-%d %H:%M} UTC" if totals.last_vote_at else "")
    ]
    titles = {
        "Blind win rates (a tie is half a win; 95% intervals over people and prompts)": _win_rates(summary),
        "Bradley-Terry strength in Elo points (95% intervals over people and prompts)": _ratings(summary),
        "": _people(summary),
        "To tell two variants apart (5%, 80% power, if the rate stays as it is)": _advice(summary),
        "Version by version, the newest last": _progress(summary),
    }
    for title, section in titles.items():
        found = list(section)
        lines += [*(["", title] if title else [""]), *found] if found else []
    counted_as_one = f", {' and '.join(summary.pooled)} counted together" if summary.pooled else ""
    return "\n".join([*lines, "", f"Methodology {summary.methodology}{counted_as_one}"])


def as_json(summary: Summary) -> dict[str, Any]:
    """The summary as plain values for `json.dump`."""
    fields = asdict(summary)
    last: datetime | None = summary.totals.last_vote_at
    fields["totals"]["last_vote_at"] = last.isoformat() if last else None
    for made in (*fields["contenders"], *fields["progress"]):
        made["first_made_at"] = made["first_made_at"].isoformat()
    return fields


def _win_rates(summary: Summary) -> Iterator[str]:
    for rate in summary.win_rates:
        yield f"  {_pair(summary, rate):<40} {rate.rate:6.1%}  {_interval(rate, '.1%')}, {rate.votes} votes"


def _ratings(summary: Summary) -> Iterator[str]:
    group = 0
    for rating in summary.ratings:
        if rating.group != group:
            yield "  and apart from these, for no votes connect them:"
        group = rating.group
        name = summary.called(rating.variant, rating.contender)
        yield f"  {name:<40} {rating.points:6.0f}  {_interval(rating, '.0f')}"


def _people(summary: Summary) -> Iterator[str]:
    if summary.position_bias is not None:
        bias = summary.position_bias
        yield f"Left side won {bias.left_rate:.1%} {_interval(bias, '.1%')} of {bias.votes} votes"
    if summary.agreement is not None:
        yield f"Agreement between participants (Krippendorff's alpha): {summary.agreement:.2f}"


def _advice(summary: Summary) -> Iterator[str]:
    for advice in summary.power:
        told = {0: "they are told apart", None: "about as good"}.get(advice.more, f"needs {advice.more} more votes")
        yield f"  {_pair(summary, advice):<40} {f'needs {advice.missing}' if advice.missing else told}"


def _progress(summary: Summary) -> Iterator[str]:
    for step in summary.progress:
        against = summary.called(step.against, step.contender_against)
        name = f"{step.variant} {step.version or ''} against {against}"
        yield f"  {name:<40} {step.rate:6.1%}  {_interval(step, '.1%')}, {step.votes} votes"


def _pair(summary: Summary, pair: WinRate | Power) -> str:
    first, second = (pair.variant_a, pair.contender_a), (pair.variant_b, pair.contender_b)
    return f"{summary.called(*first)} against {summary.called(*second)}"


def _interval(number: WinRate | Rating | PositionBias | VersionStep, form: str) -> str:
    if number.low is None or number.high is None:
        return f"(needs {number.missing})"
    return f"({number.low:{form}} to {number.high:{form}})"
