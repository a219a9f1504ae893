"""The part of the Store for those who take part in a study: who they are, what they are asked, what they answer."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Final, cast

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from collection.database.faults import patient
from collection.database.models import (
    AssignmentRow,
    EnrolmentRow,
    FaultRow,
    ParticipantRow,
    VoteRow,
    new_id,
    now,
    require_participant,
)
from collection.database.people import is_outside_name, people_named
from collection.errors import InputError, RefusedError
from collection.studies.ballots import everything_asked, give_out, renewed, right_side, view_of
from collection.studies.flagging import StudyQuality, flag_by_rule, qualities_in
from collection.studies.pools import StudyPools, find_plan, find_study, why_closed
from collection.studies.quality import broken_rule
from collection.studies.study_config import StudyPlan, plan_of
from collection.types import Choice, Enrolment, Referral, StudyAnswer, StudyBallot
from collection.validate import check_one_of
from collection.votes.casting import record_votes
from collection.votes.vote_counts import counted, lock_participants

CODE_LETTERS: Final = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"  # none that look alike
LONGEST_FAULT: Final = 500


class Studies(StudyPools, StudyQuality):
    """Studies, enrolments and their ballots."""

    @patient(repeatable=False)
    def enrol(
        self,
        study: str,
        participant_id: str | None,
        consent_version: str,
        referral: Referral | None = None,
        admit: Callable[[], None] = lambda: None,
    ) -> Enrolment:
        """Lets a person take part who agreed to `consent_version`; somebody known takes part on as before.

        participant_id: who the browser was last time, None for nobody. Of two workers of a platform in one browser each
        is a person, and a worker's part is gone on with by who began it only: a platform's id is no secret.
        admit: called before a new participant is written down; what it raises is raised.
        Raises InputError when the study takes nobody, or the consent is not the present one, RefusedError for a worker
        whose part belongs to somebody else.
        """
        with self.writing() as session:
            row = find_study(session, study, lock=True)  # those who join at once take turns
            plan = plan_of(row.plan)
            known = _enrolment_of(session, study, participant_id)
            if referral is not None:
                theirs = _enrolment_of_worker(session, study, referral)
                if theirs is not None and theirs is not known:
                    raise RefusedError(
                        "With this id somebody takes part already; go on in the browser in which it was begun.",
                        "not_yours",
                    )
                if theirs is None and (known is not None or not _came_as(session, participant_id, referral)):
                    known, participant_id = None, None  # the browser was somebody else's before
            if known is not None:
                return _enrolment(session, known, plan)
            closed = why_closed(row)
            if closed is not None:
                raise InputError(closed)
            if consent_version != plan.consent_version:
                raise InputError(
                    f"Consent to version {consent_version!r} was given, but the text is version "
                    f"{plan.consent_version!r}; read it and agree again."
                )
            number = 1 + (session.scalar(select(func.max(EnrolmentRow.number)).where(EnrolmentRow.study == study)) or 0)
            if plan.max_participants is not None and number > plan.max_participants:
                raise InputError(f"The study {study!r} has all its {plan.max_participants} participants; thank you.")
            if participant_id is None:
                admit()
                participant_id = _newcomer(session)
            require_participant(session, participant_id)
            enrolled = EnrolmentRow(
                study=study,
                participant_id=participant_id,
                number=number,
                code=_new_code(),
                consent_version=consent_version,
                consented_at=now(),
                **(vars(referral) if referral else {}),
            )
            session.add(enrolled)
            session.flush()
            return _enrolment(session, enrolled, plan)

    def enrolment(self, study: str, participant_id: str) -> Enrolment | None:
        """A person's part in a study, None when they did not agree to take part."""
        with self.reading() as session:
            row = _enrolment_of(session, study, participant_id)
            return None if row is None else _enrolment(session, row, find_plan(session, study))

    def participant_of_code(self, code_or_id: str) -> str:
        """The participant behind the code that a study gave them (or their id itself); InputError when unknown."""
        with self.reading() as session:
            found = session.scalar(select(EnrolmentRow.participant_id).where(EnrolmentRow.code == code_or_id.upper()))
            if found is None and session.get(ParticipantRow, code_or_id) is not None:
                return code_or_id
            if found is None and is_outside_name(code_or_id):
                found = next(people_named(session, {code_or_id}), None)
            if found is None:
                raise InputError(f"There is no participant {code_or_id!r}; give their id, code, or name in an export.")
            return found

    def studies_of(self, participant_id: str) -> list[str]:
        """The studies in which this person takes part and has not withdrawn."""
        with self.reading() as session:
            own = (EnrolmentRow.participant_id == participant_id, EnrolmentRow.withdrawn_at.is_(None))
            return list(session.scalars(select(EnrolmentRow.study).where(*own).order_by(EnrolmentRow.study)))

    @patient(repeatable=True)
    def next_study_ballot(self, study: str, participant_id: str, held: str | None = None) -> StudyBallot | None:
        """What this person is asked next; None when that was all.

        An unanswered ballot is shown again rather than another one given out, except `held`, the one on the screen
        while the next is fetched ahead.
        """
        with self.writing() as session:
            enrolled = _taking_part(session, study, participant_id, lock=True)
            row = find_study(session, study)
            plan = plan_of(row.plan)
            asked = everything_asked(session, enrolled.id)
            waiting = next((ballot for ballot in asked if not ballot.answered and ballot.ballot_id != held), None)
            if waiting is None:
                new = None if why_closed(row) else give_out(session, plan, enrolled, asked)
                if new is None:
                    if all(ballot.answered for ballot in asked):
                        _finish(session, plan, enrolled)
                    return None
                return view_of(session, plan, new)
            return view_of(session, plan, renewed(session, waiting))

    @patient(repeatable=True)
    def answer(
        self, ballot_id: str, participant_id: str, choice: Choice, response_time_s: float | None = None
    ) -> StudyAnswer:
        """Records, or changes, the answer to a study's ballot; on the disk when this returns.

        Raises InputError for a choice that the study does not offer or a person who has withdrawn, RefusedError for a
        ballot that is not this person's, was open for too long, or was given out less than the study's shortest look
        ago.
        """
        with self.writing() as session:
            place = _place_of(session, ballot_id)
            plan = find_plan(session, place.study)
            check_one_of("choice", choice, plan.choices)
            _taking_part(session, place.study, participant_id, lock=True)
            if (now() - place.created_at).total_seconds() < plan.min_view_s:
                raise RefusedError(
                    f"The answer came before the pair could be seen; look for {plan.min_view_s:g} s at least.",
                    "too_early",
                )
            record_votes(session, [(ballot_id, choice)], participant_id, response_time_s, in_study=True)
            right = None
            if place.kind == "training":
                right = choice == right_side(session, place)
            return StudyAnswer(ballot_id, choice, right)

    @patient(repeatable=True)
    def take_back(self, ballot_id: str, participant_id: str) -> int:
        """Takes the answer to a study's ballot back, so that it is asked again; returns how many, 0 or 1.

        Raises InputError for a person who has withdrawn, RefusedError for a ballot that is not this person's.
        """
        with self.writing() as session:
            place = _place_of(session, ballot_id)
            enrolled = _taking_part(session, place.study, participant_id, lock=True)
            if place.enrolment_id != enrolled.id:
                raise RefusedError(
                    f"The ballot {ballot_id!r} was not issued to this participant; ask for a new ballot.", "not_yours"
                )
            own = (VoteRow.ballot_id == ballot_id, VoteRow.withdrawn.is_(False))
            with counted(session, [participant_id], ballot_ids=[ballot_id]):
                changed = session.execute(update(VoteRow).where(*own).values(withdrawn=True, changed_at=now()))
            return cast(Any, changed).rowcount

    @patient(repeatable=False)
    def withdraw(self, study: str, participant_id: str) -> int:
        """Takes back all of a person's answers in a study, for good; returns how many. Nothing is deleted."""
        with self.writing() as session:
            enrolled = _taking_part(session, study, participant_id, lock=True)
            enrolled.withdrawn_at = now()
            own = (VoteRow.participant_id == participant_id, VoteRow.study == study)
            with counted(session, [participant_id], study=study):
                changed = session.execute(
                    update(VoteRow).where(*own, VoteRow.withdrawn.is_(False)).values(withdrawn=True, changed_at=now())
                )
            return cast(Any, changed).rowcount

    @patient(repeatable=False)
    def report_fault(self, study: str, participant_id: str, what: str, ballot_id: str | None = None) -> None:
        """Notes something that went wrong on our side, so that it is not held against the person."""
        with self.writing() as session:
            _taking_part(session, study, participant_id)
            session.add(
                FaultRow(study=study, participant_id=participant_id, ballot_id=ballot_id, what=what[:LONGEST_FAULT])
            )

    # Quality


