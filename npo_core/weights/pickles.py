"""A pickle of weights turned into a safetensors file, once and by whoever trusts it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from npo_core.errors import InputError


def read_pickle(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a .bin, .pt, .pth or .ckpt file by name, and the names of its entries that are none.

    THIS CAN RUN CODE that whoever made the file put into it.
    """
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle may raise anything
        raise InputError(f"{file} cannot be read as a pickle ({type(error).__name__}); download it again.") from None
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping):
        raise InputError(f"{file} holds a {type(content).__name__} and no tensors by name; give a state dict.")
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    unnamed = next((key for key in tensors if not isinstance(key, str)), None)
    if unnamed is not None:
        raise InputError(f"{file} calls a tensor {unnamed!r}, which is no name of a layer; give a state dict.")
    if not tensors:
        raise InputError(f"{file} holds no tensors; give a file of weights.")
    return tensors, [str(key) for key in content if key not in tensors]


def write_safetensors(tensors: Mapping[str, Tensor], target: Path) -> None:
    """Writes dense copies of `tensors`; InputError where the file cannot be written."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        save_file({name: _dense(tensor).contiguous().clone() for name, tensor in tensors.items()}, target)
    except (OSError, SafetensorError, ValueError, KeyError) as error:
        raise InputError(f"{target} cannot be written ({error}); give another target.") from None


def _dense(tensor: Tensor) -> Tensor:
    return tensor.detach() if tensor.layout == torch.strided else tensor.detach().to_dense()
