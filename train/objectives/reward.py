"""A scorer in the place of people, as a reward whose gradient is followed.

The published reward trainer of Diffusion-NPO follows the gradient of a reward model through the last step of sampling
(as DRaFT-1 does, arXiv 2309.17400), with the reward turned round for the negative model (arXiv 2505.11245, sec. 4).
Here it goes through one step of a run's timestep range, as in ReFL (arXiv 2304.05977); a range that holds the last step
alone is DRaFT-1.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError
from npo_core.sampling.pipelines import load_pipeline
from npo_core.weights import AdapterWeights
from train.engine.config import TrainConfig
from train.engine.loop import train_objective
from train.engine.records import Sources
from train.engine.results import About
from train.engine.task import Task, TrainResult
from train.engine.validation import Validator
from train.judging.scorers import DifferentiableScorer, Scorer
from train.network.models import borrowed_weights, frozen
from train.network.policy import Network, PromptTable, encode_prompts
from train.network.schedule import DdimPath, nearest
from train.objectives.batches import draw_plan

SAMPLING_STEPS = 10  # of a picture whose reward is followed


class RewardObjective:
    """Minus the reward of the policy's own pictures, followed through one step of sampling.

    The policy samples without a gradient as far as the step nearest to the drawn timestep; what it expects the picture
    to be there is decoded and scored, with one. Role aligned: the policy answers the prompt and its reward rises. Role
    negative: the reward is turned round, and the policy learns to answer the prompt badly. Where the caption is dropped
    it answers the empty prompt, and the picture is still scored by its own. With `config.through_guidance` (role
    negative) the aligned model, frozen, answers the prompt and the policy the empty one: the reward of the guided
    picture rises, and the sign comes from d(guided)/d(uncond) = 1 - W.
    """

    metrics: ClassVar[tuple[str, ...]] = ("loss", "reward")

    def __init__(
        self,
        config: TrainConfig,
        prompts: Sequence[str],
        table: PromptTable,
        network: Network,
        path: DdimPath,
        decode: Callable[[Tensor], Tensor],
        scorer: Scorer,
        shape: tuple[int, ...],
    ) -> None:
        """decode: latents (B, C, H, W) to pixels (B, 3, h, w) in [-1, 1]. shape: of one picture's latents."""
        if not isinstance(scorer, DifferentiableScorer):
            raise InputError("This scorer gives no gradient; train on pairs that it ranks, without --reward-gradient.")
        self._config, self._network, self._table, self._scorer = config, network, table, scorer
        self._prompts, self._path, self._decode = list(prompts), path, decode
        self._plan = draw_plan(config, network, len(prompts), shape)

    def losses(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """See Objective."""
        draws, device = self._plan.at(first, last), self._network.device
        prompts = [self._prompts[number] for number in draws.pairs]
        rows = torch.tensor([self._table.rows[prompt] for prompt in prompts], device=device)
        rows = rows.masked_fill(torch.from_numpy(draws.caption_dropped).to(device), 0)

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            return self._predict(noisy, timestep.expand(len(noisy)), rows)

        drawn = torch.from_numpy(draws.timesteps).to(device)
        steps = nearest(self._path.timesteps, drawn)  # (B,), each picture's own
        with torch.no_grad():
            way, _ = self._path.walk(predict, torch.from_numpy(draws.noise).to(device), int(steps.max()))
            latents = torch.stack([way[int(step)][row] for row, step in enumerate(steps)])
        timesteps = self._path.timesteps[steps]
        picture = self._network.schedule.clean(latents, predict(latents, timesteps), timesteps)
        pixels: Tensor = checkpoint(self._decode, picture, use_reentrant=False)  # the VAE's activations are the largest
        reward = self._scorer.score_pixels(pixels, prompts).mean()
        turned_round = self._config.role == "negative" and self._config.through_guidance is None
        loss = reward if turned_round else -reward
        return loss, torch.stack([loss, reward]).detach()

    def _predict(self, noisy: Tensor, timesteps: Tensor, rows: Tensor) -> Tensor:
        """What sampling uses: the policy's prediction, or through guidance both branches'."""
        conditioning, scale = self._table.conditioning(rows), self._config.through_guidance
        if scale is None:
            return self._network.policy(noisy, timesteps, conditioning)
        conditional = self._network.aligned(noisy, timesteps, conditioning)
        unconditional = self._network.policy(noisy, timesteps, self._table.conditioning(torch.zeros_like(rows)))
        return unconditional + scale * (conditional - unconditional)


def _decoder(vae: Any) -> Callable[[Tensor], Tensor]:
    def decode(latents: Tensor) -> Tensor:
        pixels: Tensor = vae.decode(latents.to(vae.dtype) / vae.config.scaling_factor).sample
        return pixels

    return decode


def _about(config: TrainConfig, prompts: Sequence[str]) -> About:
    turned = ", turned round" if config.role == "negative" and config.through_guidance is None else ""
    papers = "arXiv 2304.05977" + (" and 2505.11245" if config.role == "negative" else "")
    trained_on = f"{len(prompts)} prompts by the gradient of a reward{turned}, without any votes (after {papers})"
    return About("Reward-gradient", trained_on, "pictures")


def train_on_reward(
    config: TrainConfig,
    family: ModelFamily,
    prompts: Sequence[str],
    scorer: Scorer,
    aligned: AdapterWeights | None,
    watch: Sequence[Validator] = (),
    more_facts: Mapping[str, str] = MappingProxyType({}),
) -> TrainResult:
    """Trains a LoRA by RewardObjective; `aligned` is needed through guidance only, and `more_facts` join the records.
    Raises InputError."""
    if config.through_guidance is not None and aligned is None:
        raise InputError("Training through guidance needs the aligned model; choose a family that has one.")
    pipeline = load_pipeline(family)
    scale = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    shape = (pipeline.unet.config.in_channels, family.height_px // scale, family.width_px // scale)
    size_px = (family.height_px, family.width_px)
    lent = ExitStack()

    def make(network: Network) -> RewardObjective:
        table = encode_prompts(pipeline, prompts, network.device, size_px, config.cache_dir)
        path = DdimPath(pipeline.scheduler.config, SAMPLING_STEPS, network.device)
        lent.enter_context(frozen(pipeline.vae))
        lent.enter_context(borrowed_weights(pipeline.vae, network.device, "no"))
        return RewardObjective(config, prompts, table, network, path, _decoder(pipeline.vae), scorer, shape)

    sources = [f"prompt:{prompt}" for prompt in prompts]
    facts = {"prompts_sha256": hashlib.sha256("\n".join(prompts).encode()).hexdigest()}
    task = Task(make, len(prompts), Sources(sources), {**facts, **more_facts}, _about(config, prompts))
    with lent:
        return train_objective(config, task, pipeline, validators=watch, aligned=aligned)
