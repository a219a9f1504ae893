"""What every trainer's command does around its training: say what will happen, keep the books, hand out the result."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from collection.errors import InputError as CollectionInputError
from collection.store import Store
from collection.types import AdapterRecord, TrainingRun
from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError
from npo_core.process import settle
from train.engine.config import TrainConfig
from train.engine.records import prepare_folder

if TYPE_CHECKING:
    from train.engine.task import TrainResult


@dataclass(frozen=True)
class Job:
    """What one command will do, before anything slow begins. lines: for a person; sources, facts: for the records."""

    config: TrainConfig
    family: ModelFamily
    name: str
    lines: tuple[str, ...]
    sources: tuple[str, ...]
    train: Callable[[], TrainResult]
    facts: dict[str, str] = field(default_factory=dict)


@contextmanager
def _remarks_shown() -> Iterator[None]:
    """Within it what our own modules log stands on the terminal, between the other lines about the run."""
    ours, handler = logging.getLogger("train"), logging.StreamHandler(sys.stdout)
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.INFO)
    try:
        yield
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)


def exit_status_of(command: Callable[[], None]) -> int:
    """Runs `command`; 2 and one sentence for wrong input, 130 for Ctrl+C, 0 when it is done."""
    settle()
    try:
        with _remarks_shown():
            command()
    except (InputError, CollectionInputError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130  # as shells report Ctrl+C
    return 0


def carry_out(job: Job, options: argparse.Namespace, store: Store | None) -> None:
    """Prints the plan and trains, unless it was a dry run; registers the adapter in `store` where there is one."""
    main = os.environ.get("RANK", "0") == "0"
    if main:
        print("\n".join((*job.lines, f"Output: {job.config.output_dir}")), flush=True)
    if options.dry_run:
        return
    prepare_folder(job.config.output_dir)
    result, run_id = _train(job, store if main else None)
    if not main:
        return
    speed = result.metrics["pairs_per_s"]
    print(f"{speed} examples/s, {result.metrics['elapsed_s']} s: {result.adapter_path}")
    if store is not None:
        _register(store, job, result, run_id, promote=not options.no_promote)
    if options.push_to_hub:
        print(f"Uploaded to {push_to_hub(job.config.output_dir, options.push_to_hub)}")


def _train(job: Job, store: Store | None) -> tuple[TrainResult, str | None]:
    """Trains; `store` keeps a record of how it went, whatever happens, under the id that is returned."""
    if store is None:
        return job.train(), None
    run = TrainingRun(job.family.name, job.config.role, {**job.config.as_json(), **job.facts}, job.sources)
    run_id = store.start_training_run(run)
    try:
        result = job.train()
    except BaseException as error:
        store.finish_training_run(run_id, "failed", {"error": str(error) or type(error).__name__})
        if isinstance(error, KeyboardInterrupt):
            print(f"Interrupted; go on with --resume --output-dir {job.config.output_dir}", file=sys.stderr)
        raise
    store.finish_training_run(run_id, "finished", result.metrics)
    return result, run_id


def _register(store: Store, job: Job, result: TrainResult, run_id: str | None, promote: bool) -> None:
    """Makes the adapter known, once: resuming a finished run gives the same file again."""
    role, path = job.config.role, str(result.adapter_path.resolve())
    known = [
        adapter
        for adapter in store.adapters(job.family.name, role, job.config.modality)
        if (adapter.path, adapter.sha256) == (path, result.sha256)
    ]
    if not known:
        record = AdapterRecord(
            job.family.name, role, job.name, path, result.sha256, run_id, modality=job.config.modality
        )
        store.register_adapter(record, promote)
    print(f"Registered as {known[0].name if known else job.name!r}; the app offers it.")


def push_to_hub(folder: Path, repo_id: str) -> str:
    """Uploads a finished run, without its checkpoints, to a model repository; returns its address.

    Raises InputError when the Hub refuses or cannot be reached; the run itself stays finished.
    """
    from huggingface_hub import HfApi

    try:
        api = HfApi()
        api.create_repo(repo_id, exist_ok=True)
        api.upload_folder(repo_id=repo_id, folder_path=folder, ignore_patterns=["checkpoint.pt", "logs/*", ".*"])
        return str(api.repo_info(repo_id).id)
    except Exception as error:  # the client raises what its own libraries do
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{folder} is finished but was not uploaded to {repo_id} ({reason}); check the network and the login "
            "(hf auth login) and run again with --resume."
        ) from None
