"""What to show next and on which side: pure decisions, the source of chance passed in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations
from typing import Final

POOL_STUDY: Final = "pool"  # the study of ballots that `next_ballot` issues on pictures made earlier


def toss_sides(pair: tuple[str, str], rng: random.Random) -> tuple[str, str]:
    """(left, right): a fair coin, so that no variant stands on one side more often."""
    return pair if rng.random() < 0.5 else (pair[1], pair[0])


def choose_pair(generations: Sequence[tuple[str, str, str]], rng: random.Random) -> tuple[str, str] | None:
    """A random (left, right) pair of ids from [(id, variant, sha256 of the media), ...] with different variants that
    look different, for two equal pictures are a tie by definition; None when there is none."""
    pairs = [
        (first_id, second_id)
        for (first_id, *first), (second_id, *second) in combinations(generations, 2)
        if first[0] != second[0] and first[1] != second[1]
    ]
    return toss_sides(rng.choice(pairs), rng) if pairs else None


def choose_least_judged(ballots_per_comparison: Sequence[tuple[str, int]], rng: random.Random) -> str | None:
    """One of the comparisons with the fewest ballots so far, from [(comparison_id, ballots), ...]."""
    if not ballots_per_comparison:
        return None
    fewest = min(count for _, count in ballots_per_comparison)
    return rng.choice([comparison for comparison, count in ballots_per_comparison if count == fewest])
