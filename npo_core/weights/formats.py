"""Reads weights from the files that people publish.

    LoRA   diffusers   unet.LAYER.lora_A.weight, .lora.down.weight, .lora_linear_layer.down.weight,
                       and the older unet.ATTENTION.processor.to_q_lora.down.weight
           PEFT        base_model.model.LAYER.lora_A.weight, with adapter_config.json beside the file; the adapter's
                       name may stand before .weight
           kohya       lora_unet_LAYER_WITH_UNDERSCORES.lora_down.weight and .alpha (A1111; LAYER may be the original
                       implementation's name, as it is in most files for SDXL); OneTrainer's bundles
    UNet   diffusers   LAYER.weight, LAYER.bias, in a folder such as unet/ or as one file, or in shards with an index
           original    model.diffusion_model.LAYER.weight, in a whole checkpoint

What compiling and wrapping put into names is taken out by `keys`. Names are brought to a model's own by `fit`, which
needs that model.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from npo_core.catalog.adapter_files import METADATA_KEY, TRAINED_FOR, locate_adapter, weight_files
from npo_core.errors import InputError
from npo_core.weights.full import FullWeights
from npo_core.weights.keys import (
    LORA_KEY,
    layer_name,
    plain_keys,
    refuse_other_methods,
    refuse_several,
    text_layer,
    unet_tensors,
)
from npo_core.weights.lowrank import LowRankLayer, LowRankWeights

logger = logging.getLogger(__name__)


def load_adapter(path: str | Path) -> LowRankWeights:
    """The LoRA at `path`, as `load_weights` reads it; raises InputError for anything else."""
    weights = load_weights(path)
    if isinstance(weights, LowRankWeights):
        return weights
    raise InputError(f"{path} is a whole UNet where a LoRA is needed; `python -m npo_core.weights extract` makes one.")


def load_weights(path: str | Path) -> LowRankWeights | FullWeights:
    """The weights in a safetensors file (or a folder that holds one), on the CPU: a LoRA in float32, or a whole UNet.

    A LoRA's scale comes from its `.alpha` tensors, else from the LoraConfig in the file's header or in an
    `adapter_config.json` beside it (rank-stabilised where it says so); it is 1 when none is there.
    Raises InputError when the file is damaged, holds neither, or holds numbers that are not finite.
    """
    file = locate_adapter(path)
    found, config = read_tensors(file)
    tensors = plain_keys(found, file)
    unet = unet_tensors(tensors)
    is_lora = any(LORA_KEY.match(key) for key in tensors)
    if not is_lora and ("conv_in.weight" in unet or "input_blocks.0.0.weight" in unet):
        return FullWeights({name: _checked(file, name, tensor) for name, tensor in unet.items()})
    refuse_other_methods(file, (key for key in tensors if text_layer(key) is None), config)
    if is_lora:
        return _low_rank(file, tensors, config)
    example = f" (it begins with {min(tensors)})" if tensors else ""
    raise InputError(
        f"{file} holds no LoRA layers and no UNet{example}; give a LoRA of diffusers, PEFT or kohya, or a UNet's "
        "state dict."
    )


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file, or of all shards of an index, and the LoraConfig that goes with them ({} where
    there is none)."""
    tensors: dict[str, Tensor] = {}
    header: dict[str, str] = {}
    try:
        for part in weight_files(file):
            with safe_open(part, framework="pt") as opened:
                header |= opened.metadata() or {}
                tensors |= {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
        if METADATA_KEY in header:
            prefixed = _table(json.loads(header[METADATA_KEY]))
            return tensors, {key.removeprefix("unet."): value for key, value in prefixed.items()}
        beside = file.parent / "adapter_config.json"
        return tensors, _table(json.loads(beside.read_text(encoding="utf-8-sig"))) if beside.is_file() else {}
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{file} cannot be read as weights ({error}); download or train it again.") from None


def _table(config: Any) -> dict[str, Any]:
    if not isinstance(config, dict):
        raise ValueError("its LoRA configuration is no JSON object")
    return config


def _low_rank(file: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> LowRankWeights:
    parts: dict[str, dict[str, Tensor]] = {}  # layer -> {"a", "b", perhaps "alpha"}
    unknown, of_text, adapters = [], set(), set()
    for key, tensor in tensors.items():
        match = LORA_KEY.match(key)
        text = text_layer(key)
        if text is not None:
            of_text.add(text)
        elif match is None:
            unknown.append(key)
        else:
            kind = next(kind for kind in ("a", "b", "alpha") if match[kind])
            if kind != "alpha":
                adapters.add(match[f"name_{kind}"])
            layer = layer_name(match["layer"])
            parts.setdefault(layer, {})[kind] = _checked(file, layer, tensor, whole=kind == "alpha").float()
    if unknown:
        raise InputError(f"{file} is not a plain LoRA: it also holds {_some(unknown)}; give one with only A and B.")
    if not parts:
        raise InputError(f"{file} holds no LoRA layers of a UNet; give one that was trained on the UNet.")
    refuse_several(file, adapters)
    if of_text:
        logger.warning("%s also changes the text encoder (%d layers), which is left as it is.", file, len(of_text))
    halves = [layer for layer, part in parts.items() if not {"a", "b"} <= part.keys()]
    if halves:
        raise InputError(f"{file} is incomplete: A or B is missing for {_some(halves)}; export or train it again.")
    trained_for = {key.removeprefix(TRAINED_FOR): v for key, v in config.items() if key.startswith(TRAINED_FOR)}
    layers = {layer: _assemble(file, layer, part, config) for layer, part in parts.items()}
    return LowRankWeights(layers, trained_for)


def _checked(file: Path, name: str, tensor: Tensor, whole: bool = False) -> Tensor:
    """`tensor`, which may be of whole numbers where `whole` says so; InputError unless every number in it is one."""
    if not tensor.is_floating_point():
        if whole and not tensor.is_complex():
            return tensor
        kind = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"{file} keeps {name} as {kind}, whose scale is not said; save it as float16 or float32.")
    exact = tensor if tensor.itemsize > 1 else tensor.float()  # float8 knows few operations
    if not torch.isfinite(exact).all():
        raise InputError(
            f"{file} is broken: {name} has numbers that are not finite (NaN or infinity); train it again, or give a "
            "checkpoint from before its loss ran away."
        )
    return tensor


def _assemble(file: Path, layer: str, part: Mapping[str, Tensor], config: Mapping[str, Any]) -> LowRankLayer:
    a, b = part["a"], part["b"]
    if a.ndim < 2 or b.ndim < 2 or a.shape[0] != b.shape[1] or not a.numel():
        raise InputError(
            f"{file} is damaged: for {layer} A is {tuple(a.shape)} and B {tuple(b.shape)}, "
            "which do not share a rank; export or train it again."
        )
    rank = a.shape[0]
    if "alpha" in part:
        if part["alpha"].numel() != 1:
            raise InputError(f"{file} is damaged: alpha of {layer} is not one number; export or train it again.")
        return LowRankLayer(a, b, part["alpha"].item() / rank)
    try:
        patterns = _table(config.get("alpha_pattern") or {}).items()
        own = (value for pattern, value in patterns if re.match(rf"(.*\.)?({pattern})$", layer))  # as PEFT does
        alpha = next(own, config.get("lora_alpha", rank))
    except (ValueError, re.error) as error:
        raise InputError(f"{file} has an alpha_pattern that cannot be read ({error}); correct it.") from None
    if isinstance(alpha, bool) or not isinstance(alpha, int | float) or not math.isfinite(alpha):
        raise InputError(f"{file} has the lora_alpha {alpha!r} for {layer} in its configuration; give a number there.")
    return LowRankLayer(a, b, alpha / (rank**0.5 if config.get("use_rslora") else rank))


def _some(names: list[str]) -> str:
    """The first of `names` and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
