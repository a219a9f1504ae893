"""One UNet, one batch, different weights in every row.

`RoutedUNet` wraps the UNet of a stock diffusers pipeline. Within `rows([...])` row i of the batch is answered by the
weights  theta + aligned_i * eta + negative_i * delta  of its own Mix. eta and delta may be low-rank (a LoRA) or full
(a fine-tuned UNet); `layers` says how one layer is run for rows of each kind, `execution` which way is taken when.
Both are exact, and alpha and beta are numbers in small tensors: changing them changes nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from npo_core.catalog.adapter_files import Role
from npo_core.errors import InputError
from npo_core.routing.batch import Recording, RoutedBatch
from npo_core.routing.execution import STREAMED_SETS, WEIGHT_SETS, Routing, check_routing, choose_routing
from npo_core.routing.layers import KINDS
from npo_core.variants import Mix
from npo_core.weights import AdapterWeights, FullWeights, LowRankWeights, contained, merged


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
        self._batch: RoutedBatch | None = None
        self._to_record: Recording | None = None
        self._recorded: RoutedBatch | None = None
        self._ran = "eager"

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
            given[role] = (
                self._own(weights) if isinstance(weights, FullWeights) else contained(weights.to(dtype=self.dtype))
            )
        if any(isinstance(each, FullWeights) for each in (weights, self._adapters.get(role))):
            self.forget_recording()  # it would keep the set that is gone
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
        changed = {
            name: _laid_out_as(base[name], each)
            for name, each in tensors.items()
            if not torch.equal(each.to(base[name].device), base[name])
        }
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
    def rows(self, mixes: Sequence[Mix], record: Recording | None = None) -> Iterator[None]:
        """Within this context the batch has len(mixes) rows and row i runs through mixes[i].

        record: on a GPU, record the first call and keep the recording for all later rows of the same structure (as
        many of them, wanting the same sets of weights; whatever alpha and beta), until a full set of weights or the
        rank of an adapter changes. Raises InputError when a Mix needs an adapter that was not set.
        """
        if self._batch is not None:
            raise RuntimeError("RoutedUNet.rows cannot be nested")
        self._to_record = record
        try:
            with ExitStack() as self._installed:
                self._install(mixes)
                yield
        finally:
            self._batch = self._to_record = None

    def change_rows(self, mixes: Sequence[Mix]) -> None:
        """Within `rows`, between two calls: row i runs through mixes[i] from now on."""
        self._installed.close()
        self._install(mixes)

    def _install(self, mixes: Sequence[Mix]) -> None:
        self._batch = self._batch_for(mixes)
        self._installed.enter_context(self._batch.installed())

    def forget_recording(self) -> None:
        """Gives back the memory of what was recorded; rows run eagerly from then on."""
        recorded, self._recorded = self._recorded, None
        if recorded is not None and recorded.compiled:
            torch._dynamo.reset()  # its caches keep the weights

    def _batch_for(self, mixes: Sequence[Mix]) -> RoutedBatch:
        """The recorded batch where it can be taken over, else a new one."""
        kept = self._recorded
        if kept is None:
            return RoutedBatch(self.unet, self._adapters, mixes)
        batch = RoutedBatch(self.unet, self._adapters, mixes, kept.roles)
        return kept if kept.adopt(batch) else batch

    @property
    def ran(self) -> str:
        """How the last call was run: "eager", or as a recording of which kind."""
        return self._ran

    def forward(self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, **kwargs: Any) -> Any:
        """The wrapped UNet's forward; `sample` has one row for every Mix: (rows, C, H, W) or (rows, C, F, H, W)."""
        batch = self._batch
        kwargs = {name: value for name, value in kwargs.items() if value is not None}  # one call, however it is written
        if batch is None:
            return self.unet(sample, timestep, encoder_hidden_states, **kwargs)
        if sample.shape[0] != batch.rows:
            raise ValueError(
                f"the UNet was called with {sample.shape[0]} rows within rows() of {batch.rows} mixes; "
                "give one mix for every row that the pipeline sends (twice the samples where it uses guidance)"
            )
        if self._to_record is None:
            output = batch.forward(sample, timestep, encoder_hidden_states, **kwargs)
            self._ran = batch.ran
            return output
        kind, self._to_record = self._to_record, None
        self.forget_recording()
        output = batch.record(kind, sample, timestep, encoder_hidden_states, **kwargs)
        self._recorded, self._ran = batch, kind
        return output


def _laid_out_as(own: Tensor, other: Tensor) -> Tensor:
    last = own.ndim == 4 and own.is_contiguous(memory_format=torch.channels_last)
    return other.contiguous(memory_format=torch.channels_last) if last else other


def _to_host(weights: FullWeights) -> FullWeights:
    """In memory that a GPU copies from without waiting."""
    pinned = torch.cuda.is_available()
    return FullWeights(
        {name: tensor.cpu().pin_memory() if pinned else tensor.cpu() for name, tensor in weights.tensors.items()}
    )