def _newcomer(session: Session) -> str:
    """The id of a participant written down now."""
    person = ParticipantRow(id=new_id())
    session.add(person)
    session.flush()
    return person.id


def _enrolment_of(session: Session, study: str, participant_id: str | None) -> EnrolmentRow | None:
    return session.scalar(
        select(EnrolmentRow).where(EnrolmentRow.study == study, EnrolmentRow.participant_id == participant_id)
    )


def _enrolment_of_worker(session: Session, study: str, referral: Referral) -> EnrolmentRow | None:
    return session.scalar(
        select(EnrolmentRow).where(EnrolmentRow.study == study, EnrolmentRow.worker_hash == referral.worker_hash)
    )


def _place_of(session: Session, ballot_id: str) -> AssignmentRow:
    place = session.get(AssignmentRow, ballot_id) if isinstance(ballot_id, str) else None
    if place is None:
        raise RefusedError(f"The ballot {ballot_id!r} belongs to no study; ask for a new ballot.", "unknown_ballot")
    return place


def _came_as(session: Session, participant_id: str | None, referral: Referral) -> bool:
    """Whether this person takes part in another study as this worker."""
    theirs = (EnrolmentRow.participant_id == participant_id, EnrolmentRow.worker_hash == referral.worker_hash)
    return session.scalar(select(EnrolmentRow.id).where(*theirs).limit(1)) is not None


