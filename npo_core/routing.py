"""One UNet, one batch, different weights in every row.

`RoutedUNet` wraps the UNet of a stock diffusers pipeline. Within `rows([...])` row i of the batch is answered by the
weights  theta + aligned_i * eta + negative_i * delta  of its own Mix, where eta and delta are low-rank:

    y_i = W x_i + aligned_i * s_eta * B_eta A_eta x_i + negative_i * s_delta * B_delta A_delta x_i

The rows share A and B and differ in two numbers only. So with the ranks of eta and delta concatenated the update of
all rows is one product down, one scaling of its columns, and one product up that is added onto the layer's output:

    Y += ((X A^T) * c) B^T        A (r, in), B (out, r) with the scales folded in, c (rows, r)

This is exact, costs the same for every set of Mixes, and changing alpha or beta changes c alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from npo_core.adapters import ROLES, Role
from npo_core.errors import InputError
from npo_core.variants import Mix
from npo_core.weights import LowRankLayer, LowRankWeights


def guided_rows(pairs: Sequence[tuple[Mix, Mix]], guidance_scale: float) -> list[Mix]:
    """The Mix of every row that a pipeline sends to its UNet for samples with these (conditional, unconditional) Mixes.

    diffusers batches guidance as [unconditional of every sample, conditional of every sample]. At a guidance scale of
    1 or less it does not ask for the unconditional rows at all; a pair of different Mixes is then refused (InputError).
    """
    if guidance_scale > 1:
        return [unconditional for _, unconditional in pairs] + [conditional for conditional, _ in pairs]
    if any(conditional != unconditional for conditional, unconditional in pairs):
        raise InputError(
            f"At a guidance scale of {guidance_scale:g} the negative branch is not used; give more than 1 for variants "
            "that answer it with other weights, such as aligned_npo."
        )
    return [conditional for conditional, _ in pairs]


class RoutedUNet(nn.Module):
    """A UNet whose rows each run through their own Mix of base, aligned and negative weights.

    Put it in place of `pipeline.unet`. Outside of `rows` it is the base UNet; every attribute that it does not have
    itself (config, dtype, device, add_embedding, ...) is the wrapped UNet's.
    """

    def __init__(self, unet: nn.Module) -> None:
        super().__init__()
        self.unet = unet
        self._adapters: dict[Role, LowRankWeights] = {}
        self._row_count: int | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("unet"), name)

    def set_adapter(self, role: Role, weights: LowRankWeights | None) -> None:
        """Makes `weights` the eta (role aligned) or delta (role negative) of the next `rows`; None removes it.

        `weights.fit` says beforehand whether they fit.
        """
        if weights is None:
            self._adapters.pop(role, None)
        else:
            self._adapters[role] = weights.to(self.device, self.dtype)

    @contextmanager
    def rows(self, mixes: Sequence[Mix]) -> Iterator[None]:
        """Within this context the batch has len(mixes) rows and row i runs through mixes[i].

        Raises InputError when a Mix needs an adapter that was not set.
        """
        if self._row_count is not None:
            raise RuntimeError("RoutedUNet.rows cannot be nested")
        updates = self._updates(mixes)
        handles = []
        self._row_count = len(mixes)
        try:
            for name, update in updates.items():
                handles.append(self.unet.get_submodule(name).register_forward_hook(update))
            yield
        finally:
            self._row_count = None
            for handle in handles:
                handle.remove()

    def _updates(self, mixes: Sequence[Mix]) -> dict[str, _RowUpdate]:
        """One update for every layer that some row's Mix changes."""
        coefficients: dict[Role, list[float]] = {role: [getattr(mix, role) for mix in mixes] for role in ROLES}
        used = [role for role in ROLES if any(coefficients[role])]
        for role in used:
            if role not in self._adapters:
                raise InputError(f"These variants need an adapter of role {role!r} and none is loaded; load one.")
        columns = {role: torch.tensor(coefficients[role], device=self.device, dtype=self.dtype) for role in used}
        parts: dict[str, list[tuple[Tensor, LowRankLayer]]] = {}
        for role in used:
            for name, layer in self._adapters[role].layers.items():
                parts.setdefault(name, []).append((columns[role], layer))
        return {name: _RowUpdate(parts_of_layer) for name, parts_of_layer in parts.items()}

    def forward(self, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The wrapped UNet's forward; `sample` has one row for every Mix: (rows, C, H, W) or (rows, C, F, H, W)."""
        if self._row_count is not None and sample.shape[0] != self._row_count:
            raise ValueError(
                f"the UNet was called with {sample.shape[0]} rows within rows() of {self._row_count} mixes; "
                "give one mix for every row that the pipeline sends (twice the samples where it uses guidance)"
            )
        return self.unet(sample, *args, **kwargs)


class _RowUpdate:
    """A forward hook that adds the low-rank update of every row onto a layer's output, in place."""

    def __init__(self, parts: Sequence[tuple[Tensor, LowRankLayer]]) -> None:
        """parts: (coefficient of every row (rows,), update); their ranks are concatenated to r."""
        self.down = torch.cat([layer.a for _, layer in parts])  # (r, in) or (r, in, kh, kw)
        self.up = torch.cat([layer.b * layer.scale for _, layer in parts], dim=1)  # (out, r) or (out, r, 1, 1)
        self.columns = torch.cat([column[:, None].expand(-1, layer.rank) for column, layer in parts], dim=1)
        self.shaped: dict[int, Tensor] = {}  # size of the first dimension -> columns that broadcast over the input

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        columns = self.shaped.get(x.shape[0])
        if columns is None:
            columns = self.shaped[x.shape[0]] = self._broadcast(x)
        if isinstance(module, nn.Conv2d):
            low = F.conv2d(x, self.down, None, module.stride, module.padding, module.dilation)  # (rows, r, H, W)
            output.add_(F.conv2d(low.mul_(columns), self.up))
        else:
            low = F.linear(x, self.down).mul_(columns)  # (rows, ..., r)
            up = self.up.T.to(output.dtype)  # under autocast the output is in a lower precision than the weights
            output.view(-1, output.shape[-1]).addmm_(low.view(-1, low.shape[-1]), up)

    def _broadcast(self, x: Tensor) -> Tensor:
        """The columns for an input whose first dimension holds each row once or, frames or pixels inside, k times."""
        repeats, rest = divmod(x.shape[0], self.columns.shape[0])
        if rest:
            raise ValueError(f"a layer got {x.shape[0]} inputs, which {self.columns.shape[0]} rows do not divide")
        columns = self.columns.repeat_interleave(repeats, dim=0)  # (rows * k, r)
        if self.down.ndim == 4:
            return columns[:, :, None, None]
        return columns.view(columns.shape[0], *[1] * (x.ndim - 2), columns.shape[1])
