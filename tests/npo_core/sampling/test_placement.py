from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.hooks.group_offloading import _is_group_offload_enabled

from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image
from npo_core.sampling import pipelines, sampler
from npo_core.sampling.placement import (
    RESIDENT,
    STAGED,
    STREAMED,
    Footprint,
    Placement,
    choose_placement,
    decoded_at_once,
    working_bytes,
)

GB = 10**9
SDXL = Footprint(unet=int(5.1 * GB), others=int(1.8 * GB), working=3 * GB)
REQUEST = GenerationRequest("a red apple", seed=5)


@pytest.mark.parametrize(
    ("free_bytes", "name"), [(None, RESIDENT), (24 * GB, RESIDENT), (9 * GB, STAGED), (6 * GB, STREAMED)]
)
def test_the_placement_follows_from_what_is_free(free_bytes: int | None, name: str) -> None:
    assert choose_placement(SDXL, free_bytes).name == name


def test_the_reason_says_what_is_needed_and_what_is_free() -> None:
    assert choose_placement(SDXL, 9 * GB).reason == "9.9 GB are needed for everything and 9.0 GB are free"


def test_a_whole_aligned_unet_is_counted_but_may_be_streamed() -> None:
    both = replace(SDXL, fine_tuned=SDXL.unet)
    assert choose_placement(both, 16 * GB).name == RESIDENT
    assert choose_placement(both, 12 * GB).name == STAGED, "the base alone would have fitted"
    assert choose_placement(SDXL, 12 * GB).name == RESIDENT


def test_what_does_not_fit_decoded_together_is_decoded_one_by_one(
    family: ModelFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = Generator(family).generate(REQUEST)
    generator = Generator(family)
    loaded = generator._loaded("image")
    decode = loaded.pipeline.vae.decode

    def small(latents: Any) -> Any:
        if len(latents) > 1:
            raise torch.OutOfMemoryError("full")
        return decode(latents)

    monkeypatch.setattr(loaded.pipeline.vae, "decode", small)
    for ours, theirs in zip(generator.generate(REQUEST).samples, expected.samples, strict=True):
        difference = np.asarray(open_image(ours.media), np.int16) - np.asarray(open_image(theirs.media), np.int16)
        assert abs(difference).max() <= 1, "rounding alone"


def test_pictures_are_decoded_together_alone_or_in_tiles() -> None:
    pixels = 1024 * 1024
    assert decoded_at_once(pixels, 256, 2, None) == (8, False)
    assert decoded_at_once(pixels, 256, 2, 80 * GB) == (8, False)
    assert decoded_at_once(pixels, 256, 2, 5 * GB) == (2, False)
    assert decoded_at_once(pixels, 256, 2, 3 * GB) == (1, True)
    assert working_bytes(1024, 1024, 8, 320, 2) == 4 * working_bytes(512, 512, 8, 320, 2)


@pytest.mark.parametrize("request_", [REQUEST, replace(REQUEST, modality="video")], ids=["image", "video"])
@pytest.mark.parametrize("name", [STAGED, STREAMED])
def test_every_placement_paints_the_same_and_says_so(
    name: str,
    request_: GenerationRequest,
    family: ModelFamily,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    expected = Generator(family).generate(request_)
    monkeypatch.setattr(pipelines, "choose_placement", lambda needed, free_bytes: Placement(name, "for a test"))
    generator = Generator(family)
    with caplog.at_level(logging.INFO, logger="npo_core.sampling.pipelines"):
        made = generator.generate(request_)
    unet = generator._loaded(request_.modality).unet.unet
    assert _is_group_offload_enabled(unet) == (name == STREAMED), "on another device it would not run at all"
    assert [line for line in caplog.messages if f"placement {name} (for a test)" in line]
    for ours, theirs in zip(made.samples, expected.samples, strict=True):
        np.testing.assert_array_equal(ours.latents, theirs.latents)
        assert ours.media_sha256 == theirs.media_sha256


def test_decoding_alone_and_in_tiles_gives_pictures_too(family: ModelFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Generator(family).generate(REQUEST)
    monkeypatch.setattr(sampler, "decoded_at_once", lambda *arguments: (1, True))
    made = Generator(family).generate(REQUEST)
    for ours, theirs in zip(made.samples, expected.samples, strict=True):
        difference = np.asarray(open_image(ours.media), np.int16) - np.asarray(open_image(theirs.media), np.int16)
        assert abs(difference).max() <= 1, "rounding alone"


def test_running_out_of_memory_is_one_sentence_and_the_next_request_works(
    family: ModelFamily, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = Generator(family)
    expected = generator.generate(REQUEST)
    unet: Any = generator._loaded("image").unet.unet
    calls = []

    def full(*arguments: Any, **named: Any) -> Any:
        calls.append(1)
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    with monkeypatch.context() as patch:
        patch.setattr(unet, "forward", full)
        with pytest.raises(InputError, match=r"3 pictures of 64x64 pixels do not fit .*; ask for fewer variants or"):
            generator.generate(REQUEST)
    assert calls
    again = generator.generate(REQUEST)
    assert [sample.media_sha256 for sample in again.samples] == [sample.media_sha256 for sample in expected.samples]
