"""The part of the Store that runs a study: its pool, who takes part, what they are asked, what they answer."""

from __future__ import annotations

import secrets
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from itertools import combinations
from typing import Any, Final, cast

from sqlalchemy import Text, case, func, literal, select, update
from sqlalchemy.orm import Session

from collection import queries
from collection.casting import BALLOT_LIFE, new_ballot, record_votes
from collection.checks import check_one_of
from collection.comparisons import count_ballots, note_comparisons
from collection.database import Database
from collection.design import (
    TRAINING_BALLOTS,
    Asked,
    Candidate,
    Item,
    choose_check,
    choose_pair,
    choose_repeat,
    first_stands_left,
    schedule,
    seeded,
)
from collection.errors import InputError, RefusedError
from collection.faults import patient
from collection.models import (
    AssignmentRow,
    BallotRow,
    EnrolmentRow,
    FaultRow,
    GenerationRow,
    ParticipantRow,
    StudyItemRow,
    StudyPairRow,
    StudyRow,
    VoteRow,
    new_id,
    now,
    require_participant,
)
from collection.plan import StudyPlan, plan_as_json, plan_of
from collection.quality import Answer, Quality, broken_rule, quality_of
from collection.records import (
    AssignmentKind,
    BallotKind,
    Choice,
    Enrolment,
    Generation,
    NewBallot,
    Referral,
    Role,
    StudyAnswer,
    StudyBallot,
    StudyItem,
    StudyProgress,
)
from collection.tallies import counted, lock_participants

OPEN_FOR: Final = timedelta(minutes=15)  # how long an unanswered ballot keeps its pair from others
CODE_LETTERS: Final = "ABCDEFGHJKMNPQRSTUVWXYZ23456789"  # none that look alike
LONGEST_FAULT: Final = 500
PAIRS_PER_ITEM: Final = 1000  # room for pair numbers


