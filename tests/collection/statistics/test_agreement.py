"""Krippendorff's alpha on his own examples and beside another's code."""

from __future__ import annotations

import numpy as np
import pytest

from collection.statistics.agreement import agreement, nominal_alpha
from collection.types import VoteCount


def test_krippendorffs_alpha_is_that_of_his_own_examples() -> None:
    """Krippendorff, "Computing Krippendorff's Alpha-Reliability" (2011): example A (two observers, two values) has
    alpha 0.095, example C (four observers, five values, gaps) 0.743."""
    meg, owen = "0100000010", "1110010000"
    example_a = [[pair.count(value) for value in "01"] for pair in zip(meg, owen, strict=True)]
    assert nominal_alpha(np.array(example_a, float)) == pytest.approx(0.095, abs=5e-4)
    observers = ("123321412   ", "1233224125 3", " 3332342251 ", "12332441251 ")
    units = ["".join(values).replace(" ", "") for values in zip(*observers, strict=True)]
    example_c = [[unit.count(value) for value in "12345"] for unit in units if len(unit) > 1]
    assert nominal_alpha(np.array(example_c, float)) == pytest.approx(0.743, abs=5e-4)


def test_alpha_from_counts_is_evalicas_when_a_coin_names_the_two_pictures() -> None:
    import evalica
    import pandas as pd

    rng = np.random.default_rng(3)
    counts, table = [], {}
    for number in range(400):
        better, coin = rng.random(), rng.random() < 0.5
        verdicts = rng.choice(3, size=5, p=[0.8 * better, 0.8 * (1 - better), 0.2])
        counts.append(VoteCount("a", "b", *(int((verdicts == value).sum()) for value in range(3)), 0))
        table[number] = [float({0: 1, 1: 0}.get(v, v)) if coin else float(v) for v in verdicts]
    theirs = float(evalica.alpha(pd.DataFrame(table), distance="nominal").alpha)
    assert agreement(counts) == pytest.approx(theirs, abs=2e-3)


def test_full_agreement_is_one_and_pairs_seen_by_one_person_say_nothing() -> None:
    assert agreement([VoteCount("a", "b", 2, 0, 0, 0), VoteCount("a", "b", 0, 0, 1, 1)]) == pytest.approx(1.0)
    assert agreement([VoteCount("a", "b", 1, 0, 0, 0), VoteCount("a", "b", 0, 0, 1, 0)]) is None


def test_no_votes_agree_about_nothing() -> None:
    assert agreement([]) is None
