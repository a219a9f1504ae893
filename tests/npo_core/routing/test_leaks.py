"""Nothing is left behind: not by many different requests, not by one that fails in the middle of a forward."""

from __future__ import annotations

import gc
import os
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch

from npo_core.catalog.families import ModelFamily
from npo_core.generator import Comparison, GenerationRequest, Generator
from npo_core.variants import ALIGNED, BASE, Mix
from tests.npo_core.routing.test_weight_sets import LORA_DELTA, LORA_ETA, noise, routed_unet
from tests.tiny import tiny_adapter

REQUEST = GenerationRequest("a red apple", seed=3, steps=1)


def pictures(comparison: Comparison) -> list[bytes]:
    return [sample.media for sample in comparison.samples]


def tensors_alive() -> int:
    gc.collect()
    return sum(isinstance(each, torch.Tensor) for each in gc.get_objects())


def resident_mb() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


@pytest.mark.slow
def test_two_hundred_different_requests_leave_memory_flat_and_pictures_the_same(
    own_family: ModelFamily, tmp_path: Path
) -> None:
    generator = Generator(own_family)
    first = generator.generate(REQUEST)
    own = first.adapters["negative"]
    adapters = [tiny_adapter(tmp_path / f"other_{seed}", "negative", seed=seed) for seed in range(3)]
    settings: Any = zip(cycle([0.0, 0.5, 1.0]), cycle([1.0, 0.0, 1.5, 0.5]), cycle([64, 96, 64, 32, 64]), strict=False)

    def make(count: int) -> None:
        for number, (alpha, beta, size_px) in zip(range(count), settings, strict=False):
            if number % 10 == 0:
                generator.use_adapter(adapters[number // 10 % len(adapters)])
            generator.generate(replace(REQUEST, alpha=alpha, beta=beta, seed=number, width_px=size_px))

    make(60)
    tensors, memory_mb = tensors_alive(), resident_mb()
    make(140)
    assert tensors_alive() == tensors
    assert resident_mb() - memory_mb < 20
    generator.use_adapter(own)
    assert pictures(generator.generate(REQUEST)) == pictures(first)


def test_an_error_in_the_middle_of_a_forward_leaves_the_model_usable(generator: Generator) -> None:
    expected = pictures(generator.generate(REQUEST))
    unet = generator._loaded("image").unet.unet
    calls = 0

    def fail(*_: Any) -> None:
        nonlocal calls
        calls += 1
        raise MemoryError("the card is full")

    handle = unet.get_submodule("mid_block").register_forward_pre_hook(fail)
    with pytest.raises(MemoryError, match="the card is full"):
        generator.generate(replace(REQUEST, alpha=0.3, seed=8))
    handle.remove()
    assert calls == 1
    assert not any("forward" in vars(module) for module in unet.modules()), "layers are still routed"
    assert pictures(generator.generate(REQUEST)) == expected


def test_what_another_library_put_in_place_of_a_forward_comes_back() -> None:
    routed = routed_unet(LORA_ETA, LORA_DELTA)
    layer = routed.unet.get_submodule(next(iter(LORA_ETA.layers)))
    layer.forward = own = type(layer).forward.__get__(layer)
    try:
        with torch.no_grad(), routed.rows([BASE, ALIGNED, Mix(1.0, 1.0)]):
            routed(noise(3, 4, 8, 8), 500, noise(3, 7, 32))
        assert layer.forward is own
    finally:
        del layer.forward
