"""The vote contract: created before showing, validated, one per ballot and person, never lost."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select, update

from collection.database.models import BallotRow, VoteRow, now
from collection.errors import InputError, RefusedError
from collection.store import Store
from collection.types import Choice, NewBallot, Reveal, VoteCount
from collection.votes.casting import BALLOT_LIFE
from tests.collection.helpers import VARIANTS, add_comparison, cast, generation, open_store


@pytest.fixture
def ids(store: Store) -> dict[str, str]:
    return add_comparison(store)


@pytest.fixture
def person(store: Store) -> str:
    return store.create_participant()


def ballot_on(store: Store, ids: dict[str, str], person: str, **options: Any) -> str:
    return store.create_ballots([NewBallot(ids["base"], ids["aligned"], person, **options)])[0]


def count_rows(store: Store) -> int:
    with store.reading() as session:
        return session.scalar(select(func.count()).select_from(VoteRow)) or 0


def test_a_vote_is_answered_with_the_names(store: Store, ids: dict[str, str], person: str) -> None:
    ballot = ballot_on(store, ids, person)
    assert store.vote(ballot, person, "left", 2.5) == Reveal(ballot, "left", "base", "aligned")


def test_saying_it_twice_makes_one_vote(store: Store, ids: dict[str, str], person: str) -> None:
    ballot = ballot_on(store, ids, person)
    assert store.vote(ballot, person, "left") == store.vote(ballot, person, "left")
    assert count_rows(store) == 1


def refusal(store: Store, ballot: str, person: str, choice: Choice = "left") -> str:
    """Why the Store refuses this answer."""
    with pytest.raises(RefusedError) as refused:
        store.vote(ballot, person, choice)
    return refused.value.reason


def test_a_ballot_is_used_up_once_its_names_were_told(store: Store, ids: dict[str, str], person: str) -> None:
    ballot = ballot_on(store, ids, person)
    store.vote(ballot, person, "left")
    assert refusal(store, ballot, person, "right") == "answered"
    (vote,) = [exported.vote for exported in store.exported_votes()]
    assert (vote.choice, vote.changed_at) == ("left", vote.created_at)
    store.unvote([ballot], person)
    assert refusal(store, ballot, person, "left") == "answered"
    assert store.totals().votes == 0


def test_two_different_answers_at_once_leave_one(store: Store, ids: dict[str, str]) -> None:
    def answered(number: int) -> tuple[str, int]:
        person = people[number // 2]
        try:
            return store.vote(ballots[number // 2], person, "left" if number % 2 else "right").choice, number // 2
        except RefusedError as error:
            return error.reason, number // 2

    people = [store.create_participant() for _ in range(10)]
    ballots = [ballot_on(store, ids, person) for person in people]
    with ThreadPoolExecutor(8) as pool:
        said = list(pool.map(answered, range(20)))
    for number in range(10):
        words = {word for word, of in said if of == number}
        assert "answered" in words
        assert len(words) == 2
    assert count_rows(store) == 10


def test_a_ballot_expires(store: Store, ids: dict[str, str], person: str) -> None:
    ballot, pool = ballot_on(store, ids, person), store.next_ballot(person, random.Random(0))
    assert pool is not None
    with store.writing() as session:
        session.execute(update(BallotRow).values(created_at=now() - BALLOT_LIFE - timedelta(seconds=1)))
    assert refusal(store, ballot, person) == "expired"
    assert refusal(store, pool.ballot_id, person) == "expired"
    fresh = store.next_ballot(person, random.Random(0))
    assert fresh is not None
    assert fresh.ballot_id != pool.ballot_id
    store.vote(fresh.ballot_id, person, "left")
    assert count_rows(store) == 1


def test_a_vote_taken_back_counts_nowhere_but_is_not_deleted(store: Store, ids: dict[str, str], person: str) -> None:
    ballot = ballot_on(store, ids, person)
    store.vote(ballot, person, "left")
    assert store.unvote([ballot], person) == 1
    assert store.vote_counts() == []
    assert store.preference_pairs("emoji").pairs == []
    assert store.totals().votes == 0
    assert count_rows(store) == 1


def test_nobody_takes_back_another_persons_vote(store: Store, ids: dict[str, str], person: str) -> None:
    ballot = ballot_on(store, ids, person)
    store.vote(ballot, person, "left")
    assert store.unvote([ballot], store.create_participant()) == 0
    assert store.totals().votes == 1


def test_an_unknown_ballot_choice_or_response_time_is_refused(store: Store, ids: dict[str, str], person: str) -> None:
    ballot = ballot_on(store, ids, person)
    assert refusal(store, "made up", person) == "unknown_ballot"
    with pytest.raises(InputError, match="choose from left, right, tie, both_bad, skip"):
        store.vote(ballot, person, "middle")  # type: ignore[arg-type]
    for impossible in (-1.0, float("nan"), float("inf"), "soon"):
        with pytest.raises(InputError, match="is not possible"):
            store.vote(ballot, person, "left", impossible)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="is no text"):
        store.vote({"id": ballot}, person, "left")  # type: ignore[arg-type]
    assert count_rows(store) == 0


def test_another_persons_ballot_is_refused(store: Store, ids: dict[str, str], person: str) -> None:
    ballot = ballot_on(store, ids, person)
    assert refusal(store, ballot, store.create_participant()) == "not_yours"


def test_several_votes_are_all_recorded_or_none(store: Store, ids: dict[str, str], person: str) -> None:
    pairs = [("base", "aligned"), ("aligned", "aligned_npo")]
    ballots = store.create_ballots([NewBallot(ids[left], ids[right], person) for left, right in pairs])
    with pytest.raises(InputError):
        store.votes([(ballots[0], "left"), ("made up", "left")], person)
    assert count_rows(store) == 0
    reveals = store.votes([(ballots[0], "left"), (ballots[1], "skip")], person)
    assert [(reveal.left_variant, reveal.right_variant) for reveal in reveals] == pairs


def test_ballots_are_all_issued_or_none(store: Store, ids: dict[str, str], person: str) -> None:
    good = NewBallot(ids["base"], ids["aligned"], person)
    with pytest.raises(InputError, match="There is no generation 'made up'"):
        store.create_ballots([good, NewBallot(ids["base"], "made up", person)])
    with store.reading() as session:
        assert session.scalar(select(func.count()).select_from(BallotRow)) == 0


def test_a_ballot_needs_a_known_person_and_two_comparable_generations(
    store: Store, ids: dict[str, str], person: str
) -> None:
    (other,) = store.add_generations([generation("base", "c2", prompt="a blue cat")])
    with pytest.raises(InputError, match="There is no participant"):
        store.create_ballots([NewBallot(ids["base"], ids["aligned"], "nobody")])
    with pytest.raises(InputError, match="both sides"):
        store.create_ballots([NewBallot(ids["base"], ids["base"], person)])
    with pytest.raises(InputError, match="must share their prompt"):
        store.create_ballots([NewBallot(ids["base"], other, person)])
    with pytest.raises(InputError, match="Unknown ballot kind"):
        store.create_ballots([NewBallot(ids["base"], ids["aligned"], person, kind="odd")])  # type: ignore[arg-type]


def test_what_is_shown_before_the_vote_does_not_tell_the_variants(
    store: Store, ids: dict[str, str], person: str
) -> None:
    ballot_on(store, ids, person)
    (view,) = store.ballots("c1", person)
    assert not any(variant in str(view) for variant in VARIANTS)
    assert set(vars(view)) == {"ballot_id", "prompt", "modality", "left_generation_id", "right_generation_id"}


VOTE_AND_WAIT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from collection.store import Store
store = Store(sys.argv[2], sys.argv[3])
store.vote(sys.argv[4], sys.argv[5], "left")
print("thanks", flush=True)
time.sleep(60)
"""


