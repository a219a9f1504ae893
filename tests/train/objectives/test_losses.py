"""Every preference loss: shape, known values, what exchanging preferred and rejected does, smoothing, the bound."""

from __future__ import annotations

import math

import pytest
import torch

from tests.tiny import tiny_scheduler
from train.network.schedule import PREDICTION_TYPES, NoiseSchedule
from train.objectives.losses import LOSSES, K, implicit_reward, smoothed

LOG_2 = math.log(2)
KNOWN = {  # (preferred reward, rejected reward) -> loss
    "sigmoid": {(0, 0): LOG_2, (0.4, -0.6): math.log1p(math.exp(-1)), (-3, 0): math.log1p(math.exp(3))},
    "hinge": {(0, 0): 1.0, (0.25, 0): 0.75, (1, -1): 0.0, (0, 1): 2.0},
    "ipo": {(0, 0): 0.25, (0.5, 0): 0.0, (0, -1.5): 1.0, (-0.5, 0): 1.0},
    # At a rejected reward of minus infinity the bounded loss is that of a margin of log 2.
    "bounded": {(0, 0): LOG_2, (0, -1e6): math.log(1.5), (0, math.log(3)): math.log(3)},
}
MARGIN_LOSSES = ("sigmoid", "hinge", "ipo")


def one(value: float) -> torch.Tensor:
    return torch.tensor([value], dtype=torch.float64)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_gives_one_value_a_pair(name: str) -> None:
    assert LOSSES[name](*torch.rand(2, 5)).shape == (5,)


@pytest.mark.parametrize(("name", "at", "value"), [(name, at, v) for name in LOSSES for at, v in KNOWN[name].items()])
def test_a_loss_has_its_known_value(name: str, at: tuple[float, float], value: float) -> None:
    assert LOSSES[name](one(at[0]), one(at[1])).item() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("name", MARGIN_LOSSES)
def test_exchanging_preferred_and_rejected_is_the_loss_at_the_opposite_margin(name: str) -> None:
    preferred, rejected = torch.randn(2, 9, dtype=torch.float64)
    opposite = LOSSES[name](-(preferred - rejected), torch.zeros(9, dtype=torch.float64))
    torch.testing.assert_close(LOSSES[name](rejected, preferred), opposite)


@pytest.mark.parametrize("name", LOSSES)
def test_a_policy_that_is_still_the_reference_is_pushed_towards_the_preferred_picture(name: str) -> None:
    errors = torch.full((2, 1), 0.5, requires_grad=True)  # the policy's, of the preferred and the rejected picture
    rewards = [implicit_reward(error, torch.tensor([0.5]), 500.0) for error in errors]
    LOSSES[name](*rewards).sum().backward()
    assert errors.grad is not None
    assert errors.grad[0] > 0  # a smaller error on the preferred picture lowers the loss
    assert errors.grad[1] < 0


def test_the_reward_counts_how_much_better_the_policy_denoises() -> None:
    assert implicit_reward(one(0.3), one(0.5), 100.0).item() == pytest.approx(100 * K * 0.2)


def test_under_the_bounded_loss_a_collapse_of_both_pictures_does_not_pay() -> None:
    """The sigmoid loss falls when the preferred picture gets worse and the rejected one worse still."""
    before, collapsed = (one(0.0), one(0.0)), (one(-5.0), one(-10.0))
    assert LOSSES["sigmoid"](*collapsed) < LOSSES["sigmoid"](*before)
    assert LOSSES["bounded"](*collapsed) > LOSSES["bounded"](*before)


@pytest.mark.parametrize("name", LOSSES)
def test_smoothing_mixes_in_the_exchanged_loss(name: str) -> None:
    loss, preferred, rejected = LOSSES[name], *torch.randn(2, 9)
    assert torch.equal(smoothed(loss, preferred, rejected, 0.0), loss(preferred, rejected))
    mixed = 0.75 * loss(preferred, rejected) + 0.25 * loss(rejected, preferred)
    torch.testing.assert_close(smoothed(loss, preferred, rejected, 0.25), mixed)
    torch.testing.assert_close(smoothed(loss, preferred, rejected, 0.5), smoothed(loss, rejected, preferred, 0.5))


def test_the_same_errors_weigh_differently_for_each_prediction_type() -> None:
    """What docs/training.md says of beta: error of the noise = a * error of v = a / (1 - a) * error of the picture."""
    schedules = {kind: NoiseSchedule(tiny_scheduler(kind).config, torch.device("cpu")) for kind in PREDICTION_TYPES}
    clean, noise, wrong = torch.randn(3, 1, 4, 8, 8, dtype=torch.float64)
    for timestep in (100, 500, 900):
        at = torch.tensor([timestep])
        kept = float(tiny_scheduler().alphas_cumprod[timestep])
        noisy = schedules["epsilon"].noisy(clean, noise, at)
        guess = clean + 0.1 * wrong  # one picture that a network takes it for
        noise_then = (noisy - kept**0.5 * guess) / (1 - kept) ** 0.5
        answers = {
            "epsilon": noise_then,
            "sample": guess,
            "v_prediction": kept**0.5 * noise_then - (1 - kept) ** 0.5 * guess,
        }
        error = {kind: (answers[kind] - schedules[kind].target(clean, noise, at)).square().mean() for kind in schedules}
        torch.testing.assert_close(error["epsilon"], kept * error["v_prediction"], rtol=1e-4, atol=0)
        torch.testing.assert_close(error["epsilon"], kept / (1 - kept) * error["sample"], rtol=1e-4, atol=0)
        for kind, schedule in schedules.items():
            torch.testing.assert_close(schedule.clean(noisy, answers[kind], at), guess, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("beta", [1.0, 500.0])
def test_diffusion_dpo_is_its_equation_14(beta: float) -> None:
    """-log sigmoid(-beta * K * ((e_pref - r_pref) - (e_rej - r_rej))), by hand from noises of which one is learned."""
    noise, preferred, rejected, base = torch.randn(4, 5, 4, 8, 8, dtype=torch.float64) / 10
    error = [(noise - guess).square().mean((1, 2, 3)) for guess in (preferred, rejected, base, 2 * base)]
    by_hand = -torch.log(torch.sigmoid(-beta * K * ((error[0] - error[2]) - (error[1] - error[3]))))
    ours = LOSSES["sigmoid"](implicit_reward(error[0], error[2], beta), implicit_reward(error[1], error[3], beta))
    torch.testing.assert_close(ours, by_hand)


def test_bounded_dpo_is_the_loss_of_its_mixture() -> None:
    """-log sigmoid(r_pref - log(w * exp(r_rej) + 1 - w)) with w = 1/2: the rejected picture's likelihood ratio is that
    of half the policy and half the reference (arXiv 2506.12725)."""
    preferred, rejected = torch.randn(2, 50, dtype=torch.float64)
    mixture = (0.5 * rejected.exp() + 0.5).log()
    torch.testing.assert_close(LOSSES["bounded"](preferred, rejected), -torch.sigmoid(preferred - mixture).log())
