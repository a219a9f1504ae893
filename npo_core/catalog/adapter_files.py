"""Adapter files by name, place and content: what a generation remembers about the weights behind it. No torch."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from npo_core.catalog.references import find
from npo_core.errors import InputError
from npo_core.media.files import sha256_file

Role = Literal["aligned", "negative"]
ROLES: tuple[Role, ...] = get_args(Role)

ADAPTER_FILE_NAME = "pytorch_lora_weights.safetensors"  # as diffusers writes it
PEFT_FILE_NAME = "adapter_model.safetensors"
UNET_FILE_NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")


@dataclass(frozen=True)
class AdapterFile:
    """One version of eta (role aligned) or delta (role negative), a LoRA or a whole UNet: the file and its hash."""

    id: str
    role: Role
    path: Path
    sha256: str


def adapter_file(path: str | Path, role: Role, id: str | None = None) -> AdapterFile:
    """The adapter at `path`, a safetensors file or a folder with one, or a reference to one in the Hub's local cache.
    Without an `id` its content names it.

    Raises InputError for an unknown role or when there is no such file.
    """
    if role not in ROLES:
        raise InputError(f"Unknown adapter role {role!r}; choose from {', '.join(ROLES)}.")
    file = locate_adapter(path)
    status = file.stat()
    sha256 = _sha256(file, status.st_size, status.st_mtime_ns)
    return AdapterFile(id or f"{role}-{sha256[:12]}", role, file, sha256)


@functools.lru_cache(maxsize=256)
def _sha256(file: Path, size: int, changed_ns: int) -> str:
    """The hash of `file` as it was when it had that size and time of change: a whole UNet takes seconds to read."""
    return sha256_file(file)


def locate_adapter(path: str | Path) -> Path:
    """The safetensors file at `path` (or what `references` names so), or in the folder there; raises InputError."""
    path = find(str(path)) or Path(path)
    if path.is_dir():
        for name in (ADAPTER_FILE_NAME, PEFT_FILE_NAME, *UNET_FILE_NAMES):
            if (path / name).is_file():
                return path / name
        raise InputError(
            f"The folder {path} holds no adapter; it needs {ADAPTER_FILE_NAME} or {PEFT_FILE_NAME} for a LoRA, or "
            f"{UNET_FILE_NAMES[0]} for a whole UNet in one file."
        )
    if not path.is_file():
        raise InputError(f"There is no adapter at {path}; give a safetensors file or a folder that holds one.")
    if path.suffix != ".safetensors":
        raise InputError(
            f"The adapter {path} is not a .safetensors file, and other formats can run code that was hidden in them; "
            "give one, or if you trust the file convert it with `python -m npo_core.weights convert`."
        )
    return path
