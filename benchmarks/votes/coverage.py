"""Whether 95% intervals hold the truth in 95% of studies: simulated studies whose truth is known.

    python -m benchmarks.votes.coverage                       # 500 studies of each kind, four minutes; a Markdown table
    python -m benchmarks.votes.coverage --taste 1 --look 0.3  # people differ much, prompts little

Each person has a taste of their own for each of three variants and each prompt a look of its own (normal, with these
standard deviations, in units of log strength); each vote is drawn by Davidson's model. The truth is what all people
would say about all prompts: win rates by numerical integration, strengths by fitting those. Skewed activity: the
person of rank r gives votes in proportion to 1 / r. Coverage of the three win rates and three strengths together.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

import numpy as np

from collection.statistics.clusters import LEAST_PEOPLE
from collection.statistics.counts import Cells, Votes
from collection.statistics.rates import WinRate, win_rates
from collection.statistics.strengths import ELO_MEAN, ELO_POINTS, Rating, fits, ratings

VARIANTS = ("a", "b", "c")
LOG_STRENGTHS = np.array([0.0, 0.4, 0.9])
FIRST, SECOND = np.array([0, 0, 1]), np.array([1, 2, 2])
VOTES_PER_PERSON = 30
FEW_TIES, MANY_TIES = 0.3, 3.0  # nu: 13% and 60% ties between equals


class Kind(NamedTuple):
    """What is alike in a row of simulated studies."""

    people: int
    prompts: int
    nu: float
    skewed: bool


def chances(gap: np.ndarray, nu: float) -> np.ndarray:
    """(3, N) of a win, a loss and a tie, by Davidson's model, from the (N,) gaps of log strength."""
    parts = np.array([np.exp(gap / 2), np.exp(-gap / 2), np.full_like(gap, nu)])
    return np.asarray(parts / parts.sum(0))


def truth(nu: float, taste: float, look: float) -> tuple[np.ndarray, np.ndarray]:
    """(3,) win rates of the pairs and (3,) log strengths with mean 0, over all people and prompts."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(80)
    spread = np.sqrt(2 * taste**2 + 2 * look**2)
    gaps = (LOG_STRENGTHS[FIRST] - LOG_STRENGTHS[SECOND])[:, None] + spread * nodes
    average = np.array([chances(gap, nu) @ (weights / weights.sum()) for gap in gaps])  # (pairs, outcomes)
    outcomes = np.column_stack([1e6 * average, np.zeros((3, 2))])
    cells = Cells(np.zeros(3, int), FIRST, SECOND, outcomes)
    (fit,) = fits(Votes(VARIANTS, cells, cells), prior_votes=0.0)
    return average[:, 0] + average[:, 2] / 2, fit.log_s


def simulated(kind: Kind, taste: float, look: float, rng: np.random.Generator) -> Votes:
    """The votes of one study: everybody goes through prompts and pairs in an order of their own."""
    rank = np.arange(1, kind.people + 1)
    weight = (1 / rank if kind.skewed else np.ones(kind.people)) * VOTES_PER_PERSON * kind.people
    given = np.maximum(3, np.round(weight / (1 / rank if kind.skewed else np.ones(kind.people)).sum())).astype(int)
    questions = 3 * kind.prompts
    asked = [
        np.concatenate([rng.permutation(questions) for _ in range(-(-votes // questions))])[:votes] for votes in given
    ]
    person, (prompt, pair) = np.repeat(np.arange(kind.people), given), np.divmod(np.concatenate(asked), 3)
    tastes, looks = rng.normal(0, taste, (kind.people, 3)), rng.normal(0, look, (kind.prompts, 3))
    worth = LOG_STRENGTHS + tastes[person] + looks[prompt]  # (votes, variants)
    row = np.arange(len(person))
    chance = chances(worth[row, FIRST[pair]] - worth[row, SECOND[pair]], kind.nu)
    outcome = (rng.random(len(row)) > np.cumsum(chance, 0)).sum(0).clip(max=2)
    return Votes(VARIANTS, *(_cells(cluster, pair, outcome) for cluster in (person, prompt)))


def _cells(cluster: np.ndarray, pair: np.ndarray, outcome: np.ndarray) -> Cells:
    codes, places = np.unique(3 * cluster + pair, return_inverse=True)
    counts = np.zeros((len(codes), 5))
    np.add.at(counts, (places, outcome), 1)
    return Cells(codes // 3, FIRST[codes % 3], SECOND[codes % 3], counts)


def covered(kind: Kind, studies: int, taste: float, look: float, seed: int) -> tuple[float, float, int]:
    """Shares of win rates' and of strengths' intervals that hold the truth, and how many numbers had no interval."""
    rng = np.random.default_rng([seed, kind.people, kind.prompts, kind.skewed])
    rates, strengths = truth(kind.nu, taste, look)
    held: tuple[list[bool], list[bool]] = ([], [])
    unsaid = 0
    for _ in range(studies):
        votes = simulated(kind, taste, look, rng)
        numbers: Iterator[tuple[int, WinRate | Rating, float]] = iter(
            [
                *(
                    (0, rate, rates[VARIANTS.index(rate.variant_a) + VARIANTS.index(rate.variant_b) - 1])
                    for rate in win_rates(votes)
                ),
                *(
                    (1, rating, ELO_MEAN + ELO_POINTS * strengths[VARIANTS.index(rating.variant)])
                    for rating in ratings(votes)
                ),
            ]
        )
        for which, number, real in numbers:
            if number.low is None or number.high is None:
                unsaid += 1
            else:
                held[which].append(bool(number.low <= real <= number.high))
    return float(np.mean(held[0])), float(np.mean(held[1])), unsaid


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=500, help="of each kind (500)")
    parser.add_argument("--taste", type=float, default=0.6, help="how much people differ (0.6)")
    parser.add_argument("--look", type=float, default=0.6, help="how much prompts differ (0.6)")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print("| people | prompts | ties | activity | win rates | strengths | no interval |\n|---|---|---|---|---|---|---|")
    for skewed, nu, prompts, people in product(
        (False, True), (FEW_TIES, MANY_TIES), (10, 20), (LEAST_PEOPLE, 5, 10, 30)
    ):
        rates, strengths, unsaid = covered(
            Kind(people, prompts, nu, skewed), options.studies, options.taste, options.look, options.seed
        )
        told = ("many" if nu == MANY_TIES else "few", "skewed" if skewed else "equal")
        print(
            f"| {people} | {prompts} | {told[0]} | {told[1]} | {rates:.3f} | {strengths:.3f} | {unsaid} |", flush=True
        )


if __name__ == "__main__":
    main()
