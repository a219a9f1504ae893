"""The ways of making three variants that `side_by_side` compares: published, stock, PEFT's, ours."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.calls import GUIDANCE, Setting
from benchmarks.shapes import Case, random_fine_tune, random_lora
from npo_core.catalog.families import get_family
from npo_core.routing.batch import Recording
from npo_core.routing.execution import LOW_RANK, WEIGHT_SETS
from npo_core.routing.network import RoutedUNet, guided_rows
from npo_core.variants import DEFAULT_VARIANTS, Mix, get_variant
from npo_core.weights import AdapterWeights, FullWeights, LowRankLayer, LowRankWeights, fit, load_adapter

PAIRS = [get_variant(name).mixes(1.0, 1.0) for name in DEFAULT_VARIANTS]  # (conditional, unconditional)


def adapters_of(case: Case, unet: Any, full: bool) -> tuple[AdapterWeights, LowRankWeights]:
    """eta (a whole UNet where `full`) and delta."""
    if full:
        return random_fine_tune(unet, seed=1), random_lora(unet, case.rank, seed=2)
    if case.family is None:
        return random_lora(unet, case.rank, seed=1), random_lora(unet, case.rank, seed=2)
    family = get_family(case.family)
    assert family.aligned
    assert family.negative
    aligned, negative = (fit(load_adapter(path), unet, path) for path in (family.aligned, family.negative))
    return aligned, negative


def merge_(unet: Any, mix: Mix, eta: AdapterWeights, delta: AdapterWeights) -> Any:
    """`unet` with theta + aligned * eta + negative * delta in place of theta; the sums are taken in float32."""
    state = unet.state_dict()
    offsets: dict[str, Tensor] = {}
    for share, weights in ((mix.aligned, eta), (mix.negative, delta)):
        for name, offset in _offsets(weights, state, unet.device):
            if share:
                offsets[name] = offsets.get(name, 0) + share * offset
    for name, offset in offsets.items():
        state[name].copy_(state[name].float() + offset)
    return unet


def _offsets(weights: AdapterWeights, state: dict[str, Tensor], device: torch.device) -> Iterator[tuple[str, Tensor]]:
    if isinstance(weights, FullWeights):
        for name, tensor in weights.tensors.items():
            yield name, tensor.to(device).float() - state[name].float()
        return
    for name, layer in weights.layers.items():
        product = layer.b.float().flatten(1) @ layer.a.float().flatten(1)
        yield f"{name}.weight", (layer.scale * product).view_as(state[f"{name}.weight"]).to(device)


class TwoUNets(nn.Module):
    """The published code's way: the unconditional half of the batch by one UNet, the conditional half by another."""

    def __init__(self, unconditional: Any, conditional: Any) -> None:
        super().__init__()
        self.unconditional, self.conditional = unconditional, conditional

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("conditional"), name)

    def forward(self, sample: Tensor, timestep: Any, encoder_hidden_states: Tensor, **kwargs: Any) -> Any:
        added = kwargs.pop("added_cond_kwargs", None) or {}
        halves = []
        for place, unet in enumerate((self.unconditional, self.conditional)):
            half = {"added_cond_kwargs": {name: each.chunk(2)[place] for name, each in added.items()}} if added else {}
            text = encoder_hidden_states.chunk(2)[place]
            halves.append(unet(sample.chunk(2)[place], timestep, text, **{**kwargs, "return_dict": False}, **half)[0])
        output = torch.cat(halves)
        return SimpleNamespace(sample=output) if kwargs.get("return_dict", True) else (output,)


class PeftUNet(nn.Module):
    """One batch of six with PEFT's mixed adapters; alpha*eta + beta*delta is an adapter of its own, ranks joined."""

    def __init__(self, unet: Any, eta: LowRankWeights, delta: LowRankWeights) -> None:
        super().__init__()
        self.unet = unet
        joined = {
            name: LowRankLayer(
                torch.cat([eta.layers[name].a, layer.a]),
                torch.cat([eta.layers[name].b * eta.layers[name].scale, layer.b * layer.scale], dim=1),
                1.0,
            )
            for name, layer in delta.layers.items()
        }
        for adapter, weights in (("aligned", eta), ("negative", LowRankWeights(joined))):
            add_peft_adapter(unet, adapter, weights)
        names = {Mix(0, 0): "__base__", Mix(1, 0): "aligned", Mix(1, 1): "negative"}
        self.names = [names[mix] for mix in guided_rows(PAIRS, GUIDANCE)]
        for module in unet.modules():
            if hasattr(module, "lora_A"):
                module.register_forward_pre_hook(self._name_rows, with_kwargs=True)

    def _name_rows(self, module: Any, args: tuple[Tensor, ...], kwargs: dict[str, Any]) -> tuple[Any, Any]:
        repeats = len(args[0]) // len(self.names)
        return args, {**kwargs, "adapter_names": [name for name in self.names for _ in range(repeats)]}

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("unet"), name)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.unet(*args, **kwargs)


