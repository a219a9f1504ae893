"""One layer of the UNet, run for rows that each have weights of their own.

Row i of a batch has the weights  theta + aligned_i * eta + negative_i * delta. Both terms come in two forms:

low-rank  The rows share A and B and differ in one number for each rank, so the update of all rows is one product down
          and one batched product up onto the layer's output:  Y_i += (X_i A^T) (c_i * B^T).
full      The layer has several sets of weights, W_0 (base), W_1, ... Every layer here is linear in its weights, so
          for W = sum_k c_k W_k with sum_k c_k = 1 the layer is exactly  sum_k c_k layer(X; W_k). Rows are grouped by
          the sets that they need: a row of the base or of a fine-tuned model passes one set, as it would alone, and
          only a row between two models pays for both. No third set is merged or kept, whatever alpha and beta are.

A row never changes another one, whatever its weights are: what a row does not use is left out of its sums rather than
multiplied by 0, for 0 times infinity is not 0.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from diffusers.models.normalization import FP32LayerNorm, RMSNorm
from torch import Tensor, nn

from npo_core.errors import InputError

# All linear in their weights. Diffusion transformers have the last three.
KINDS = (nn.Linear, nn.Conv2d, nn.GroupNorm, nn.LayerNorm, nn.Conv3d, nn.RMSNorm, RMSNorm)

LayerWeights = dict[str, Tensor]  # "weight" and, where the layer has one, "bias"


@dataclass(frozen=True)
class RowGroup:
    """Neighbouring rows that need the same sets. coefficients: (sets, rows), in the layers' dtype."""

    start: int
    stop: int
    sets: tuple[int, ...]
    coefficients: Tensor


class RowUpdate(NamedTuple):
    """The low-rank update of one layer for all rows, ranks of eta and delta concatenated to r.

    down: (r, in) for a linear layer, (r, in, kh, kw) for a convolution.
    up: (rows, r, out) for a linear layer, each row's own coefficients and the scales of the LoRAs multiplied in;
        (out, r, 1, 1) for a convolution, whose coefficients are `columns` (rows, r).
    unused: (rows, r) bool, where columns are 0: there nothing is added, not even 0 times infinity.
    """

    down: Tensor
    up: Tensor
    columns: Tensor
    unused: Tensor


class RoutedLayer:
    """What takes the place of a layer's forward while rows are routed."""

    def __init__(
        self,
        layer: nn.Module,
        rows: int,
        groups: Sequence[RowGroup],
        sets: dict[int, LayerWeights] | None,
        update: RowUpdate | None,
    ) -> None:
        """sets: the weights of every set that `groups` name; None when all rows share the layer's own.

        Raises InputError for a low-rank update of a layer that is neither linear nor a 2D convolution.
        """
        if update is not None and not isinstance(layer, nn.Linear | nn.Conv2d):
            raise InputError(
                f"A LoRA changes a layer of the kind {type(layer).__name__}, which takes none here; leave it out."
            )
        self.layer: Any = layer
        self.own_forward: Any = layer.forward
        self.rows = rows
        self.groups = tuple(groups)
        self.sets = sets
        self.update = update

    def __call__(self, x: Tensor) -> Tensor:
        """x: (rows * k, ...), k inputs for each row: 1, or the frames or pixels of a clip."""
        if x.shape[0] % self.rows:
            raise ValueError(f"a layer got {x.shape[0]} inputs, which {self.rows} rows do not divide")
        output = self.own_forward(x) if self.sets is None else self._grouped(x, self.sets)
        if self.update is not None:
            output = self._updated(output, x, self.update)
        return output

    def _grouped(self, x: Tensor, sets: dict[int, LayerWeights]) -> Tensor:
        repeats = x.shape[0] // self.rows
        outputs = []
        for group in self.groups:
            part = x[group.start * repeats : group.stop * repeats]
            if len(group.sets) == 1:
                outputs.append(run_layer(self.layer, part, sets[group.sets[0]]))
                continue
            terms = (
                run_layer(self.layer, part, sets[number]).mul_(_per_row(coefficients, repeats, part))
                for number, coefficients in zip(group.sets, group.coefficients, strict=True)
            )
            outputs.append(functools.reduce(Tensor.add_, terms))
        return torch.cat(outputs) if len(outputs) > 1 else outputs[0]

    def _updated(self, output: Tensor, x: Tensor, update: RowUpdate) -> Tensor:
        if isinstance(self.layer, nn.Conv2d):
            conv = self.layer
            low = F.conv2d(x, update.down, None, conv.stride, conv.padding, conv.dilation)  # (rows * k, r, H, W)
            repeats = x.shape[0] // self.rows
            low = low.mul_(_per_row(update.columns, repeats, low))
            low = low.masked_fill_(_per_row(update.unused, repeats, low), 0)
            return output.add_(F.conv2d(low, update.up))
        low = F.linear(x, update.down)  # (rows * k, ..., r)
        low = low.view(self.rows, -1, low.shape[-1]).masked_fill_(update.unused[:, None], 0)
        up = update.up.to(output.dtype)  # under autocast the output is in a lower precision than the weights
        output.view(self.rows, -1, output.shape[-1]).baddbmm_(low, up)
        return output


def run_layer(layer: Any, x: Tensor, weights: LayerWeights) -> Tensor:
    """`layer` with other weights; where they lie on another device, they are copied to that of `x` for this call."""
    weight, bias = (
        None if tensor is None else tensor.to(x.device, non_blocking=True)
        for tensor in (weights.get("weight"), weights.get("bias"))
    )
    if isinstance(layer, nn.Conv3d | nn.RMSNorm | RMSNorm | FP32LayerNorm):
        return _with_parameters(layer, x, {"weight": weight, "bias": bias})
    if isinstance(layer, nn.GroupNorm):
        return F.group_norm(x, layer.num_groups, weight, bias, layer.eps)
    if isinstance(layer, nn.LayerNorm):
        return F.layer_norm(x, layer.normalized_shape, weight, bias, layer.eps)
    assert weight is not None  # norms may have none
    if isinstance(layer, nn.Conv2d):
        return layer._conv_forward(x, weight, bias)
    return F.linear(x, weight, bias)


def _with_parameters(layer: Any, x: Tensor, parameters: dict[str, Tensor | None]) -> Tensor:
    """The layer's own forward pass, with its precision and all, on other parameters."""
    own = {name: layer._parameters[name] for name in parameters if name in layer._parameters}
    try:
        layer._parameters.update({name: parameters[name] for name in own})
        output: Tensor = type(layer).forward(layer, x)
        return output
    finally:
        layer._parameters.update(own)


def _per_row(coefficients: Tensor, repeats: int, like: Tensor) -> Tensor:
    """coefficients (rows,) or (rows, channels), each for `repeats` inputs, shaped to broadcast over `like`."""
    each = coefficients.repeat_interleave(repeats, dim=0) if repeats > 1 else coefficients
    each = each.view(*each.shape, *[1] * (like.ndim - each.ndim))
    return each if each.dtype == torch.bool else each.to(like.dtype)
