"""The jury as it ships, on pictures as they ship: each planted fault is heard where it should be, and only there."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image
from train.judging.jury import WEIGHTS, Jury, load_jury, to_pixels
from train.judging.protocol.judges import FLAW, JURY, THINGS, listen

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not WEIGHTS.is_file(), reason="no jury was trained yet (python -m train.emoji.jury)"),
]

PROMPTS = ["a cat, 3d style", "a pizza, cartoon style", "a guitar, flat style, blue background", "a rocket, 3d style"]


@pytest.fixture(scope="module")
def jury() -> Jury:
    return load_jury()


@pytest.fixture(scope="module")
def pictures() -> Tensor:
    """(4, 3, H, W): aligned_npo."""
    requests = [GenerationRequest(prompt, seed=seed, variants=("aligned_npo",)) for seed, prompt in enumerate(PROMPTS)]
    made = Generator("emoji", device="cpu").generate_batch(requests)
    return to_pixels([open_image(each.samples[0].media) for each in made])


def blurred(pixels: Tensor) -> Tensor:
    small = functional.interpolate(pixels, scale_factor=1 / 8, mode="area")
    return functional.interpolate(small, pixels.shape[-2:], mode="bicubic", align_corners=False).clamp(0, 1)


def noisy(pixels: Tensor) -> Tensor:
    grains = torch.rand(len(pixels), 3, 40, 40, generator=torch.Generator().manual_seed(0)) - 0.5
    return (pixels + 0.8 * functional.interpolate(grains, pixels.shape[-2:])).clamp(0, 1)


def dark(pixels: Tensor) -> Tensor:
    return 0.3 * pixels


@pytest.mark.parametrize(("spoil", "flaw"), [(blurred, "blurred"), (noisy, "noisy"), (dark, "dark")])
def test_a_planted_flaw_is_heard_as_itself_and_makes_a_picture_less_clean(
    jury: Jury, pictures: Tensor, spoil: Callable[[Tensor], Tensor], flaw: str
) -> None:
    before, after = listen(jury, pictures, PROMPTS), listen(jury, spoil(pictures), PROMPTS)
    assert after[JURY].mean() < before[JURY].mean()
    assert after[FLAW + flaw].mean() > before[FLAW + flaw].mean() + 0.3


def test_the_wrong_thing_is_heard_and_a_right_one_found(jury: Jury, pictures: Tensor) -> None:
    right, wrong = listen(jury, pictures, PROMPTS), listen(jury, pictures, [*PROMPTS[1:], PROMPTS[0]])
    assert right["jury_top1"].mean() >= 0.75
    assert wrong["jury_top1"].mean() <= 0.25
    assert right[THINGS].mean() > wrong[THINGS].mean() + 2
    assert np.array_equal(right[JURY], wrong[JURY]), "clean does not depend on what was asked for"
