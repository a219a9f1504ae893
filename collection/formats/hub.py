"""Uploads exported votes to the Hugging Face Hub, and the list of those who were erased."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

from collection.errors import InputError

ERASED_FILE: Final = "erased.txt"  # in a data set: the names of those whom it must not bring back, one a line


def push_to_hub(exported: Path, dataset: str, *, public: bool = False) -> str:
    """Uploads a file or folder as the data set `dataset` (made where it is missing); returns its address.

    Raises InputError when the Hub refuses: a wrong name, no network, no token that may write.
    """
    from huggingface_hub import HfApi  # here: it takes a second that only an upload should cost

    api = HfApi()
    try:
        address = api.create_repo(dataset, repo_type="dataset", private=not public, exist_ok=True)
        if exported.is_dir():
            api.upload_folder(repo_id=dataset, repo_type="dataset", folder_path=exported)
        else:
            api.upload_file(repo_id=dataset, repo_type="dataset", path_or_fileobj=exported, path_in_repo=exported.name)
    except Exception as error:  # the client raises what its own libraries do
        raise InputError(
            f"The data set {dataset!r} cannot be written ({_reason(error)}); the export is kept in {exported}; check "
            "the name (owner/name), the network and that HF_TOKEN may write to it."
        ) from None
    return str(address)


def push_erased(names: set[str], dataset: str, name: str) -> None:
    """Adds names to the list of erased people in the data set `dataset`, before this returns.

    Raises InputError when the Hub refuses, which says how the person called `name` is told of again.
    """
    from huggingface_hub import HfApi, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, RepositoryNotFoundError

    try:
        listed: set[str] = set()
        with suppress(EntryNotFoundError, RepositoryNotFoundError):
            listed = set(Path(hf_hub_download(dataset, ERASED_FILE, repo_type="dataset")).read_text("ascii").split())
        api = HfApi()
        api.create_repo(dataset, repo_type="dataset", private=True, exist_ok=True)
        content = "".join(f"{each}\n" for each in sorted(listed | names)).encode()
        api.upload_file(repo_id=dataset, repo_type="dataset", path_or_fileobj=content, path_in_repo=ERASED_FILE)
    except Exception as error:  # the client raises what its own libraries do
        raise InputError(
            f"The records are erased here, but the data set {dataset!r} could not be told ({_reason(error)}) and would "
            f"bring them back; run `python -m collection participants erase {name}` when it can be reached."
        ) from None


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
