"""Looks after the votes: python -m collection COMMAND

COMMAND is one of init, stats, export, import, study, participants, adapters, backup, copy-to, verify

Every command takes --database-url and --data-dir. Exit codes: 0 done, 1 `verify` found problems or a copy lacks files
that are missing here, 2 wrong input.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from collection.database.connection import DEFAULT_DATA_DIR, DEFAULT_URL
from collection.database.faults import shown
from collection.errors import InputError
from collection.formats.exporters import EXPORTERS, FOR_TRAINING, IMPORTERS, Counted, format_of
from collection.formats.hub import push_erased, push_to_hub
from collection.statistics.report import as_json, as_text
from collection.statistics.summary import summarise
from collection.store import Store
from collection.studies.commands import add_study_commands
from collection.types import ROLES
from collection.votes.contenders import POOLS

Command = Callable[[argparse.Namespace], int]
MODALITY_NAMES = {"image": "pictures", "video": "clips"}


def init(args: argparse.Namespace) -> int:
    """Create the database, or upgrade an older one."""
    with _open(args, create=True) as store:
        print(f"The database {shown(store.url)} is ready.")
    return 0


def stats(args: argparse.Namespace) -> int:
    """Show how many votes there are and what they say."""
    with _open(args) as store:
        if args.study is not None:
            store.study_plan(args.study)  # a typo should not read as "no votes"
        summary = summarise(store, args.family, args.modality, args.study, args.pool)
        by_prompt = store.vote_counts_by_prompt(args.family, args.modality, args.study) if args.json else {}
    if args.json:
        counts = {prompt: [count._asdict() for count in counts] for prompt, counts in by_prompt.items()}
        print(json.dumps(as_json(summary) | {"by_prompt": counts}, indent=2))
    else:
        print(as_text(summary))
    return 0


def export(args: argparse.Namespace) -> int:
    """Write the votes to a file, or for splits to a folder."""
    with _open(args) as store:
        if args.study is not None:
            store.study_plan(args.study)  # a typo should not read as "no votes"
        modality = args.modality or ("image" if args.format in FOR_TRAINING else None)
        found = Counted(store.exported_votes(args.family, args.study, modality))
        written = EXPORTERS[args.format](found, store.media, args.out)
        left_out = _left_out(store, args, modality)
    print(f"Wrote {written} votes to {args.out}.")
    if found.number > written:
        print(
            f"Left out {found.number - written} votes that do not count, or order no pair where this format needs it."
        )
    for other, number in left_out.items():
        print(f"Left out {number} blind votes on {MODALITY_NAMES[other]}; --modality {other} writes those.")
    if args.push_to_hub:
        print(f"Uploaded them to {push_to_hub(args.out, args.push_to_hub, public=args.public)}.")
    return 0


def _left_out(store: Store, args: argparse.Namespace, modality: str | None) -> dict[str, int]:
    """How many votes an export of `modality` leaves out for being on another one; nothing where it takes all."""
    others = [] if modality is None else [other for other in MODALITY_NAMES if other != modality]
    numbers = {
        other: sum(count.total for count in store.vote_counts(args.family, other, study=args.study)) for other in others
    }
    return {other: number for other, number in numbers.items() if number}


def import_(args: argparse.Namespace) -> int:
    """Take in exported votes, or those of Pick-a-Pic and FastChat; what is there already stays as it is."""
    read = IMPORTERS[args.format or format_of(args.file)]
    with _open(args, create=True) as store:
        print(store.import_votes(partial(read, args.file)))
    return 0


def erase(args: argparse.Namespace) -> int:
    """Delete a participant with their votes and the pictures they asked for; this cannot be undone."""
    with _open(args) as store:
        if store.was_erased(args.id):
            name = store.outside_name(args.id)
            print(f"{name} was erased before.")
        else:
            person = store.participant_of_code(args.id)
            name, report = store.outside_name(person), store.erase_participant(person)
            print(f"Erased {report.votes} votes, {report.ballots} ballots and {report.generations} generations.")
            if report.generations_kept:
                print(f"{report.generations_kept} generations stay because other participants were asked about them.")
        if args.hub_dataset:
            push_erased(store.erased_people(), args.hub_dataset, name)
            print(f"The data set {args.hub_dataset} knows; a running app takes their votes out of it within minutes.")
    print(
        "Backups and exports made earlier still hold these records: delete them. What is imported, copied or put back"
    )
    print("from them here leaves these records out.")
    return 0


def withdraw(args: argparse.Namespace) -> int:
    """Take back all answers that a participant gave in studies; nothing is deleted."""
    with _open(args) as store:
        participant = store.participant_of_code(args.id)
        votes = sum(store.withdraw(study, participant) for study in store.studies_of(participant))
    print(f"Took back {votes} votes.")
    return 0


def flag(args: argparse.Namespace) -> int:
    """Leave a participant's votes out of every count; nothing is deleted."""
    with _open(args) as store:
        votes = store.flag_participant(store.participant_of_code(args.id), args.reason)
    print(f"Flagged {votes} votes.")
    return 0


