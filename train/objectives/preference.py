"""What a step minimises. An objective turns positions (see draws.py) into a loss; the loop knows nothing else of it."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor

from train.engine.config import TrainConfig
from train.engine.files import make_room
from train.network.policy import Network, PromptTable
from train.objectives.losses import LOSSES, implicit_reward, smoothed
from train.pairs.draws import DrawPlan
from train.pairs.pairs import PreferencePair, hash_pairs, reverse_pairs

ON_DEVICE_BYTES = 2 << 30  # latents beyond this stay in main memory and travel batch by batch


class Objective(Protocol):
    """A differentiable loss over positions."""

    metrics: ClassVar[tuple[str, ...]]
    """What `losses` reports beside the loss; the first is "loss" itself."""

    def losses(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """The mean loss over positions first .. last-1, with gradients, and their mean `metrics`, (M,), without."""


MakeObjective = Callable[[Network], Objective]


def timestep_bounds(config: TrainConfig, network: Network) -> tuple[int, int]:
    """[low, high) of the timesteps to train."""
    low, high = (round(end * network.schedule.timesteps) for end in config.timestep_range)
    return low, high


@dataclass(frozen=True, eq=False)
class PairBatch:
    """B pairs, the preferred pictures first: chosen and weights are (B,), all else has 2B rows.

    prompt, empty: the UNet's conditioning on each pair's prompt (or the empty one where it was dropped), and on none.
    """

    chosen: Tensor
    noisy: Tensor
    target: Tensor
    timesteps: Tensor
    prompt: dict[str, Any]
    empty: dict[str, Any]
    weights: Tensor

    def error(self, prediction: Tensor) -> Tensor:
        """One mean squared error per sample, (2B,)."""
        return (prediction - self.target).pow(2).flatten(1).mean(1)


class PairBatches:
    """Preference pairs as tensors: what both pictures of a pair look like at a position's noise and timestep."""

    def __init__(
        self, config: TrainConfig, pairs: Sequence[PreferencePair], prompts: PromptTable, network: Network
    ) -> None:
        latents = torch.from_numpy(np.stack([_both(pair) for pair in pairs]))  # (N, 2, [F,] C, H, W) float16
        self._network, self._prompts = network, prompts
        self._latents = latents.to(network.device) if latents.nbytes <= ON_DEVICE_BYTES else latents
        device = network.device
        self._rows = torch.tensor([prompts.rows[pair.prompt] for pair in pairs], device=device)  # (N,)
        self._weights = torch.tensor([pair.weight for pair in pairs], device=device)  # (N,)
        self.plan = DrawPlan(
            config.seed,
            len(pairs),
            tuple(latents.shape[2:]),
            timestep_bounds(config, network),
            config.caption_dropout,
            config.timestep_sampling,
        )

    def at(self, first: int, last: int) -> PairBatch:
        """The batch of positions first .. last-1."""
        device, draws = self._network.device, self.plan.at(first, last)
        chosen = torch.from_numpy(draws.pairs)
        clean = self._latents[chosen.to(self._latents.device)].to(device).float()
        clean = clean.transpose(0, 1).flatten(0, 1)  # (B, 2, [F,] C, H, W) -> (2B, [F,] C, H, W)
        # The same noise and timestep for both pictures of a pair: what differs is the picture alone.
        noise = torch.from_numpy(draws.noise).to(device)
        noise = torch.cat([noise, noise])
        timesteps = torch.from_numpy(draws.timesteps).to(device).repeat(2)
        dropped = torch.from_numpy(draws.caption_dropped).to(device)
        chosen = chosen.to(device)
        rows = self._rows[chosen].masked_fill(dropped, 0).repeat(2)
        schedule = self._network.schedule
        return PairBatch(
            chosen=chosen,
            noisy=schedule.noisy(clean, noise, timesteps),
            target=schedule.target(clean, noise, timesteps),
            timesteps=timesteps,
            prompt=self._prompts.conditioning(rows),
            empty=self._prompts.conditioning(torch.zeros_like(rows)),
            weights=self._weights[chosen],
        )


