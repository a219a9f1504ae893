"""Brings weights to a UNet's own names and shapes, or says which layers are missing or too many, and whose they are."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, overload

import torch
from torch import Tensor, nn

from npo_core.errors import InputError
from npo_core.weights.full import FullWeights
from npo_core.weights.lowrank import LowRankLayer, LowRankWeights

logger = logging.getLogger(__name__)

TEXT_WIDTHS = {768: "Stable Diffusion 1.x", 1024: "Stable Diffusion 2.x", 2048: "SDXL"}  # of cross-attention
_MOTION = "motion_modules"  # in the names of layers that only clips have
_TRANSFORMER_PARTS = ("transformer.", "double_blocks", "single_blocks", "single_transformer", "joint_blocks")
_RESNET_PARTS = {  # original name -> diffusers' own
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
_OUTER_PARTS = {
    "input_blocks.0.0": "conv_in",
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "label_emb.0.0": "add_embedding.linear_1",
    "label_emb.0.2": "add_embedding.linear_2",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


@overload
def fit(weights: LowRankWeights, unet: nn.Module, what: str) -> LowRankWeights: ...
@overload
def fit(weights: FullWeights, unet: nn.Module, what: str) -> FullWeights: ...
@overload
def fit(weights: LowRankWeights | FullWeights, unet: nn.Module, what: str) -> LowRankWeights | FullWeights: ...
def fit(weights: LowRankWeights | FullWeights, unet: nn.Module, what: str) -> LowRankWeights | FullWeights:
    """`weights` under the names that `unet` knows its layers by.

    Raises InputError, beginning with `what`, unless every layer is one of `unet` with that shape. A LoRA need not touch
    every layer; a full UNet must have all of them (but for motion modules, which are not trained with it).
    """
    if isinstance(weights, LowRankWeights):
        return _fit_low_rank(weights, unet, what)
    return _fit_full(weights, unet, what)


def _fit_low_rank(weights: LowRankWeights, unet: nn.Module, what: str) -> LowRankWeights:
    modules = dict(unet.named_modules())
    layers = _renamed(weights.layers, modules, unet)
    absent = [name for name in layers if name not in modules]
    moving = [name for name in absent if _MOTION in name]
    if absent and moving == absent and len(absent) < len(layers):
        logger.warning("%s also moves clips (%d layers), which pictures have no part in.", what, len(moving))
        layers = {name: layer for name, layer in layers.items() if name in modules}
    elif absent:
        raise InputError(
            f"{what} does not fit this model: {_count(absent)} of its {len(layers)} layers "
            f"{'is' if len(absent) == 1 else 'are'} not in the model{_looks_like(_width(layers), absent, unet)}; "
            "give an adapter that was trained on it."
        )
    layers = {name: _shaped(layer, modules[name]) for name, layer in layers.items()}
    for name, layer in layers.items():
        module = modules[name]
        if not isinstance(module, nn.Linear | nn.Conv2d):
            raise InputError(f"{what} does not fit this model: {name} is neither a linear layer nor a 2D convolution.")
        expected_a = (layer.rank, *module.weight.shape[1:])
        expected_b = (module.weight.shape[0], layer.rank, *[1] * (module.weight.ndim - 2))
        if tuple(layer.a.shape) != expected_a or tuple(layer.b.shape) != expected_b:
            raise InputError(
                f"{what} does not fit this model: for {name} A and B are {tuple(layer.a.shape)} and "
                f"{tuple(layer.b.shape)} where {expected_a} and {expected_b} fit"
                f"{_looks_like(_width(layers), [], unet)}; give an adapter trained on it."
            )
    return replace(weights, layers=layers)


def _shaped(layer: LowRankLayer, module: nn.Module) -> LowRankLayer:
    """`layer` in the dimensions of its module: some tools store a 1x1 convolution flat, or a linear layer as one."""
    weight = getattr(module, "weight", None)
    if not isinstance(weight, Tensor) or weight.ndim not in (2, 4):
        return layer
    ones = [1] * (weight.ndim - 2)
    a, b = layer.a, layer.b
    if math.prod(a.shape[2:]) == 1 and list(weight.shape[2:]) == ones:
        a = a.reshape(*a.shape[:2], *ones)
    if math.prod(b.shape[2:]) == 1:
        b = b.reshape(*b.shape[:2], *ones)
    return LowRankLayer(a, b, layer.scale)


def _fit_full(weights: FullWeights, unet: nn.Module, what: str) -> FullWeights:
    own = unet.state_dict()
    tensors = _renamed_parameters(weights.tensors, own, unet)
    missing = [name for name in own if name not in tensors and _MOTION not in name]
    extra = [name for name in tensors if name not in own]
    wrong = [name for name in tensors if name in own and tensors[name].shape != own[name].shape]
    if missing or extra or wrong:
        found = [
            f"{_count(names)} {'is' if len(names) == 1 else 'are'} {which}"
            for names, which in ((missing, "missing"), (extra, "too many"), (wrong, "of another shape"))
            if names
        ]
        raise InputError(
            f"{what} does not fit this model: of its {len(tensors)} parameters {', '.join(found)}"
            f"{_looks_like(_width(tensors), extra, unet)}; give a UNet of the same architecture."
        )
    return FullWeights(tensors)


def _count(names: list[str]) -> str:
    """How many, and the first by name."""
    return names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"


def _width(entries: Mapping[str, Any]) -> int | None:
    """The width of the text that the cross-attention in `entries` reads; None where there is none."""
    for name, entry in entries.items():
        if "attn2" in name and ("to_k" in name or "to_v" in name):
            return (entry.a if isinstance(entry, LowRankLayer) else entry).shape[1]
    return None


def _looks_like(width: int | None, strange: Iterable[str], unet: nn.Module) -> str:
    """What model the weights look made for, as the tail of a sentence; empty when that cannot be told."""
    if any(part in name for name in strange for part in _TRANSFORMER_PARTS):
        return " (it looks like one for a diffusion transformer)"
    own = getattr(getattr(unet, "config", None), "cross_attention_dim", None)
    if width is None or not isinstance(own, int) or width == own:
        return ""
    made_for = TEXT_WIDTHS.get(width, f"a model whose text is {width} wide")
    return f" (it looks like one for {made_for}, and this is {TEXT_WIDTHS.get(own, f'one whose text is {own} wide')})"


def _renamed(
    layers: Mapping[str, LowRankLayer], modules: Mapping[str, nn.Module], unet: nn.Module
) -> dict[str, LowRankLayer]:
    """`layers` by diffusers' names, whether they came by those, by the original ones, or with underscores for dots."""
    if all(name in modules for name in layers):
        return dict(layers)
    known: dict[str, str] = {}
    for original, name in original_names(unet):
        known[original] = known[original.replace(".", "_")] = name
    known.update((name.replace(".", "_"), name) for name in modules)
    return {known.get(name, name): layer for name, layer in layers.items()}


