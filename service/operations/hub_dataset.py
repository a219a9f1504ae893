"""Votes that survive a restart of a Space without a disk: exported rows, committed to a data set on the Hub.

At the start every row that the data set holds is taken in (`restore`); then, every few minutes and at the end, the
rows are exported again and what changed is committed (`VoteBackup`). A file holds one day's votes with everything they
are about, pictures too, as `python -m collection export --format jsonl` writes them; the open database file itself is
never uploaded. Beside them lies the list of those who were erased, so that no start brings them back. The data set's
history is squashed at each commit, so that what a person had erased is gone there too.
"""

from __future__ import annotations

import filecmp
import logging
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from huggingface_hub import CommitScheduler, snapshot_download
from huggingface_hub.errors import RepositoryNotFoundError

from collection.formats.exporters import read_jsonl, write_jsonl
from collection.formats.hub import ERASED_FILE
from collection.maintenance.erasures import read_erased, write_erased
from collection.store import Store
from service.errors import InputError

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

FOLDER_NAME = "votes"  # in the data set, and in the local folder that mirrors it
KEPT = [f"{FOLDER_NAME}/*.jsonl", ERASED_FILE]
EVERY_MINUTES = 5.0

logger = logging.getLogger(__name__)


def keep_votes(store: Store, dataset: str, folder: Path, every_minutes: float = EVERY_MINUTES) -> VoteBackup:
    """Takes in the votes of the data set `dataset` (made, private, where it is missing) and keeps it up to date.

    `folder` mirrors it. Raises InputError when the data set cannot be read or written: votes that would be lost are
    worse than an app that does not start.
    """
    try:
        taken = restore(store, dataset, folder)
        logger.info("Took in %d votes from the data set %s.", taken, dataset)
        return VoteBackup(store, dataset, folder, every_minutes)
    except InputError:
        raise
    except Exception as error:  # the client raises what its own libraries do
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"The data set {dataset!r} cannot be used ({reason}); check its name (owner/name), the network and that "
            "HF_TOKEN may write to it, or unset NPO_HUB_DATASET."
        ) from None


def restore(store: Store, dataset: str, folder: Path) -> int:
    """Takes in the rows of the data set, those already here left as they are; returns how many votes were new."""
    try:
        snapshot_download(dataset, repo_type="dataset", allow_patterns=KEPT, local_dir=folder)
    except RepositoryNotFoundError:
        return 0
    store.honour_erasures(read_erased(folder / ERASED_FILE))
    files = sorted((folder / FOLDER_NAME).glob("*.jsonl"))
    return sum(store.import_votes(read_jsonl(file)).votes for file in files)


def write_days(store: Store, folder: Path) -> None:
    """Writes one file for each day with votes to `folder`; files whose content would be the same are left alone."""
    folder.mkdir(parents=True, exist_ok=True)
    written = set()
    for day, votes in groupby(store.exported_votes(), key=lambda vote: vote.vote.created_at.date()):
        file = folder / f"{day.isoformat()}.jsonl"
        written.add(file)
        fresh = file.with_suffix(".new")
        write_jsonl(votes, store.media, fresh)
        if file.exists() and filecmp.cmp(file, fresh, shallow=False):
            fresh.unlink()
        else:
            fresh.replace(file)
    for file in set(folder.glob("*.jsonl")) - written:  # all of that day's votes were taken back or erased
        if file.stat().st_size:
            file.write_bytes(b"")


class VoteBackup(CommitScheduler):
    """Commits the exported rows at once, every `every_minutes`, and when the process ends."""

    def __init__(self, store: Store, dataset: str, folder: Path, every_minutes: float) -> None:
        self._store = store
        super().__init__(
            repo_id=dataset,
            repo_type="dataset",
            private=True,
            folder_path=folder,
            every=every_minutes,
            allow_patterns=KEPT,
            squash_history=True,
        )

    def push_to_hub(self) -> CommitInfo | None:
        """Exports and commits what changed; a failure is logged and tried again the next time."""
        write_erased(self.folder_path / ERASED_FILE, self._store.erased_people())
        write_days(self._store, self.folder_path / FOLDER_NAME)
        return super().push_to_hub()
