"""One UNet, one batch, different weights in every row.

`RoutedUNet` wraps the UNet of a stock diffusers pipeline. Within `rows([...])` row i of the batch is answered by the
weights  theta + aligned_i * eta + negative_i * delta  of its own Mix. eta and delta may be low-rank (a LoRA) or full
(a fine-tuned UNet); `layers` says how one layer is run for rows of each kind, `execution` which way is taken when.
Both are exact, and alpha and beta are numbers in small tensors: changing them changes nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from torch import Tensor, nn

from npo_core.adapters import ROLES, Role
from npo_core.errors import InputError
from npo_core.execution import STREAMED_SETS, WEIGHT_SETS, Routing, check_routing, choose_routing
from npo_core.layers import KINDS, LayerWeights, RoutedLayer, RowGroup, RowUpdate
from npo_core.variants import Mix
from npo_core.weights import AdapterWeights, FullWeights, LowRankLayer, LowRankWeights, merged


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
    itself (config, dtype, device, add_embedding, ...) is the wrapped UNet's. `routing` forces one of
    `execution.ROUTINGS`.
    """

    def __init__(self, unet: nn.Module, routing: str | None = None) -> None:
        super().__init__()
        self.unet = unet
        check_routing(routing)
        self._forced_routing = routing
        self._adapters: dict[Role, AdapterWeights] = {}
        self._routing = choose_routing(0, None)
        self._batch: _Batch | None = None

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("unet"), name)

    @property
    def routing(self) -> Routing:
        """How the adapters that are set now are run, and why."""
        return self._routing

    def set_adapter(self, role: Role, weights: AdapterWeights | None) -> None:
        """Makes `weights` the eta (role aligned) or delta (role negative) of the next `rows`; None removes it.

        `weights.fit` says beforehand whether they fit. Raises InputError, and keeps what was set, when the forced
        routing is impossible with them or they change a layer that cannot have several sets of weights.
        """
        given = dict(self._adapters)
        given.pop(role, None)
        if weights is not None:
            if (
                isinstance(weights, LowRankWeights)
                and role == "aligned"
                and self._forced_routing in (WEIGHT_SETS, STREAMED_SETS)
            ):
                weights = merged(self.unet, weights.to(self.device))
            given[role] = weights.to(dtype=self.dtype) if isinstance(weights, LowRankWeights) else self._own(weights)
        full_bytes = sum(each.size_bytes for each in given.values() if isinstance(each, FullWeights))
        routing = choose_routing(full_bytes, self._free_bytes(given), self._forced_routing)
        streamed = routing.name == STREAMED_SETS
        self._adapters = {
            name: _to_host(each) if streamed and isinstance(each, FullWeights) else each.to(self.device)
            for name, each in given.items()
        }
        self._routing = routing

    def _own(self, weights: FullWeights) -> FullWeights:
        """The tensors of `weights` that differ from the base's, in its dtype."""
        base = self.unet.state_dict()
        tensors = {name: tensor.to(dtype=self.dtype) for name, tensor in weights.tensors.items()}
        changed = {name: each for name, each in tensors.items() if not torch.equal(each.to(self.device), base[name])}
        for name in changed:
            layer = self.unet.get_submodule(name.rpartition(".")[0])
            if not isinstance(layer, KINDS):
                raise InputError(
                    f"{name} is changed, and a layer of the kind {type(layer).__name__} cannot be run with several "
                    "sets of weights; give a LoRA."
                )
        return FullWeights(changed)

    def _free_bytes(self, given: Mapping[Role, AdapterWeights]) -> int | None:
        """What the device would have for the full weights in `given`; None on a CPU, which has nothing beside it."""
        if self.device.type != "cuda":
            return None
        free_bytes, _ = torch.cuda.mem_get_info(self.device)
        unused = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        there = (tensor for each in given.values() if isinstance(each, FullWeights) for tensor in each.tensors.values())
        return free_bytes + unused + sum(tensor.nbytes for tensor in there if tensor.device == self.device)

    @contextmanager
    def rows(self, mixes: Sequence[Mix]) -> Iterator[None]:
        """Within this context the batch has len(mixes) rows and row i runs through mixes[i].

        Raises InputError when a Mix needs an adapter that was not set.
        """
        if self._batch is not None:
            raise RuntimeError("RoutedUNet.rows cannot be nested")
        batch = self._plan(mixes)
        own = {routed: routed.layer.__dict__.get("forward") for routed in batch.layers}
        self._batch = batch
        try:
            for routed in batch.layers:
                routed.layer.forward = routed
            yield
        finally:
            self._batch = None
            for routed, forward in own.items():
                if forward is None:
                    routed.layer.__dict__.pop("forward", None)
                else:  # another library (offloading) had put one there
                    routed.layer.forward = forward

    def forward(self, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The wrapped UNet's forward; `sample` has one row for every Mix: (rows, C, H, W) or (rows, C, F, H, W)."""
        batch = self._batch
        if batch is None:
            return self.unet(sample, *args, **kwargs)
        if sample.shape[0] != batch.rows:
            raise ValueError(
                f"the UNet was called with {sample.shape[0]} rows within rows() of {batch.rows} mixes; "
                "give one mix for every row that the pipeline sends (twice the samples where it uses guidance)"
            )
        if batch.order is None or batch.inverse is None:
            return self.unet(sample, *args, **kwargs)
        sample, args, kwargs = _reordered((sample, args, kwargs), batch.order)
        return _reordered(self.unet(sample, *args, **kwargs), batch.inverse)

    def _plan(self, mixes: Sequence[Mix]) -> _Batch:
        """One RoutedLayer for every layer that some row's Mix changes."""
        shares: dict[Role, list[float]] = {role: [getattr(mix, role) for mix in mixes] for role in ROLES}
        used = {role: self._adapters.get(role) for role in ROLES if any(shares[role])}
        for role, weights in used.items():
            if weights is None:
                raise InputError(f"These variants need an adapter of role {role!r} and none is loaded; load one.")
        full = {role: weights.tensors for role, weights in used.items() if isinstance(weights, FullWeights)}
        low_rank = {role: weights.layers for role, weights in used.items() if isinstance(weights, LowRankWeights)}
        order, groups = self._group([[shares[role][row] for role in full] for row in range(len(mixes))])
        columns = {role: self._tensor([shares[role][row] for row in order]) for role in low_rank}
        parts: dict[str, list[tuple[Tensor, LowRankLayer]]] = {}
        for role, layers in low_rank.items():
            for name, layer in layers.items():
                parts.setdefault(name, []).append((columns[role], layer))
        sets = self._sets(list(full.values()))
        reorder = None if order == sorted(order) else torch.tensor(order, device=self.device)
        return _Batch(
            rows=len(mixes),
            order=reorder,
            inverse=None if reorder is None else reorder.argsort(),
            layers=[
                RoutedLayer(
                    self.unet.get_submodule(name),
                    len(mixes),
                    groups,
                    sets.get(name),
                    _row_update(parts[name]) if name in parts else None,
                )
                for name in sets.keys() | parts.keys()
            ],
        )

    def _group(self, shares: list[list[float]]) -> tuple[list[int], list[RowGroup]]:
        """The order that puts rows which need the same sets side by side, and those groups.

        shares: for every row its share of each full set beyond the base.
        """
        coefficients = [[1 - sum(row), *row] for row in shares]  # (rows, sets); they sum to 1
        needed = [tuple(number for number, share in enumerate(row) if share) for row in coefficients]
        order = sorted(range(len(shares)), key=lambda row: needed[row])
        groups, start = [], 0
        for sets, members in groupby(order, key=lambda row: needed[row]):
            rows = list(members)
            of_sets = [[coefficients[row][number] for row in rows] for number in sets]
            groups.append(RowGroup(start, start + len(rows), sets, self._tensor(of_sets)))
            start += len(rows)
        return order, groups

    def _sets(self, full: Sequence[Mapping[str, Tensor]]) -> dict[str, dict[int, LayerWeights]]:
        """For every layer that some full set changes: the layer's weights by the number of the set, 0 the base."""
        names = {tensor_name.rpartition(".")[0] for tensors in full for tensor_name in tensors}
        sets: dict[str, dict[int, LayerWeights]] = {}
        for name in names:
            own = dict(self.unet.get_submodule(name).named_parameters(recurse=False))
            sets[name] = {
                number: {key: tensors.get(f"{name}.{key}", tensor) for key, tensor in own.items()}
                for number, tensors in enumerate([{}, *full])
            }
        return sets

    def _tensor(self, numbers: Sequence[Any]) -> Tensor:
        return torch.tensor(numbers, device=self.device, dtype=self.dtype)


@dataclass(frozen=True)
class _Batch:
    """How the rows of one batch are run. order: row i of the UNet's batch is row order[i] of the caller's."""

    rows: int
    order: Tensor | None  # None: they are the same
    inverse: Tensor | None
    layers: list[RoutedLayer]


def _row_update(parts: Sequence[tuple[Tensor, LowRankLayer]]) -> RowUpdate:
    """parts: (share of every row (rows,), LoRA of the layer); their ranks are concatenated."""
    down = torch.cat([layer.a for _, layer in parts])
    up = torch.cat([layer.b * layer.scale for _, layer in parts], dim=1)  # (out, r) or (out, r, 1, 1)
    columns = torch.cat([column[:, None].expand(-1, layer.rank) for column, layer in parts], dim=1)  # (rows, r)
    return RowUpdate(down, up if up.ndim == 4 else columns[:, :, None] * up.T, columns)


def _reordered(value: Any, order: Tensor) -> Any:
    """`value` with the rows of every tensor in it in `order`; a tensor may hold several entries for each row."""
    if isinstance(value, Tensor):
        repeats, rest = divmod(value.shape[0] if value.ndim else 1, len(order))
        if rest or not value.ndim:  # one for the whole batch, such as the timestep
            return value
        return value.unflatten(0, (len(order), repeats)).index_select(0, order).flatten(0, 1)
    if isinstance(value, Mapping):
        return type(value)(**{key: _reordered(each, order) for key, each in value.items()})
    if isinstance(value, tuple | list):
        return type(value)(_reordered(each, order) for each in value)
    return value


def _to_host(weights: FullWeights) -> FullWeights:
    """In memory that a GPU copies from without waiting."""
    pinned = torch.cuda.is_available()
    return FullWeights(
        {name: tensor.cpu().pin_memory() if pinned else tensor.cpu() for name, tensor in weights.tensors.items()}
    )