class Studies(Database):
    """Studies, enrolments and their ballots."""

    # The study and its pool

    @patient(repeatable=False)
    def create_study(self, plan: StudyPlan, items: Sequence[Item]) -> None:
        """Makes a study; its plan never changes afterwards. InputError when the name is taken."""
        with self.writing() as session:
            if session.get(StudyRow, plan.name) is not None:
                raise InputError(f"There is a study {plan.name!r} already; choose another name.")
            session.add(StudyRow(name=plan.name, plan=plan_as_json(plan)))
            session.flush()
            session.add_all(
                StudyItemRow(
                    study=plan.name,
                    number=item.number,
                    kind=item.kind,
                    prompt=item.prompt.text,
                    category=item.prompt.category,
                    seed=item.seed,
                )
                for item in items
            )

    def study_plan(self, name: str) -> StudyPlan:
        """What was decided about a study; InputError when unknown."""
        with self.reading() as session:
            return _plan(session, name)

    @patient(repeatable=True)
    def close_study(self, name: str, closed: bool = True) -> None:
        """Stops (or resumes) giving out ballots; answers to those given out still count."""
        with self.writing() as session:
            _study(session, name).closed_at = now() if closed else None

    def open_study(self) -> str | None:
        """The newest study that people can take part in now."""
        with self.reading() as session:
            rows = session.scalars(select(StudyRow).order_by(StudyRow.created_at.desc(), StudyRow.name))
            return next((row.name for row in rows if _closed(row) is None), None)

    def why_closed(self, name: str) -> str | None:
        """One sentence why nobody can take part now, None when people can."""
        with self.reading() as session:
            return _closed(_study(session, name))

    def is_in_open_study(self, comparison_id: str) -> bool:
        """Whether these pictures belong to a study that people can still take part in."""
        with self.reading() as session:
            name = session.scalar(select(StudyItemRow.study).where(StudyItemRow.comparison_id == comparison_id))
            return name is not None and _closed(_study(session, name)) is None

    def items_to_fill(self, study: str) -> list[StudyItem]:
        """The items without pictures, in the order in which they should be made."""
        with self.reading() as session:
            _study(session, study)
            rows = session.scalars(
                select(StudyItemRow)
                .where(StudyItemRow.study == study, StudyItemRow.comparison_id.is_(None))
                .order_by(StudyItemRow.number)
            )
            return [StudyItem(row.id, study, row.number, cast(Any, row.kind), row.prompt, row.seed) for row in rows]

    @patient(repeatable=False)
    def fill_item(self, item_id: str, generations: Sequence[Generation]) -> bool:
        """Keeps an item's pictures and makes the pairs that people are asked about, all or nothing.

        Every two generations make a pair; of a training or check item the first generation is the better one.
        False, and nothing is kept, when another process filled the item meanwhile.
        """
        for generation in generations:
            self.media.write(cast(bytes, generation.media), generation.media_sha256, generation.media_type)
        with self.writing() as session:
            item = session.get(StudyItemRow, item_id, with_for_update=True)
            if item is None:
                raise InputError(f"There is no study item {item_id!r}; it may belong to another database.")
            if item.comparison_id is not None:
                return False
            rows = [GenerationRow.from_record(generation) for generation in generations]
            item.comparison_id = rows[0].comparison_id
            session.add_all(rows)
            note_comparisons(session, {item.comparison_id})
            session.add_all(_pairs(item, rows))
        return True

    def study_versions(self, study: str) -> dict[Role, tuple[str, str]]:
        """role -> (id, sha256) of the adapters that the study's pictures are made with; empty before the first."""
        with self.reading() as session:
            made = session.scalar(
                select(GenerationRow)
                .join(StudyItemRow, StudyItemRow.comparison_id == GenerationRow.comparison_id)
                .where(StudyItemRow.study == study)
                .limit(1)
            )
            if made is None:
                return {}
            found: tuple[tuple[Role, str | None, str | None], ...] = (
                ("aligned", made.aligned_id, made.aligned_sha256),
                ("negative", made.negative_id, made.negative_sha256),
            )
            return {role: (identity, sha256) for role, identity, sha256 in found if identity and sha256}

    def study_progress(self, name: str | None = None) -> list[StudyProgress]:
        """How far each study (or one of them) is, newest first."""
        with self.reading() as session:
            rows = session.scalars(select(StudyRow).order_by(StudyRow.created_at.desc(), StudyRow.name))
            return [_progress(session, row) for row in rows if name in (None, row.name)]

    # Taking part

    @patient(repeatable=False)
    def enrol(
        self,
        study: str,
        participant_id: str | None,
        consent_version: str,
        referral: Referral | None = None,
    ) -> Enrolment:
        """Lets a person take part who agreed to `consent_version`; somebody known takes part on as before.

        Known by the participant id (None: a new one is made) or by the platform's worker. Raises InputError when the
        study takes nobody, or the consent is not the present one.
        """
        with self.writing() as session:
            row = _study(session, study, lock=True)
            plan = plan_of(row.plan)
            known = _known_enrolment(session, study, participant_id, referral)
            if known is not None:
                return _enrolment(session, known, plan)
            closed = _closed(row)
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
                person = ParticipantRow(id=new_id())
                session.add(person)
                session.flush()
                participant_id = person.id
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
            row = _known_enrolment(session, study, participant_id, None)
            return None if row is None else _enrolment(session, row, _plan(session, study))

    def participant_of_code(self, code_or_id: str) -> str:
        """The participant behind the code that a study gave them (or their id itself); InputError when unknown."""
        with self.reading() as session:
            found = session.scalar(select(EnrolmentRow.participant_id).where(EnrolmentRow.code == code_or_id.upper()))
            if found is None and session.get(ParticipantRow, code_or_id) is None:
                raise InputError(f"There is no participant {code_or_id!r}; give a participant's id or code.")
            return found or code_or_id

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
            row = _study(session, study)
            plan = plan_of(row.plan)
            asked = _asked(session, enrolled.id)
            waiting = next((ballot for ballot in asked if not ballot.answered and ballot.ballot_id != held), None)
            if waiting is None:
                new = None if _closed(row) else _give_out(session, plan, enrolled, asked)
                if new is None:
                    if all(ballot.answered for ballot in asked):
                        _finish(session, plan, enrolled)
                    return None
                return _view(session, plan, new)
            return _view(session, plan, _renewed(session, waiting))

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
            place = session.get(AssignmentRow, ballot_id) if isinstance(ballot_id, str) else None
            if place is None:
                raise RefusedError(
                    f"The ballot {ballot_id!r} belongs to no study; ask for a new ballot.", "unknown_ballot"
                )
            plan = _plan(session, place.study)
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
                right = choice == _right_side(session, place)
            return StudyAnswer(ballot_id, choice, right)

    def is_study_ballot(self, ballot_id: str) -> bool:
        """Whether this ballot is answered with `answer`."""
        with self.reading() as session:
            return session.get(AssignmentRow, ballot_id) is not None

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

    def study_quality(self, study: str) -> dict[str, tuple[Quality, str | None]]:
        """participant -> (what their answers look like, which rule they break, None for none), by today's answers."""
        with self.reading() as session:
            plan = _plan(session, study)
            return {
                person: (quality, broken_rule(quality, plan.quality))
                for person, quality in _qualities(session, study).items()
            }

    @patient(repeatable=True)
    def apply_quality(self, study: str, enforce: bool = True) -> dict[str, str]:
        """Flags exactly the people who break the study's rule (nobody, without `enforce`); returns their reasons.

        It may be repeated and undone: flags given by hand stay, nothing is deleted.
        """
        with self.writing() as session:
            plan = _plan(session, study)
            people = session.scalars(select(EnrolmentRow.participant_id).where(EnrolmentRow.study == study)).all()
            for some in queries.batched(people):
                lock_participants(session, some)
            qualities = _qualities(session, study) if enforce else {}
            found = {person: broken_rule(quality, plan.quality) for person, quality in qualities.items()}
            reasons = {person: reason for person, reason in found.items() if reason is not None}
            _flag(session, study, {person: reasons.get(person) for person in people})
            return reasons


