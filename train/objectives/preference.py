"""Preference optimisation on pairs: Diffusion-DPO, its reversal, one network with both signs, and through guidance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from train.engine.config import TrainConfig
from train.network.policy import Network, PromptTable
from train.objectives.batches import Batch, Batches
from train.objectives.losses import LOSSES, implicit_reward, smoothed
from train.objectives.reference import ReferenceErrors
from train.pairs.pairs import PreferencePair


@dataclass(frozen=True, eq=False)
class Compared:
    """B pairs as policy and reference see them; all (B,).

    chosen: which pairs. loss: weighted, with gradients. margin: of mean squared errors, without beta and K, above 0
    where the policy prefers what it should. preferred_mse, rejected_mse: the policy's.
    """

    chosen: Tensor
    loss: Tensor
    margin: Tensor
    preferred_mse: Tensor
    rejected_mse: Tensor


def accuracy(margins: Tensor) -> Tensor:
    """The share of `margins`, (N,), above 0, where exactly 0 (a policy that is still the reference) counts half."""
    return (margins > 0).float().mean() + (margins == 0).float().mean() / 2


class PreferenceObjective:
    """Diffusion-DPO and its relatives; the negative model's on reversed pairs (arXiv 2505.11245, sec. 4).

    With `config.both_signs` a pair is exchanged where its caption is dropped (Diff-SNPO, ICLR 2026): one network
    learns to answer the prompt well and the empty prompt badly, which is all that guidance contrasts.
    """

    metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "margin", "preferred_mse", "rejected_mse")
    """accuracy: the share of pairs with a margin above 0 at one noise and timestep each; margin: see Compared."""

    def __init__(
        self,
        config: TrainConfig,
        pairs: Sequence[PreferencePair],
        prompts: PromptTable,
        network: Network,
        shared: ReferenceErrors | None = None,
    ) -> None:
        self._config, self._network, self._shared = config, network, shared
        latents = np.stack([_both(pair) for pair in pairs])  # (N, 2, [F,] C, H, W) float16
        self._batches = Batches(config, latents, [pair.prompt for pair in pairs], prompts, network)
        self._weights = torch.tensor([pair.weight for pair in pairs], device=network.device)  # (N,)
        self._loss = LOSSES[config.loss]

    def losses(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """See Objective; the mean over pairs is weighted."""
        compared = self.compare(first, last)
        loss = compared.loss.mean()
        with torch.no_grad():
            means = [part.mean() for part in (compared.margin, compared.preferred_mse, compared.rejected_mse)]
            return loss, torch.stack([loss, accuracy(compared.margin), *means])

    def compare(self, first: int, last: int) -> Compared:
        """The pairs at positions first .. last-1, one by one."""
        batch = self._batches.at(first, last)
        policy, reference = self._errors(batch, first)
        rewards = implicit_reward(policy, reference, self._config.beta_dpo)
        each = smoothed(self._loss, *self._in_order(batch, rewards), self._config.label_smoothing)
        with torch.no_grad():
            preferred_gain, rejected_gain = self._in_order(batch, reference - policy)
            errors = self._in_order(batch, policy)
        weighted = self._weights[batch.chosen] * each
        return Compared(batch.chosen, weighted, preferred_gain - rejected_gain, *errors)

    def _errors(self, batch: Batch, first: int) -> tuple[Tensor, Tensor]:
        """(the policy's errors, the reference's), (2B,) each."""
        reference = None if self._shared is None else self._shared.read(first, batch.chosen)
        if reference is None:
            reference = batch.error(self._network.reference(batch.noisy, batch.timesteps, batch.prompt))
            if self._shared is not None:
                self._shared.write(first, batch.chosen, reference)
        return batch.error(self._network.policy(batch.noisy, batch.timesteps, batch.prompt)), reference

    def _in_order(self, batch: Batch, values: Tensor) -> tuple[Tensor, Tensor]:
        """(2B,) of both pictures -> the preferred ones' and the rejected ones', (B,) each."""
        preferred, rejected = values.chunk(2)
        if not self._config.both_signs:
            return preferred, rejected
        return torch.where(batch.dropped, rejected, preferred), torch.where(batch.dropped, preferred, rejected)


class GuidedObjective(PreferenceObjective):
    """The same loss on the guided prediction, uncond + W * (cond - uncond), of which only uncond is trained.

    The aligned model, theta + eta, answers the prompt and is frozen; the policy, theta + alpha*eta + beta*delta,
    answers the empty prompt, as it will when pictures are made. The pairs stay in their given order: the derivative
    d(guided)/d(uncond) = 1 - W is negative, so that what raises the preferred picture pushes the negative model away
    from it. (The published reward and RL code of Diffusion-NPO gets its sign in this way.) The reference has delta 0;
    the network's base must be theta + alpha*eta already, and its LoRA run at the strength beta (see loop.py).
    """

    def _errors(self, batch: Batch, first: int) -> tuple[Tensor, Tensor]:
        network, noisy, timesteps = self._network, batch.noisy, batch.timesteps
        conditional = network.aligned(noisy, timesteps, batch.prompt)
        reference = self._guide(conditional, network.reference(noisy, timesteps, batch.empty))
        policy = self._guide(conditional, network.policy(noisy, timesteps, batch.empty))
        return batch.error(policy), batch.error(reference)

    def _guide(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        scale = self._config.through_guidance
        assert scale is not None
        return unconditional + scale * (conditional - unconditional)


def _both(pair: PreferencePair) -> np.ndarray:
    """(2, [F,] C, H, W) float16, preferred first."""
    return np.stack([pair.preferred, pair.rejected]).astype(np.float16, copy=False)
