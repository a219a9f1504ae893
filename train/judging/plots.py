"""Plots of the tables of evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from train.engine.files import replacing


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
