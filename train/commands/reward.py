"""Training by the gradient of a scorer, as train.npo and train.dpo offer it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from collection.store import Store
from npo_core.catalog.adapter_files import AdapterFile
from npo_core.catalog.families import ModelFamily
from npo_core.console import hush_libraries
from train.commands.beside import aligned_for, beside, facts_beside, validators
from train.commands.flags import read_prompts
from train.commands.jobs import Job
from train.engine.config import METHODS, TrainConfig
from train.network.aligned import load_aligned

if TYPE_CHECKING:
    from train.engine.task import TrainResult

REWARD_STEPS = 100  # by default
REWARD_RANGE = (0.0, 0.25)  # by default; in noisier steps what is expected of a picture is a blur (arXiv 2304.05977)


def reward_job(config: TrainConfig, options: argparse.Namespace, family: ModelFamily, store: Store | None) -> Job:
    """Training along the gradient of a scorer, turned round for the negative model."""
    prompts = read_prompts(options.prompts)
    if options.timestep_range is None:
        config = replace(config, timestep_range=REWARD_RANGE)
    config = replace(config, max_train_steps=options.max_train_steps or REWARD_STEPS)
    low, high = config.timestep_range
    direction = "rising" if config.role == "aligned" or config.through_guidance else "falling"
    lines = (
        f"{METHODS[config.role]} for {family.label}: {direction} {options.reward} reward on {len(prompts)} prompts, "
        f"by its gradient through one step of sampling in {low:g} to {high:g} of the noise.",
        f"{config.max_train_steps} steps of {config.batch_size} pictures, learning rate {config.learning_rate:g}, rank "
        f"{config.rank} on {config.targets}, mixed precision {config.mixed_precision}, seed {config.seed}.",
    )
    name = options.name or f"{METHODS[config.role]} by {options.reward} gradient, {datetime.now():%Y-%m-%d %H:%M}"
    aligned = aligned_for(config, family, store)
    return Job(
        config,
        family,
        name,
        (*lines, *beside(config, aligned)),
        tuple(f"prompt:{prompt}" for prompt in prompts),
        partial(_train_on_reward, config, family, prompts, options.reward, aligned),
        facts_beside(config, aligned),
    )


def _train_on_reward(
    config: TrainConfig, family: ModelFamily, prompts: Sequence[str], scorer: str, aligned: AdapterFile | None
) -> TrainResult:
    hush_libraries()
    from train.judging.scorers import load_scorer
    from train.objectives.reward import train_on_reward

    return train_on_reward(
        config,
        family,
        prompts,
        load_scorer(scorer, family),
        load_aligned(aligned) if config.through_guidance else None,
        validators(config, family, prompts, aligned),
        facts_beside(config, aligned),
    )