class PreferenceObjective:
    """Diffusion-DPO and its relatives; the negative model's on reversed pairs (arXiv 2505.11245, sec. 4)."""

    metrics: ClassVar[tuple[str, ...]] = ("loss", "accuracy", "margin", "preferred_mse", "rejected_mse")
    """accuracy: the share of pairs with a margin above 0. margin: of mean squared errors, without beta and K."""

    def __init__(
        self,
        config: TrainConfig,
        pairs: Sequence[PreferencePair],
        prompts: PromptTable,
        network: Network,
        shared: ReferenceErrors | None = None,
    ) -> None:
        self._config, self._network, self._shared = config, network, shared
        self._batches = PairBatches(config, pairs, prompts, network)
        self._loss = LOSSES[config.loss]

    def losses(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """See Objective; the mean over pairs is weighted."""
        batch = self._batches.at(first, last)
        reference = None if self._shared is None else self._shared.read(first, batch.chosen)
        if reference is None:
            reference = batch.error(self._network.reference(batch.noisy, batch.timesteps, batch.prompt))
            if self._shared is not None:
                self._shared.write(first, batch.chosen, reference)
        policy = batch.error(self._network.policy(batch.noisy, batch.timesteps, batch.prompt))
        return self._compare(batch, policy, reference)

    def _compare(self, batch: PairBatch, policy: Tensor, reference: Tensor) -> tuple[Tensor, Tensor]:
        """The loss and metrics from both networks' errors, (2B,) each."""
        config = self._config
        preferred, rejected = implicit_reward(policy, reference, config.beta_dpo).chunk(2)
        each = smoothed(self._loss, preferred, rejected, config.label_smoothing)  # (B,)
        loss = (batch.weights * each).mean()
        with torch.no_grad():
            preferred_gain, rejected_gain = (reference - policy).chunk(2)
            margin = preferred_gain - rejected_gain
            errors = [part.mean() for part in policy.chunk(2)]
            metrics = torch.stack([loss, (margin > 0).float().mean(), margin.mean(), *errors])
        return loss, metrics


class GuidedObjective(PreferenceObjective):
    """The same loss on the guided prediction, uncond + W * (cond - uncond), of which only uncond is trained.

    The aligned model answers the prompt and is frozen; the policy answers the empty prompt, as it will when pictures
    are made. The pairs stay in their given order: d(guided)/d(uncond) = 1 - W is negative, so that what raises the
    preferred picture pushes the negative model away from it. (The published reward and RL code of Diffusion-NPO gets
    its sign in this way.) The reference is the aligned model on both branches, so the base must be it (see `merged`).
    """

    def losses(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """See Objective."""
        batch = self._batches.at(first, last)
        twice = _concatenated(batch.prompt, batch.empty)
        frozen = self._network.reference(torch.cat([batch.noisy, batch.noisy]), batch.timesteps.repeat(2), twice)
        conditional, unconditional = frozen.chunk(2)
        policy = self._network.policy(batch.noisy, batch.timesteps, batch.empty)
        reference_error = batch.error(self._guide(conditional, unconditional))
        return self._compare(batch, batch.error(self._guide(conditional, policy)), reference_error)

    def _guide(self, conditional: Tensor, unconditional: Tensor) -> Tensor:
        scale = self._config.through_guidance
        assert scale is not None
        return unconditional + scale * (conditional - unconditional)


class ReferenceErrors:
    """The reference's errors by position, kept in a file so that the next run on the same pairs and draws can skip
    the reference: train.dpo after train.npo, or another loss, beta, rank or learning rate.

    The file holds two float32 a position, 0 where unknown (no error is exactly 0). Which of a pair's pictures comes
    first there does not depend on the order of preference, so that reversed pairs find the same numbers.
    """

    def __init__(self, file: Path, pairs: Sequence[PreferencePair], positions: int) -> None:
        make_room(file, 8 * positions)
        self._errors = np.memmap(file, np.float32, "r+", shape=(positions, 2))
        self._exchanged = torch.tensor([_is_exchanged(pair) for pair in pairs])  # (N,) bool

    def read(self, first: int, chosen: Tensor) -> Tensor | None:
        """(2B,), the preferred pictures' first, of positions first .. first + B-1; None unless all are known."""
        found = torch.from_numpy(np.array(self._errors[first : first + len(chosen)]))  # (B, 2)
        if not found.all():
            return None
        return self._ordered(found, chosen).T.flatten().to(chosen.device)

    def write(self, first: int, chosen: Tensor, errors: Tensor) -> None:
        """Keeps errors (2B,) as `read` gives them."""
        both = torch.stack(errors.detach().float().cpu().chunk(2), 1)  # (B, 2)
        self._errors[first : first + len(chosen)] = self._ordered(both, chosen).numpy()

    def _ordered(self, both: Tensor, chosen: Tensor) -> Tensor:
        """(B, 2) from the pair's order to the file's, or back."""
        exchanged = self._exchanged[chosen.cpu()][:, None]
        return torch.where(exchanged, both.flip(1), both)


def reference_key(config: TrainConfig, facts: dict[str, Any], pairs: Sequence[PreferencePair], processes: int) -> str:
    """What two runs must share to have the same reference errors at every position."""
    names = ("seed", "batch_size", "gradient_accumulation_steps", "caption_dropout", "timestep_range",
             "timestep_sampling", "mixed_precision")  # fmt: skip
    same_order = [reverse_pairs([pair])[0] if _is_exchanged(pair) else pair for pair in pairs]
    unweighted = [replace(pair, weight=1.0) for pair in same_order]
    parts = [getattr(config, name) for name in names]
    return hashlib.sha256(repr([parts, processes, facts, hash_pairs(unweighted)]).encode()).hexdigest()


def _is_exchanged(pair: PreferencePair) -> bool:
    return pair.preferred.tobytes() > pair.rejected.tobytes()


def _both(pair: PreferencePair) -> np.ndarray:
    """(2, [F,] C, H, W) float16, preferred first."""
    return np.stack([pair.preferred, pair.rejected]).astype(np.float16, copy=False)


def _concatenated(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Two conditionings as one of all their rows."""
    return {
        name: _concatenated(value, second[name]) if isinstance(value, dict) else torch.cat([value, second[name]])
        for name, value in first.items()
    }


@dataclass(frozen=True, eq=False)
class Picture:
    """One example without a rival: float16 latents (C, H, W) at UNet scale, and where they come from."""

    prompt: str
    latents: np.ndarray
    source: str


class DenoisingObjective:
    """The loss that diffusion models are pretrained with: the mean squared error of the prediction."""

    metrics: ClassVar[tuple[str, ...]] = ("loss",)

    def __init__(
        self, config: TrainConfig, pictures: Sequence[Picture], prompts: PromptTable, network: Network
    ) -> None:
        self._network, self._prompts = network, prompts
        stacked = np.stack([picture.latents for picture in pictures]).astype(np.float16, copy=False)
        self._latents = torch.from_numpy(stacked).to(network.device)  # (N, C, H, W)
        self._rows = torch.tensor([prompts.rows[picture.prompt] for picture in pictures], device=network.device)
        bounds = timestep_bounds(config, network)
        shape = tuple(self._latents.shape[1:])
        self._plan = DrawPlan(
            config.seed, len(pictures), shape, bounds, config.caption_dropout, config.timestep_sampling
        )

    def losses(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """See Objective."""
        device, draws = self._network.device, self._plan.at(first, last)
        chosen = torch.from_numpy(draws.pairs).to(device)
        clean, noise = self._latents[chosen].float(), torch.from_numpy(draws.noise).to(device)
        timesteps = torch.from_numpy(draws.timesteps).to(device)
        rows = self._rows[chosen].masked_fill(torch.from_numpy(draws.caption_dropped).to(device), 0)
        schedule = self._network.schedule
        noisy = schedule.noisy(clean, noise, timesteps)
        prediction = self._network.policy(noisy, timesteps, self._prompts.conditioning(rows))
        loss = (prediction - schedule.target(clean, noise, timesteps)).pow(2).mean()
        return loss, loss.detach()[None]
