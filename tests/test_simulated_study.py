"""Sixty people with known tastes take part through the real HTTP API; the results find the tastes again.

python -m pytest -m slow tests/test_simulated_study.py -s     # a minute or two on two CPU cores
"""

from __future__ import annotations

import json
import math
import random
import urllib.request
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from collection.database.models import AssignmentRow, StudyPairRow
from collection.statistics.report import as_text
from collection.statistics.summary import summarise
from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from tests.service.conftest import family, generator
from tests.service.helpers import make_services
from tests.ui.serving import serving
from tests.ui.voting import fill_study, sha256_of, variant_by_media

__all__ = ["family", "generator"]

LOG_STRENGTHS = {"base": -0.5, "aligned": 0.0, "aligned_npo": 0.5}
LOG_NU = math.log(0.5)  # a tie between equals in one of five
RATERS, CARELESS = 60, 6
VOTES_PER_PAIR = 16


@dataclass
class Rater:
    """Votes by Davidson's model with a leaning to one side; a careless one does not look."""

    rng: random.Random
    side_bias: float
    careless: str | None
    token: str = ""
    done: bool = False

    def choose(self, left: str, right: str) -> tuple[str, float]:
        """(choice, seconds) for the two variants that stand there."""
        if self.careless == "hasty":
            return self.rng.choice(["left", "right"]), self.rng.uniform(0.15, 0.5)
        if self.careless == "random":
            return self.rng.choice(["left", "right", "tie", "both_bad"]), self.rng.uniform(1.0, 3.0)
        seconds = self.rng.lognormvariate(1.0, 0.4)
        if "degraded" in (left, right):
            better = "left" if right == "degraded" else "right"
            return (better if self.rng.random() < 0.99 else "tie"), seconds
        gap = LOG_STRENGTHS[left] - LOG_STRENGTHS[right] + self.side_bias
        weights = [math.exp(gap / 2), math.exp(-gap / 2), 0.8 * math.exp(LOG_NU), 0.2 * math.exp(LOG_NU)]
        return self.rng.choices(["left", "right", "tie", "both_bad"], weights)[0], seconds


class Caller:
    """The endpoints by plain HTTP."""

    def __init__(self, address: str) -> None:
        self._address = address

    def __call__(self, endpoint: str, *data: Any) -> dict[str, Any]:
        request = urllib.request.Request(
            f"{self._address}gradio_api/run/{endpoint}",
            json.dumps({"data": data}).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)["data"][0]


def make_raters() -> list[Rater]:
    rng = random.Random(11)
    raters = [Rater(random.Random(number), rng.gauss(0.15, 0.25), None) for number in range(RATERS)]
    for place, rater in enumerate(rng.sample(raters, CARELESS)):
        rater.careless = ("hasty", "random")[place % 2]
    return raters


@pytest.mark.slow
def test_sixty_simulated_raters_are_understood(tmp_path: Path, family: ModelFamily, generator: Generator) -> None:
    services = make_services(tmp_path, family, generator)
    store = services.store
    fill_study(store, prompts=24, ballots_per_participant=30, votes_per_pair=VOTES_PER_PAIR, min_view_s=0.0)
    names, raters, order = variant_by_media(store), make_raters(), random.Random(0)
    with serving(services) as address:
        call = Caller(address)
        for number, rater in enumerate(raters):
            rater.token = call("join_study", "pilot", "1", "", {"PROLIFIC_PID": f"p{number}"})["participant_id"]
        while active := [rater for rater in raters if not rater.done]:
            rater = order.choice(active)  # everybody at once, in no order
            pair = call("next_ballot", rater.token, "pilot", "")
            if pair["ballot_id"] is None:
                rater.done = True
                continue
            choice, seconds = rater.choose(names[sha256_of(pair["left"])], names[sha256_of(pair["right"])])
            call("vote", pair["ballot_id"], choice, rater.token, "", seconds)

    summary = summarise(store, study="pilot")
    print(as_text(summary))
    print(store.study_progress("pilot"))
    assert [rating.variant for rating in summary.ratings] == ["aligned_npo", "aligned", "base"]
    for rating in summary.ratings:
        truth = 1000 + 400 / math.log(10) * LOG_STRENGTHS[rating.variant]
        assert rating.low is not None
        assert rating.high is not None
        assert rating.low < truth < rating.high, (rating, truth)
    assert summary.tie_chance == pytest.approx(0.2, abs=0.04)
    assert summary.position_bias is not None
    assert summary.position_bias.low > 0.5  # they lean to the left, and it is seen

    careless = {rater.token.partition(".")[0] for rater in raters if rater.careless}
    flagged = {person for person, (_, reason) in store.study_quality("pilot").items() if reason is not None}
    assert careless <= flagged
    assert len(flagged - careless) <= 2

    with store.reading() as session:
        votes = Counter(session.scalars(select(StudyPairRow.votes).where(StudyPairRow.kind == "normal")))
        asked = session.execute(select(AssignmentRow.enrolment_id, AssignmentRow.pair_id, AssignmentRow.kind)).all()
    print("votes per pair:", votes)
    assert max(abs(count - VOTES_PER_PAIR) for count in votes) <= 1
    seen = Counter((person, pair) for person, pair, kind in asked if kind != "repeat")
    assert set(seen.values()) == {1}
    assert store.verify() == []