def test_a_vote_survives_a_killed_process(tmp_path: Path) -> None:
    with open_store(tmp_path) as store:
        person = store.create_participant()
        ballot = ballot_on(store, add_comparison(store), person)
        root = str(Path(__file__).parents[3])
        arguments = [root, str(store.url), str(tmp_path / "data"), ballot, person]
    with subprocess.Popen([sys.executable, "-c", VOTE_AND_WAIT, *arguments], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == b"thanks"
        process.send_signal(signal.SIGKILL)
    with open_store(tmp_path) as store:
        assert store.totals().votes == 1
        assert store.verify() == []


def test_many_threads_vote_at_once_and_nothing_is_lost(store: Store, ids: dict[str, str]) -> None:
    def vote_once(_number: int) -> None:
        person = store.create_participant()
        cast(store, person, ids["base"], ids["aligned"], "right")

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(vote_once, range(40)))
    assert store.vote_counts() == [VoteCount("aligned", "base", 40, 0, 0, 0)]


def test_next_ballot_shows_each_stored_comparison_once_and_then_none(store: Store, person: str) -> None:
    for number in range(3):
        add_comparison(store, f"c{number}")
    rng, shown = random.Random(0), []
    while (view := store.next_ballot(person, rng)) is not None:
        left, right = (store.get_generation(side) for side in (view.left_generation_id, view.right_generation_id))
        assert (left.comparison_id, left.seed) == (right.comparison_id, right.seed)
        assert left.variant != right.variant
        shown.append(left.comparison_id)
        store.vote(view.ballot_id, person, "tie")
    assert sorted(shown) == ["c0", "c1", "c2"]


def test_an_unanswered_ballot_is_shown_again(store: Store, ids: dict[str, str], person: str) -> None:
    first = store.next_ballot(person, random.Random(0))
    assert first is not None
    assert store.next_ballot(person, random.Random(1)) == first


def test_a_comparison_whose_names_were_told_is_never_judged_blind(
    store: Store, ids: dict[str, str], person: str
) -> None:
    cast(store, person, ids["base"], ids["aligned"], "left")
    assert store.next_ballot(person, random.Random(0)) is None
    assert store.next_ballot(store.create_participant(), random.Random(0)) is not None


def test_next_ballot_prefers_what_was_judged_least(store: Store) -> None:
    for number in range(4):
        add_comparison(store, f"c{number}")
    rng, shown = random.Random(7), []
    for _ in range(4):
        view = store.next_ballot(store.create_participant(), rng)
        assert view is not None
        shown.append(store.get_generation(view.left_generation_id).comparison_id)
    assert sorted(shown) == ["c0", "c1", "c2", "c3"]


def test_next_ballot_keeps_to_the_family_asked_for(store: Store, person: str) -> None:
    add_comparison(store, "c1", family="sd15")
    assert store.next_ballot(person, random.Random(0), family="emoji") is None
    assert store.next_ballot(person, random.Random(0), family="sd15") is not None


def test_next_ballot_refuses_an_unknown_person(store: Store) -> None:
    with pytest.raises(InputError, match="There is no participant"):
        store.next_ballot("nobody", random.Random(0))
