"""python -m collection study {create,list,quality,close,reopen}"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from collection.store import Store
from collection.studies.assignment import plan_items
from collection.studies.prompts import read_prompts
from collection.studies.study_config import read_plan
from collection.types import StudyProgress

AddCommand = Callable[..., argparse.ArgumentParser]


def create(args: argparse.Namespace) -> int:
    """Make a study from a TOML file; its pictures are made with `python -m service.pregenerate NAME`."""
    plan = read_plan(args.file)
    prompts, account = read_prompts(plan.prompts)
    items = plan_items(plan, prompts)
    with _store(args, create=True) as store:
        store.create_study(plan, items)
    pictures = sum(len(plan.variants) if item.kind == "normal" else 2 for item in items)
    print(
        f"The prompts have {account}.\n"
        f"The study {plan.name} has {len(items)} items, {pictures} {plan.modality}s to make. "
        f"Next: python -m service.pregenerate {plan.name}"
    )
    return 0


def list_studies(args: argparse.Namespace) -> int:
    """Show every study and how far it is."""
    with _store(args) as store:
        studies = store.study_progress()
    if args.json:
        print(json.dumps([asdict(study) for study in studies], indent=2, default=str))
    else:
        print("\n".join(map(_line, studies)) or "There is no study; `python -m collection study create` makes one.")
    return 0


def quality(args: argparse.Namespace) -> int:
    """Show whose answers break the study's rule, and with --apply leave exactly those out of every count."""
    with _store(args) as store:
        found = store.study_quality(args.name)
        if args.apply or args.clear:
            store.apply_quality(args.name, enforce=not args.clear)
    for person, (told, reason) in sorted(found.items(), key=lambda entry: entry[1][1] or ""):
        print(f"{person}  {told.votes} votes, {reason or 'sound'}")
    flagged = sum(reason is not None for _, reason in found.values())
    done = "cleared all flags" if args.clear else "flagged them" if args.apply else "nothing changed, see --apply"
    print(f"{flagged} of {len(found)} participants break the rule; {done}.")
    return 0


def close(args: argparse.Namespace) -> int:
    """Give out no more ballots; answers to those given out still count."""
    with _store(args) as store:
        store.close_study(args.name)
    print(f"The study {args.name} is closed.")
    return 0


def reopen(args: argparse.Namespace) -> int:
    """Give out ballots again."""
    with _store(args) as store:
        store.close_study(args.name, closed=False)
    print(f"The study {args.name} is open.")
    return 0


def add_study_commands(commands: argparse._SubParsersAction[argparse.ArgumentParser], add_command: AddCommand) -> None:
    """Adds `study` and what follows it."""
    study = commands.add_parser("study", help="Make a study, follow it, end it.")
    add = study.add_subparsers(required=True, metavar="COMMAND")
    add_command(add, "create", create).add_argument("file", type=Path, help="a study.toml")
    add_command(add, "list", list_studies).add_argument("--json", action="store_true", help="print JSON")
    judge = add_command(add, "quality", quality)
    judge.add_argument("name", help="the study")
    what = judge.add_mutually_exclusive_group()
    what.add_argument("--apply", action="store_true", help="flag who breaks the rule, unflag who does not")
    what.add_argument("--clear", action="store_true", help="undo --apply")
    for name, run in {"close": close, "reopen": reopen}.items():
        add_command(add, name, run).add_argument("name", help="the study")


def _line(study: StudyProgress) -> str:
    state = "closed" if study.closed_at else "open"
    if study.items_filled < study.items:
        state = f"{study.items - study.items_filled} of {study.items} items to make"
    faults = f", {study.faults} faults on our side" if study.faults else ""
    return (
        f"{study.name}: {state}; {study.pairs_done} of {study.pairs} pairs have their votes ({study.votes} votes); "
        f"{study.participants} participants, {study.finished} finished, {study.withdrawn} withdrew, "
        f"{study.flagged} flagged{faults}"
    )


def _store(args: argparse.Namespace, create: bool = False) -> Store:
    return Store(args.database_url, args.data_dir, create=create)
