"""Uploads exported votes to the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from collection.errors import InputError


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
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        raise InputError(
            f"The data set {dataset!r} cannot be written ({reason}); the export is kept in {exported}; check the name "
            "(owner/name), the network and that HF_TOKEN may write to it."
        ) from None
    return str(address)
