"""The protocol's numbers as Markdown."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from train.judging.protocol.judges import JURY, RATER, THINGS

HEADINGS = {
    RATER: "rater: clean",
    "rater_all": "rater: clean and all that is named",
    JURY: "jury: clean",
    THINGS: "jury: things named",
    "jury_found": "jury: all found",
    "jury_top1": "jury: top-1",
    "kid": "KID to clean art",
    "diversity": "diversity",
    "sharpness": "sharpness",
    "steepness": "steepness",
    "noise": "noise",
    "saturation": "saturation",
    "clipped": "clipped",
}


def as_markdown(report: Mapping[str, Any]) -> str:
    """Every contender at its best; the ones as shipped and tuned against each other; where rater and jury differ."""
    heroes = [name for name in ("shipped", "aligned_npo") if name in report["contenders"]]
    parts = [
        _said(report),
        _best(report),
        _measures(report),
        *(_against(report, hero) for hero in heroes),
        _differ(report),
    ]
    return "\n\n".join(parts) + "\n"


def _said(report: Mapping[str, Any]) -> str:
    return (
        f"{report['prompts']} held-out prompts x {report['seeds_per_prompt']} seeds, {report['steps']} steps; each "
        f"contender tuned on {report['choice_prompts']} other prompts by the mean of the rater's clean logit. "
        "Intervals are 95%, resampling prompts; rater and jury are logits or log-probabilities."
    )


def _best(report: Mapping[str, Any]) -> str:
    lines = [
        "| contender | guidance | alpha | beta | rescale | interval | on choice prompts | at the edge of the grid |"
    ]
    lines.append("|---" * 8 + "|")
    for row in report["tuned"].values():
        chosen = row["setting"]
        share = "" if chosen["interval"] == [0, 1] else f"{chosen['interval'][0]:g} to {chosen['interval'][1]:g}"
        mean = "" if row["mean"] is None else f"{row['mean']:.3f}"
        alpha, beta = (f"{chosen[name]:g}" if name in row["uses"] else "" for name in ("alpha", "beta"))
        lines.append(
            f"| {row['label']} | {chosen['guidance_scale']:g} | {alpha} | {beta} | "
            f"{chosen['rescale']:g} | {share} | {mean} | {', '.join(row['at_the_edge'])} |"
        )
    return "\n".join(lines)


def _measures(report: Mapping[str, Any]) -> str:
    rows = report["contenders"]
    shown = [measure for measure in HEADINGS if any(measure in row for row in rows.values())]
    lines = [f"| contender | {' | '.join(HEADINGS[measure] for measure in shown)} |", "|---" * (len(shown) + 1) + "|"]
    lines += [
        f"| {report['tuned'][name]['label']} | {' | '.join(_cell(row.get(measure)) for measure in shown)} |"
        for name, row in rows.items()
    ]
    if "clean_art" in report:
        cells = [f"{report['clean_art'][measure]:.3f}" if measure in report["clean_art"] else "" for measure in shown]
        lines.append(f"| clean art | {' | '.join(cells)} |")
    return "Mean (interval); median; 5% quantile.\n\n" + "\n".join(lines)


def _cell(row: Mapping[str, Any] | None) -> str:
    if row is None:
        return ""
    low, high = row["mean_95"]
    more = f"; {row['median']:.3f}; {row['low_5']:.3f}" if "median" in row else ""
    return f"{row['mean']:.3f} ({low:.3f} to {high:.3f}){more}"


def _against(report: Mapping[str, Any], hero: str) -> str:
    shown = (RATER, JURY, THINGS, "kid", "diversity")
    rows = [row for row in report["comparisons"] if row["contender"] == hero]
    measures = [measure for measure in shown if all(measure in row for row in rows)]
    lines = [
        f"{report['tuned'][hero]['label']} against each, above 0 in its favour (mean difference, interval, win rate):",
        "",
        f"| against | {' | '.join(HEADINGS[measure] for measure in measures)} | together |",
        "|---" * (len(measures) + 2) + "|",
    ]
    for row in rows:
        cells = [_difference(row[measure]) for measure in measures]
        lines.append(f"| {report['tuned'][row['against']]['label']} | {' | '.join(cells)} | {row['says']} |")
    return "\n".join(lines)


def _difference(row: Mapping[str, Any]) -> str:
    low, high = row["difference_95"]
    rate = f", {row['win_rate']:.3f}" if "win_rate" in row else ""
    return f"{row['difference']:+.3f} ({low:+.3f} to {high:+.3f}){rate}"


def _differ(report: Mapping[str, Any]) -> str:
    """Where the rater and the jury contradict each other, each pair once."""
    seen: set[frozenset[str]] = set()
    lines = []
    for row in report["comparisons"]:
        pair = frozenset((row["contender"], row["against"]))
        if row["says"].startswith("disagree") and pair not in seen:
            seen.add(pair)
            labels = [report["tuned"][row[key]]["label"] for key in ("contender", "against")]
            lines.append(f"- {labels[0]} against {labels[1]}: {row['says'].removeprefix('disagree: ')}.")
    if not lines:
        return "The rater and the jury contradict each other nowhere."
    return "Where the rater and the jury contradict each other:\n\n" + "\n".join(lines)
