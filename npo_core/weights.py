"""Low-rank weights: LoRA files in the layouts of diffusers and PEFT, read into one form, checked and written.

A LoRA adds  scale * B @ A  to a layer's weight W, with A (r, in), B (out, r) and scale = lora_alpha / r, or
lora_alpha / sqrt(r) for rank-stabilised ones (rsLoRA, arXiv 2312.03732). For a convolution A is a convolution to r
channels with the layer's own kernel, stride and padding, and B a 1x1 convolution.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from npo_core.adapters import ADAPTER_FILE_NAME, locate_adapter
from npo_core.errors import InputError

METADATA_KEY = "lora_adapter_metadata"  # where diffusers keeps the LoraConfig in a safetensors header

_TENSOR_KEY = re.compile(
    r"^(?:base_model\.model\.)?(?:unet\.)?(?P<layer>.+?)\."
    r"(?:(?P<a>(?:lora_A|lora\.down)\.weight)|(?P<b>(?:lora_B|lora\.up)\.weight)|(?P<alpha>alpha))$"
)


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
    """The updates of a LoRA by the name that `unet.get_submodule` knows the layer by."""

    layers: dict[str, LowRankLayer]

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> LowRankWeights:
        """The same weights on another device or in another dtype."""
        return LowRankWeights(
            {
                name: LowRankLayer(layer.a.to(device, dtype), layer.b.to(device, dtype), layer.scale)
                for name, layer in self.layers.items()
            }
        )


def load_adapter(path: str | Path) -> LowRankWeights:
    """The LoRA in a safetensors file (or a folder that holds one), in float32 on the CPU.

    Reads the layouts of diffusers (`unet.LAYER.lora_A.weight` or `.lora.down.weight`) and PEFT
    (`base_model.model.LAYER.lora_A.weight`). The scale comes from `LAYER.alpha` tensors, else from the LoraConfig in
    the file's header or in an `adapter_config.json` beside it; it is 1 when neither is there.
    Raises InputError when the file is damaged or holds anything but pairs of A and B.
    """
    file = locate_adapter(path)
    tensors, config = _read_safetensors(file)
    parts: dict[str, dict[str, Tensor]] = {}  # layer -> {"a", "b", perhaps "alpha"}
    unknown = []
    for key, tensor in tensors.items():
        match = _TENSOR_KEY.match(key)
        if match is None or match.lastgroup is None:
            unknown.append(key)
        else:
            parts.setdefault(match["layer"], {})[match.lastgroup] = tensor.float()
    if unknown:
        raise InputError(f"{file} is not a plain LoRA: it also holds {_some(unknown)}; give one with only A and B.")
    if not parts:
        raise InputError(f"{file} holds no LoRA layers; give a file with lora_A and lora_B tensors.")
    halves = [layer for layer, part in parts.items() if not {"a", "b"} <= part.keys()]
    if halves:
        raise InputError(f"{file} is incomplete: A or B is missing for {_some(halves)}; export or train it again.")
    return LowRankWeights({layer: _assemble(file, layer, part, config) for layer, part in parts.items()})


def _read_safetensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of `file` and the LoraConfig that goes with them ({} where there is none)."""
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
        if METADATA_KEY in header:
            prefixed = json.loads(header[METADATA_KEY])
            return tensors, {key.removeprefix("unet."): value for key, value in prefixed.items()}
        beside = file.parent / "adapter_config.json"
        return tensors, json.loads(beside.read_text(encoding="utf-8")) if beside.is_file() else {}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise InputError(f"{file} cannot be read as a LoRA ({error}); download or train it again.") from None


def _assemble(file: Path, layer: str, part: Mapping[str, Tensor], config: Mapping[str, Any]) -> LowRankLayer:
    a, b = part["a"], part["b"]
    if a.ndim < 2 or a.ndim != b.ndim or a.shape[0] != b.shape[1]:
        raise InputError(
            f"{file} is damaged: for {layer} A is {tuple(a.shape)} and B {tuple(b.shape)}, "
            "which do not share a rank; export or train it again."
        )
    rank = a.shape[0]
    if "alpha" in part:
        return LowRankLayer(a, b, part["alpha"].item() / rank)
    alpha = config.get("lora_alpha", rank)
    for pattern, value in (config.get("alpha_pattern") or {}).items():
        if re.match(rf"(.*\.)?({pattern})$", layer):  # as PEFT matches it
            alpha = value
            break
    return LowRankLayer(a, b, alpha / (rank**0.5 if config.get("use_rslora") else rank))


def check_fits(weights: LowRankWeights, unet: nn.Module, what: str) -> None:
    """Raises InputError, beginning with `what`, unless every layer of `weights` is one of `unet` with that shape.

    A LoRA need not touch every layer of the UNet.
    """
    modules = dict(unet.named_modules())
    absent = [name for name in weights.layers if name not in modules]
    if absent:
        raise InputError(
            f"{what} does not fit this model: {_some(absent)} of its {len(weights.layers)} layers are not in the "
            "model; give an adapter that was trained on it."
        )
    for name, layer in weights.layers.items():
        module = modules[name]
        if not isinstance(module, nn.Linear | nn.Conv2d):
            raise InputError(f"{what} does not fit this model: {name} is neither a linear layer nor a 2D convolution.")
        expected_a = (layer.rank, *module.weight.shape[1:])
        expected_b = (module.weight.shape[0], layer.rank, *[1] * (module.weight.ndim - 2))
        if tuple(layer.a.shape) != expected_a or tuple(layer.b.shape) != expected_b:
            raise InputError(
                f"{what} does not fit this model: for {name} A and B are {tuple(layer.a.shape)} and "
                f"{tuple(layer.b.shape)} where {expected_a} and {expected_b} fit; give an adapter trained on it."
            )


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

    The file appears complete or not at all, so that a running app can load it at any time.
    """
    tensors = {}
    for name, layer in weights.layers.items():
        tensors[f"unet.{name}.lora_A.weight"] = layer.a.detach().cpu().contiguous()
        tensors[f"unet.{name}.lora_B.weight"] = layer.b.detach().cpu().contiguous()
    config = {f"unet.{key}": value for key, value in _lora_config(weights).items()}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / ADAPTER_FILE_NAME
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    # One entry only: safetensors writes several in random order, and equal weights should be equal files.
    save_file(tensors, partial, metadata={METADATA_KEY: json.dumps(config, sort_keys=True)})
    partial.chmod(0o644)  # safetensors writes 0600, which an app under another user could not read
    os.replace(partial, file)
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


def _some(names: list[str]) -> str:
    """The first of `names` and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
