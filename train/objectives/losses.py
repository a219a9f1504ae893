"""Preference losses for diffusion models: LOSSES name -> f(preferred_reward, rejected_reward) -> (B,).

All of them see a picture through its implicit reward: how much better than the reference the policy denoises it,

    reward = beta * K * (reference_mse - policy_mse)

with one sample's mean squared errors at the same noise and timestep. It is 0 while the policy still is the reference.
The margin of a pair is preferred_reward - rejected_reward. Exchanging preferred and rejected negates the margin, which
is all that negative preference optimisation (arXiv 2505.11245) asks for.

Diffusion-DPO (arXiv 2311.12908, eq. 14) multiplies the errors by beta * T * omega(lambda_t). As its published code
does, T * omega is the constant K = 0.5 here. (Some scripts leave K out: their beta is twice as strong as ours.)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # the commands name the losses before torch is loaded
    from torch import Tensor

    PreferenceLoss = Callable[[Tensor, Tensor], Tensor]

K = 0.5
MIXED = 0.5  # the share of the policy in the bounded loss's mixture; 1 would be the sigmoid loss


def implicit_reward(policy_mse: Tensor, reference_mse: Tensor, beta: float) -> Tensor:
    """beta * K * (reference_mse - policy_mse), (B,), from mean squared errors of shape (B,)."""
    return beta * K * (reference_mse - policy_mse)


def log_sigmoid(margin: Tensor) -> Tensor:
    """log sigmoid(margin), where it is small too."""
    from torch.nn import functional

    return functional.logsigmoid(margin)


def sigmoid_loss(preferred_reward: Tensor, rejected_reward: Tensor) -> Tensor:
    """Diffusion-DPO, -log sigmoid(margin), (B,): log 2 at margin 0, falling towards 0."""
    return -log_sigmoid(preferred_reward - rejected_reward)


def hinge_loss(preferred_reward: Tensor, rejected_reward: Tensor) -> Tensor:
    """SLiC (arXiv 2305.10425), max(0, 1 - margin), (B,): 1 at margin 0, exactly 0 once it is large."""
    return (1 - (preferred_reward - rejected_reward)).relu()


def ipo_loss(preferred_reward: Tensor, rejected_reward: Tensor) -> Tensor:
    """IPO (arXiv 2310.12036, eq. 17), (margin - 1/2)^2, (B,): 1/4 at margin 0, least at a finite margin.

    This is beta^2 times the published (margin / beta - 1/(2 beta))^2. Both are least at the same margin; scaled like
    this the gradient does not vanish beside AdamW's epsilon when beta is in the hundreds.
    """
    return (preferred_reward - rejected_reward - 0.5) ** 2


def bounded_loss(preferred_reward: Tensor, rejected_reward: Tensor) -> Tensor:
    """Bounded DPO (arXiv 2506.12725; for diffusion Diff-SNPO, ICLR 2026), (B,): log 2 at rewards 0.

    The rejected picture's likelihood is taken under a mixture of policy and reference, so that its reward becomes
    log(MIXED * exp(rejected_reward) + 1 - MIXED), which never falls below log(1 - MIXED). However badly the rejected
    picture is denoised, the loss then only falls further if the preferred one's likelihood rises; under the sigmoid
    loss it may collapse as long as the rejected one's collapses faster.
    """
    log_share, log_rest = math.log(MIXED), math.log1p(-MIXED)
    bounded = (rejected_reward + log_share).logaddexp(rejected_reward.new_full((), log_rest))
    return -log_sigmoid(preferred_reward - bounded)


LOSSES: dict[str, PreferenceLoss] = {
    "sigmoid": sigmoid_loss,
    "ipo": ipo_loss,
    "hinge": hinge_loss,
    "bounded": bounded_loss,
}


def smoothed(loss: PreferenceLoss, preferred_reward: Tensor, rejected_reward: Tensor, smoothing: float) -> Tensor:
    """`loss` when a share `smoothing` of the preferences is expected to be the wrong way round, (B,).

    Conservative DPO (Mitchell 2023, ericmitchell.ai/cdpo.pdf): (1 - s) * loss as given + s * loss exchanged. 0 is the
    loss itself; at 1/2 nothing is preferred.
    """
    as_given = loss(preferred_reward, rejected_reward)
    if smoothing == 0:
        return as_given
    return (1 - smoothing) * as_given + smoothing * loss(rejected_reward, preferred_reward)
