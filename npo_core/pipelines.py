"""Load a family's stock diffusers pipeline."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline

from npo_core.errors import InputError
from npo_core.families import ModelFamily


def load_pipeline(family: ModelFamily, dtype: torch.dtype = torch.float32) -> Any:
    """The base of `family` as a StableDiffusionPipeline; raises InputError when it is missing or cannot be loaded."""
    index = Path(family.base) / "model_index.json"
    if Path(family.base).is_absolute() and not index.is_file():
        raise InputError(f"{family.label} has no model at {family.base}; put a pipeline in diffusers layout there.")
    try:
        _import_own_classes(index)
        return StableDiffusionPipeline.from_pretrained(family.base, dtype=dtype)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"The model {family.base} of {family.label} cannot be loaded ({reason}); check the path or the network."
        ) from None


def _import_own_classes(index: Path) -> None:
    """diffusers takes a class of another package only once it is imported; ours are, and nobody else's."""
    if not index.is_file():
        return
    for entry in json.loads(index.read_text(encoding="utf-8")).values():
        if isinstance(entry, list) and str(entry[0]).startswith("npo_core."):
            importlib.import_module(entry[0])