def _study(session: Session, name: str, lock: bool = False) -> StudyRow:
    row = (
        session.get(StudyRow, name, with_for_update={"key_share": True} if lock else None)
        if isinstance(name, str)
        else None
    )
    if row is None:
        raise InputError(f"There is no study {name!r}; `python -m collection study list` shows them.")
    return row


def _plan(session: Session, name: str) -> StudyPlan:
    return plan_of(_study(session, name).plan)


def _closed(row: StudyRow) -> str | None:
    deadline = plan_of(row.plan).deadline
    if row.closed_at is not None:
        return f"The study {row.name!r} is closed; thank you for your interest."
    if deadline is not None and now() > deadline:
        return f"The study {row.name!r} ended on {deadline:%Y-%m-%d %H:%M} UTC; thank you for your interest."
    return None


def _pairs(item: StudyItemRow, generations: Sequence[GenerationRow]) -> list[StudyPairRow]:
    """Every two of an item's pictures, in an order that depends on what they show and not on who made them."""
    better = generations[0].id
    in_order = sorted(generations, key=lambda row: (row.media_sha256, row.id))
    return [
        StudyPairRow(
            study=item.study,
            item_id=item.id,
            number=item.number * PAIRS_PER_ITEM + place,
            kind=item.kind,
            first_generation_id=first.id,
            second_generation_id=second.id,
            right_answer=None if item.kind == "normal" else "first" if first.id == better else "second",
        )
        for place, (first, second) in enumerate(combinations(in_order, 2))
        if first.media_sha256 != second.media_sha256  # nobody can tell two equal pictures apart
    ]


def _progress(session: Session, row: StudyRow) -> StudyProgress:
    plan = plan_of(row.plan)

    def count(table: type[Any], *which: Any) -> int:
        return session.scalar(select(func.count()).select_from(table).where(table.study == row.name, *which)) or 0

    normal = StudyPairRow.kind == "normal"
    votes = select(func.coalesce(func.sum(StudyPairRow.votes), 0)).where(StudyPairRow.study == row.name)
    return StudyProgress(
        name=row.name,
        items=count(StudyItemRow),
        items_filled=count(StudyItemRow, StudyItemRow.comparison_id.is_not(None)),
        pairs=count(StudyPairRow, normal),
        pairs_done=count(StudyPairRow, normal, StudyPairRow.votes >= plan.votes_per_pair),
        votes=session.scalar(votes) or 0,
        participants=count(EnrolmentRow),
        finished=count(EnrolmentRow, EnrolmentRow.finished_at.is_not(None)),
        withdrawn=count(EnrolmentRow, EnrolmentRow.withdrawn_at.is_not(None)),
        flagged=count(EnrolmentRow, EnrolmentRow.flag.is_not(None)),
        faults=count(FaultRow),
        deadline=plan.deadline,
        closed_at=row.closed_at,
        created_at=row.created_at,
    )


