"""A scorer in the place of people: as a judge that ranks pairs, or as a reward whose gradient is followed.

The published reward trainer of Diffusion-NPO follows the gradient of a reward model through the last step of sampling
(as DRaFT-1 does, arXiv 2309.17400), with the reward turned round for the negative model (arXiv 2505.11245, sec. 4).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image
from npo_core.sampling.pipelines import load_pipeline
from npo_core.weights import AdapterWeights
from train.engine.config import TrainConfig
from train.engine.loop import train_objective
from train.engine.records import Sources
from train.engine.results import About
from train.engine.run import Task, TrainResult
from train.engine.validation import Validator
from train.judging.scorers import DifferentiableScorer, Scorer
from train.network.policy import Network, PromptTable, encode_prompts
from train.objectives.preference import timestep_bounds
from train.pairs.draws import DrawPlan
from train.pairs.pairs import PairSet, PreferencePair
from train.pairs.sampling import DdimPath

SAMPLES_PER_PROMPT = 4
SAMPLING_STEPS = 10  # of a picture whose reward is followed; the gradient goes through the last one


def rank_pairs(
    generator: Generator,
    scorer: Scorer,
    prompts: Sequence[str],
    *,
    variant: str = "base",
    samples_per_prompt: int = SAMPLES_PER_PROMPT,
    margin: float = 0.5,
    first_seed: int = 0,
    batch_size: int = 16,
) -> PairSet:
    """Samples each prompt with `samples_per_prompt` seeds and pairs best with worst, second best with second worst,
    and so on, where the scores differ by more than `margin`; the others are dropped as "too close to call"."""
    requests = [
        GenerationRequest(prompt, seed=first_seed + number * samples_per_prompt + extra, variants=(variant,))
        for number, prompt in enumerate(prompts)
        for extra in range(samples_per_prompt)
    ]
    latents: list[np.ndarray] = []
    scores: list[float] = []
    for batch in _batched(requests, batch_size):
        made = [comparison.samples[0] for comparison in generator.generate_batch(batch)]
        latents += [sample.latents for sample in made]
        scores += scorer.score([open_image(s.media) for s in made], [request.prompt for request in batch]).tolist()
    pairs, close = [], 0
    for start in range(0, len(requests), samples_per_prompt):
        ranked = sorted(range(start, start + samples_per_prompt), key=lambda place: -scores[place])
        for better, worse in zip(ranked, reversed(ranked), strict=True):
            if better == worse or scores[better] <= scores[worse]:
                break  # the middle
            if scores[better] - scores[worse] <= margin:
                close += 1
                continue
            source = f"scorer:seed {requests[better].seed} over {requests[worse].seed}"
            pairs.append(PreferencePair(requests[start].prompt, latents[better], latents[worse], source))
    return PairSet(pairs, {"too close to call": close} if close else {})


def _batched(requests: Sequence[GenerationRequest], size: int) -> list[list[GenerationRequest]]:
    return [list(requests[start : start + size]) for start in range(0, len(requests), size)]


class RewardObjective:
    """Minus the reward of the policy's own pictures, followed through the last step of sampling.

    Role aligned: the policy answers the prompt and its reward rises. Role negative: the reward is turned round, and the
    policy learns to answer the prompt badly. With `config.through_guidance` (role negative) the aligned model, frozen,
    answers the prompt and the policy the empty one: the reward of the guided picture rises, and the sign comes from
    d(guided)/d(uncond) = 1 - W.
    """

    metrics: ClassVar[tuple[str, ...]] = ("loss", "reward")

    def __init__(
        self,
        config: TrainConfig,
        prompts: Sequence[str],
        table: PromptTable,
        network: Network,
        pipeline: Any,
        scorer: Scorer,
        shape: tuple[int, ...],
    ) -> None:
        """shape: of one picture's latents, (C, H, W)."""
        if not isinstance(scorer, DifferentiableScorer):
            raise InputError("This scorer gives no gradient; train on pairs that it ranks, without --reward-gradient.")
        self._config, self._network, self._table, self._scorer = config, network, table, scorer
        self._prompts, self._vae = list(prompts), pipeline.vae.to(network.device).requires_grad_(False)
        self._path = DdimPath(pipeline.scheduler.config, SAMPLING_STEPS, network.device)
        self._plan = DrawPlan(config.seed, len(prompts), shape, timestep_bounds(config, network), 0.0)

    def losses(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """See Objective."""
        draws, device = self._plan.at(first, last), self._network.device
        prompts = [self._prompts[number] for number in draws.pairs]
        rows = torch.tensor([self._table.rows[prompt] for prompt in prompts], device=device)
        conditioning, empty = self._table.conditioning(rows), self._table.conditioning(torch.zeros_like(rows))

        def predict(noisy: Tensor, timestep: Tensor) -> Tensor:
            timesteps = timestep.expand(len(noisy))
            scale = self._config.through_guidance
            if scale is None:
                return self._network.policy(noisy, timesteps, conditioning)
            conditional = self._network.reference(noisy, timesteps, conditioning)
            unconditional = self._network.policy(noisy, timesteps, empty)
            return unconditional + scale * (conditional - unconditional)

        with torch.no_grad():
            noise = torch.from_numpy(draws.noise).to(device)
            latents, _ = self._path.walk(predict, noise, SAMPLING_STEPS - 1)
        picture = self._path.finish(predict, latents)
        pixels: Tensor = checkpoint(self._decode, picture, use_reentrant=False)  # the VAE's activations are the largest
        reward = self._scorer.score_pixels(pixels, prompts).mean()
        turned_round = self._config.role == "negative" and self._config.through_guidance is None
        loss = reward if turned_round else -reward
        return loss, torch.stack([loss, reward]).detach()

    def _decode(self, latents: Tensor) -> Tensor:
        pixels: Tensor = self._vae.decode(latents.to(self._vae.dtype) / self._vae.config.scaling_factor).sample
        return pixels


def _about(config: TrainConfig, prompts: Sequence[str]) -> About:
    turned = ", turned round" if config.role == "negative" and config.through_guidance is None else ""
    papers = "arXiv 2309.17400" + (" and 2505.11245" if config.role == "negative" else "")
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

    def make(network: Network) -> RewardObjective:
        table = encode_prompts(pipeline, prompts, network.device, size_px, config.cache_dir)
        return RewardObjective(config, prompts, table, network, pipeline, scorer, shape)

    sources = [f"prompt:{prompt}" for prompt in prompts]
    facts = {"prompts_sha256": hashlib.sha256("\n".join(prompts).encode()).hexdigest()}
    task = Task(make, len(prompts), Sources(sources), {**facts, **more_facts}, _about(config, prompts))
    beside = aligned if config.through_guidance is not None else None
    return train_objective(config, task, pipeline, validators=watch, aligned=beside)
