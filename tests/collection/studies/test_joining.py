"""Joining a study: who a platform's worker is, and who may go on with a part that was begun."""

from __future__ import annotations

import pytest

from collection.errors import RefusedError
from collection.maintenance.belongings import SECRET_FILE
from collection.store import Store
from collection.types import Referral
from tests.collection.study_helpers import enrol, make_study

WORKER, OTHER = Referral("prolific", "a" * 64, "b" * 64, "c" * 64), Referral("prolific", "d" * 64)


def test_a_platforms_worker_is_one_person_and_only_who_began_goes_on(store: Store) -> None:
    make_study(store)
    first = enrol(store, referral=WORKER)
    assert store.enrol("pilot", first.participant_id, "1", WORKER).code == first.code
    for stranger in (None, store.create_participant(), enrol(store).participant_id):
        with pytest.raises(RefusedError, match="go on in the browser in which it was begun"):
            store.enrol("pilot", stranger, "1", WORKER)


def test_two_workers_in_one_browser_are_two_people(store: Store) -> None:
    make_study(store)
    (store.data_dir / SECRET_FILE).write_text("with which the workers' ids were hashed")
    first = enrol(store, referral=WORKER)
    second = store.enrol("pilot", first.participant_id, "1", OTHER)  # the browser still holds what the first was given
    assert len({first.participant_id, second.participant_id}) == len({first.code, second.code}) == 2
    unknown = enrol(store)
    known_browser = store.enrol("pilot", unknown.participant_id, "1", Referral("prolific", "e" * 64))
    assert known_browser.participant_id != unknown.participant_id
    make_study(store, name="next")
    assert store.enrol("next", first.participant_id, "1", WORKER).participant_id == first.participant_id
    assert store.enrol("next", first.participant_id, "1", OTHER).participant_id != first.participant_id
    for who in (first, second, unknown):
        ballot = store.next_study_ballot("pilot", who.participant_id)
        assert ballot is not None
        store.answer(ballot.ballot_id, who.participant_id, "left")
    assert [problem for problem in store.verify() if "secret" not in problem] == [], "which no app has made here"
