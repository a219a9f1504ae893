"""Numbers with their uncertainty, drawn in HTML that takes its colours from the page: right in light and dark."""

from __future__ import annotations

from html import escape
from typing import Final

from collection.statistics.rates import PositionBias, WinRate
from collection.statistics.strengths import Rating
from collection.statistics.summary import Summary, VersionStep
from npo_core.variants import VARIANTS
from ui.components.html import plural
from ui.components.plots import name_of

MOST_SHOWN: Final = 12  # pairs, or contenders: each version and setting is one


def tiles(summary: Summary) -> str:
    """The counts, large."""
    totals = summary.totals
    last = totals.last_vote_at
    shown = (
        (f"{totals.votes:,}", "pairwise vote" if totals.votes == 1 else "pairwise votes"),
        (f"{totals.participants:,}", "participant" if totals.participants == 1 else "participants"),
        (f"{totals.comparisons:,}", "comparison judged" if totals.comparisons == 1 else "comparisons judged"),
        (f"{last:%H:%M}" if last else "–", f"last vote, UTC, {last:%Y-%m-%d}" if last else "no vote yet"),
    )
    items = "".join(f"<div><dd>{value}</dd><dt>{name}</dt></div>" for value, name in shown)
    return f'<dl class="npo-tiles">{items}</dl>'


def win_rate_chart(summary: Summary) -> str:
    """One row a pair of variants: the share, its 95% interval, and the line of equal chances."""
    most = sorted(summary.win_rates, key=lambda rate: -rate.votes)[:MOST_SHOWN]
    rates = sorted((_newer_first(rate) for rate in most), key=lambda rate: -_place(rate.variant_a))
    rows = "".join(_win_rate_row(summary, rate) for rate in rates)
    bias = summary.position_bias
    side = ""
    if bias is not None:
        side = (
            f"The left one of two won {bias.left_rate:.0%} ({interval_text(bias, '.0%')}) of "
            f"{plural(bias.votes, 'decided vote')}; 50% is fair. "
        )
    if summary.agreement is not None:
        side += f"Agreement between people (Krippendorff's alpha): {summary.agreement:.2f}."
    return (
        '<section class="npo-card"><h2>Win rates</h2><p>How often the first was preferred to the second. '
        "The bar is the 95% interval, over other people and prompts than these; where it stays right of the middle, "
        "the first is better.</p>"
        f'<div class="npo-chart" role="table" aria-label="Win rates with 95% intervals">{rows}'
        '<div class="npo-axis" aria-hidden="true"><span>0%</span><span>50%</span><span>100%</span></div></div>'
        f'<p class="npo-small">{side}{_not_shown(summary)}</p></section>'
    )


def ratings_chart(summary: Summary) -> str:
    """Bradley-Terry points of every variant on one scale."""
    ratings = sorted(summary.ratings, key=lambda rating: -rating.votes)[:MOST_SHOWN]
    bounds = [value for rating in ratings for value in (rating.points, rating.low, rating.high) if value is not None]
    if not bounds:
        return ""
    reach = max(50.0, max(abs(value - 1000.0) for value in bounds)) * 1.1
    groups: dict[int, list[str]] = {}
    for rating in sorted(ratings, key=lambda rating: (rating.group, -rating.points)):
        groups.setdefault(rating.group, []).append(_rating_row(summary, rating, reach))
    apart = '</div><p class="npo-small">Apart from these, for no votes connect them:</p><div class="npo-chart" '
    role = 'role="table" aria-label="Bradley-Terry strength">'
    rows = f"{apart}{role}".join("".join(ours) for ours in groups.values())
    return (
        '<section class="npo-card"><h2>Strength</h2><p>All pairs together as points (Bradley-Terry): 1000 is average, '
        "400 more is ten times the odds to win. The bar is the 95% interval, over other people and prompts.</p>"
        f'<div class="npo-chart" {role}{rows}'
        f'<div class="npo-axis" aria-hidden="true"><span>{1000 - reach:.0f}</span><span>1000</span>'
        f"<span>{1000 + reach:.0f}</span></div></div></section>"
    )


def interval_text(number: WinRate | Rating | PositionBias | VersionStep, form: str) -> str:
    """ "40% to 60%", or what the interval still needs."""
    if number.low is None or number.high is None:
        return f"needs {number.missing}"
    return f"{number.low:{form}} to {number.high:{form}}"


def _win_rate_row(summary: Summary, rate: WinRate) -> str:
    first, second = _label(summary, rate.variant_a, rate.contender_a), _label(summary, rate.variant_b, rate.contender_b)
    name = f"<b>{first}</b> against {second}"
    value = f"<b>{rate.rate:.0%}</b> {interval_text(rate, '.0%')}, {plural(rate.votes, 'vote')}"
    bounds = None if rate.low is None or rate.high is None else (100 * rate.low, 100 * rate.high)
    return _row(name, 100 * rate.rate, bounds, value)


def _rating_row(summary: Summary, rating: Rating, reach: float) -> str:
    def place(points: float) -> float:
        return 50 + 50 * (points - 1000.0) / reach

    value = f"<b>{rating.points:.0f}</b> {interval_text(rating, '.0f')}"
    bounds = None if rating.low is None or rating.high is None else (place(rating.low), place(rating.high))
    return _row(f"<b>{_label(summary, rating.variant, rating.contender)}</b>", place(rating.points), bounds, value)


def _row(name: str, at: float, bounds: tuple[float, float] | None, value: str) -> str:
    """One line of a chart; at and bounds in percent of its width."""
    low, high = bounds or (at, at)
    return (
        f'<div class="npo-row" role="row"><span class="npo-row-name" role="rowheader">{name}</span>'
        f'<span class="npo-track" role="presentation"><i class="npo-middle"></i>'
        f'<i class="npo-interval" style="left:{low:.2f}%;width:{high - low:.2f}%"></i>'
        f'<i class="npo-dot" style="left:{at:.2f}%"></i></span>'
        f'<span class="npo-row-value" role="cell">{value}</span></div>'
    )


def _newer_first(rate: WinRate) -> WinRate:
    """The same rate told from the variant that comes later in VARIANTS, the one whose gain is asked for."""
    if _place(rate.variant_a) >= _place(rate.variant_b):
        return rate
    return rate.turned()


def _place(variant: str) -> int:
    names = list(VARIANTS)
    return names.index(variant) if variant in names else len(names)


def _label(summary: Summary, variant: str, contender: str) -> str:
    return escape(name_of(summary, variant, contender))


def _not_shown(summary: Summary) -> str:
    more = len(summary.win_rates) - MOST_SHOWN
    return f" {plural(more, 'more pair')} with fewer votes: results.json has them." if more > 0 else ""
