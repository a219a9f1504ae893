"""Adapter files by name, place and content: what a generation remembers about the weights behind it. No torch."""

from __future__ import annotations

import functools
import json
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from npo_core.catalog.references import find
from npo_core.errors import InputError
from npo_core.media.files import sha256_file, sha256_hex

Role = Literal["aligned", "negative"]
ROLES: tuple[Role, ...] = get_args(Role)

ADAPTER_FILE_NAME = "pytorch_lora_weights.safetensors"  # as diffusers writes it
PEFT_FILE_NAME = "adapter_model.safetensors"
UNET_FILE_NAMES = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.fp16.safetensors")
INDEX_NAMES = ("diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.safetensors.index.fp16.json")
METADATA_KEY = "lora_adapter_metadata"  # where diffusers keeps the LoraConfig in a safetensors header
TRAINED_FOR = "npo."  # before our own entries there, which diffusers passes over
LONGEST_HEADER = 100_000_000  # bytes, as safetensors itself has it

_SHARD = re.compile(r"-\d{5}-of-\d{5}\.safetensors$")


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
    states = tuple((part.stat().st_size, part.stat().st_mtime_ns) for part in weight_files(file))
    sha256 = _sha256(file, states)
    return AdapterFile(id or f"{role}-{sha256[:12]}", role, file, sha256)


@functools.lru_cache(maxsize=256)
def _sha256(file: Path, states: tuple[tuple[int, int], ...]) -> str:
    """The hash of `file` as it was when its parts had those sizes and times of change: a whole UNet takes seconds."""
    return content_sha256(file)


def content_sha256(file: Path) -> str:
    """The hash of a weights file; of an index the hash of the hashes of its shards, in their order."""
    hashes = [sha256_file(part) for part in weight_files(file)]
    return hashes[0] if len(hashes) == 1 else sha256_hex("".join(hashes).encode())


def weight_files(file: Path) -> list[Path]:
    """The files with the tensors of a safetensors file or of an index of shards; InputError where one is missing."""
    if file.suffix != ".json":
        return [file]
    try:
        names = sorted(set(json.loads(file.read_text(encoding="utf-8-sig"))["weight_map"].values()))
        parts = [file.parent / name for name in names if Path(name).name == name]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"The index {file} cannot be read ({error!r}); download it again.") from None
    missing = next((part.name for part in parts if not part.is_file()), None)
    if missing or not parts or len(parts) != len(names):
        raise InputError(f"The index {file} names {missing or 'no shards beside it'}; download what is missing.")
    return parts


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
        for name in (ADAPTER_FILE_NAME, PEFT_FILE_NAME, *UNET_FILE_NAMES, *INDEX_NAMES):
            if (path / name).is_file():
                return path / name
        raise InputError(
            f"The folder {path} holds no adapter; it needs {ADAPTER_FILE_NAME} or {PEFT_FILE_NAME} for a LoRA, or "
            f"{UNET_FILE_NAMES[0]} (or {INDEX_NAMES[0]} and its shards) for a whole UNet."
        )
    if not path.is_file():
        raise InputError(f"There is no adapter at {path}; give a safetensors file or a folder that holds one.")
    index = next((path.parent / name for name in INDEX_NAMES if (path.parent / name).is_file()), None)
    if index is not None and (path.name in INDEX_NAMES or _SHARD.search(path.name)):
        return path if path.name in INDEX_NAMES else index
    if path.suffix != ".safetensors":
        raise InputError(
            f"The adapter {path} is not a .safetensors file, and other formats can run code that was hidden in them; "
            "give one, or if you trust the file convert it with `python -m npo_core.weights convert`."
        )
    return path