def _known_enrolment(
    session: Session, study: str, participant_id: str | None, referral: Referral | None
) -> EnrolmentRow | None:
    """By the platform's worker first: one person on two devices is one person."""
    found = None
    if referral is not None:
        found = session.scalar(
            select(EnrolmentRow).where(EnrolmentRow.study == study, EnrolmentRow.worker_hash == referral.worker_hash)
        )
    if found is None and referral is None and participant_id is not None:
        found = session.scalar(
            select(EnrolmentRow).where(EnrolmentRow.study == study, EnrolmentRow.participant_id == participant_id)
        )
    return found


def _taking_part(session: Session, study: str, participant_id: str, lock: bool = False) -> EnrolmentRow:
    if lock:
        lock_participants(session, [participant_id])
    row = session.scalar(
        select(EnrolmentRow).where(EnrolmentRow.study == study, EnrolmentRow.participant_id == participant_id)
    )
    if row is None:
        raise InputError(f"This participant does not take part in the study {study!r}; agree to it first.")
    if row.withdrawn_at is not None:
        raise InputError("You have withdrawn from this study; your answers do not count any more.")
    return row


def _enrolment(session: Session, row: EnrolmentRow, plan: StudyPlan) -> Enrolment:
    answered = sum(ballot.answered and ballot.kind != "training" for ballot in _asked(session, row.id))
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


def _asked(session: Session, enrolment_id: str) -> list[Asked]:
    """Everything this person was given, in order."""
    rows = session.execute(
        select(AssignmentRow, VoteRow.choice)
        .outerjoin(VoteRow, VoteRow.ballot_id == AssignmentRow.ballot_id)
        .where(AssignmentRow.enrolment_id == enrolment_id)
        .order_by(AssignmentRow.number)
    ).all()
    repeated = {row.repeat_of for row, _ in rows}
    return [
        Asked(
            row.ballot_id,
            row.pair_id,
            row.number,
            cast(AssignmentKind, row.kind),
            answered=choice is not None,
            skipped=choice == "skip",
            repeated=row.ballot_id in repeated,
        )
        for row, choice in rows
    ]


def _give_out(session: Session, plan: StudyPlan, enrolled: EnrolmentRow, asked: Sequence[Asked]) -> Asked | None:
    """Decides on, and stores, the person's next ballot; None when there is none."""
    kinds = schedule(plan, seeded(plan.seed, "schedule", enrolled.number))
    number = len(asked) + 1
    if number > len(kinds):
        return None
    rng = seeded(plan.seed, "choice", enrolled.number, number)
    kind, pair_id, original = kinds[number - 1], None, None
    seen = {ballot.pair_id for ballot in asked}
    if kind == "repeat":
        original = choose_repeat(asked, rng)
        pair_id = original.pair_id if original else None
    elif kind != "normal":
        known = select(StudyPairRow.id).where(StudyPairRow.study == plan.name, StudyPairRow.kind == kind)
        pair_id = choose_check(session.scalars(known.order_by(StudyPairRow.number)).all(), seen, rng)
    if pair_id is None:
        kind = "normal"
        pair_id = _least_voted(session, plan, seen, rng)
    if pair_id is None:
        return None
    pair = session.get_one(StudyPairRow, pair_id)
    first_left = first_stands_left(plan.seed, enrolled.number, pair.number)
    if original is not None:
        first_left = session.get_one(BallotRow, original.ballot_id).left_generation_id != pair.first_generation_id
    sides = (pair.first_generation_id, pair.second_generation_id)
    ballot = new_ballot(
        session,
        NewBallot(
            sides[0] if first_left else sides[1],
            sides[1] if first_left else sides[0],
            enrolled.participant_id,
            kind="check" if kind == "training" else kind,
            study=plan.name,
        ),
    )
    session.add(ballot)
    session.flush()
    count_ballots(session, {ballot.comparison_id: 1})
    session.add(
        AssignmentRow(
            ballot_id=ballot.id,
            study=plan.name,
            enrolment_id=enrolled.id,
            pair_id=pair_id,
            number=number,
            kind=kind,
            repeat_of=original.ballot_id if original else None,
        )
    )
    session.flush()
    return Asked(ballot.id, pair_id, number, kind, answered=False)


