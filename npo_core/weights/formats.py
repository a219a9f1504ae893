"""Reads weights from the files that people publish.

    LoRA   diffusers   unet.LAYER.lora_A.weight, .lora.down.weight, .lora_linear_layer.down.weight,
                       and the older unet.ATTENTION.processor.to_q_lora.down.weight
           PEFT        base_model.model.LAYER.lora_A.weight, with adapter_config.json beside the file
           kohya       lora_unet_LAYER_WITH_UNDERSCORES.lora_down.weight and .alpha (A1111; LAYER may be the original
                       implementation's name, as it is in most files for SDXL)
    UNet   diffusers   LAYER.weight, LAYER.bias, in a folder such as unet/ or as one file
           original    model.diffusion_model.LAYER.weight, in a whole checkpoint

Names are brought to a model's own by `fit`, which needs that model.
"""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from npo_core.catalog.adapter_files import METADATA_KEY, TRAINED_FOR, locate_adapter
from npo_core.errors import InputError
from npo_core.weights.full import FullWeights
from npo_core.weights.lowrank import LowRankLayer, LowRankWeights

_LORA_KEY = re.compile(
    r"^(?:base_model\.model\.)?(?:unet\.|diffusion_model\.|lora_unet_)?(?P<layer>.+?)"
    r"(?:(?P<a>\.lora_A(?:\.default)?|\.lora_down|[._]lora\.down|\.lora_linear_layer\.down)\.weight"
    r"|(?P<b>\.lora_B(?:\.default)?|\.lora_up|[._]lora\.up|\.lora_linear_layer\.up)\.weight"
    r"|(?P<alpha>\.alpha))$"
)
_TEXT_ENCODER_KEY = re.compile(r"^(?:lora_te[12]?_|(?:base_model\.model\.)?(?:text_encoder(?:_2)?|text_model)\.)")
_UNET_KEY = re.compile(r"^(?:module\.)?(?:unet\.|model\.diffusion_model\.)?(?P<name>.+)$")
_ORIGINAL_PREFIX = "model.diffusion_model."  # of the UNet in a whole original checkpoint; the rest is not ours
_OTHER_METHODS = {"hada_w1_a": "LoHa", "lokr_w1": "LoKr", "dora_scale": "DoRA", "lora_magnitude_vector": "DoRA"}

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
    Raises InputError when the file is damaged or holds neither.
    """
    file = locate_adapter(path)
    tensors, config = read_tensors(file)
    if any(_LORA_KEY.match(key) for key in tensors):
        return _low_rank(file, tensors, config)
    if "conv_in.weight" in _unet_tensors(tensors) or "input_blocks.0.0.weight" in _unet_tensors(tensors):
        return FullWeights(_unet_tensors(tensors))
    example = f" (it begins with {min(tensors)})" if tensors else ""
    raise InputError(
        f"{file} holds no LoRA layers and no UNet{example}; give a LoRA of diffusers, PEFT or kohya, or a UNet's "
        "state dict."
    )


def read_tensors(file: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a safetensors file and the LoraConfig that goes with them ({} where there is none)."""
    try:
        with safe_open(file, framework="pt") as opened:
            header = opened.metadata() or {}
            tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118 (not a dict)
        if METADATA_KEY in header:
            prefixed = json.loads(header[METADATA_KEY])
            return tensors, {key.removeprefix("unet."): value for key, value in prefixed.items()}
        beside = file.parent / "adapter_config.json"
        return tensors, json.loads(beside.read_text(encoding="utf-8-sig")) if beside.is_file() else {}
    except (SafetensorError, OSError, json.JSONDecodeError) as error:
        raise InputError(f"{file} cannot be read as weights ({error}); download or train it again.") from None


def read_pickle(file: Path) -> dict[str, Tensor]:
    """The tensors of a .bin, .pt, .pth or .ckpt file. THIS CAN RUN CODE that whoever made the file put into it."""
    try:
        content: Any = torch.load(file, map_location="cpu", weights_only=False)
    except Exception as error:  # a pickle may raise anything
        raise InputError(f"{file} cannot be read as a pickle ({type(error).__name__}); download it again.") from None
    if isinstance(content, Mapping):
        content = content.get("state_dict", content)
    tensors = {key: value for key, value in dict(content).items() if isinstance(value, Tensor)}
    if not tensors:
        raise InputError(f"{file} holds no tensors; give a file of weights.")
    return tensors


def _unet_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The UNet's parameters without what tools put before their names."""
    if any(key.startswith(_ORIGINAL_PREFIX) for key in tensors):
        tensors = {key: tensor for key, tensor in tensors.items() if key.startswith(_ORIGINAL_PREFIX)}
    return {_UNET_KEY.sub(r"\g<name>", key): tensor for key, tensor in tensors.items()}


def _low_rank(file: Path, tensors: Mapping[str, Tensor], config: Mapping[str, Any]) -> LowRankWeights:
    parts: dict[str, dict[str, Tensor]] = {}  # layer -> {"a", "b", perhaps "alpha"}
    unknown, of_text = [], set()
    for key, tensor in tensors.items():
        match = _LORA_KEY.match(key)
        if _TEXT_ENCODER_KEY.match(key):
            of_text.add(key.split(".lora")[0])
        elif match is None or match.lastgroup is None:
            unknown.append(key)
        else:
            parts.setdefault(_layer_name(match["layer"]), {})[match.lastgroup] = tensor.float()
    if unknown:
        raise InputError(f"{file} is not a plain LoRA: it also holds {_some(unknown)}; {_instead(unknown)}.")
    if not parts:
        raise InputError(f"{file} holds no LoRA layers of a UNet; give one that was trained on the UNet.")
    if of_text:
        logger.warning("%s also changes the text encoder (%d layers), which is left as it is.", file, len(of_text))
    halves = [layer for layer, part in parts.items() if not {"a", "b"} <= part.keys()]
    if halves:
        raise InputError(f"{file} is incomplete: A or B is missing for {_some(halves)}; export or train it again.")
    trained_for = {key.removeprefix(TRAINED_FOR): v for key, v in config.items() if key.startswith(TRAINED_FOR)}
    layers = {layer: _assemble(file, layer, part, config) for layer, part in parts.items()}
    return LowRankWeights(layers, trained_for)


def _layer_name(name: str) -> str:
    """Older diffusers files name a projection by its attention processor: attn1.processor.to_out is attn1.to_out.0."""
    attention, is_processor, projection = name.rpartition(".processor.")
    if not is_processor:
        return name
    return f"{attention}.{projection}{'.0' if projection == 'to_out' else ''}"


def _instead(unknown: list[str]) -> str:
    """What to do about a file with more than A and B."""
    for part, method in _OTHER_METHODS.items():
        if any(part in key for key in unknown):
            return f"{method} is another method, so merge it into a full UNet and give that"
    return "give one with only A and B"


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


def _some(names: list[str]) -> str:
    """The first of `names` and how many more there are."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
