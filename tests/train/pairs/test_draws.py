"""What each step sees depends on the seed and the position alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from train.pairs.draws import TIMESTEP_SAMPLING, DrawPlan


def plan(seed: int = 3, pairs: int = 5) -> DrawPlan:
    return DrawPlan(seed, pairs, (2, 3, 3), (100, 200), 0.5)


def test_a_position_is_drawn_the_same_whatever_batch_it_is_in() -> None:
    whole, part = plan().at(0, 12), plan().at(7, 9)
    np.testing.assert_array_equal(whole.noise[7:9], part.noise)
    np.testing.assert_array_equal(whole.timesteps[7:9], part.timesteps)
    np.testing.assert_array_equal(whole.pairs[7:9], part.pairs)
    np.testing.assert_array_equal(whole.caption_dropped[7:9], part.caption_dropped)


def test_every_pass_sees_every_pair_once_in_another_order() -> None:
    order = plan(pairs=50).at(0, 100).pairs
    assert sorted(order[:50]) == sorted(order[50:]) == list(range(50))
    assert list(order[:50]) != list(order[50:])


def test_draws_have_the_promised_distribution() -> None:
    draws = plan(pairs=7).at(0, 2000)
    assert abs(draws.noise.mean()) < 0.02
    assert abs(draws.noise.std() - 1) < 0.02
    assert draws.timesteps.min() == 100
    assert draws.timesteps.max() == 199
    assert abs(draws.caption_dropped.mean() - 0.5) < 0.05


def test_another_seed_draws_other_noise() -> None:
    assert not np.array_equal(plan(seed=1).at(0, 1).noise, plan(seed=2).at(0, 1).noise)


@pytest.mark.parametrize("sampling", TIMESTEP_SAMPLING)
def test_every_sampling_stays_inside_its_range_and_reaches_its_ends(sampling: str) -> None:
    timesteps = replace(plan(), timesteps=(10, 20), sampling=sampling).at(0, 3000).timesteps
    assert timesteps.min() == 10
    assert timesteps.max() == 19


def test_samplings_prefer_the_noise_that_they_name() -> None:
    share = {
        name: (replace(plan(), timesteps=(0, 1000), sampling=name).at(0, 4000).timesteps + 0.5) / 1000
        for name in TIMESTEP_SAMPLING
    }
    assert abs(share["uniform"].mean() - 1 / 2) < 0.02
    assert abs(share["high_noise"].mean() - 2 / 3) < 0.02  # the mean of the density 2t
    assert abs(share["logit_normal"].mean() - 1 / 2) < 0.02
    assert ((share["logit_normal"] > 0.25) & (share["logit_normal"] < 0.75)).mean() > 0.7  # 0.728 under the normal
    assert ((share["uniform"] > 0.25) & (share["uniform"] < 0.75)).mean() < 0.53


def test_clips_get_noise_of_their_own_for_every_frame() -> None:
    draws = replace(plan(), latent_shape=(4, 2, 3, 3)).at(0, 2)
    assert draws.noise.shape == (2, 4, 2, 3, 3)
    assert not np.array_equal(draws.noise[0, 0], draws.noise[0, 1])