def _taking_part(session: Session, study: str, participant_id: str, lock: bool = False) -> EnrolmentRow:
    if lock:
        lock_participants(session, [participant_id])
    row = _enrolment_of(session, study, participant_id)
    if row is None:
        raise InputError(f"This participant does not take part in the study {study!r}; agree to it first.")
    if row.withdrawn_at is not None:
        raise InputError("You have withdrawn from this study; your answers do not count any more.")
    return row


def _enrolment(session: Session, row: EnrolmentRow, plan: StudyPlan) -> Enrolment:
    answered = sum(ballot.answered and ballot.kind != "training" for ballot in everything_asked(session, row.id))
    return Enrolment(
        study=row.study,
        participant_id=row.participant_id,
        number=row.number,
        code=row.code,
        consent_version=row.consent_version,
        consented_at=row.consented_at,
        answered=answered,
        total=plan.ballots_per_participant,
        finished_at=row.finished_at,
        withdrawn_at=row.withdrawn_at,
    )


def _new_code() -> str:
    letters = [secrets.choice(CODE_LETTERS) for _ in range(10)]
    return f"{''.join(letters[:5])}-{''.join(letters[5:])}"


def _finish(session: Session, plan: StudyPlan, enrolled: EnrolmentRow) -> None:
    """Notes that a person is through, and looks at their answers while the study still runs."""
    if enrolled.finished_at is None:
        enrolled.finished_at = now()
    person = enrolled.participant_id
    quality = qualities_in(session, plan.name, person).get(person)
    flag_by_rule(session, plan.name, {person: broken_rule(quality, plan.quality) if quality else None})