def unflag(args: argparse.Namespace) -> int:
    """Let a flagged participant's votes count again."""
    with _open(args) as store:
        votes = store.flag_participant(store.participant_of_code(args.id), None)
    print(f"{votes} votes count again.")
    return 0


def adapters(args: argparse.Namespace) -> int:
    """List the trained adapters, put one to use, take that back, or tell where one comes from."""
    with _open(args) as store:
        ADAPTER_ACTIONS[args.action](store, args)
    return 0


def promote_adapter(store: Store, args: argparse.Namespace) -> None:
    """adapters promote ID"""
    adapter = store.promote(_adapter_id(args))
    print(f"In use now: {adapter.name}. A running app follows at its next picture.")


def roll_back_adapter(store: Store, args: argparse.Namespace) -> None:
    """adapters rollback --family FAMILY --role ROLE"""
    if args.family is None or args.role is None:
        raise InputError("Rolling back needs to know what; give --family and --role.")
    adapter = store.roll_back(args.family, args.role, args.modality or "image")
    print(f"In use now: {adapter.name if adapter else 'the one that ships with the family'}.")


def tell_lineage(store: Store, args: argparse.Namespace) -> None:
    """adapters lineage ID"""
    lineage = store.lineage(_adapter_id(args))
    print(f"{lineage.adapter.name}  ({lineage.adapter.path})")
    if lineage.run is None:
        print("Nothing is known of its training.")
        return
    print(f"trained {lineage.run.created_at:%Y-%m-%d %H:%M} on {len(lineage.run.vote_ids)} votes or rows")
    print(f"the pictures were made with: {', '.join(lineage.parents) or 'no adapter of this database'}")
    if "aligned_id" in lineage.run.config:
        beside = lineage.run.config
        print(f"trained beside the aligned model {beside['aligned_id']} (sha256 {beside['aligned_sha256']})")
    settings = ("loss", "beta_dpo", "max_train_steps", "batch_size", "learning_rate", "rank", "seed")
    print(", ".join(f"{name} {lineage.run.config[name]}" for name in settings if name in lineage.run.config))


def _adapter_id(args: argparse.Namespace) -> str:
    if args.id is None:
        raise InputError(f"Which adapter should be meant by {args.action}? Give its id; `adapters` lists them.")
    return str(args.id)


def list_adapters(store: Store, args: argparse.Namespace) -> None:
    """adapters list"""
    found = store.adapters(args.family, args.role, args.modality)
    kinds = {(adapter.family, adapter.role, adapter.modality) for adapter in found}
    in_use = {promoted[0].id for kind in kinds if (promoted := store.promoted(*kind))}
    for adapter in found:
        mark = "  (in use)" if adapter.id in in_use else ""
        what = f"{adapter.family}  {adapter.role:<8}  {adapter.name}{mark}"
        print(f"{adapter.id}  {adapter.created_at:%Y-%m-%d %H:%M}  {what}")
        print(f"  {adapter.path}  sha256 {adapter.sha256}")
    if not found:
        print("No adapter is registered; `python -m train.npo --from-db` trains one from the votes.")


ADAPTER_ACTIONS: dict[str, Callable[[Store, argparse.Namespace], None]] = {
    "list": list_adapters,
    "promote": promote_adapter,
    "rollback": roll_back_adapter,
    "lineage": tell_lineage,
}


def backup(args: argparse.Namespace) -> int:
    """Copy the database, while in use, and what belongs to it to a folder: media, adapters, the signing secret."""
    problems: list[str] = []
    with _open(args) as store:
        target = store.backup(args.folder, problems.append)
    print(f"Backed up to {target}.")
    return _told(problems)


def copy_to(args: argparse.Namespace) -> int:
    """Copy everything to another database, all or nothing, and check it; made again it brings what changed."""
    problems: list[str] = []
    with _open(args) as store, Store(args.url, args.to_data_dir or args.data_dir) as target:
        store.copy_to(target, print, problems.append)
    print(f"{shown(target.url)} holds the same. Set NPO_DATABASE_URL to it.")
    return _told(problems)


def _told(problems: Sequence[str]) -> int:
    """Says which files no copy can have; returns the exit code."""
    for problem in problems:
        print(f"error: {problem}", file=sys.stderr)
    return 1 if problems else 0


