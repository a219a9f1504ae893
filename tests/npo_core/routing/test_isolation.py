"""A row is what its own weights make of it, whatever the weights of the rows beside it are."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch

from npo_core.catalog.families import ModelFamily
from npo_core.generator import GenerationRequest, Generator
from npo_core.routing.execution import WEIGHT_SETS
from npo_core.routing.network import RoutedUNet
from npo_core.variants import ALIGNED, BASE, Mix
from npo_core.weights import AdapterWeights, FullWeights, LowRankLayer, LowRankWeights
from tests.tiny import tiny_full_weights, tiny_pipeline, tiny_weights

UNET: Any = tiny_pipeline().unet
MIXES = [BASE, Mix(1.0, 1.0), ALIGNED, Mix(0.5, 0.7), BASE, Mix(0.0, 1.0)]


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def spoiled(value: float, factor: str, every: bool) -> Callable[[AdapterWeights], AdapterWeights]:
    """Puts `value` into one number of the first layer, or into all numbers of every layer."""

    def spoil(tensor: torch.Tensor) -> torch.Tensor:
        tensor = tensor.clone()
        tensor.view(-1)[slice(None) if every else slice(3, 4)] = value
        return tensor

    def of(weights: AdapterWeights) -> AdapterWeights:
        if isinstance(weights, FullWeights):
            names = list(weights.tensors) if every else ["mid_block.resnets.0.conv1.weight"]
            return FullWeights({**weights.tensors, **{name: spoil(weights.tensors[name]) for name in names}})
        layers = dict(weights.layers)
        for name in layers if every else list(layers)[:1]:
            layer = layers[name]
            layers[name] = {
                "a": LowRankLayer(spoil(layer.a), layer.b, layer.scale),
                "b": LowRankLayer(layer.a, spoil(layer.b), layer.scale),
                "scale": LowRankLayer(layer.a, layer.b, value),
            }[factor]
        return LowRankWeights(layers)

    return of


@torch.no_grad()
def rows_of(eta: AdapterWeights, delta: AdapterWeights, routing: str | None = None) -> torch.Tensor:
    routed = RoutedUNet(UNET, routing)
    routed.set_adapter("aligned", eta)
    routed.set_adapter("negative", delta)
    with routed.rows(MIXES):
        return routed(noise(len(MIXES), 4, 8, 8), 500, noise(len(MIXES), 7, 32)).sample


def assert_isolated(spoil: Callable[[AdapterWeights], AdapterWeights], make: Any, routing: str | None = None) -> None:
    """Rows without the spoiled adapter have the very bytes that they have beside a sound one; the others are lost."""
    eta, delta = make(1), tiny_weights(2)
    sound = rows_of(eta, delta, routing)
    assert sound.isfinite().all()
    for role in ("aligned", "negative"):
        given = (spoil(eta), delta) if role == "aligned" else (eta, spoil(delta))
        actual = rows_of(*given, routing)
        for row, mix in enumerate(MIXES):
            if getattr(mix, role):
                assert not actual[row].isfinite().all(), (role, mix, "is not spoiled, or this test shows nothing")
            else:
                assert actual[row].numpy().tobytes() == sound[row].numpy().tobytes(), (role, mix)


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("factor", ["a", "b", "scale"])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 3e38])
def test_a_broken_lora_is_broken_for_its_own_rows_alone(value: float, factor: str, every: bool) -> None:
    if factor == "scale" and value == 3e38:
        pytest.skip("B times the scale is finite")
    assert_isolated(spoiled(value, factor, every), tiny_weights)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("routing", [None, WEIGHT_SETS])
def test_a_broken_whole_unet_is_broken_for_its_own_rows_alone(value: float, routing: str | None) -> None:
    assert_isolated(spoiled(value, "a", False), lambda seed: tiny_full_weights(UNET, seed), routing)


def test_the_base_paints_the_same_picture_beside_a_broken_negative(family: ModelFamily) -> None:
    request = GenerationRequest("a red apple", seed=7)
    generator = Generator(family)
    sound = {sample.variant: sample for sample in generator.generate(request).samples}
    generator._loaded("image").set_adapter("negative", spoiled(math.nan, "a", False)(tiny_weights(2)))
    broken = {sample.variant: sample for sample in generator.generate(request).samples}
    for variant in ("base", "aligned"):
        assert broken[variant].media == sound[variant].media
        assert broken[variant].latents.tobytes() == sound[variant].latents.tobytes()
    assert broken["aligned_npo"].media != sound["aligned_npo"].media
