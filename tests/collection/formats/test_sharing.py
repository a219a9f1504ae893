"""Several processes on one database: nothing lost, nothing twice, the counts exact."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from sqlalchemy import select

from collection.database.models import VoteRow
from collection.errors import RefusedError
from collection.store import Store
from collection.types import NewBallot
from tests.collection.helpers import add_comparison, cast
from tests.collection.study_helpers import enrol, make_study, take_part

ROOT = Path(__file__).parents[3]


def start_voter(store: Store, folder: Path, people: list[str], ballots: int) -> subprocess.Popen[str]:
    url = store.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.collection.voters", url, str(folder / "data"), ",".join(people)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([*command, str(ballots)], cwd=ROOT, text=True, **pipes)  # type: ignore[call-overload]


def last_said(output: str) -> dict[str, str]:
    """ballot -> the last choice that was thanked for."""
    return {ballot: choice for _, ballot, choice in (line.split() for line in output.splitlines())}


def kept(store: Store) -> dict[str, str]:
    with store.reading() as session:
        return dict(session.execute(select(VoteRow.ballot_id, VoteRow.choice)).tuples().all())


def test_processes_that_vote_as_the_same_people_at_once_lose_and_double_nothing(store: Store, tmp_path: Path) -> None:
    add_comparison(store)
    people = [store.create_participant() for _ in range(3)]
    voters = [start_voter(store, tmp_path, people, 15) for _ in range(3)]
    said: dict[str, str] = {}
    for voter in voters:
        output, errors = voter.communicate(timeout=120)
        assert (voter.returncode, errors) == (0, "")
        said |= last_said(output)
    assert len(said) == 45
    assert kept(store) == said
    assert store.verify() == []


def test_a_killed_process_has_lost_nothing_it_was_thanked_for(store: Store, tmp_path: Path) -> None:
    add_comparison(store)
    people = [store.create_participant()]
    voter = start_voter(store, tmp_path, people, 10_000)
    assert voter.stdout is not None
    lines = [voter.stdout.readline() for _ in range(20)]
    voter.kill()
    rest, _ = voter.communicate(timeout=60)
    whole = "".join([*lines, *(line for line in rest.splitlines(keepends=True) if line.endswith("\n"))])
    found = kept(store)
    said = last_said(whole)
    assert said.items() <= found.items()
    assert len(found) <= len(said) + 1
    assert store.verify() == []


def test_one_ballot_answered_by_many_at_once_is_one_vote(store: Store) -> None:
    ids, person = add_comparison(store), store.create_participant()
    (ballot,) = store.create_ballots([NewBallot(ids["base"], ids["aligned"], person)])

    def say(number: int) -> bool:
        try:
            return store.vote(ballot, person, ("left", "right")[number % 2]).choice == kept(store)[ballot]  # type: ignore[arg-type]
        except RefusedError:  # the other answer was first
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(say, range(24))) == 12
    assert len(kept(store)) == 1
    assert store.totals().votes == 1
    assert store.verify() == []


def test_a_person_who_asks_twice_at_once_gets_one_ballot(store: Store) -> None:
    make_study(store)
    person = enrol(store).participant_id
    with ThreadPoolExecutor(6) as pool:
        shown = list(pool.map(lambda _: store.next_study_ballot("pilot", person), range(6)))
    assert len({ballot.ballot_id for ballot in shown if ballot}) == 1


def test_a_study_that_many_answer_at_once_counts_every_pair_exactly(store: Store) -> None:
    """Skips and votes on the same pairs at the same moments, people withdrawn and rules applied meanwhile."""
    plan = make_study(store, prompts=3, votes_per_pair=4)
    choices = ("left", "right", "skip", "tie")

    def person(number: int) -> str:
        who, _ = take_part(store, lambda ballot: choices[(number + ballot.number) % 4])
        if number % 4 == 0:
            store.withdraw(plan.name, who)
        store.apply_quality(plan.name, enforce=number % 2 == 0)
        return who

    with ThreadPoolExecutor(6) as pool:
        assert len(set(pool.map(person, range(8)))) == 8
    assert store.verify() == []
    (progress,) = store.study_progress(plan.name)
    assert progress.participants == 8
    assert progress.votes == store.totals(study=plan.name).votes


@pytest.mark.parametrize("reason", ["a robot", None])
def test_flagging_while_the_person_votes_leaves_no_vote_unflagged(store: Store, reason: str | None) -> None:
    ids, person = add_comparison(store), store.create_participant()
    with ThreadPoolExecutor(4) as pool:
        votes = [pool.submit(cast, store, person, ids["base"], ids["aligned"], "left") for _ in range(12)]
        store.flag_participant(person, "at first")
        votes += [pool.submit(cast, store, person, ids["base"], ids["aligned"], "left") for _ in range(12)]
        store.flag_participant(person, reason)
        for vote in votes:
            vote.result()
    with store.reading() as session:
        assert set(session.scalars(select(VoteRow.flag))) == {reason}
    assert store.totals().votes == (24 if reason is None else 0)
    assert store.verify() == []
