"""A new negative model against an older one, in a blind study, with one command.

    python -m service.versus npo-may --new ADAPTER_ID                       # against the one in use before it
    python -m service.versus npo-may --new ADAPTER_ID --old ADAPTER_ID --prompts prompts.txt --max-prompts 40

Makes the study and all its pictures: aligned + NPO with either version, from the same noise. The page Vote of the app
then asks about them, and `python -m collection stats` and the page Results tell who wins. Stopped and started again it
goes on with what is missing. `python -m collection adapters list` shows the ids. Exit status 2: the input was wrong.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from collection.database.connection import DEFAULT_DATA_DIR, DEFAULT_URL
from collection.store import Store
from collection.studies.assignment import plan_items
from collection.studies.prompts import load_prompts
from collection.studies.study_config import StudyPlan, plan_of
from collection.types import AdapterRecord, Generation, StudyItem
from npo_core.catalog.custom_families import add_families
from npo_core.console import exit_status, hush_libraries
from npo_core.generator import Generator
from service.errors import INPUT_ERRORS, InputError
from service.generation.adapters_in_use import SHIPPED_NAME, AdapterShelf
from service.pregenerate import records_of, request_of

VARIANT = "aligned_npo"
SIDES = ("old", "new")


def names_of() -> tuple[str, str]:
    """What the two contenders are called in the study, the older one first."""
    old, new = (f"{VARIANT}_{side}" for side in SIDES)
    return old, new


def make_versus(store: Store, plan: StudyPlan) -> None:
    """Makes the study of `plan` unless it is there; InputError where the name is taken by another one."""
    if plan.name not in {study.name for study in store.study_progress()}:
        store.create_study(plan, plan_items(plan, load_prompts(plan.prompts)))
    elif store.study_plan(plan.name).variants != names_of():
        raise InputError(f"There is a study {plan.name!r} of something else; choose another name.")


def fill(store: Store, generator: Generator, study: str, versions: dict[str, str]) -> int:
    """Draws what the study lacks with both versions (side -> version id of the shelf); returns how many items."""
    plan, shelf = store.study_plan(study), AdapterShelf(store, generator)
    items = store.items_to_fill(study)
    for item in items:
        store.fill_item(item.id, _pictures(generator, shelf, plan, item, versions))
    return len(items)


def _pictures(
    generator: Generator, shelf: AdapterShelf, plan: StudyPlan, item: StudyItem, versions: dict[str, str]
) -> list[Generation]:
    """One picture a version under one comparison id; of checks and training the newer one and its degraded copy."""
    request = request_of(item, replace(plan, variants=(VARIANT,)))
    records: list[Generation] = []
    for side, name in zip(SIDES, names_of(), strict=True):
        if item.kind != "normal" and side == "old":
            continue
        shelf.put_on({"negative": versions[side]})
        made = records_of(item, generator.generate(request))
        shared = records[0].comparison_id if records else made[0].comparison_id
        records += [
            replace(each, comparison_id=shared, variant=name if each.variant == VARIANT else each.variant)
            for each in made
        ]
    return records


def older_than(store: Store, new: AdapterRecord) -> str:
    """The version that was put to use before `new`, or is in use where `new` never was; the shipped one else."""
    chain = [adapter.id for adapter in store.promoted(new.family, new.role, new.modality)]
    before = chain[chain.index(new.id) + 1 :] if new.id in chain else chain
    return next((adapter_id for adapter_id in before if adapter_id), f"{new.family}-{new.role}")


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m service.versus", description="Put a new negative model into a blind study against an older one."
    )
    add = parser.add_argument
    add("study", help="the name of the study to make")
    add("--new", required=True, metavar="ID", help="of the adapter to try")
    add("--old", metavar="ID", help="of the one to try it against (the one in use before it)")
    add("--prompts", default="emoji", help="a bundled list or a text file (%(default)s)")
    add("--max-prompts", type=int, default=40, help="(%(default)s)")
    add("--votes-per-pair", type=int, default=5, help="(%(default)s)")
    add("--database-url", default=os.environ.get("NPO_DATABASE_URL", DEFAULT_URL), help="(%(default)s)")
    add("--data-dir", default=os.environ.get("NPO_DATA_DIR", DEFAULT_DATA_DIR), help="(%(default)s)")
    return parser


def run(options: argparse.Namespace) -> None:
    """Does what `options` ask for; raises InputError."""
    add_families(os.environ.get("NPO_FAMILIES"))
    hush_libraries()
    with Store(options.database_url, options.data_dir, create=False) as store:
        new = store.get_adapter(options.new)
        if new.role != "negative" or new.modality != "image":
            raise InputError(f"{new.name} is no negative model for pictures; give the id of one.")
        old = options.old or older_than(store, new)
        plan = plan_of(
            {
                "name": options.study,
                "variants": list(names_of()),
                "prompts": options.prompts,
                "family": new.family,
                "max_prompts": options.max_prompts,
                "votes_per_pair": options.votes_per_pair,
            }
        )
        make_versus(store, plan)
        made = fill(store, Generator(new.family), options.study, {"old": old, "new": options.new})
        told = SHIPPED_NAME if old == f"{new.family}-{new.role}" else old
        print(f"{made} items made: {new.name} against {told}. Open the page Vote of the app.")


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = build_parser().parse_args(arguments)
    try:
        return exit_status(partial(run, options))
    except INPUT_ERRORS as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
