"""One row for each comparison: what `next_ballot` chooses from, at a cost that does not depend on how many votes or
ballots there are.

Kept right by whoever stores generations (`note_comparisons`) and whoever issues or deletes ballots (`count_ballots`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sqlalchemy import ColumnElement, Select, and_, func, literal, select, update
from sqlalchemy.orm import Session

from collection.database.dialects import insert_or_change
from collection.database.models import BallotRow, ComparisonRow, GenerationRow, StudyItemRow


def note_comparisons(session: Session, comparison_ids: Collection[str], *, workbench: bool = False) -> None:
    """Makes or refreshes the rows of these comparisons, whose generations were just stored."""
    session.flush()
    new = insert_or_change(session.get_bind().dialect.name, ComparisonRow).from_select(
        ["id", "family", "modality", "judgeable", "ballots", "workbench"],
        _comparisons(GenerationRow.comparison_id.in_(comparison_ids), workbench),
    )
    changed = {name: new.excluded[name] for name in ("family", "modality")}
    changed |= {"judgeable": and_(new.excluded.judgeable, ComparisonRow.workbench.is_(False))}
    session.connection().execute(new.on_conflict_do_update(index_elements=["id"], set_=changed))


def set_workbench_apart(session: Session, comparison_ids: Collection[str]) -> None:
    """Marks those of these comparisons about which somebody was asked not blind: a file says no more of who chose the
    seed."""
    not_blind = select(BallotRow.comparison_id).where(
        BallotRow.comparison_id.in_(comparison_ids), BallotRow.blind.is_(False), BallotRow.study.is_(None)
    )
    session.execute(
        update(ComparisonRow).where(ComparisonRow.id.in_(not_blind)).values(workbench=True, judgeable=False),
        execution_options={"synchronize_session": False},
    )


def count_ballots(session: Session, issued: Mapping[str, int]) -> None:
    """Adds these numbers of ballots (comparison -> number, negative for deleted ones)."""
    for comparison_id, number in sorted(issued.items()):  # in one order everywhere, see tallies.py
        session.connection().execute(
            update(ComparisonRow)
            .where(ComparisonRow.id == comparison_id)
            .values(ballots=ComparisonRow.ballots + number)
        )


def wrong_comparisons(session: Session) -> list[str]:
    """Where these rows say something else than the generations and ballots, a sentence each."""
    issued = select(BallotRow.comparison_id, func.count()).group_by(BallotRow.comparison_id)
    ballots = dict(session.execute(issued).tuples().all())
    made = session.execute(_comparisons(GenerationRow.id.is_not(None)))
    workbench = set(session.scalars(select(ComparisonRow.id).where(ComparisonRow.workbench)))
    real = {row[0]: (*row[1:3], row[3] and row[0] not in workbench, ballots.get(row[0], 0)) for row in made}
    columns = (ComparisonRow.family, ComparisonRow.modality, ComparisonRow.judgeable, ComparisonRow.ballots)
    kept = {row[0]: tuple(row[1:]) for row in session.execute(select(ComparisonRow.id, *columns))}
    return [
        f"The row of comparison {comparison} has {kept.get(comparison)} in place of {real.get(comparison)}."
        for comparison in sorted(kept.keys() | real.keys())
        if kept.get(comparison) != real.get(comparison)
    ]


def _comparisons(which: ColumnElement[bool], workbench: bool = False) -> Select[str, str, str, bool, int, bool]:
    """The rows that generations make, without ballots: judgeable are two variants of the same prompt and noise that
    look different, so none that were made elsewhere, whose noise is not known; never a study's, for an answer on its
    pictures elsewhere would tell their names, and never the workbench's, whose pictures whoever made them may have seen
    under their names."""
    in_studies = select(StudyItemRow.comparison_id).where(StudyItemRow.comparison_id.is_not(None))
    same = (GenerationRow.prompt, GenerationRow.seed, GenerationRow.family, GenerationRow.modality)
    judgeable = and_(
        literal(not workbench),
        func.count(GenerationRow.variant.distinct()) > 1,
        func.count(GenerationRow.media_sha256.distinct()) > 1,
        *(func.min(column) == func.max(column) for column in same),
        func.min(GenerationRow.seed) >= 0,
        GenerationRow.comparison_id.not_in(in_studies),
    )
    return (
        select(
            GenerationRow.comparison_id,
            func.min(GenerationRow.family).label("family"),
            func.min(GenerationRow.modality).label("modality"),
            judgeable.label("judgeable"),
            literal(0),
            literal(workbench),
        )
        .where(which)
        .group_by(GenerationRow.comparison_id)
    )
