"""The design of a study as pure functions: what a person is asked next, and on which side. Chance is passed in.

Chance comes from `seeded`, from numbers that are stored (the study's seed, the person's and the pair's number), so
that every decision can be made again from the database.
"""

from __future__ import annotations

import math
import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from collection.studies.prompts import Prompt
from collection.studies.study_config import StudyPlan
from collection.types import AssignmentKind, ItemKind

TRAINING_BALLOTS: Final = 2
REPEAT_GAP: Final = 4  # ballots at least between a pair and its repeat
CHECK_POOL: Final = 12  # different checks in a study, so that people who compare notes learn little


@dataclass(frozen=True)
class Item:
    """What is to be drawn: one prompt and seed, by every variant of the study."""

    number: int
    kind: ItemKind
    prompt: Prompt
    seed: int


@dataclass(frozen=True)
class Candidate:
    """A pair that a person may be asked about: votes that stand, and questions about it that are still open."""

    pair_id: str
    item_id: str
    votes: int
    open: int = 0


@dataclass(frozen=True)
class Asked:
    """A ballot that this person was given before."""

    ballot_id: str
    pair_id: str
    number: int
    kind: AssignmentKind
    answered: bool
    skipped: bool = False
    repeated: bool = False
    item_id: str = ""


def seeded(*numbers: int | str) -> random.Random:
    """A source of chance that depends on `numbers` alone."""
    return random.Random(":".join(map(str, numbers)))


def plan_items(plan: StudyPlan, prompts: Sequence[Prompt]) -> list[Item]:
    """The items of a study in the order in which they are drawn: training and checks first, then every prompt and seed.

    max_prompts draws from the list with the study's seed. Seeds are drawn too, so that nobody can guess them and see
    the same picture, with its name, on another page.
    """
    rng = seeded(plan.seed, "items", plan.name)
    count = len(prompts) if plan.max_prompts is None else min(plan.max_prompts, len(prompts))
    chosen = [prompts[place] for place in sorted(rng.sample(range(len(prompts)), count))]
    training = TRAINING_BALLOTS if plan.training else 0
    checks = min(CHECK_POOL, 2 * checks_per_person(plan))
    wanted: list[tuple[ItemKind, Prompt]] = [("training", rng.choice(chosen)) for _ in range(training)]
    wanted += [("check", rng.choice(chosen)) for _ in range(checks)]
    wanted += [("normal", prompt) for prompt in chosen for _ in range(plan.seeds_per_prompt)]
    return [Item(number, kind, prompt, rng.randrange(2**63)) for number, (kind, prompt) in enumerate(wanted)]


def checks_per_person(plan: StudyPlan) -> int:
    """How many of a person's ballots have a known answer."""
    return math.ceil(plan.check_share * plan.ballots_per_participant)


def repeats_per_person(plan: StudyPlan) -> int:
    """How many of a person's ballots ask again what they answered before."""
    return math.ceil(plan.repeat_share * plan.ballots_per_participant)


def schedule(plan: StudyPlan, rng: random.Random) -> list[AssignmentKind]:
    """The kinds of one person's ballots in order: training, then checks and repeats scattered among normal ones.

    Repeats come in the last two thirds, when there is something to repeat; checks anywhere but first.
    """
    total = plan.ballots_per_participant
    kinds: list[AssignmentKind] = ["normal"] * total
    late = [place for place in range(total) if place >= max(REPEAT_GAP + 1, total // 3)]
    for place in rng.sample(late, min(repeats_per_person(plan), len(late))):
        kinds[place] = "repeat"
    free = [place for place in range(1, total) if kinds[place] == "normal"]
    for place in rng.sample(free, min(checks_per_person(plan), len(free))):
        kinds[place] = "check"
    training: list[AssignmentKind] = ["training"] * TRAINING_BALLOTS if plan.training else []
    return training + kinds


def choose_pair(
    candidates: Sequence[Candidate],
    seen_items: Collection[str],
    votes_per_pair: int,
    random_share: float,
    rng: random.Random,
) -> str | None:
    """The pair to ask about next: the one with the fewest votes and open questions, with `random_share` any.

    No pair is asked about more often than it needs votes, except that when all that is missing is asked already, one
    more person may be asked (some never answer). Among equals an item new to this person comes first. None when every
    pair has its votes.
    """
    missing = [pair for pair in candidates if pair.votes < votes_per_pair]
    wanted = [pair for pair in missing if pair.votes + pair.open < votes_per_pair]
    wanted = wanted or [pair for pair in missing if pair.votes + pair.open <= votes_per_pair]
    if not wanted:
        return None
    if rng.random() < random_share:
        return rng.choice(wanted).pair_id

    def need(pair: Candidate) -> tuple[int, bool]:
        return pair.votes + pair.open, pair.item_id in seen_items

    least = min(map(need, wanted))
    return rng.choice([pair for pair in wanted if need(pair) == least]).pair_id


def choose_repeat(asked: Sequence[Asked], rng: random.Random) -> Asked | None:
    """An answered normal ballot, long enough ago and not repeated yet; None when there is none."""
    last = max((ballot.number for ballot in asked), default=0)
    ready = [
        ballot
        for ballot in asked
        if ballot.kind == "normal"
        and ballot.answered
        and not (ballot.skipped or ballot.repeated)
        and ballot.number <= last - REPEAT_GAP
    ]
    return rng.choice(ready) if ready else None


def choose_check(pair_ids: Sequence[str], seen_pairs: Collection[str], rng: random.Random) -> str | None:
    """A check that this person has not seen; None when there is none left."""
    unseen = [pair_id for pair_id in pair_ids if pair_id not in seen_pairs]
    return rng.choice(unseen) if unseen else None


def first_stands_left(study_seed: int, person_number: int, pair_number: int) -> bool:
    """The coin for the sides, fair for every person and pair and the same whenever it is tossed again."""
    return seeded(study_seed, person_number, pair_number).random() < 0.5
