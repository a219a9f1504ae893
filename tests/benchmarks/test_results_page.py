"""docs/results.md says what the intervals say, whichever way they lie."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from benchmarks import results_page
from benchmarks.results_page import page, verdicts
from train.judging.protocol.judges import JURY, RATER, THINGS
from train.judging.protocol.report import numbers

LABELS = {
    "base": "base",
    "aligned": "aligned",
    "vs_base": "the base as negative",
    "aligned_npo": "aligned + NPO",
    "bounded": "bounded",
    "shipped": "aligned + NPO, as shipped",
}


def report(gains: dict[str, float], jury: dict[str, float] | None = None) -> dict[str, Any]:
    """A protocol's JSON where each contender's rater and jury stand so far above one noise."""
    rng = np.random.default_rng(0)
    prompts = [f"prompt {number}" for number in range(100)]
    noise = rng.normal(size=(len(LABELS), 100)) * 0.1
    columns = {}
    for place, name in enumerate(LABELS):
        rater = gains.get(name, 0) + noise[place]
        seen = (jury or gains).get(name, 0) + noise[place]
        columns[name] = {RATER: rater, "rater_all": rater, JURY: seen, THINGS: seen}
    setting = {"guidance_scale": 3.0, "alpha": 1.0, "beta": 0.4, "rescale": 0.0, "interval": [0, 1]}
    negatives = ("aligned_npo", "bounded", "shipped")
    tuned = {
        name: {
            "label": label,
            "setting": setting,
            "mean": 1.0,
            "at_the_edge": [],
            "uses": [],
            "negative": name in negatives,
        }
        for name, label in LABELS.items()
    }
    settings = {"prompts": 100, "seeds_per_prompt": 1, "choice_prompts": 10, "steps": 20}
    return {**settings, "tuned": tuned, **numbers(columns, prompts)}


def test_a_shipped_negative_that_wins_is_said_to_win_and_one_that_loses_to_lose() -> None:
    said = "\n".join(verdicts(report({"shipped": 1.0, "vs_base": 2.0})))
    assert "aligned + NPO, as shipped beats aligned by the rater (+" in said
    assert "aligned + NPO, as shipped loses to the base as negative by the rater (-" in said
    assert "but the jury's jury_things falls" in said
    level = "\n".join(verdicts(report({})))
    assert "cannot be told from aligned by the rater" in level


def test_the_best_negative_is_named_with_those_that_it_is_not_clearly_above() -> None:
    (said,) = [line for line in verdicts(report({"bounded": 1.0})) if line.startswith("Of the negatives")]
    assert said.startswith("Of the negatives bounded is best by the rater (mean ")
    assert "clearly above aligned + NPO" in said
    close = next(line for line in verdicts(report({})) if line.startswith("Of the negatives"))
    assert "not to be told from" in close


def test_a_contradiction_between_rater_and_jury_is_counted_and_listed() -> None:
    made = report({"shipped": 1.0}, jury={"shipped": -1.0})
    assert "rater and jury contradict each other in 5" in verdicts(made)[-1]
    assert "Where the rater and the jury contradict each other:" in page(made, None, grid=False)


def test_the_command_writes_the_page_its_json_its_plot_and_its_grid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "protocol.json").write_text(json.dumps(report({"shipped": 1.0})))
    share = {"mean": 0.5, "low": 0.4, "high": 0.6}
    bar = {"what": "jury's top-1, singles", "asked": ">= .95", "measured": "0.97", "passed": True}
    flaws = {"blurred": dict.fromkeys(("base", "aligned", "aligned_npo"), share)}
    (tmp_path / "bars.json").write_text(json.dumps({"bars": [bar], "flaws": flaws}))
    Image.new("RGB", (8, 8)).save(tmp_path / "grid.png")
    places = {name: tmp_path / f"{name}.json" for name in ("protocol", "bars")}
    command = [f"--{name}={place}" for name, place in places.items()]
    assert results_page.main([*command, f"--grid={tmp_path}/grid.png", f"--docs={tmp_path}/docs"]) == 0
    text = (tmp_path / "docs" / "results.md").read_text()
    assert "| jury's top-1, singles | >= .95 | 0.97 | pass |" in text
    assert "| blurred | 0.500 (0.400 to 0.600) |" in text
    for link in ("results.json", "results/contenders.png", "results/grid.png"):
        assert f"({link})" in text
        assert (tmp_path / "docs" / link).is_file()
    assert results_page.main(["--protocol", "/nowhere.json"]) == 2
    assert "/nowhere.json cannot be read" in capsys.readouterr().err
