"""Trains a negative model without any votes: on what its own short attempts at pictures look like.

    python -m train.self_npo --prompts prompts.txt                    # for the emoji family, CPU or GPU
    python -m train.self_npo --prompts prompts.txt --samples-per-prompt 4 --register

Self-NPO (arXiv 2505.11777). The base draws pictures of the prompts, as the app would; they are noised, and a moving
average of the model in training, without the prompt, takes a few steps back from there. What it expects then (the
composition, without the detail) is what the model learns to draw of the prompt. Exit status 2 means that the input was
wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collection.store import Store
from npo_core.catalog.adapter_files import AdapterFile
from npo_core.catalog.families import ModelFamily
from npo_core.console import hush_libraries
from npo_core.errors import InputError
from train.commands.beside import aligned_for, validators
from train.commands.flags import (
    add_place_flags,
    add_training_flags,
    check_output_dir,
    read_config,
    read_family,
    read_prompts,
)
from train.commands.jobs import Job, carry_out, exit_status_of
from train.engine.config import OF_PAIRS, TrainConfig, check_config

if TYPE_CHECKING:
    import torch

    from train.engine.task import TrainResult
    from train.network.policy import Network, PromptTable
    from train.objectives.self_negative import Picture

METHOD = "Self-NPO"
DEFAULT_STEPS = 200
TEACHER_DECAY = 0.999  # of the moving average, as published
SAMPLE_BATCH = 32


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = build_parser().parse_args(arguments)
    return exit_status_of(partial(run, options))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m train.self_npo", description="Train a negative model on its own short attempts, without votes."
    )
    add = parser.add_argument_group("what to train on").add_argument
    add("--prompts", type=Path, required=True, help="a text file with one prompt a line")
    add("--samples-per-prompt", type=int, default=2, help="pictures to begin with (%(default)s)")
    add("--sampling-steps", type=int, help="of each of them (the family's)")
    add("--sampling-guidance", type=float, help="of each of them; 1 is the model by itself (the family's)")
    add_place_flags(parser, clips=False)
    add_training_flags(parser, without=(*OF_PAIRS, "early_stop", "through_guidance"))
    parser.set_defaults(ema_decay=TEACHER_DECAY)
    return parser


def run(options: argparse.Namespace) -> None:
    """Does what `options` ask for; raises InputError of either package."""
    family = read_family(options)
    config = read_config("negative", METHOD, options)
    config = replace(config, max_train_steps=options.max_train_steps or DEFAULT_STEPS)
    check_config(config)
    check_output_dir(config, options)
    samples = _sampling(options, family)
    prompts = read_prompts(options.prompts)
    lines = (
        f"{METHOD} for {family.label}: {len(prompts)} prompts, {samples.per_prompt} pictures each at guidance "
        f"{samples.guidance_scale:g}; the teacher is a moving average with decay {config.ema_decay:g}.",
        f"{config.max_train_steps} steps of {config.batch_size} pictures, learning rate {config.learning_rate:g}, rank "
        f"{config.rank} on {config.targets}, mixed precision {config.mixed_precision}, seed {config.seed}.",
    )
    sources = tuple(f"prompt:{prompt}" for prompt in prompts)
    name = options.name or f"{METHOD} from {len(prompts)} prompts, {datetime.now():%Y-%m-%d %H:%M}"
    store = Store(options.database_url, options.data_dir) if options.register else None
    try:
        aligned = aligned_for(config, family, store)
        train = partial(train_on_itself, config, family, prompts, samples, aligned)
        job = Job(config, family, name, lines, sources, train)
        carry_out(job, options, store)
    finally:
        if store is not None:
            store.close()


@dataclass(frozen=True)
class Sampling:
    """How the pictures that training begins with are drawn."""

    per_prompt: int
    steps: int
    guidance_scale: float


def _sampling(options: argparse.Namespace, family: ModelFamily) -> Sampling:
    if options.samples_per_prompt < 1:
        raise InputError(f"The number of samples per prompt is {options.samples_per_prompt}; give 1 or more.")
    steps = family.steps if options.sampling_steps is None else options.sampling_steps
    if steps < 1:
        raise InputError(f"The number of sampling steps is {steps}; give 1 or more.")
    guidance = family.guidance_scale if options.sampling_guidance is None else options.sampling_guidance
    if guidance < 1:
        raise InputError(f"The guidance scale of the samples is {guidance:g}; give 1 or more.")
    return Sampling(options.samples_per_prompt, steps, guidance)


def train_on_itself(
    config: TrainConfig,
    family: ModelFamily,
    prompts: Sequence[str],
    samples: Sampling,
    aligned: AdapterFile | None = None,
) -> TrainResult:
    """Samples, then trains; the samples are a function of the seed and made again on resume. `aligned` is the model of
    the validations' pictures, the family's by default. Raises InputError for a config without an `ema_decay`."""
    hush_libraries()
    from npo_core.sampling.pipelines import load_pipeline
    from train.engine.loop import train_objective
    from train.engine.records import Sources
    from train.engine.results import About
    from train.engine.task import Task
    from train.network.policy import encode_prompts
    from train.objectives.self_negative import SelfNegativeObjective

    if config.ema_decay is None:
        raise InputError(f"The teacher of {METHOD} is a moving average; give its decay, such as {TEACHER_DECAY:g}.")
    pipeline = load_pipeline(family)
    size_px = (family.height_px, family.width_px)
    texts = [prompt for prompt in prompts for _ in range(samples.per_prompt)]

    def make(network: Network) -> SelfNegativeObjective:
        table = encode_prompts(pipeline, texts, network.device, size_px, config.cache_dir)
        pictures = drawn_pictures(network, table, pipeline, family, texts, samples, config.seed)
        return SelfNegativeObjective(config, pictures, table, network)

    facts = {"prompts_sha256": hashlib.sha256("\n".join(texts).encode()).hexdigest(), "sampling": str(samples)}
    trained_on = (
        f"its own short attempts at {len(texts)} pictures that the base drew of {len(prompts)} prompts, without any "
        "votes (Self-NPO, arXiv 2505.11777)"
    )
    about = About(METHOD, trained_on, "pictures")
    task = Task(make, len(texts), Sources([f"prompt:{prompt}" for prompt in prompts]), facts, about)
    return train_objective(config, task, pipeline, validators=validators(config, family, prompts, aligned))


def drawn_pictures(
    network: Network,
    table: PromptTable,
    pipeline: Any,
    family: ModelFamily,
    texts: Sequence[str],
    samples: Sampling,
    seed: int,
) -> list[Picture]:
    """One picture of the reference for each text, by DDIM."""
    import torch

    from train.network.schedule import DdimPath, seeded_noise
    from train.objectives.self_negative import Picture

    scale = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    shape = (pipeline.unet.config.in_channels, family.height_px // scale, family.width_px // scale)
    path = DdimPath(pipeline.scheduler.config, samples.steps, network.device)
    pictures: list[Picture] = []
    for start in range(0, len(texts), SAMPLE_BATCH):
        batch = texts[start : start + SAMPLE_BATCH]
        seeds = [seed + start + row for row in range(len(batch))]
        rows = torch.tensor([table.rows[text] for text in batch], device=network.device)

        def predict(noisy: torch.Tensor, timestep: torch.Tensor, rows: torch.Tensor = rows) -> torch.Tensor:
            conditional = network.reference(noisy, timestep.expand(len(noisy)), table.conditioning(rows))
            if samples.guidance_scale == 1:
                return conditional
            nothing = table.conditioning(torch.zeros_like(rows))
            unconditional = network.reference(noisy, timestep.expand(len(noisy)), nothing)
            return unconditional + samples.guidance_scale * (conditional - unconditional)

        _, expected = path.walk(predict, seeded_noise(seeds, shape, network.device), samples.steps)
        latents = expected.cpu().numpy().astype("float16")
        pictures += [Picture(text, one, f"seed {s}") for text, one, s in zip(batch, latents, seeds, strict=True)]
    return pictures


if __name__ == "__main__":
    sys.exit(main())