def add_peft_adapter(unet: Any, adapter: str, weights: LowRankWeights) -> None:
    from peft import LoraConfig

    ranks = {name: layer.rank for name, layer in weights.layers.items()}
    config = LoraConfig(
        r=max(ranks.values()),
        lora_alpha=max(ranks.values()),
        rank_pattern=ranks,
        alpha_pattern=ranks,
        target_modules=list(ranks),
    )
    unet.add_adapter(config, adapter_name=adapter)
    for name, layer in weights.layers.items():
        module = unet.get_submodule(name)
        module.lora_A[adapter].weight.data.copy_(layer.a)
        module.lora_B[adapter].weight.data.copy_(layer.b * layer.scale)
        module.scaling[adapter] = 1.0
    unet.set_adapters(["aligned"])
    unet.requires_grad_(False)


@dataclass(frozen=True)
class Stage:
    """What is in memory at once. pictures: for the pipeline; step: for the timed calls of one denoising step."""

    pictures: Any
    step: Any
    samples: int


@dataclass(frozen=True)
class Way:
    """stages(setting, eta, delta) gives one stage after the other; together they make the three variants."""

    name: str
    stages: Callable[[Setting, AdapterWeights, LowRankWeights], Iterator[Stage]]
    full: bool = False  # eta is a whole UNet
    channels_last: bool = False
    checked: bool = True


def published(setting: Setting, eta: AdapterWeights, delta: LowRankWeights) -> Iterator[Stage]:
    for conditional, unconditional in PAIRS:
        unet = merge_(setting.unet(), conditional, eta, delta)
        other = unet if unconditional == conditional else merge_(setting.unet(), unconditional, eta, delta)
        two = TwoUNets(other, unet)
        yield Stage(two, two, 1)


def stock(setting: Setting, eta: AdapterWeights, delta: LowRankWeights) -> Iterator[Stage]:
    for stage in published(setting, eta, delta):
        two = stage.pictures
        one = two.conditional
        yield Stage(one if two.unconditional is one else two, one, 1)


def peft(setting: Setting, eta: AdapterWeights, delta: LowRankWeights) -> Iterator[Stage]:
    assert isinstance(eta, LowRankWeights)
    unet = PeftUNet(setting.unet(), eta, delta).to(setting.dtype)
    yield Stage(unet, unet, len(PAIRS))


def ours(recording: Recording | None = None) -> Callable[..., Iterator[Stage]]:
    def stages(setting: Setting, eta: AdapterWeights, delta: LowRankWeights) -> Iterator[Stage]:
        unet: Any = RoutedUNet(setting.unet(), WEIGHT_SETS if isinstance(eta, FullWeights) else LOW_RANK)
        unet.set_adapter("aligned", eta)
        unet.set_adapter("negative", delta)
        with unet.rows(guided_rows(PAIRS, GUIDANCE), recording):
            yield Stage(unet, unet, len(PAIRS))

    return stages


def ways_of(device: torch.device, compiled: bool) -> list[Way]:
    """Those that make sense on `device`, (b) first, for the others are compared with it."""
    ways = [
        Way("(b) stock, batch-2 guidance", stock),
        Way("(a) published, two batch-1 calls", published),
        Way("(c) PEFT mixed adapters", peft),
        Way("(d) low_rank, eager", ours()),
        Way("(b) stock, eta a whole UNet", stock, full=True),
        Way("(d) weight_sets, eager", ours(), full=True),
        Way("(d) low_rank, eager, channels_last", ours(), channels_last=True, checked=False),
    ]
    if device.type == "cuda":
        ways.insert(4, Way("(d) low_rank, CUDA graph", ours("cuda_graph")))
        ways.append(Way("(d) weight_sets, CUDA graph", ours("cuda_graph"), full=True))
        ways.append(Way("(d) low_rank, CUDA graph, channels_last", ours("cuda_graph"), channels_last=True))
        if compiled:
            ways.append(Way("(d) low_rank, compiled, CUDA graph", ours("compiled_cuda_graph")))
    return ways