def _renamed_parameters(
    tensors: Mapping[str, torch.Tensor], own: Mapping[str, torch.Tensor], unet: nn.Module
) -> dict[str, torch.Tensor]:
    if "input_blocks.0.0.weight" not in tensors:
        return dict(tensors)
    known = dict(original_names(unet))
    renamed = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.rpartition(".")
        renamed[f"{known.get(layer, layer)}.{kind}"] = tensor
    return renamed


def original_names(unet: nn.Module) -> Iterator[tuple[str, str]]:
    """(name in the original implementation, name in diffusers) of every layer that has two names.

    The original numbers all blocks through, with resnet, attention and resampling as .0, .1 and .2 inside.
    """
    yield from _OUTER_PARTS.items()
    number = 1
    for place, block in enumerate(_children(unet, "down_blocks")):
        for position in range(len(_children(block, "resnets"))):
            yield from _block_names(f"input_blocks.{number}", f"down_blocks.{place}", position, block)
            number += 1
        if _children(block, "downsamplers"):
            yield f"input_blocks.{number}.0.op", f"down_blocks.{place}.downsamplers.0.conv"
            number += 1
    middle: Any = getattr(unet, "mid_block", None)
    for position in range(len(_children(middle, "resnets"))):
        yield from _resnet_names(f"middle_block.{2 * position}", f"mid_block.resnets.{position}")
    for position, attention in enumerate(_children(middle, "attentions")):
        yield from _attention_names(f"middle_block.{2 * position + 1}", f"mid_block.attentions.{position}", attention)
    number = 0
    for place, block in enumerate(_children(unet, "up_blocks")):
        for position in range(len(_children(block, "resnets"))):
            yield from _block_names(f"output_blocks.{number}", f"up_blocks.{place}", position, block)
            number += 1
        if _children(block, "upsamplers"):
            inside = 2 if _children(block, "attentions") else 1
            yield f"output_blocks.{number - 1}.{inside}.conv", f"up_blocks.{place}.upsamplers.0.conv"


def _children(module: Any, name: str) -> list[nn.Module]:
    return list(getattr(module, name, None) or [])


def _block_names(original: str, block_name: str, position: int, block: nn.Module) -> Iterator[tuple[str, str]]:
    yield from _resnet_names(f"{original}.0", f"{block_name}.resnets.{position}")
    attentions = _children(block, "attentions")
    if attentions:
        yield from _attention_names(f"{original}.1", f"{block_name}.attentions.{position}", attentions[position])


def _resnet_names(original: str, name: str) -> Iterator[tuple[str, str]]:
    for part, own in _RESNET_PARTS.items():
        yield f"{original}.{part}", f"{name}.{own}"


def _attention_names(original: str, name: str, attention: nn.Module) -> Iterator[tuple[str, str]]:
    for part, _ in attention.named_modules():
        if part:
            yield f"{original}.{part}", f"{name}.{part}"
