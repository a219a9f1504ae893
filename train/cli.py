"""The command behind train.npo and train.dpo: gather pairs, say what will happen, train, register.

The two differ in one thing: for the negative model the pairs are reversed.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from collection.database import DEFAULT_DATA_DIR, DEFAULT_URL
from collection.errors import InputError as CollectionInputError
from collection.records import AdapterRecord, TrainingRun
from collection.store import Store
from npo_core.adapters import ADAPTER_FILE_NAME, Role
from npo_core.console import hush_libraries
from npo_core.errors import InputError
from npo_core.families import FAMILIES, ModelFamily, get_family
from train.config import LR_SCHEDULES, PRECISIONS, SWITCH, TARGETS, TrainConfig, check_config, fastest_precision
from train.data import TIE_POLICY, PairSet, from_store, reverse_pairs
from train.losses import LOSSES
from train.records import prepare_folder, read_sources

METHODS: dict[Role, str] = {"negative": "NPO", "aligned": "DPO"}

PASSES = 16  # how often each pick is seen by default: fewer hardly show, many more learn the picks by heart
FEWEST_STEPS, MOST_STEPS = 60, 1000


@dataclass(frozen=True)
class Job:
    """What one command will do, before anything slow begins."""

    config: TrainConfig
    family: ModelFamily
    found: PairSet  # as people picked them, not reversed
    name: str


def run_command(role: Role, arguments: Sequence[str] | None = None) -> int:
    """Runs train.npo (role negative) or train.dpo (role aligned); returns the exit status."""
    options = build_parser(role).parse_args(arguments)
    try:
        train(role, options)
    except (InputError, CollectionInputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130  # as shells report Ctrl+C
    return 0


def build_parser(role: Role) -> argparse.ArgumentParser:
    """The same flags for both commands; defaults are those of TrainConfig."""
    command, defaults = METHODS[role].lower(), {entry.name: entry.default for entry in fields(TrainConfig)}
    what = "the negative model from reversed picks" if role == "negative" else "the aligned model from picks"
    parser = argparse.ArgumentParser(prog=f"python -m train.{command}", description=f"Train {what}.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--from-db", action="store_true", help="train on the picks in the database")
    source.add_argument("--dataset", metavar="PATH_OR_HUB_ID", help="train on a data set with Pick-a-Pic's columns")
    _add_source_flags(parser)
    _add_training_flags(parser, defaults)
    return parser


def _add_source_flags(parser: argparse.ArgumentParser) -> None:
    environment = os.environ
    add = parser.add_argument_group("what to train on, and where to").add_argument
    add("--family", default=environment.get("NPO_FAMILY", "emoji"), help=f"one of {', '.join(FAMILIES)} (%(default)s)")
    add("--database-url", default=environment.get("NPO_DATABASE_URL", DEFAULT_URL), help="(%(default)s)")
    add("--data-dir", type=Path, default=Path(environment.get("NPO_DATA_DIR", DEFAULT_DATA_DIR)), help="(%(default)s)")
    add("--output-dir", type=Path, help="folder for the adapter (a new one in DATA_DIR/adapters)")
    add("--name", help="what the app calls this version (says how many picks, and when)")
    add("--study", help="only the picks of this study")
    add("--include-open", action="store_true", help="also picks made while the names were visible")
    add("--min-pairs", type=int, default=20, help="refuse to train on fewer (%(default)s)")
    add("--max-pairs", type=int, help="of a data set, use only so many")
    add("--split", default="train", help="of a data set on the Hub (%(default)s)")
    add("--dry-run", action="store_true", help="say what would be trained on and stop")


def _add_training_flags(parser: argparse.ArgumentParser, defaults: dict[str, Any]) -> None:
    group = parser.add_argument_group("how to train")

    def add(name: str, text: str, kind: type = str) -> None:
        default = defaults[name.replace("-", "_")]
        shown = "" if default is None else f" ({default})"
        group.add_argument(f"--{name}", type=kind, default=default, metavar=kind.__name__.upper(), help=text + shown)

    group.add_argument("--max-train-steps", type=int, metavar="INT", help="by default chosen by the number of pairs")
    add("batch-size", "pairs a step, over all processes", int)
    add("gradient-accumulation-steps", "split each batch into so many parts, to save memory", int)
    add("learning-rate", "of AdamW", float)
    add("lr-schedule", f"one of {', '.join(LR_SCHEDULES)}")
    add("loss", f"one of {', '.join(LOSSES)}")
    add("beta-dpo", "how closely to stay with the base: higher is closer", float)
    add("rank", "of the LoRA", int)
    add("targets", f"layers with a LoRA, one of {', '.join(TARGETS)}")
    add("caption-dropout", "share of pairs trained on the empty prompt", float)
    add("seed", "of noise, timesteps and order", int)
    group.add_argument(
        "--mixed-precision",
        default="auto",
        metavar="STR",
        help=f"one of {', '.join(PRECISIONS)}, or auto: the fastest that this machine computes natively (auto)",
    )
    add("device", "cpu, or the GPU if there is one")
    add("checkpoint-every", "steps between checkpoints", int)
    add("gradient-checkpointing", f"less memory, a third more time: one of {', '.join(SWITCH)}")
    group.add_argument("--resume", action="store_true", help="go on with the interrupted run in --output-dir")


def default_steps(pair_count: int, batch_size: int) -> int:
    """PASSES over the pairs, within bounds: a few dozen picks take a minute or two on two CPU cores."""
    return min(MOST_STEPS, max(FEWEST_STEPS, math.ceil(PASSES * pair_count / batch_size)))


def train(role: Role, options: argparse.Namespace) -> None:
    """Does what `options` ask for; raises InputError of either package."""
    family = get_family(options.family)
    config = _config(role, options)
    check_config(config)
    _check_output_dir(config, options)
    store = Store(options.database_url, options.data_dir, create=False) if options.from_db else None
    try:
        found = _gather(options, config, family, store)
        _check_count(len(found.pairs), options)
        steps = options.max_train_steps or default_steps(len(found.pairs), config.batch_size)
        name = options.name or f"{METHODS[role]} from {len(found.pairs)} picks, {datetime.now():%Y-%m-%d %H:%M}"
        job = Job(replace(config, max_train_steps=steps), family, found, name)
        print(describe(job), flush=True)
        if not options.dry_run:
            _run(job, store)
    finally:
        if store is not None:
            store.close()


def _config(role: Role, options: argparse.Namespace) -> TrainConfig:
    """The settings; the number of steps is filled in when the pairs are known."""
    folder = f"{METHODS[role].lower()}-{datetime.now():%Y%m%d-%H%M%S}"
    output_dir = options.output_dir or options.data_dir / "adapters" / options.family / folder
    names = {entry.name for entry in fields(TrainConfig)} & vars(options).keys() - {"output_dir", "max_train_steps"}
    settings = {name: getattr(options, name) for name in names}
    if options.mixed_precision == "auto":
        settings["mixed_precision"] = fastest_precision(options.device)
    steps = 1 if options.max_train_steps is None else options.max_train_steps
    return TrainConfig(output_dir=output_dir, role=role, max_train_steps=steps, **settings)


def _check_output_dir(config: TrainConfig, options: argparse.Namespace) -> None:
    if options.output_dir is None and options.resume:
        raise InputError("No run to resume was named; give its folder with --output-dir.")
    if options.output_dir is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("Several processes train together and no folder was named; give one with --output-dir.")
    if (config.output_dir / ADAPTER_FILE_NAME).exists() and not options.resume:
        raise InputError(f"{config.output_dir} already holds an adapter; give another --output-dir or --resume.")


def _gather(options: argparse.Namespace, config: TrainConfig, family: ModelFamily, store: Store | None) -> PairSet:
    if store is not None:
        began_with = read_sources(config.output_dir) if options.resume else None
        return from_store(
            store, family.name, blind_only=not options.include_open, study=options.study, only_votes=began_with
        )
    hush_libraries()
    from npo_core.pipelines import load_pipeline
    from train.dataset import LatentCache, from_dataset

    cache = LatentCache(
        load_pipeline(family), family.width_px, family.height_px, options.data_dir / "cache" / "latents"
    )
    return from_dataset(options.dataset, cache, split=options.split, max_pairs=options.max_pairs)


def _check_count(count: int, options: argparse.Namespace) -> None:
    if options.min_pairs < 1:
        raise InputError(f"The least number of pairs is {options.min_pairs}; give 1 or more.")
    if count < options.min_pairs:
        raise InputError(
            f"There are {count} usable picks for {options.family} and training wants {options.min_pairs}; "
            f"collect {options.min_pairs - count} more or lower --min-pairs."
        )


def describe(job: Job) -> str:
    """What will be trained on, as a few lines for a person."""
    config, pairs = job.config, job.found.pairs
    dropped = ", ".join(f"{count} {reason}" for reason, count in job.found.dropped.items() if count) or "none"
    prompts = len({pair.prompt for pair in pairs})
    passes = config.max_train_steps * config.batch_size / len(pairs)
    direction = "reversed: rejected pictures become likelier" if config.role == "negative" else "as picked"
    return "\n".join(
        (
            f"{METHODS[config.role]} for {job.family.label}: {len(pairs)} pairs on {prompts} prompts, {direction}.",
            f"Left out: {dropped} ({TIE_POLICY}).",
            f"{config.max_train_steps} steps of {config.batch_size} pairs, {passes:.1f} passes; {config.loss} loss, "
            f"beta {config.beta_dpo:g}, learning rate {config.learning_rate:g}, rank {config.rank} on "
            f"{config.targets}, mixed precision {config.mixed_precision}, seed {config.seed}.",
            f"Output: {config.output_dir}",
        )
    )


def _run(job: Job, store: Store | None) -> None:
    """Trains; on the main process also keeps the books of the database."""
    hush_libraries()
    from train.loop import train_adapter

    config, main = job.config, os.environ.get("RANK", "0") == "0"
    prepare_folder(config.output_dir)
    pairs = reverse_pairs(job.found.pairs) if config.role == "negative" else job.found.pairs
    books = store if main else None
    run_id = books and books.start_training_run(
        TrainingRun(job.family.name, config.role, config.as_json(), tuple(pair.source for pair in pairs))
    )
    try:
        result = train_adapter(config, pairs, job.family)
    except BaseException as error:
        if books and run_id:
            books.finish_training_run(run_id, "failed", {"error": str(error) or type(error).__name__})
        if isinstance(error, KeyboardInterrupt):
            print(f"Interrupted; go on with --resume --output-dir {config.output_dir}", file=sys.stderr)
        raise
    if not main:
        return
    print(f"{result.metrics['pairs_per_s']} pairs/s, {result.metrics['elapsed_s']} s: {result.adapter_path}")
    if books and run_id:
        books.finish_training_run(run_id, "finished", result.metrics)
        _register(books, job, str(result.adapter_path.resolve()), result.sha256, run_id)


def _register(store: Store, job: Job, path: str, sha256: str, run_id: str) -> None:
    """Makes the adapter known, once: resuming a finished run gives the same file again."""
    role = job.config.role
    known = [
        adapter for adapter in store.adapters(job.family.name, role) if (adapter.path, adapter.sha256) == (path, sha256)
    ]
    if not known:
        store.register_adapter(AdapterRecord(job.family.name, role, job.name, path, sha256, run_id))
    print(f"Registered as {known[0].name if known else job.name!r}; the app offers it.")
