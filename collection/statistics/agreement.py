"""Whether people who saw the same two pictures say the same."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from collection.types import VoteCount


def agreement(counts: Iterable[VoteCount]) -> float | None:
    """Krippendorff's alpha of people who judged the same pair of pictures, one VoteCount a pair.

    1 full agreement, 0 chance, below 0 worse. Nominal verdicts: the one, the other, a tie. Which of two pictures is
    "the one" is arbitrary, so chance is told as if a fair coin decided it. None when no pair has two votes.
    """
    verdicts = [(count.wins_a, count.wins_b, count.ties + count.both_bad) for count in counts if count.total > 1]
    return nominal_alpha(np.array(verdicts, float), exchangeable=2) if verdicts else None


def nominal_alpha(counts: np.ndarray, exchangeable: int = 1) -> float | None:
    """Krippendorff's alpha for nominal data from counts (units, values); each unit has at least two values.

    The first `exchangeable` values are taken to be equally common. Krippendorff, "Computing Krippendorff's
    Alpha-Reliability" (2011), equation for nominal data in terms of a unit's counts. None where nothing varies.
    """
    unit, values = counts.sum(1), counts.sum(0)
    values[:exchangeable] = values[:exchangeable].mean()
    total = unit.sum()
    observed = ((unit**2 - (counts**2).sum(1)) / (unit - 1)).sum()
    expected = (total**2 - (values**2).sum()) / (total - 1)
    return float(1 - observed / expected) if expected else None
