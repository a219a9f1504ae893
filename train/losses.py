"""Preference losses for diffusion models: LOSSES name -> f(four errors, beta) -> (B,).

All of them see a pair of pictures through one number, the margin: how much further the policy has moved away from the
reference, in favour of the preferred picture,

    margin = (reference_preferred - policy_preferred) - (reference_rejected - policy_rejected)

where each term is one sample's mean squared error at the same noise and timestep. 0 means that the policy still is the
reference; above 0 it denoises the preferred picture better and the rejected one worse. Exchanging preferred and
rejected negates the margin, which is all that negative preference optimisation (arXiv 2505.11245) asks for.

Diffusion-DPO (arXiv 2311.12908, eq. 14) multiplies the margin by beta * T * omega(lambda_t). As its published code
does, T * omega is the constant K = 0.5 here. (Some scripts leave K out: their beta is twice as strong as ours.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

K = 0.5

PreferenceLoss = Callable[[Tensor, Tensor, Tensor, Tensor, float], Tensor]


def preference_margin(
    policy_preferred_mse: Tensor,
    policy_rejected_mse: Tensor,
    reference_preferred_mse: Tensor,
    reference_rejected_mse: Tensor,
) -> Tensor:
    """The margin of each pair, (B,), from four mean squared errors of shape (B,)."""
    return (reference_preferred_mse - policy_preferred_mse) - (reference_rejected_mse - policy_rejected_mse)


def sigmoid_loss(
    policy_preferred_mse: Tensor,
    policy_rejected_mse: Tensor,
    reference_preferred_mse: Tensor,
    reference_rejected_mse: Tensor,
    beta: float,
) -> Tensor:
    """Diffusion-DPO, -log sigmoid(beta * K * margin), (B,): log 2 at margin 0, falling towards 0."""
    margin = preference_margin(
        policy_preferred_mse, policy_rejected_mse, reference_preferred_mse, reference_rejected_mse
    )
    return -functional.logsigmoid(beta * K * margin)


def hinge_loss(
    policy_preferred_mse: Tensor,
    policy_rejected_mse: Tensor,
    reference_preferred_mse: Tensor,
    reference_rejected_mse: Tensor,
    beta: float,
) -> Tensor:
    """SLiC (arXiv 2305.10425), max(0, 1 - beta * K * margin), (B,): 1 at margin 0, exactly 0 once it is large."""
    margin = preference_margin(
        policy_preferred_mse, policy_rejected_mse, reference_preferred_mse, reference_rejected_mse
    )
    return torch.relu(1 - beta * K * margin)


def ipo_loss(
    policy_preferred_mse: Tensor,
    policy_rejected_mse: Tensor,
    reference_preferred_mse: Tensor,
    reference_rejected_mse: Tensor,
    beta: float,
) -> Tensor:
    """IPO (arXiv 2310.12036, eq. 17), (beta * K * margin - 1/2)^2, (B,): 1/4 at margin 0, least at a finite margin.

    This is beta^2 times the published (K * margin - 1/(2 beta))^2. Both are least at the same margin, 1/(2 beta K);
    scaled like this the gradient does not vanish beside AdamW's epsilon when beta is in the hundreds.
    """
    margin = preference_margin(
        policy_preferred_mse, policy_rejected_mse, reference_preferred_mse, reference_rejected_mse
    )
    return (beta * K * margin - 0.5) ** 2


LOSSES: dict[str, PreferenceLoss] = {"sigmoid": sigmoid_loss, "ipo": ipo_loss, "hinge": hinge_loss}
