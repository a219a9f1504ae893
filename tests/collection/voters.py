"""A process that votes: python -m tests.collection.voters DATABASE_URL DATA_DIR PEOPLE BALLOTS

Several of them share one database. Every vote that was thanked for is printed as "PARTICIPANT BALLOT CHOICE", flushed,
after the Store has returned: what is on such a line must be in the database whatever happens to it or to us.
"""

from __future__ import annotations

import random
import sys
import time
from typing import Any

from collection.errors import TryAgainError
from collection.store import Store
from collection.types import CHOICES, NewBallot


def vote_on(store: Store, people: list[str], ballots: int) -> None:
    """Votes as any of these people on pairs of the first comparison; sometimes says the same again."""
    rng, made = random.Random(), store.comparison("c1")
    for _ in range(ballots):
        person, (left, right) = rng.choice(people), rng.sample(made, 2)
        (ballot,) = insist(lambda: store.create_ballots([NewBallot(str(left.id), str(right.id), person)]))  # noqa: B023
        choice = rng.choice(CHOICES)
        for _ in range(rng.choice((1, 1, 2))):
            insist(lambda: store.vote(ballot, person, choice))  # noqa: B023
            print(person, ballot, choice, flush=True)


def insist(say: Any) -> Any:
    """What a person does who is told to try again."""
    while True:
        try:
            return say()
        except TryAgainError as error:
            print("again", error, file=sys.stderr, flush=True)
            time.sleep(0.1)


if __name__ == "__main__":
    url, folder, given, count = sys.argv[1:]
    with Store(url, folder) as opened:
        vote_on(opened, given.split(","), int(count))
