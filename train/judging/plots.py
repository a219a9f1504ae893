"""Plots of the tables of evaluate."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from train.engine.files import replacing

COLUMNS = {  # measure -> title
    "rater_clean": "rater: clean",
    "jury_clean": "jury: clean",
    "jury_things": "jury: things named",
    "kid": "nearer to clean art (KID)",
    "diversity": "diversity",
}


def draw_win_rates(report: dict[str, Any], file: Path) -> None:
    """Every win rate of the report as a dot with its interval, one line each."""
    from matplotlib.figure import Figure

    lines = [
        (f"{row['variant']} against {row['against']}, guidance {table['settings']['guidance_scale']:g}", row)
        for table in report["tables"]
        for row in table["win_rates"]
    ]
    lines += [(f"aligned_npo, alpha {row['alpha']:g}, beta {row['beta']:g}", row) for row in report.get("shares", [])]
    lines += [(f"{row['variant']} against {row['against']}", row) for row in report.get("longer", [])]
    figure = Figure(figsize=(8, 1 + 0.28 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0.5, color="0.7", linewidth=1)
    for place, (_, row) in enumerate(lines):
        axes.plot(row["win_rate_95"], [place, place], color="tab:blue", linewidth=2)
        axes.plot(row["win_rate"], place, "o", color="tab:blue")
    axes.set_yticks(range(len(lines)), [f"{label} ({row['scorer']})" for label, row in lines], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("win rate, 95% interval")
    axes.set_xlim(0, 1)
    with replacing(file) as opened:
        figure.savefig(opened, format="png", dpi=110)


def draw_differences(report: Mapping[str, Any], file: Path, against: str = "aligned") -> None:
    """Every contender's mean difference to `against`, one column for each of rater and jury, each with its interval."""
    from matplotlib.figure import Figure

    rows = [row for row in report["comparisons"] if row["against"] == against]
    shown = [measure for measure in COLUMNS if all(measure in row for row in rows)]
    figure = Figure(figsize=(3.2 * len(shown) + 2, 1 + 0.3 * len(rows)), layout="constrained")
    for place, measure in enumerate(shown):
        axes = figure.add_subplot(1, len(shown), place + 1)
        axes.axvline(0, color="0.7", linewidth=1)
        for line, row in enumerate(rows):
            axes.plot(row[measure]["difference_95"], [line, line], color="tab:blue", linewidth=2)
            axes.plot(row[measure]["difference"], line, "o", color="tab:blue")
        labels = [report["tuned"][row["contender"]]["label"] for row in rows]
        axes.set_yticks(range(len(rows)), labels if place == 0 else [], fontsize=8)
        axes.invert_yaxis()
        axes.set_title(COLUMNS[measure], fontsize=9)
    figure.supxlabel(f"mean difference to {report['tuned'][against]['label']}, 95% interval over prompts", fontsize=9)
    with replacing(file) as opened:
        figure.savefig(opened, format="png", dpi=110)