def _renewed(session: Session, waiting: Asked) -> Asked:
    """The same question on a fresh ballot, where the one that was given out has expired unanswered."""
    old = session.get_one(BallotRow, waiting.ballot_id)
    if now() - old.created_at <= BALLOT_LIFE:
        return waiting
    sides = (old.left_generation_id, old.right_generation_id)
    fresh = new_ballot(session, NewBallot(*sides, old.participant_id, kind=cast(BallotKind, old.kind), study=old.study))
    session.add(fresh)
    session.flush()
    count_ballots(session, {fresh.comparison_id: 1})
    place = session.get_one(AssignmentRow, old.id)
    place.ballot_id, place.created_at = fresh.id, now()
    session.flush()
    return replace(waiting, ballot_id=fresh.id)


def _least_voted(session: Session, plan: StudyPlan, seen: set[str], rng: Any) -> str | None:
    rows = session.execute(
        select(StudyPairRow.id, StudyPairRow.item_id, StudyPairRow.votes)
        .where(
            StudyPairRow.study == plan.name,
            StudyPairRow.kind == "normal",
            StudyPairRow.votes < plan.votes_per_pair,
        )
        .order_by(StudyPairRow.number)
    ).all()
    waiting: Counter[str] = Counter(
        session.scalars(
            select(AssignmentRow.pair_id)
            .outerjoin(VoteRow, VoteRow.ballot_id == AssignmentRow.ballot_id)
            .where(
                AssignmentRow.study == plan.name,
                AssignmentRow.kind == "normal",
                AssignmentRow.created_at > now() - OPEN_FOR,
                VoteRow.id.is_(None),
            )
        )
    )
    seen_items = set(session.scalars(select(StudyPairRow.item_id).where(StudyPairRow.id.in_(seen))))
    candidates = [Candidate(row.id, row.item_id, row.votes, waiting[row.id]) for row in rows if row.id not in seen]
    return choose_pair(candidates, seen_items, plan.votes_per_pair, plan.random_share, rng)


def _view(session: Session, plan: StudyPlan, ballot: Asked) -> StudyBallot:
    shown = session.execute(queries.ballot_views().where(BallotRow.id == ballot.ballot_id)).one()
    training = TRAINING_BALLOTS if plan.training else 0
    number = max(0, ballot.number - training)
    rest = plan.break_every > 0 and number > 1 and (number - 1) % plan.break_every == 0
    return StudyBallot(
        *shown,
        number=number,
        total=plan.ballots_per_participant,
        training=ballot.kind == "training",
        rest_first=rest,
    )


def _right_side(session: Session, place: AssignmentRow) -> str | None:
    pair = session.get_one(StudyPairRow, place.pair_id)
    better = pair.first_generation_id if pair.right_answer == "first" else pair.second_generation_id
    return "left" if session.get_one(BallotRow, place.ballot_id).left_generation_id == better else "right"


def _finish(session: Session, plan: StudyPlan, enrolled: EnrolmentRow) -> None:
    """Notes that a person is through, and looks at their answers while the study still runs."""
    if enrolled.finished_at is None:
        enrolled.finished_at = now()
    person = enrolled.participant_id
    quality = _qualities(session, plan.name, person).get(person)
    _flag(session, plan.name, {person: broken_rule(quality, plan.quality) if quality else None})


def _flag(session: Session, study: str, reasons: Mapping[str, str | None]) -> None:
    """Flags people's votes in a study with the rules they break (None: none); a flag given by hand comes first."""
    session.flush()
    of_study = EnrolmentRow.study == study
    known = dict(session.execute(select(EnrolmentRow.participant_id, EnrolmentRow.flag).where(of_study)).tuples().all())
    changed = sorted(person for person, reason in reasons.items() if known[person] != reason)
    for some in queries.batched(changed):
        with counted(session, some, study=study):
            for person in some:
                session.execute(
                    update(EnrolmentRow)
                    .where(of_study, EnrolmentRow.participant_id == person)
                    .values(flag=reasons[person])
                )
                by_hand = select(ParticipantRow.flag).where(ParticipantRow.id == person).scalar_subquery()
                session.execute(
                    update(VoteRow)
                    .where(VoteRow.study == study, VoteRow.participant_id == person)
                    .values(flag=func.coalesce(by_hand, literal(reasons[person], Text)))
                )


def _qualities(session: Session, study: str, participant_id: str | None = None) -> dict[str, Quality]:
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
