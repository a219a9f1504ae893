"""Adapter files by name, place and content: what a generation remembers about the weights behind it. No torch."""

from __future__ import annotations

import functools
import json
from contextlib import suppress
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
METADATA_KEY = "lora_adapter_metadata"  # where diffusers keeps the LoraConfig in a safetensors header
TRAINED_FOR = "npo."  # before our own entries there, which diffusers passes over
LONGEST_HEADER = 100_000_000  # bytes, as safetensors itself has it


@dataclass(frozen=True)
class AdapterFile:
    """One version of eta (role aligned) or delta (role negative), a LoRA or a whole UNet: the file and its hash."""

    id: str
    role: Role
    path: Path
    sha256: str

    @property
    def trained_for(self) -> dict[str, float]:
        """The "alpha" and "beta" of the negative branch that it was trained in, where its file says so; else {}."""
        with suppress(OSError):
            status = self.path.stat()
            return dict(_trained_for(self.path, status.st_size, status.st_mtime_ns))
        return {}


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


@functools.lru_cache(maxsize=256)
def _trained_for(file: Path, size: int, changed_ns: int) -> dict[str, float]:
    """From the header of a safetensors file: its length in 8 bytes, little-endian, and so many bytes of JSON."""
    with suppress(OSError, ValueError, KeyError, TypeError, AttributeError), file.open("rb") as opened:
        header = json.loads(opened.read(min(int.from_bytes(opened.read(8), "little"), LONGEST_HEADER)))
        entries = json.loads(header["__metadata__"][METADATA_KEY])
        return {name: float(entries[TRAINED_FOR + name]) for name in ("alpha", "beta") if TRAINED_FOR + name in entries}
    return {}


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
