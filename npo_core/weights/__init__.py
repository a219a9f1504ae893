"""eta and delta in every form that people publish: read, fitted to a model's own names, extracted, written.

formats.py   files -> LowRankWeights or FullWeights      fit.py      a model's names and shapes, and what does not fit
lowrank.py   LoRA weights, and writing them              extract.py  two full UNets -> one LoRA
"""

from npo_core.weights.fit import fit
from npo_core.weights.formats import load_adapter, load_weights
from npo_core.weights.full import FullWeights, merged
from npo_core.weights.lowrank import LowRankLayer, LowRankWeights, peft_adapter, save_adapter

AdapterWeights = LowRankWeights | FullWeights

__all__ = [
    "AdapterWeights",
    "FullWeights",
    "LowRankLayer",
    "LowRankWeights",
    "fit",
    "load_adapter",
    "load_weights",
    "merged",
    "peft_adapter",
    "save_adapter",
]
