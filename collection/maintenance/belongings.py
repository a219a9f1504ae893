"""What lies beside a database and belongs to it, so that copies and backups take it along: trained adapters, the secret
that signs who people are, and the list of those who were erased."""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Final

from collection.adapters import find_adapter, kept_adapter
from collection.formats.hub import ERASED_FILE
from collection.maintenance.erasures import read_erased, write_erased
from collection.types import AdapterRecord

SECRET_FILE: Final = "participant_secret"

Tell = Callable[[str], None]
"""Is told, a sentence each, what could not be taken along."""


def copy_belongings(
    here: Path, there: Path, adapters: Iterable[AdapterRecord], undo: ExitStack, tell: Tell = lambda problem: None
) -> None:
    """Brings what belongs to the data folder `here` to `there`; `undo` takes back what was made."""
    for adapter in adapters:
        target = kept_adapter(there, adapter.sha256)
        if target.exists():
            continue
        problem = problem_of(adapter, here)
        if problem is not None:
            tell(problem)
            continue
        make_folder(target.parent, undo)
        undo.callback(target.unlink, missing_ok=True)
        shutil.copyfile(find_adapter(adapter, here), target)
        if _sha256(target) != adapter.sha256:
            raise OSError(f"the adapter {adapter.name} did not arrive whole")
    secret = here / SECRET_FILE
    if secret.exists() and not (there / SECRET_FILE).exists():
        undo.callback((there / SECRET_FILE).unlink, missing_ok=True)
    if secret.exists():
        _write_secret(there / SECRET_FILE, secret.read_bytes())
    write_erased(there / ERASED_FILE, read_erased(here / ERASED_FILE) | read_erased(there / ERASED_FILE))


def problem_of(adapter: AdapterRecord, data_dir: Path) -> str | None:
    """What is wrong with the file of an adapter, None for nothing."""
    file = find_adapter(adapter, data_dir)
    if not file.is_file():
        return f"The file of the adapter {adapter.name} ({adapter.id}), {adapter.path}, is missing."
    if _sha256(file) != adapter.sha256:
        return f"The file of the adapter {adapter.name} ({adapter.id}), {file}, is not what was registered."
    return None


def make_folder(folder: Path, undo: ExitStack) -> None:
    """Makes a folder and those above it; `undo` removes those that were not there, where nothing is in them then."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    if missing:
        undo.callback(_remove_if_empty, missing[-1])


def _remove_if_empty(folder: Path) -> None:
    for each in (*sorted(folder.rglob("*"), reverse=True), folder):  # the lowest first
        if each.is_dir():
            with suppress(OSError):
                each.rmdir()


def _write_secret(path: Path, content: bytes) -> None:
    part = path.with_name(f".{path.name}.part")
    try:
        with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
