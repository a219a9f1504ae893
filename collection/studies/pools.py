"""The part of the Store that holds studies and their pools of pictures."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any, Final, cast

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from collection.database.connection import Database
from collection.database.faults import patient
from collection.database.models import EnrolmentRow, FaultRow, GenerationRow, StudyItemRow, StudyPairRow, StudyRow, now
from collection.errors import InputError
from collection.studies.assignment import Item
from collection.studies.beginnings import Beginning, beginning_of, find_beginning, with_more
from collection.studies.study_config import StudyPlan, plan_as_json, plan_of
from collection.types import ROLES, Generation, Role, StudyItem, StudyProgress
from collection.votes.comparisons import note_comparisons

PAIRS_PER_ITEM: Final = 1000  # room for pair numbers


class StudyPools(Database):
    """Studies, what they show, and how far they are."""

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
            return find_plan(session, name)

    @patient(repeatable=True)
    def close_study(self, name: str, closed: bool = True) -> None:
        """Stops (or resumes) giving out ballots; answers to those given out still count."""
        with self.writing() as session:
            find_study(session, name).closed_at = now() if closed else None

    def open_study(self) -> str | None:
        """The newest study that people can take part in now."""
        return next(iter(self.open_studies()), None)

    def open_studies(self) -> tuple[str, ...]:
        """The studies that people can take part in now, newest first."""
        with self.reading() as session:
            rows = session.scalars(select(StudyRow).order_by(StudyRow.created_at.desc(), StudyRow.name))
            return tuple(row.name for row in rows if why_closed(row) is None)

    def why_closed(self, name: str) -> str | None:
        """One sentence why nobody can take part now, None when people can."""
        with self.reading() as session:
            return why_closed(find_study(session, name))

    def is_in_open_study(self, comparison_id: str) -> bool:
        """Whether these pictures belong to a study that people can still take part in."""
        with self.reading() as session:
            name = session.scalar(select(StudyItemRow.study).where(StudyItemRow.comparison_id == comparison_id))
            return name is not None and why_closed(find_study(session, name)) is None

    def items_to_fill(self, study: str) -> list[StudyItem]:
        """The items without pictures, in the order in which they should be made."""
        with self.reading() as session:
            find_study(session, study)
            rows = session.scalars(
                select(StudyItemRow)
                .where(StudyItemRow.study == study, StudyItemRow.comparison_id.is_(None))
                .order_by(StudyItemRow.number)
            )
            return [StudyItem(row.id, study, row.number, cast(Any, row.kind), row.prompt, row.seed) for row in rows]

    @patient(repeatable=False)
    def fill_item(self, item_id: str, generations: Sequence[Generation], base_sha256: str | None = None) -> bool:
        """Keeps an item's pictures and makes the pairs that people are asked about, all or nothing.

        base_sha256: of the base model that made them. With a study's first pictures it is kept what they were made
        with; InputError for others that were made with something else.

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
            _begin(session, item.study, beginning_of(generations, base_sha256))
            rows = [GenerationRow.from_record(generation) for generation in generations]
            item.comparison_id = rows[0].comparison_id
            session.add_all(rows)
            note_comparisons(session, {item.comparison_id})
            session.add_all(_pairs(item, rows))
        return True

    def study_beginning(self, study: str) -> Beginning | None:
        """What the study's pictures are made with; None before the first."""
        with self.reading() as session:
            return find_beginning(session, find_study(session, study))

    def study_versions(self, study: str) -> dict[Role, tuple[str, str]]:
        """role -> (id, sha256) of the adapters that the study's pictures are made with; empty before the first."""
        began = self.study_beginning(study)
        makers = list(began["variants"].values()) if began else []
        return {role: (pair[0], pair[1]) for role in ROLES for maker in makers[:1] if (pair := maker[role])}

    def study_progress(self, name: str | None = None) -> list[StudyProgress]:
        """How far each study (or one of them) is, newest first."""
        with self.reading() as session:
            rows = session.scalars(select(StudyRow).order_by(StudyRow.created_at.desc(), StudyRow.name))
            return [_progress(session, row) for row in rows if name in (None, row.name)]


def find_study(session: Session, name: str, lock: bool = False) -> StudyRow:
    row = (
        session.get(StudyRow, name, with_for_update={"key_share": True} if lock else None)
        if isinstance(name, str)
        else None
    )
    if row is None:
        raise InputError(f"There is no study {name!r}; `python -m collection study list` shows them.")
    return row


def _begin(session: Session, study: str, now: Beginning) -> None:
    """Keeps what a study's first pictures were made with; InputError for something else afterwards."""
    row = find_study(session, study, lock=True)  # processes that fill it at once take turns
    began = with_more(study, find_beginning(session, row), now)
    if row.began_with != began:
        row.began_with = began


def find_plan(session: Session, name: str) -> StudyPlan:
    return plan_of(find_study(session, name).plan)


def why_closed(row: StudyRow) -> str | None:
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
