"""The part of the Store that looks at how carefully people answered, and flags those who break a study's rule."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import cast

from sqlalchemy import Text, case, func, literal, select, update
from sqlalchemy.orm import Session

from collection.database import sql
from collection.database.connection import Database
from collection.database.faults import patient
from collection.database.models import AssignmentRow, BallotRow, EnrolmentRow, ParticipantRow, StudyPairRow, VoteRow
from collection.studies.pools import find_plan
from collection.studies.quality import Answer, Quality, broken_rule, quality_of
from collection.types import Choice
from collection.votes.vote_counts import counted, lock_participants


class StudyQuality(Database):
    """Rules on the answers of a study, applied and taken back."""

    def study_quality(self, study: str) -> dict[str, tuple[Quality, str | None]]:
        """participant -> (what their answers look like, which rule they break, None for none), by today's answers."""
        with self.reading() as session:
            plan = find_plan(session, study)
            return {
                person: (quality, broken_rule(quality, plan.quality))
                for person, quality in qualities_in(session, study).items()
            }

    @patient(repeatable=True)
    def apply_quality(self, study: str, enforce: bool = True) -> dict[str, str]:
        """Flags exactly the people who break the study's rule (nobody, without `enforce`); returns their reasons.

        It may be repeated and undone: flags given by hand stay, nothing is deleted.
        """
        with self.writing() as session:
            plan = find_plan(session, study)
            people = session.scalars(select(EnrolmentRow.participant_id).where(EnrolmentRow.study == study)).all()
            for some in sql.batched(people):
                lock_participants(session, some)
            qualities = qualities_in(session, study) if enforce else {}
            found = {person: broken_rule(quality, plan.quality) for person, quality in qualities.items()}
            reasons = {person: reason for person, reason in found.items() if reason is not None}
            flag_by_rule(session, study, {person: reasons.get(person) for person in people})
            return reasons


def flag_by_rule(session: Session, study: str, reasons: Mapping[str, str | None]) -> None:
    """Flags people's votes in a study with the rules they break (None: none); a flag given by hand comes first."""
    session.flush()
    of_study = EnrolmentRow.study == study
    for some in sql.batched(sorted(reasons)):
        own = select(EnrolmentRow.participant_id, EnrolmentRow.flag).where(
            of_study, EnrolmentRow.participant_id.in_(some)
        )
        changed = [person for person, flag in session.execute(own).tuples() if reasons[person] != flag]
        if changed:
            _change_flags(session, study, {person: reasons[person] for person in sorted(changed)})


def _change_flags(session: Session, study: str, reasons: Mapping[str, str | None]) -> None:
    with counted(session, list(reasons), study=study):
        for person, reason in reasons.items():
            session.execute(
                update(EnrolmentRow)
                .where(EnrolmentRow.study == study, EnrolmentRow.participant_id == person)
                .values(flag=reason)
            )
            by_hand = select(ParticipantRow.flag).where(ParticipantRow.id == person).scalar_subquery()
            session.execute(
                update(VoteRow)
                .where(VoteRow.study == study, VoteRow.participant_id == person)
                .values(flag=func.coalesce(by_hand, literal(reason, Text)))
            )


def qualities_in(session: Session, study: str, participant_id: str | None = None) -> dict[str, Quality]:
    """What the answers of everybody, or of one person, in a study look like."""
    better_is_left = case(
        (StudyPairRow.right_answer == "first", BallotRow.left_generation_id == StudyPairRow.first_generation_id),
        else_=BallotRow.left_generation_id == StudyPairRow.second_generation_id,
    )
    rows = session.execute(
        select(
            *(VoteRow.participant_id, VoteRow.choice, VoteRow.response_time_s),
            *(AssignmentRow.ballot_id, AssignmentRow.kind, AssignmentRow.repeat_of, better_is_left),
        )
        .join(AssignmentRow, AssignmentRow.ballot_id == VoteRow.ballot_id)
        .join(BallotRow, BallotRow.id == VoteRow.ballot_id)
        .join(StudyPairRow, StudyPairRow.id == AssignmentRow.pair_id)
        .where(
            VoteRow.study == study,
            VoteRow.withdrawn.is_(False),
            AssignmentRow.kind != "training",
            *([VoteRow.participant_id == participant_id] if participant_id else []),
        )
    ).all()
    choice_on = {row.ballot_id: cast(Choice, row.choice) for row in rows}
    answers: dict[str, list[Answer]] = defaultdict(list)
    for person, choice, response_time_s, _ballot, kind, repeat_of, left_is_better in rows:
        right = choice == ("left" if left_is_better else "right") if kind == "check" else None
        answers[person].append(Answer(choice, response_time_s, right, choice_on.get(repeat_of)))
    return {person: quality_of(given) for person, given in answers.items()}
