"""eta and delta in every form that people publish: read, fitted to a model's own names, extracted, written.

formats.py   files -> LowRankWeights or FullWeights      fitting.py  a model's own names, and what does not fit
keys.py      names in files, brought to one form         pickles.py  a pickle -> a safetensors file
lowrank.py   LoRA weights, and writing them              full.py   whole UNets, and the LoRA closest to one
__main__.py  python -m npo_core.weights fetch | extract | convert

torch is loaded at the first use of a name, so that the command can say what it does, and settle its threads, before.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from npo_core.weights.fitting import fit
    from npo_core.weights.formats import load_adapter, load_weights
    from npo_core.weights.full import AdapterWeights, FullWeights, extract_low_rank, merged
    from npo_core.weights.lowrank import LowRankLayer, LowRankWeights, contained, peft_adapter, save_adapter

__all__ = [
    "AdapterWeights",
    "FullWeights",
    "LowRankLayer",
    "LowRankWeights",
    "contained",
    "extract_low_rank",
    "fit",
    "load_adapter",
    "load_weights",
    "merged",
    "peft_adapter",
    "save_adapter",
]

MODULES = ("fitting", "formats", "full", "lowrank")


def __getattr__(name: str) -> Any:
    if name in __all__:
        for module in (import_module(f"{__name__}.{each}") for each in MODULES):
            if hasattr(module, name):
                return getattr(module, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
