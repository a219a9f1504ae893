"""eta and delta in every form that people publish: read, fitted to a model's own names, extracted, written.

formats.py   files -> LowRankWeights or FullWeights      fit.py    a model's own names, and what does not fit
keys.py      names in files, brought to one form         pickles.py  a pickle -> a safetensors file
lowrank.py   LoRA weights, and writing them              full.py   whole UNets, and the LoRA closest to one
__main__.py  python -m npo_core.weights fetch | extract | convert
"""

from npo_core.weights.fit import fit
from npo_core.weights.formats import load_adapter, load_weights
from npo_core.weights.full import FullWeights, extract_low_rank, merged
from npo_core.weights.lowrank import LowRankLayer, LowRankWeights, contained, peft_adapter, save_adapter

AdapterWeights = LowRankWeights | FullWeights

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
