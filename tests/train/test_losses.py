"""Every preference loss: shape, known values, and what exchanging preferred and rejected does."""

from __future__ import annotations

import math

import pytest
import torch

from train.losses import LOSSES, K, preference_margin

KNOWN = {  # loss at beta * K * margin = x
    "sigmoid": {0.0: math.log(2), 1.0: math.log1p(math.exp(-1)), -3.0: math.log1p(math.exp(3))},
    "hinge": {0.0: 1.0, 0.25: 0.75, 2.0: 0.0, -1.0: 2.0},
    "ipo": {0.0: 0.25, 0.5: 0.0, 1.5: 1.0, -0.5: 1.0},
}


def errors_with_margin(margin: float) -> tuple[torch.Tensor, ...]:
    """(policy preferred, policy rejected, reference preferred, reference rejected), each (1,)."""
    return tuple(torch.tensor([value], dtype=torch.float64) for value in (0.3 - margin, 0.4, 0.3, 0.4))


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_gives_one_value_a_pair(name: str) -> None:
    assert LOSSES[name](*torch.rand(4, 5), 500.0).shape == (5,)


@pytest.mark.parametrize(("name", "x", "value"), [(name, x, v) for name in LOSSES for x, v in KNOWN[name].items()])
def test_a_loss_has_its_known_value(name: str, x: float, value: float) -> None:
    beta = 500.0
    assert LOSSES[name](*errors_with_margin(x / (beta * K)), beta).item() == pytest.approx(value, abs=1e-9)


@pytest.mark.parametrize("name", LOSSES)
def test_exchanging_preferred_and_rejected_is_the_loss_at_the_opposite_margin(name: str) -> None:
    policy_preferred, policy_rejected, reference_preferred, reference_rejected = torch.rand(4, 9, dtype=torch.float64)
    exchanged = (policy_rejected, policy_preferred, reference_rejected, reference_preferred)
    margin = preference_margin(policy_preferred, policy_rejected, reference_preferred, reference_rejected)
    opposite = (margin, *[torch.zeros(9, dtype=torch.float64)] * 3)  # a policy error of +margin: a margin of -margin
    torch.testing.assert_close(LOSSES[name](*exchanged, 7.0), LOSSES[name](*opposite, 7.0))


@pytest.mark.parametrize("name", LOSSES)
def test_a_policy_that_is_still_the_reference_is_pushed_towards_the_preferred_picture(name: str) -> None:
    errors = torch.full((4, 1), 0.5, requires_grad=True)
    LOSSES[name](*errors, 500.0).sum().backward()
    assert errors.grad is not None
    assert errors.grad[0] > 0  # a smaller error on the preferred picture lowers the loss
    assert errors.grad[1] < 0


def test_ipo_is_least_where_the_paper_says() -> None:
    beta = 20.0
    margin = torch.tensor([1 / (2 * beta * K)], dtype=torch.float64)
    zero = torch.zeros(1, dtype=torch.float64)
    assert LOSSES["ipo"](-margin, zero, zero, zero, beta).item() == pytest.approx(0.0)
