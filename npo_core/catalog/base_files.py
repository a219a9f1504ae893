"""What a family's pictures are made with beside its adapters, as one hash over the files. No torch."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

from npo_core.catalog.families import ModelFamily
from npo_core.catalog.hub import files_of, needs
from npo_core.media.files import sha256_file


def base_sha256(family: ModelFamily, modality: str = "image") -> str:
    """A hash of everything that is loaded for `modality` but aligned and negative weights: networks, text encoder,
    VAE, schedule, their configurations, for clips the motion adapter. Weights in another precision are other files.

    Raises InputError where something is missing.
    """
    total = hashlib.sha256()
    for need in needs(family, modality):
        if need.kind != "weights":
            for name, file in sorted(files_of(need).items()):
                status = file.stat()
                content = _sha256(file.resolve(), status.st_size, status.st_mtime_ns)
                total.update(f"{need.what} {name} {content}\n".encode())
    return total.hexdigest()


@functools.lru_cache(maxsize=1024)
def _sha256(file: Path, size: int, changed_ns: int) -> str:
    return sha256_file(file)
