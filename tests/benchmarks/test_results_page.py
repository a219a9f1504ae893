"""docs/results.md is what the benchmark's numbers say, and says what went down as well as what went up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.results_page import page, verdict_on_loop

DOCS = Path(__file__).parents[1] / "docs"


def loop(against_aligned: list[float], against_base: list[float]) -> list[dict[str, Any]]:
    """Rounds with these win rates and intervals of plus and minus 0.05."""
    return [
        {
            "round": number,
            "win_rates": [
                {"against": other, "win_rate": rate, "win_rate_95": [rate - 0.05, rate + 0.05]}
                for other, rate in (("aligned", aligned), ("base", base))
            ],
        }
        for number, (aligned, base) in enumerate(zip(against_aligned, against_base, strict=True))
    ]


def test_the_page_is_made_from_the_numbers_beside_it() -> None:
    results = json.loads((DOCS / "results.json").read_text())
    assert (DOCS / "results.md").read_text() == page({name: entry["result"] for name, entry in results.items()})


def test_the_verdict_on_the_loop_tells_every_fall_and_whether_chance_explains_it() -> None:
    (rising,) = verdict_on_loop(loop([0.5, 0.6, 0.6], [0.7, 0.75, 0.8]))
    assert rising.count("rose or held in every round") == 2
    assert "won no more often" not in rising
    (falling,) = verdict_on_loop(loop([0.5, 0.6, 0.45], [0.7, 0.68, 0.8]))
    assert "fell in round 2 (from 0.600 to 0.450, more than the intervals allow by chance)" in falling
    assert "fell in round 1 (from 0.700 to 0.680, no more than the intervals allow by chance)" in falling
    assert "after round 1 pictures won no more often against base" in falling
