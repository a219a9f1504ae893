"""Plots as SVG files of their own: what the page shows can be downloaded and put into a paper. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from collection.statistics.summary import Summary
from npo_core.variants import VARIANTS

INK, FAINT, ACCENT = "#1c2523", "#9aa8a4", "#147a67"
WIDTH_PX, ROW_PX, LEFT_PX, RIGHT_PX = 720, 44, 250, 40
FONT = 'font-family="system-ui, Helvetica, Arial, sans-serif" font-size="14"'

Interval = tuple[str, float, float | None, float | None]  # label, value, low, high


def label_of(variant: str) -> str:
    """How a variant is called in public."""
    return VARIANTS[variant].label if variant in VARIANTS else variant


def name_of(summary: Summary, variant: str, contender: str) -> str:
    """The same, with what tells the contender from others of the same variant."""
    return summary.called(label_of(variant), contender)


def strengths_svg(summary: Summary) -> str:
    """Bradley-Terry points of every variant with their 95% intervals."""
    rows = [
        (name_of(summary, rating.variant, rating.contender), rating.points, rating.low, rating.high)
        for rating in summary.ratings
    ]
    return interval_svg("Strength in Elo points (95% intervals over people and prompts)", rows, middle=1000.0)


def win_rates_svg(summary: Summary) -> str:
    """Every pair's win rate with its 95% interval."""
    rows = [
        (
            f"{name_of(summary, rate.variant_a, rate.contender_a)} against "
            f"{name_of(summary, rate.variant_b, rate.contender_b)}",
            *(rate.rate, rate.low, rate.high),
        )
        for rate in summary.win_rates
    ]
    return interval_svg("Win rate, ties as halves (95% intervals)", rows, middle=0.5, reach=0.5)


def interval_svg(title: str, rows: Sequence[Interval], middle: float, reach: float | None = None) -> str:
    """A row an interval around a dot; the axis reaches `reach` to both sides of `middle`, or as far as it must."""
    reach = (
        reach
        or 1.1 * max([abs(value - middle) for row in rows for value in row[1:] if value is not None], default=1.0)
        or 1.0
    )

    def x(value: float) -> float:
        return LEFT_PX + (WIDTH_PX - LEFT_PX - RIGHT_PX) * (value - middle + reach) / (2 * reach)

    height_px = 70 + ROW_PX * len(rows)
    bottom_px = height_px - 26
    parts = [_text(16, 24, title, weight="600")]
    parts.append(f'<line x1="{x(middle):.1f}" x2="{x(middle):.1f}" y1="40" y2="{bottom_px}" stroke="{FAINT}"/>')
    for place, (name, value, low, high) in enumerate(rows):
        y = 62 + ROW_PX * place
        parts.append(_text(LEFT_PX - 16, y + 5, name, anchor="end"))
        if low is not None and high is not None:
            parts.append(
                f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="{y}" y2="{y}" stroke="{ACCENT}" stroke-width="3"/>'
            )
        parts.append(f'<circle cx="{x(value):.1f}" cy="{y}" r="6" fill="{ACCENT}"/>')
    for value in (middle - reach, middle, middle + reach):
        parts.append(
            _text(x(value), height_px - 8, f"{value:.0%}" if reach <= 0.5 else f"{value:.0f}", anchor="middle")
        )
    return _svg(height_px, title, parts)


def votes_svg(by_hour: Mapping[str, int]) -> str:
    """Votes over time: a bar a day, or an hour where all came within three days."""
    days = {hour[:10] for hour in by_hour}
    step = 13 if len(days) <= 3 else 10
    counts: dict[str, int] = {}
    for hour, votes in sorted(by_hour.items()):
        counts[hour[:step]] = counts.get(hour[:step], 0) + votes
    title = f"Votes per {'hour' if step == 13 else 'day'} (UTC)"
    most = max(counts.values(), default=1)
    wide = (WIDTH_PX - 60) / max(1, len(counts))
    parts = [_text(16, 24, title, weight="600")]
    for place, (moment, votes) in enumerate(counts.items()):
        high = 110 * votes / most
        parts.append(
            f'<rect x="{30 + place * wide:.1f}" y="{160 - high:.1f}" width="{max(1.0, 0.8 * wide):.1f}" '
            f'height="{high:.1f}" fill="{ACCENT}"><title>{moment}: {votes}</title></rect>'
        )
    if counts:
        names = list(counts)
        parts += [_text(30, 182, _moment(names[0]), size=12)]
        if len(names) > 1:
            parts += [_text(WIDTH_PX - 30, 182, _moment(names[-1]), anchor="end", size=12)]
    parts.append(_text(WIDTH_PX - 30, 24, f"most: {most:,}", anchor="end", size=12))
    return _svg(194, title, parts)


def _moment(key: str) -> str:
    return f"{key}:00" if len(key) == 13 else key


def _text(x: float, y: float, text: str, *, anchor: str = "start", weight: str = "400", size: int = 14) -> str:
    return (
        f'<text x="{x:.1f}" y="{y}" text-anchor="{anchor}" font-weight="{weight}" font-size="{size}" '
        f'fill="{INK}">{escape(text)}</text>'
    )


def _svg(height_px: int, title: str, parts: Sequence[str]) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH_PX} {height_px}" width="{WIDTH_PX}" '
        f'height="{height_px}" {FONT} role="img" aria-label="{escape(title)}">'
        f'<rect width="100%" height="100%" fill="#ffffff"/>{"".join(parts)}</svg>'
    )
