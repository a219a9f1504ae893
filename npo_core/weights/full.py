"""Whole UNets as weights: a published fine-tuned or aligned model, and the LoRA closest to what it changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from npo_core.weights.lowrank import LowRankLayer, LowRankWeights

OVERSAMPLING = 16  # extra directions of the randomised SVD (Halko, Martinsson, Tropp 2011), then cut off
POWER_ITERATIONS = 4


@dataclass(frozen=True)
class FullWeights:
    """A fine-tuned model as it is published: tensors of its UNet by their names in `unet.state_dict()`.

    They are the weights themselves, theta + eta or theta + delta, not the difference. A name that is missing stands
    for the base's own tensor.
    """

    tensors: dict[str, Tensor]

    def to(self, device: torch.device | None = None, dtype: torch.dtype | None = None) -> FullWeights:
        """The same weights on another device or in another dtype."""
        return FullWeights({name: tensor.to(device, dtype) for name, tensor in self.tensors.items()})

    @property
    def size_bytes(self) -> int:
        return sum(tensor.nbytes for tensor in self.tensors.values())


AdapterWeights = LowRankWeights | FullWeights


def merged(unet: nn.Module, weights: LowRankWeights) -> FullWeights:
    """theta + scale * B A for every layer of `weights`, computed in float32 at least, in the UNet's dtype."""
    tensors = {}
    for name, layer in weights.layers.items():
        weight = unet.get_submodule(name).weight
        assert isinstance(weight, Tensor)
        precise = torch.promote_types(weight.dtype, torch.float32)
        product = layer.b.to(precise).flatten(1) @ layer.a.to(precise).flatten(1)  # (out, in * kernel)
        tensors[f"{name}.weight"] = (weight.to(precise) + layer.scale * product.view_as(weight)).to(weight.dtype)
    return FullWeights(tensors)


@dataclass(frozen=True)
class Extraction:
    """The LoRA closest to a full model's offset, and what it misses.

    relative_error is ||offset - LoRA|| / ||offset|| over everything that differs, by the Frobenius norm; `left_out` is
    the share of it, squared, that no LoRA can hold (norms, biases). errors has the relative error by layer.
    """

    weights: LowRankWeights
    relative_error: float
    left_out: float
    errors: dict[str, float]


@torch.no_grad()
def extract_low_rank(
    base: Mapping[str, Tensor], tuned: FullWeights, unet: nn.Module, rank: int, device: torch.device | str = "cpu"
) -> Extraction:
    """The best LoRA of `rank` for tuned - base, layer by layer, by truncated SVD (Eckart-Young).

    base and tuned hold every parameter of `unet`, which is asked for its linear layers and convolutions only. Layers
    that do not differ get no update.
    """
    modules = dict(unet.named_modules())
    layers: dict[str, LowRankLayer] = {}
    errors: dict[str, float] = {}
    total = missed = outside = 0.0  # squared norms
    for name, tensor in tuned.tensors.items():
        offset = tensor.to(device, torch.float32) - base[name].to(device, torch.float32)
        energy = offset.square().sum().item()
        total += energy
        layer_name, _, kind = name.rpartition(".")
        if kind != "weight" or not isinstance(modules.get(layer_name), nn.Linear | nn.Conv2d):
            outside += energy
        elif energy:
            layer, residual = _truncate(offset, rank)
            layers[layer_name] = layer
            errors[layer_name] = (residual / energy) ** 0.5
            missed += residual
    return Extraction(
        LowRankWeights(layers),
        relative_error=((missed + outside) / total) ** 0.5 if total else 0.0,
        left_out=outside / total if total else 0.0,
        errors=errors,
    )


def _truncate(offset: Tensor, rank: int) -> tuple[LowRankLayer, float]:
    """The closest product B A of `rank` to offset (out, in) or (out, in, kh, kw), and the squared norm of the rest."""
    matrix = offset.flatten(1)  # (out, in * kernel)
    rank = min(rank, *matrix.shape)
    if rank + OVERSAMPLING >= min(matrix.shape):
        left, singular, right = torch.linalg.svd(matrix, full_matrices=False)
    else:
        with torch.random.fork_rng(devices=[matrix.device] if matrix.is_cuda else []):
            torch.manual_seed(0)
            left, singular, right = torch.svd_lowrank(matrix, rank + OVERSAMPLING, POWER_ITERATIONS)
        right = right.T
    root = singular[:rank].sqrt()  # shared between both factors, so that neither leaves the range of float16
    b, a = left[:, :rank] * root, root[:, None] * right[:rank]
    residual = (matrix - b @ a).square().sum().item()
    ones = [1] * (offset.ndim - 2)
    return LowRankLayer(a.reshape(rank, *offset.shape[1:]).cpu(), b.reshape(-1, rank, *ones).cpu(), 1.0), residual
