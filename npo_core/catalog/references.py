"""How weights are named: a path, or a Hub id with the place inside the repository.

A reference that begins with / or . or ~, or exists, is a path. Everything else is on the Hub: `owner/name` is a whole
repository, `owner/name/unet` a folder in it, `owner/name/weights/file.safetensors` a file.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

from npo_core.errors import InputError


def on_hub(reference: str) -> bool:
    """Whether `reference` names something on the Hub rather than a path."""
    path = Path(reference).expanduser()
    is_path = path.is_absolute() or reference.startswith(".") or path.exists()
    return not is_path and len(PurePosixPath(reference).parts) >= 2


def split(reference: str) -> tuple[str, str]:
    """(Hub id, path inside the repository, "" for all of it)."""
    parts = PurePosixPath(reference).parts
    return "/".join(parts[:2]), "/".join(parts[2:])


def find(reference: str) -> Path | None:
    """Where `reference` is on this machine; None when it is not. Never asks the network."""
    if not on_hub(reference):
        path = Path(reference).expanduser()
        return path if path.exists() else None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, IncompleteSnapshotError, LocalEntryNotFoundError

    repository, inside = split(reference)
    try:
        folder = snapshot_download(repository, local_files_only=True)
    except IncompleteSnapshotError as error:  # we fetch only what is needed of a repository
        folder = error.snapshot_path
    except (LocalEntryNotFoundError, HFValidationError):
        return None
    path = Path(folder) / inside
    return path if path.exists() else None


def locate(reference: str) -> Path:
    """Where `reference` is on this machine; raises InputError when it is not."""
    path = find(reference)
    if path is None:
        raise InputError(
            f"{reference} is not on this machine; "
            + ("fetch its family first, or give a path." if on_hub(reference) else "give an existing path.")
        )
    return path
