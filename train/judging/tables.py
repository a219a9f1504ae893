"""The tables of evaluate as text and as Markdown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def as_text(table: dict[str, Any]) -> str:
    """The table for a person."""
    settings = ", ".join(f"{name} {value}" for name, value in table["settings"].items())
    columns = list(next(iter(table["variants"].values())))
    lines = [f"{table['pictures']} pictures a variant of {table['prompts']} prompts; {settings}"]
    lines.append(f"{'variant':<18}" + "".join(f"{column:>12}" for column in columns))
    for name, row in table["variants"].items():
        lines.append(f"{name:<18}" + "".join(f"{row[column]['mean']:>12.3f}" for column in columns))
    return "\n".join([*lines, *map(win_rate_line, table["win_rates"])])


def win_rate_line(row: dict[str, Any]) -> str:
    """One comparison for a person."""
    low, high = row["win_rate_95"]
    return (
        f"{row['variant']} against {row['against']}, {row['scorer']}: {row['win_rate']:.3f}   {low:.3f} to {high:.3f}"
    )


def as_markdown(report: dict[str, Any]) -> str:
    """All tables of a report."""
    parts = [as_markdown_table(table) for table in report["tables"]]
    if "shares" in report:
        parts.append("aligned_npo against aligned by alpha and beta\n\n" + as_markdown_shares(report["shares"]))
    if "longer" in report:
        parts.append("\n".join(_win_rate_rows(report["longer"])))
    return "\n\n".join(parts) + "\n"


def as_markdown_table(table: dict[str, Any]) -> str:
    """Means and win rates, each with its 95% interval."""
    columns = list(next(iter(table["variants"].values())))
    lines = [
        f"{table['pictures']} pictures a variant of {table['prompts']} prompts, {table['settings']['steps']} "
        f"{table['settings']['scheduler']} steps, guidance {table['settings']['guidance_scale']:g}, alpha "
        f"{table['settings']['alpha']:g}, beta {table['settings']['beta']:g}.",
        "",
        f"| variant | {' | '.join(columns)} |",
        "|---|" + "---|" * len(columns),
    ]
    for name, row in table["variants"].items():
        cells = [with_interval(row[column]["mean"], row[column]["mean_95"]) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_win_rate_rows(table["win_rates"])])


def _win_rate_rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    shown = [f"| {row['variant']} | {row['against']} | {row['scorer']} | {_rate(row)} |" for row in rows]
    return ["| variant | against | scorer | win rate |", "|---|---|---|---|", *shown]


def as_markdown_shares(rows: Sequence[dict[str, Any]]) -> str:
    """Alpha down, beta across; one table a scorer."""
    tables = []
    for scorer in dict.fromkeys(row["scorer"] for row in rows):
        ours = {(row["alpha"], row["beta"]): row for row in rows if row["scorer"] == scorer}
        alphas, betas = (list(dict.fromkeys(key[place] for key in ours)) for place in (0, 1))
        head = [f"| {scorer}: alpha \\ beta | {' | '.join(f'{b:g}' for b in betas)} |", "|---|" + "---|" * len(betas)]
        body = [
            f"| {a:g} | "
            + " | ".join(with_interval(ours[a, b]["win_rate"], ours[a, b]["win_rate_95"]) for b in betas)
            + " |"
            for a in alphas
        ]
        tables.append("\n".join([*head, *body]))
    return "\n\n".join(tables)


def _rate(row: dict[str, Any]) -> str:
    return with_interval(row["win_rate"], row["win_rate_95"])


def with_interval(value: float, interval: Sequence[float]) -> str:
    """A number and the interval around it."""
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"
