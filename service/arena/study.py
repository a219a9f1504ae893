"""A study as the page and scripts see it: what it is, joining it, blind pairs, answers, the end."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

from collection.statistics.summary import PromptScore
from collection.store import Store
from collection.studies.study_config import StudyPlan
from collection.types import Choice, Enrolment, StudyAnswer, StudyBallot
from service.arena.limits import Limits, Turnstile
from service.arena.people import participant_of, referral_of, token_of
from service.errors import InputError, RefusedError
from service.operations.metrics import counting_refusals, voting


@dataclass(frozen=True)
class StudyPair:
    """A ballot with its media; nothing here tells the variants, a check or a repeat apart."""

    ballot: StudyBallot
    left: bytes
    right: bytes
    media_type: str


@dataclass(frozen=True)
class Part:
    """Somebody's part in a study, and the token by which their browser is known again."""

    token: str
    enrolment: Enrolment


class StudyService:
    """Any number of threads may call it. `secret` signs tokens and keys hashes; it must outlive restarts."""

    def __init__(self, store: Store, secret: str, turnstile: Turnstile | None = None) -> None:
        self._store = store
        self._secret = secret
        self._turnstile = turnstile or Turnstile(Limits())

    def describe(self, study: str = "") -> tuple[StudyPlan | None, str | None]:
        """(the plan of this study, or of the newest open one, why nobody can take part now). No study: (None, why)."""
        name = study or self._store.open_study()
        if name is None:
            return None, "No study is open at the moment; thank you for coming."
        return self._store.study_plan(name), self._store.why_closed(name)

    def join(self, study: str, token: str, consent_version: str, query: object) -> Part:
        """Takes part from now on, or again; `query` are the parameters of the page's address.

        A browser whose token is not known any more is a new person. Raises InputError when nobody can join.
        """
        participant = participant_of(token, self._secret)
        if participant is not None and not self._store.has_participant(participant):
            participant = None
        referral = referral_of(query, self._secret)
        enrolment = self._store.enrol(study, participant, consent_version, referral, self._turnstile.newcomer)
        return Part(token_of(enrolment.participant_id, self._secret), enrolment)

    def part(self, study: str, token: str) -> Enrolment:
        """How far this person is; InputError when they do not take part."""
        found = self._store.enrolment(study, self._participant(token))
        if found is None:
            raise InputError(f"This participant does not take part in the study {study!r}; agree to it first.")
        return found

    def next_pair(self, study: str, token: str, held: str = "") -> StudyPair | None:
        """What comes next (after the ballot `held`, which is on the screen); None when that was all."""
        ballot = self._store.next_study_ballot(study, self._participant(token), held or None)
        if ballot is None:
            return None
        left, right = (
            self._store.media.path(sha256, ballot.media_type).read_bytes()
            for sha256 in (ballot.left_media_sha256, ballot.right_media_sha256)
        )
        return StudyPair(ballot, left, right, ballot.media_type)

    def answer(self, ballot_id: str, token: str, choice: str, response_time_s: float | None) -> StudyAnswer:
        """Records, or changes, an answer; no names are told."""
        with voting("study"):
            participant = self._participant(token)
            self._turnstile.vote(participant)
            return self._store.answer(ballot_id, participant, cast(Choice, choice), response_time_s)

    def take_back(self, ballot_id: str, token: str) -> int:
        """Takes an answer back, so that the pair is asked about again; returns how many, 0 where there was none."""
        with counting_refusals():
            return self._store.take_back(ballot_id, self._participant(token))

    def showable_media(self, score: PromptScore) -> tuple[bytes, str] | None:
        """The picture or clip of a variant on a comparison, unless people may still be asked about it blind."""
        if self._store.is_in_open_study(score.comparison_id):
            return None
        made = self._store.comparison(score.comparison_id)
        found = next((generation for generation in made if generation.variant == score.variant), None)
        return None if found is None else (self._store.media_path(found).read_bytes(), found.media_type)

    def withdraw(self, study: str, token: str) -> int:
        """Takes all of this person's answers back; returns how many."""
        return self._store.withdraw(study, self._participant(token))

    def report_fault(self, study: str, token: str, what: str, ballot_id: str = "") -> None:
        """Notes something that went wrong on our side."""
        self._store.report_fault(study, self._participant(token), str(what), str(ballot_id) or None)

    def _participant(self, token: Any) -> str:
        participant = participant_of(token, self._secret)
        if participant is None:
            raise RefusedError("This participant token was not issued here; join the study again.", "forged_token")
        return participant
