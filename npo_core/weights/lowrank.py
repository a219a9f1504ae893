"""Low-rank weights in memory, and written in the layout of diffusers.

A LoRA adds  scale * B @ A  to a layer's weight W, with A (r, in), B (out, r) and scale = lora_alpha / r, or
lora_alpha / sqrt(r) for rank-stabilised ones (rsLoRA, arXiv 2312.03732). For a convolution A is a convolution to r
channels with the layer's own kernel, stride and padding, and B a 1x1 convolution.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor, nn

from npo_core.catalog.adapter_files import ADAPTER_FILE_NAME, METADATA_KEY, TRAINED_FOR


@dataclass(frozen=True)
class LowRankLayer:
    """The update scale * B @ A of one layer.

    a: (r, in) for a linear layer, (r, in, kernel height, kernel width) for a convolution.
    b: (out, r), or (out, r, 1, 1).
    """

    a: Tensor
    b: Tensor
    scale: float

    @property
    def rank(self) -> int:
        return self.a.shape[0]


@dataclass(frozen=True)
class LowRankWeights:
    """The updates of a LoRA by the name that `unet.get_submodule` knows the layer by.

    trained_for: the "alpha" and "beta" of the negative branch that it was trained in, the "guidance_scale" there, or
    nothing; it travels with the file.
    """

    layers: dict[str, LowRankLayer]
    trained_for: dict[str, float] = field(default_factory=dict)

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> LowRankWeights:
        """The same weights on another device or in another dtype."""
        moved = {
            name: LowRankLayer(layer.a.to(device, dtype), layer.b.to(device, dtype), layer.scale)
            for name, layer in self.layers.items()
        }
        return replace(self, layers=moved)


def contained(weights: LowRankWeights) -> LowRankWeights:
    """`weights` with the brokenness of each layer in one number: where A, B or the scale are not finite, A and B become
    zeros and the scale NaN. Then whoever multiplies them for many rows can keep it to those that use the layer.
    """
    layers = dict(weights.layers)
    for name, layer in layers.items():
        if not (torch.isfinite(layer.a).all() and torch.isfinite(layer.b * layer.scale).all()):
            layers[name] = LowRankLayer(torch.zeros_like(layer.a), torch.zeros_like(layer.b), math.nan)
    return replace(weights, layers=layers)


def peft_adapter(unet: nn.Module, adapter_name: str = "default") -> LowRankWeights:
    """A copy of the LoRA that PEFT injected into `unet` (by `unet.add_adapter`), with the scale PEFT runs it at."""
    layers = {}
    for name, module in unet.named_modules():
        if adapter_name in getattr(module, "scaling", {}):
            a, b = module.lora_A[adapter_name].weight, module.lora_B[adapter_name].weight
            layers[name] = LowRankLayer(a.detach().clone(), b.detach().clone(), float(module.scaling[adapter_name]))
    if not layers:
        raise ValueError(f"the UNet has no PEFT adapter called {adapter_name!r}")
    return LowRankWeights(layers)


def save_adapter(weights: LowRankWeights, folder: str | Path) -> Path:
    """Writes `weights` in the layout that `pipeline.load_lora_weights(folder)` of diffusers reads; returns the file.

    The file appears complete or not at all, so that a running app can load it at any time; OSError on a full disk.
    """
    tensors = {}
    for name, layer in weights.layers.items():
        tensors[f"unet.{name}.lora_A.weight"] = layer.a.detach().cpu().contiguous()
        tensors[f"unet.{name}.lora_B.weight"] = layer.b.detach().cpu().contiguous()
    config = {f"unet.{key}": value for key, value in _lora_config(weights).items()}
    config |= {TRAINED_FOR + name: value for name, value in weights.trained_for.items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ADAPTER_FILE_NAME
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    # One entry only: safetensors writes several in random order, and equal weights should be equal files.
    content = save(tensors, metadata={METADATA_KEY: json.dumps(config, sort_keys=True)})
    try:
        partial.write_bytes(content)  # not safetensors' save_file: on a full disk this is an OSError, as for any file
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)
    return file


def _lora_config(weights: LowRankWeights) -> dict[str, Any]:
    """The arguments of PEFT's LoraConfig; ranks and alphas that differ from the commonest go into its patterns."""
    ranks = {name: layer.rank for name, layer in weights.layers.items()}
    alphas = {name: layer.scale * layer.rank for name, layer in weights.layers.items()}
    rank = Counter(ranks.values()).most_common(1)[0][0]
    alpha = Counter(alphas.values()).most_common(1)[0][0]
    return {
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {f"^{name}": value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {f"^{name}": value for name, value in alphas.items() if value != alpha},
        "target_modules": sorted(weights.layers),
    }
