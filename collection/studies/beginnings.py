"""What a study's pictures are made with. It is kept with the first of them, and no other picture is taken in that was
made with anything else: a study is about one base, one pair of adapters, one set of settings."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from collection.database.models import GenerationRow, StudyItemRow, StudyRow
from collection.errors import InputError
from collection.types import ROLES, Generation

SETTINGS: Final = (
    *("negative_prompt", "steps", "guidance_scale", "alpha", "beta", "scheduler"),
    *("width_px", "height_px", "frames", "fps"),
)

Beginning = dict[str, Any]
"""{"base": sha256 or None where it is not known, "variants": {variant: {setting or role: value}}}. The value of a role
is [id, sha256] of its adapter, or None."""


def beginning_of(made: Sequence[Generation | GenerationRow], base_sha256: str | None) -> Beginning:
    """What pictures were made with, by their variants."""
    return {"base": base_sha256, "variants": {each.variant: _maker(each) for each in made}}


def _maker(made: Generation | GenerationRow) -> dict[str, Any]:
    adapters = {"aligned": (made.aligned_id, made.aligned_sha256), "negative": (made.negative_id, made.negative_sha256)}
    return {name: getattr(made, name) for name in SETTINGS} | {
        role: list(pair) if all(pair) else None for role, pair in adapters.items()
    }


def find_beginning(session: Session, study: StudyRow) -> Beginning | None:
    """What the study began with, None before its first picture. One from before this was kept tells it by its pictures,
    and nothing of the base."""
    if study.began_with is not None:
        return study.began_with
    of_study = select(StudyItemRow.comparison_id).where(StudyItemRow.study == study.name)
    one_each = select(func.min(GenerationRow.id)).where(GenerationRow.comparison_id.in_(of_study))
    ids = one_each.group_by(GenerationRow.variant)
    made = session.scalars(select(GenerationRow).where(GenerationRow.id.in_(ids))).all()
    return beginning_of(made, None) if made else None


def with_more(study: str, began: Beginning | None, now: Beginning) -> Beginning:
    """`began` with the variants that come with `now`. Raises InputError, which names the first difference, where what
    both tell of is not the same."""
    if began is None:
        return now
    for what, before, after in _compared(began, now):
        if before != after:
            raise InputError(
                f"The study {study!r} began with {what} {before}, and its other pictures would be made with {after}; "
                "put that back, or make another study."
            )
    return {"base": began["base"] or now["base"], "variants": now["variants"] | began["variants"]}


def _compared(began: Beginning, now: Beginning) -> Iterator[tuple[str, Any, Any]]:
    if began["base"] is not None and now["base"] is not None:
        yield "the base model", began["base"], now["base"]
    for variant in sorted(began["variants"].keys() & now["variants"].keys()):
        before, after = began["variants"][variant], now["variants"][variant]
        for name in SETTINGS:
            yield name, before[name], after[name]
        for role in ROLES:
            yield f"the {role} adapter", *((each[role] or [None, None])[1] for each in (before, after))