def verify(args: argparse.Namespace) -> int:
    """Check the database and its media files; exit code 1 when something is wrong."""
    with _open(args) as store:
        problems = store.verify()
    print("\n".join(problems) if problems else "The database and its media files are sound.")
    return 1 if problems else 0


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    parser = argparse.ArgumentParser(prog="python -m collection", description="Looks after the votes.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_command(commands, "init", init)

    command = add_command(commands, "stats", stats)
    command.add_argument("--family", help="only this model family")
    command.add_argument("--modality", help="only this modality: image or video")
    command.add_argument("--study", help="only this study")
    command.add_argument(
        "--pool",
        nargs="+",
        choices=list(POOLS),
        default=[],
        help="count together what differs in these alone; default: every version and setting for itself",
    )
    command.add_argument("--json", action="store_true", help="print JSON instead of text")

    command = add_command(commands, "export", export)
    command.add_argument("--format", choices=list(EXPORTERS), default="jsonl", help="default: jsonl")
    command.add_argument("--out", type=Path, required=True, help="the file to write, or for trainers the folder")
    command.add_argument("--family", help="only this model family")
    command.add_argument("--study", help="only this study")
    command.add_argument(
        "--modality",
        choices=list(MODALITY_NAMES),
        help=f"only votes on pictures or on clips; default: all, but for {' and '.join(FOR_TRAINING)} image",
    )
    command.add_argument(
        "--push-to-hub", metavar="OWNER/NAME", help="upload it as this data set of the Hugging Face Hub"
    )
    command.add_argument("--public", action="store_true", help="make a new data set readable by everybody")

    command = add_command(commands, "import", import_)
    command.add_argument("file", type=Path, help="a file written by export, Pick-a-Pic's Parquet or FastChat's lines")
    command.add_argument("--format", choices=list(IMPORTERS), help="default: what the file's content looks like")

    add_study_commands(commands, add_command)

    participants = commands.add_parser("participants", help="Erase, withdraw or flag a participant.")
    people = participants.add_subparsers(required=True, metavar="COMMAND")
    for name, run in {"erase": erase, "withdraw": withdraw, "flag": flag, "unflag": unflag}.items():
        add_command(people, name, run).add_argument("id", help="the participant's id, or the code a study gave them")
    people.choices["erase"].add_argument(
        "--hub-dataset",
        metavar="OWNER/NAME",
        default=os.environ.get("NPO_HUB_DATASET"),
        help="a data set on the Hub that keeps the votes, to be told before this ends; default: NPO_HUB_DATASET",
    )
    people.choices["flag"].add_argument("reason", help="why, for whoever looks at it later")

    command = add_command(commands, "adapters", adapters)
    command.add_argument("action", nargs="?", choices=list(ADAPTER_ACTIONS), default="list", help="default: list")
    command.add_argument("id", nargs="?", help="of the adapter to promote, or to tell the lineage of")
    command.add_argument("--modality", help="only those for image or video")
    command.add_argument("--family", help="only this model family")
    command.add_argument("--role", choices=ROLES, help="only this role")

    command = add_command(commands, "backup", backup)
    command.add_argument("folder", type=Path, help="where to put npo.db (PostgreSQL: npo.dump) and media/")
    command = add_command(commands, "copy-to", copy_to)
    command.add_argument("url", help="of the other database: postgresql://user@host/name, sqlite:///file")
    command.add_argument("--to-data-dir", help="copy the media files there too; default: they stay where they are")
    add_command(commands, "verify", verify)
    return parser


def add_command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str, run: Command
) -> argparse.ArgumentParser:
    """A subcommand whose help is the docstring of the function that runs it."""
    command = commands.add_parser(name, help=run.__doc__, description=run.__doc__)
    command.set_defaults(run=run)
    command.add_argument(
        "--database-url",
        default=os.environ.get("NPO_DATABASE_URL", DEFAULT_URL),
        help=f"default: NPO_DATABASE_URL or {DEFAULT_URL}",
    )
    command.add_argument(
        "--data-dir",
        default=os.environ.get("NPO_DATA_DIR", DEFAULT_DATA_DIR),
        help=f"where media files lie; default: NPO_DATA_DIR or {DEFAULT_DATA_DIR}",
    )
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit code."""
    args = build_parser().parse_args(argv)
    try:
        code: int = args.run(args)
        sys.stdout.flush()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # whoever read the lines, such as `head`, has had enough of them
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code


def _open(args: argparse.Namespace, create: bool = False) -> Store:
    return Store(args.database_url, args.data_dir, create=create)


if __name__ == "__main__":
    sys.exit(main())
