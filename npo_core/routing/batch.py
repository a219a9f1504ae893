"""The rows of one batch: how the UNet runs each of them with its own weights, and recordings of that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor, nn

from npo_core.catalog.adapter_files import ROLES, Role
from npo_core.errors import InputError
from npo_core.routing.acceleration import CapturedForward, Once, Stored, cross_attention_projections
from npo_core.routing.layers import LayerWeights, RoutedLayer, RowGroup, RowUpdate
from npo_core.variants import Mix
from npo_core.weights import AdapterWeights, FullWeights, LowRankLayer, LowRankWeights

Recording = Literal["cuda_graph", "compiled_cuda_graph"]

FOR_ALL_ROWS = ("return_dict", "cross_attention_kwargs")  # every other argument of a UNet has entries for each row


class RoutedBatch:
    """`unet` for rows that each run through their own Mix of base, aligned and negative weights.

    It changes the UNet only within `installed()`. Keys and values of the text are computed once for each text.
    """

    def __init__(
        self,
        unet: Any,
        adapters: Mapping[Role, AdapterWeights],
        mixes: Sequence[Mix],
        roles: Sequence[Role] = (),
        as_given: bool = False,
    ) -> None:
        """roles: those whose low-rank weights get a place even where no Mix needs them, for a later `adopt`.
        as_given: the rows stay in their order and the text is never taken for the same: what a transformer needs, of
        whose arguments some have an entry for each row, some for all, and whose text changes from block to block.

        Raises InputError when a Mix needs an adapter that is not there.
        """
        self.unet = unet
        self.rows = len(mixes)
        shares: dict[Role, list[float]] = {role: [getattr(mix, role) for mix in mixes] for role in ROLES}
        missing = [role for role in ROLES if any(shares[role]) and role not in adapters]
        if missing:
            raise InputError(f"These variants need an adapter of role {missing[0]!r} and none is loaded; load one.")
        self.roles = [role for role in ROLES if role in adapters and (any(shares[role]) or role in roles)]
        used = {role: adapters[role] for role in self.roles}
        full = {role: each.tensors for role, each in used.items() if isinstance(each, FullWeights)}
        low_rank = {role: each.layers for role, each in used.items() if isinstance(each, LowRankWeights)}
        self._row_order, self.groups = self._group(
            [[shares[role][row] for role in full] for row in range(self.rows)], as_given
        )
        # Row i of the UNet's batch is row order[i] of the caller's; None where they are the same.
        self.order = (
            None if self._row_order == sorted(self._row_order) else torch.tensor(self._row_order, device=unet.device)
        )
        self.inverse = None if self.order is None else self.order.argsort()
        parts: dict[str, list[tuple[Tensor, LowRankLayer]]] = {}
        for role, layers in low_rank.items():
            column = self._tensor([shares[role][row] for row in self._row_order])
            for name, layer in layers.items():
                parts.setdefault(name, []).append((column, layer))
        sets = self._sets(list(full.values()))
        self.layers = {
            name: RoutedLayer(
                unet.get_submodule(name),
                self.rows,
                self.groups,
                sets.get(name),
                _row_update(parts[name]) if name in parts else None,
            )
            for name in sets.keys() | parts.keys()
        }
        routed = {layer.layer: layer for layer in self.layers.values()}
        self._projections = {
            layer: Once(routed.get(layer, layer.forward))
            for layer in ([] if as_given else cross_attention_projections(unet))
        }
        self._routed: dict[nn.Module, Callable[..., Any]] = dict(routed)
        self._in_order = Once(self._put_in_order)
        self._recorded: _Recorded | None = None
        self.ran = "eager"  # how the last call was run; otherwise the kind of the recording

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Within this context the UNet's layers run as the batch says; `forward` needs it."""
        with _replaced({**self._routed, **self._projections}):
            yield

    def forward(self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, **kwargs: Any) -> Any:
        """The UNet's output for one step; all tensors have the rows of the caller, in its order."""
        text = self._in_order(encoder_hidden_states)
        if self._recorded is not None:
            call = (sample, _as_tensor(timestep, sample), text)
            if self._recorded.forward.fits(*call, **kwargs):
                self._recorded.prepare(text)
                self.ran = self._recorded.kind
                return self._recorded.forward(*call, **kwargs)
        self.ran = "eager"
        return self._run(self.unet, sample, timestep, text, **kwargs)

    @property
    def compiled(self) -> bool:
        """Whether the recording is of a compiled UNet."""
        return self._recorded is not None and self._recorded.kind == "compiled_cuda_graph"

    def record(
        self, kind: Recording, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, **kwargs: Any
    ) -> Any:
        """Records `forward` for calls like this one, on a GPU, and returns this one's output. Takes up to minutes."""
        output = self.forward(sample, timestep, encoder_hidden_states, **kwargs)
        text = self._in_order(encoder_hidden_states)
        stored = {layer: Stored(once(text).clone()) for layer, once in self._projections.items() if once.source is text}

        def fill(text: Tensor) -> Tensor:
            for layer, place in stored.items():
                place.output.copy_(self._projections[layer].function(text))
            return text

        function = self.unet.forward
        if kind == "compiled_cuda_graph":
            function = torch.compile(function, dynamic=False)
        call = (sample, _as_tensor(timestep, sample), text)
        with _replaced({**self._routed, **stored}):
            captured = CapturedForward(partial(self._run, function), *call, **kwargs)
        self._recorded = _Recorded(kind, captured, Once(fill))
        return output

    def adopt(self, other: RoutedBatch) -> bool:
        """Takes over the weights and shares of `other`, a batch of the same structure, so that recordings hold for it.

        False, and nothing is changed, when the structures differ: other rows, ranks, layers or full sets of weights.
        """
        if self._structure() != other._structure():
            return False
        for own, new in zip(self._values(), other._values(), strict=True):
            own.copy_(new)
        for once in (*self._projections.values(), *([self._recorded.prepare] if self._recorded else [])):
            once.forget()
        return True

    def _run(self, function: Callable[..., Any], sample: Tensor, timestep: Any, text: Tensor, **kwargs: Any) -> Any:
        """`function` on the rows as `order` has them; `text` is in that order already."""
        if self.order is None or self.inverse is None:
            return function(sample, timestep, encoder_hidden_states=text, **kwargs)
        own = {name: value if name in FOR_ALL_ROWS else _reordered(value, self.order) for name, value in kwargs.items()}
        # One timestep is for all rows; several are one for each.
        when = _reordered(timestep, self.order) if isinstance(timestep, Tensor) and timestep.numel() > 1 else timestep
        output = function(_reordered(sample, self.order), when, encoder_hidden_states=text, **own)
        return _reordered(output, self.inverse)

    def _put_in_order(self, text: Tensor) -> Tensor:
        return text if self.order is None else _reordered(text, self.order)

    def _structure(self) -> object:
        """Equal for batches that differ in the numbers in `_values` alone."""
        layers = {
            name: (
                layer.update and [tensor.shape for tensor in layer.update],
                layer.sets and [id(tensor) for weights in layer.sets.values() for tensor in weights.values()],
            )
            for name, layer in self.layers.items()
        }
        return self.rows, self._row_order, [(group.start, group.stop, group.sets) for group in self.groups], layers

    def _values(self) -> list[Tensor]:
        """What alpha, beta and the low-rank weights are in, in an order that equal structures share."""
        updates = [self.layers[name].update for name in sorted(self.layers)]
        return [group.coefficients for group in self.groups] + [tensor for update in updates for tensor in update or ()]

    def _group(self, shares: list[list[float]], as_given: bool) -> tuple[list[int], list[RowGroup]]:
        """The order that puts rows which need the same sets side by side, and those groups.

        shares: for every row its share of each full set beyond the base.
        """
        coefficients = [[1 - sum(row), *row] for row in shares]  # (rows, sets); they sum to 1
        needed = [tuple(number for number, share in enumerate(row) if share) for row in coefficients]
        order = list(range(len(shares))) if as_given else sorted(range(len(shares)), key=lambda row: needed[row])
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
        return torch.tensor(numbers, device=self.unet.device, dtype=self.unet.dtype)


