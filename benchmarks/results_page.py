"""docs/results.md and its plot, every number and every verdict taken from the protocol's JSON and that of the bars.

    python -m train.evaluate --protocol --choice-prompts CHOICE.txt --prompts HELD_OUT.txt --seeds-per-prompt 2 \
        --json out/protocol.json --grid out/grid.png
    python -m train.emoji.bars --json out/bars.json
    python -m benchmarks.results_page --protocol out/protocol.json --bars out/bars.json --grid out/grid.png --docs docs

Nothing on the page is written by hand: a better negative, or a worse one, is said to be so by its interval.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from npo_core.console import exit_status
from npo_core.errors import InputError
from train.engine.files import write_text
from train.judging.bars import as_markdown as bars_as_markdown
from train.judging.plots import draw_differences
from train.judging.protocol.judges import RATER, THINGS
from train.judging.protocol.tables import as_markdown

SHIPPED, NPO = "shipped", "aligned_npo"
RIVALS = ("aligned", "aligned_longer", "scaled", "vs_base", "extrapolated")  # what the shipped one must beat
JURY_MAY_NOT_FALL = (THINGS, "kid")
VERDICTS = {"above": "beats", "below": "loses to", "unclear": "cannot be told from"}


def page(report: Mapping[str, Any], bars: Mapping[str, Any] | None, grid: bool) -> str:
    """The whole page."""
    parts = [
        "# Results on the emoji family",
        "Made by `python -m benchmarks.results_page` from [results.json](results.json), which one run of `python -m "
        "train.evaluate --protocol` wrote; nothing here is written by hand. The rater taught the adapters and tuned "
        "the contenders; the jury did neither (see [training](training.md#measuring)).",
        "## In plain words",
        "\n".join(f"- {sentence}" for sentence in verdicts(report)),
        "## All contenders at their best",
        as_markdown(report).strip(),
        "![Mean difference to aligned by rater and jury, with intervals](results/contenders.png)",
    ]
    if bars:
        parts += ["## What the family has to reach", bars_as_markdown(bars).strip()]
    if grid:
        labels = ", ".join(row["label"] for row in report["tuned"].values())
        parts += ["## Pictures", f"Random prompts, not chosen ones. Columns: {labels}.", "![Grid](results/grid.png)"]
    return "\n\n".join(parts) + "\n"


def verdicts(report: Mapping[str, Any]) -> list[str]:
    """What the intervals say: of the shipped negative against each rival, of the best negative, and what is untold."""
    label = {name: row["label"] for name, row in report["tuned"].items()}
    rows = {(row["contender"], row["against"]): row for row in report["comparisons"]}
    said = []
    hero = SHIPPED if SHIPPED in label else NPO
    for rival in RIVALS:
        row = rows.get((hero, rival))
        if row is not None:
            said.append(_against(label[hero], label[rival], row))
    said += _best_negative(report, rows, label)
    said.append(_untold(rows, label))
    return said


def _against(hero: str, rival: str, row: Mapping[str, Any]) -> str:
    """One comparison: the rater's verdict, then what the jury says of things and KID."""
    rater = row[RATER]
    told = f"{hero} {VERDICTS[rater['side']]} {rival} by the rater ({_interval(rater)})"
    fallen = [measure for measure in JURY_MAY_NOT_FALL if measure in row and row[measure]["side"] == "below"]
    jury = f"but the jury's {' and '.join(fallen)} falls" if fallen else "and the jury's things and KID do not fall"
    return f"{told}, {jury}."


def _best_negative(
    report: Mapping[str, Any], rows: Mapping[tuple[str, str], Any], label: Mapping[str, str]
) -> list[str]:
    """The negative with the highest mean, and how sure that is."""
    negatives = [name for name in label if report["tuned"][name].get("negative")]
    if len(negatives) < 2:
        return []
    best, *others = sorted(negatives, key=lambda name: -report["contenders"][name][RATER]["mean"])
    sides = {other: rows[best, other][RATER]["side"] for other in others}
    beaten = [label[other] for other, side in sides.items() if side == "above"]
    equal = [label[other] for other, side in sides.items() if side != "above"]
    mean = report["contenders"][best][RATER]["mean"]
    told = [f"Of the negatives {label[best]} is best by the rater (mean {mean:.3f})"]
    if beaten:
        told.append(f"clearly above {_listed(beaten)}")
    if equal:
        told.append(f"not to be told from {_listed(equal)}")
    return ["; ".join(told) + "."]


def _untold(rows: Mapping[tuple[str, str], Any], label: Mapping[str, str]) -> str:
    """How much remains open, and where rater and jury are at odds."""
    once = {frozenset(pair): row for pair, row in rows.items()}
    open_pairs = sum(row["says"] == "nobody can tell them apart" for row in once.values())
    disputed = sum(row["says"].startswith("disagree") for row in once.values())
    return (
        f"Of {len(once)} pairs of {len(label)} contenders {open_pairs} cannot be told apart by anybody, and rater and "
        f"jury contradict each other in {disputed}."
    )


def _interval(row: Mapping[str, Any]) -> str:
    low, high = row["difference_95"]
    return f"{row['difference']:+.3f}, {low:+.3f} to {high:+.3f}"


def _listed(items: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(items[:-1]), items[-1])))


def write_page(options: argparse.Namespace) -> None:
    """Writes the page, its JSON, its plot and its grid; raises InputError when a file cannot be read."""
    report, bars = _read(options.protocol), _read(options.bars) if options.bars else None
    plots = options.docs / "results"
    plots.mkdir(parents=True, exist_ok=True)
    draw_differences(report, plots / "contenders.png")
    if options.grid:
        shutil.copy(options.grid, plots / "grid.png")
    shutil.copy(options.protocol, options.docs / "results.json")
    write_text(options.docs / "results.md", page(report, bars, bool(options.grid)))


def _read(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{file} cannot be read ({error}); give the JSON that the measuring wrote.") from None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.results_page", description=__doc__.split("\n")[0])
    parser.add_argument("--protocol", type=Path, required=True, help="JSON of train.evaluate --protocol")
    parser.add_argument("--bars", type=Path, help="JSON of train.emoji.bars")
    parser.add_argument("--grid", type=Path, help="PNG of train.evaluate --protocol --grid")
    parser.add_argument("--docs", type=Path, default=Path("docs"), help="(%(default)s)")
    options = parser.parse_args(arguments)
    return exit_status(lambda: write_page(options))


if __name__ == "__main__":
    sys.exit(main())
