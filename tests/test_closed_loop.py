"""The whole loop on the family that ships: pictures, picks, a training, and the next picture uses it.

python -m pytest -m slow tests/test_closed_loop.py     # several minutes on two CPU cores
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from collection.store import Store
from tests.ui.serving import ROOT, free_port, serving_apart
from tests.ui.visitor import Visitor, browsing

PROMPT, SEED = "a red apple, 3d style", 7
PICKS = (  # best and worst each: three decided pairs a comparison, more than train.npo's least of 20
    ("a panda, cartoon style", "A", "B"),
    ("a rocket, flat style", "B", "C"),
    ("a castle, 3d style, blue background", "C", "A"),
    ("a pizza, flat style", "A", "C"),
    ("a guitar, 3d style", "B", "A"),
    ("a rose, cartoon style", "C", "B"),
    ("a whale, 3d style", "A", "B"),
)


@pytest.mark.slow
@pytest.mark.needs("chromium")
def test_picks_in_the_browser_train_a_negative_model_that_the_next_picture_uses(tmp_path: Path) -> None:
    environment = {
        "NPO_DATABASE_URL": f"sqlite:///{tmp_path / 'npo.db'}",
        "NPO_DATA_DIR": str(tmp_path / "data"),
        "NPO_FAMILY": "emoji",
    }
    port = free_port()
    with serving_apart([sys.executable, "app.py"], port, **environment), browsing() as page:
        visitor = Visitor(page, f"http://127.0.0.1:{port}/")
        visitor.generate(PROMPT, SEED)
        visitor.pick("A", "B")
        before = visitor.pictures()
        for prompt, best, worst in PICKS:
            visitor.generate(prompt)
            visitor.pick(best, worst)
        with Store(environment["NPO_DATABASE_URL"], environment["NPO_DATA_DIR"]) as store:
            assert len(store.preference_pairs("emoji").pairs) == 3 * len(PICKS)  # not those with a seed of our own

        trained = subprocess.run(
            [sys.executable, "-m", "train.npo", "--from-db"],
            cwd=ROOT,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
        )
        assert trained.returncode == 0, trained.stderr
        assert "the app offers it" in trained.stdout

        visitor.wait_for_line("NPO from 21 picks")
        visitor.generate(PROMPT, SEED)
        visitor.pick("no_difference")
        after = visitor.pictures()
    assert after["Base"] == before["Base"]
    assert after["Aligned"] == before["Aligned"]
    assert after["Aligned + NPO"] != before["Aligned + NPO"]