@dataclass(frozen=True)
class _Recorded:
    """prepare(text) fills in keys and values of the text; it must be called before `forward`."""

    kind: Recording
    forward: CapturedForward
    prepare: Once


@contextmanager
def _replaced(forwards: Mapping[nn.Module, Any]) -> Iterator[None]:
    """Within this context each layer's forward is the given one's `__call__`: torch.compile follows methods."""
    previous = {layer: layer.__dict__.get("forward") for layer in forwards}
    try:
        for layer, forward in forwards.items():
            layer.forward = forward.__call__
        yield
    finally:
        for layer, before in previous.items():
            if before is None:
                layer.__dict__.pop("forward", None)
            else:
                layer.forward = before


def _as_tensor(timestep: Any, like: Tensor) -> Tensor:
    """The timestep as the UNet itself would turn it into numbers, on its device."""
    return torch.as_tensor(timestep, device=like.device).float()


def _row_update(parts: Sequence[tuple[Tensor, LowRankLayer]]) -> RowUpdate:
    """parts: (share of every row (rows,), LoRA of the layer); their ranks are concatenated."""
    contained = [_contained(column, layer) for column, layer in parts]
    down = torch.cat([layer.a for _, layer in contained])
    up = torch.cat([layer.b * layer.scale for _, layer in contained], dim=1)  # (out, r) or (out, r, 1, 1)
    columns = torch.cat([column[:, None].expand(-1, layer.rank) for column, layer in contained], dim=1)  # (rows, r)
    return RowUpdate(down, up if up.ndim == 4 else columns[:, :, None] * up.T, columns, columns == 0)


def _contained(column: Tensor, layer: LowRankLayer) -> tuple[Tensor, LowRankLayer]:
    """Shares and LoRA of which only the shares are not finite, and only those of rows that use it: see `contained`."""
    if math.isfinite(layer.scale):
        return column, layer
    return torch.where(column == 0, 0.0, math.nan).to(column.dtype), replace(layer, scale=1.0)


def _reordered(value: Any, order: Tensor) -> Any:
    """`value` with the rows of every tensor in it in `order`; a tensor may hold several entries for each row."""
    if isinstance(value, Tensor):
        return value.unflatten(0, (len(order), -1)).index_select(0, order).flatten(0, 1)
    if isinstance(value, Mapping):
        return type(value)(**{key: _reordered(each, order) for key, each in value.items()})
    if isinstance(value, tuple | list):
        return type(value)(_reordered(each, order) for each in value)
    return value
