"""Which votes count is one rule, for the count table, for a vote in hand, and for training."""

from __future__ import annotations

from itertools import product

from collection.store import Store
from collection.types import BALLOT_KINDS, CHOICES
from collection.votes.which_count import LEFT_OUT, counts
from tests.collection.helpers import add_comparison, cast, generation


def test_the_database_and_a_vote_in_hand_say_the_same(store: Store) -> None:
    ids = add_comparison(store)
    (ids["again"],) = store.add_generations([generation("base", "c2")])
    people = [store.create_participant() for _ in range(2)]
    given = list(product(people, BALLOT_KINDS, CHOICES, ("aligned", "again"), (True, False)))
    for person, kind, choice, other, blind in given:
        cast(store, person, ids["base"], ids[other], choice, kind=kind, blind=blind)
    store.unvote([cast(store, people[0], ids["base"], ids["aligned"], "left")], people[0])
    store.flag_participant(people[1], "a robot")

    votes = list(store.exported_votes())
    assert len(votes) == len(given), "what was taken back is not handed out"
    that_count = [vote for vote in votes if counts(vote)]
    assert len(that_count) == 2 * (len(CHOICES) - 1), "of one person, normal, two variants, not skipped"
    assert sum(count.total for count in store.vote_counts(blind_only=False)) == len(that_count)
    blind = [vote for vote in that_count if vote.ballot.blind]
    assert sum(count.total for count in store.vote_counts()) == len(blind)

    found = store.preference_pairs("emoji")
    assert {pair.vote_id for pair in found.pairs} == {
        vote.vote.id for vote in blind if vote.vote.choice in ("left", "right")
    }
    left_out = sum(found.dropped[reason.name] for reason in LEFT_OUT)
    assert left_out == len(votes) - len(that_count)
