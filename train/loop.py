"""The engine behind train.npo and train.dpo: preference pairs in, a LoRA out.

    result = train_adapter(TrainConfig(family="emoji", output_dir=Path("out")), pairs)

Runs on the CPU, on one GPU, or on N with `accelerate launch -m train.npo ...`. The reference is the same UNet with its
LoRA switched off; latents are used as they were stored, so no VAE is needed; every distinct prompt is encoded once.
What a step sees depends on the seed and its number only (see draws.py), so an interrupted run that is resumed ends with
the very bytes of an uninterrupted one (on the CPU; GPU kernels are not bitwise repeatable).
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor
from tqdm import tqdm

from npo_core.errors import InputError
from npo_core.families import ModelFamily, get_family
from npo_core.media import sha256_file
from npo_core.pipelines import load_pipeline
from npo_core.weights import peft_adapter, save_adapter
from train.config import TrainConfig, check_config
from train.data import PreferencePair, hash_pairs
from train.draws import DrawPlan
from train.losses import LOSSES, preference_margin
from train.model import (
    NoiseSchedule,
    ReferenceSwitch,
    base_name,
    encode_prompts,
    fast_attention,
    hash_unet,
    trainable_lora,
)
from train.records import Checkpoint, load_checkpoint, prepare_folder, save_checkpoint, summarise, write_records

__all__ = ["StepMetrics", "TrainConfig", "TrainResult", "train_adapter"]

METRICS = ("loss", "accuracy", "margin", "preferred_mse", "rejected_mse")

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepMetrics:
    """How training stands after a step; means over the step's pairs.

    accuracy: the share of pairs with a margin above 0. margin: see losses.py. *_mse: the policy's errors.
    """

    step: int
    total_steps: int
    loss: float
    accuracy: float
    margin: float
    preferred_mse: float
    rejected_mse: float
    pairs_per_s: float


@dataclass(frozen=True)
class TrainResult:
    """The finished adapter: its safetensors file, the file's sha256, and the metrics also in metrics.json."""

    adapter_path: Path
    sha256: str
    metrics: dict[str, Any]


def train_adapter(
    config: TrainConfig,
    pairs: Sequence[PreferencePair],
    pipeline: StableDiffusionPipeline | ModelFamily | None = None,
    on_step: Callable[[StepMetrics], None] | None = None,
) -> TrainResult:
    """Trains a LoRA that makes each pair's preferred picture likelier and its rejected one less likely.

    For a negative model give `reverse_pairs(pairs)`. `pipeline` is a loaded base (left as it was), or a family whose
    base to load; None stands for the family that `config` names. Writes pytorch_lora_weights.safetensors, config.json,
    metrics.json and provenance.json into `config.output_dir`, and checkpoint.pt while it runs.
    Raises InputError for settings out of range, pairs that do not fit the model and a checkpoint of another run.
    """
    check_config(config)
    if pipeline is None:
        pipeline = get_family(config.family)
    loaded = load_pipeline(pipeline) if isinstance(pipeline, ModelFamily) else pipeline
    return _train(config, pairs, loaded, on_step)


def _train(
    config: TrainConfig,
    pairs: Sequence[PreferencePair],
    pipeline: StableDiffusionPipeline,
    on_step: Callable[[StepMetrics], None] | None,
) -> TrainResult:
    check_pairs(pairs, pipeline)
    prepare_folder(config.output_dir)
    accelerator = _accelerator(config)
    unet, home, checkpointing = pipeline.unet, pipeline.unet.device, pipeline.unet.is_gradient_checkpointing
    facts = {"base": base_name(pipeline), "base_unet_sha256": hash_unet(unet)}
    unet.to(accelerator.device)
    if config.gradient_checkpointing:
        unet.enable_gradient_checkpointing()
    alpha = config.rank if config.lora_alpha is None else config.lora_alpha
    try:
        with trainable_lora(unet, config.rank, alpha, config.targets, config.seed) as weights:
            run = _Run(config, pairs, pipeline, accelerator, weights, facts)
            with fast_attention(accelerator.device, config.mixed_precision):
                return run.to_the_end(on_step)
    finally:
        unet.to(home)
        if config.gradient_checkpointing and not checkpointing:
            unet.disable_gradient_checkpointing()


def check_pairs(pairs: Sequence[PreferencePair], pipeline: StableDiffusionPipeline) -> None:
    """Raises InputError unless there are pairs, all of one size and with the channels of the base."""
    if not pairs:
        raise InputError("There are no preference pairs to train on; collect some picks first.")
    channels = pipeline.unet.config.in_channels
    shape = pairs[0].preferred.shape
    if len(shape) != 3 or shape[0] != channels:
        raise InputError(f"The latents of {pairs[0].source} are {shape}; this base wants ({channels}, height, width).")
    for pair in pairs:
        if pair.preferred.shape != shape or pair.rejected.shape != shape:
            raise InputError(
                f"The latents of {pair.source} are {pair.preferred.shape} and {pair.rejected.shape}, those of "
                f"{pairs[0].source} {shape}; give pairs of one size."
            )


def _accelerator(config: TrainConfig) -> Accelerator:
    """accelerate remembers the first precision and device of a process; a later run may want others."""
    state = AcceleratorState() if AcceleratorState._shared_state else None
    if state is not None and state.num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(mixed_precision=config.mixed_precision, cpu=config.device == "cpu")
    parts = accelerator.num_processes * config.gradient_accumulation_steps
    if config.batch_size % parts:
        raise InputError(
            f"The batch of {config.batch_size} pairs cannot be split equally over {accelerator.num_processes} "
            f"processes and {config.gradient_accumulation_steps} accumulation steps; give a multiple of {parts}."
        )
    return accelerator


class _Run:
    """One training run: what stays the same from step to step, and the state that a checkpoint holds."""

    def __init__(
        self,
        config: TrainConfig,
        pairs: Sequence[PreferencePair],
        pipeline: StableDiffusionPipeline,
        accelerator: Accelerator,
        weights: list[torch.nn.Parameter],
        facts: dict[str, Any],
    ) -> None:
        self.config, self.accelerator, self.weights = config, accelerator, weights
        device = accelerator.device
        self.schedule = NoiseSchedule(pipeline, device)
        self.loss = LOSSES[config.loss]
        self.unet = pipeline.unet
        self.switch = ReferenceSwitch(self.unet)
        stacked = [torch.from_numpy(_both(pair)) for pair in pairs]
        self.latents = torch.stack(stacked).to(device)  # (N, 2, C, H, W) float16
        prompts = [pair.prompt for pair in pairs]
        self.embeddings, rows = encode_prompts(pipeline, prompts, device)  # (P, tokens, width)
        self.prompt_rows = torch.tensor([rows[prompt] for prompt in prompts], device=device)  # (N,)
        low, high = (round(end * self.schedule.timesteps) for end in config.timestep_range)
        self.plan = DrawPlan(config.seed, len(pairs), self.latents.shape[2:], (low, high), config.caption_dropout)
        optimizer = torch.optim.AdamW(
            weights, lr=config.learning_rate, weight_decay=config.weight_decay, fused=device.type in ("cpu", "cuda")
        )
        self.policy, self.optimizer = accelerator.prepare(self.unet, optimizer)
        self.pairs, self.facts = pairs, {**facts, "pairs_sha256": hash_pairs(pairs)}
        self.step = 0
        self.history: list[Tensor] = []  # one (METRICS,) tensor a step, on the device: reading it would wait for it

    def to_the_end(self, on_step: Callable[[StepMetrics], None] | None) -> TrainResult:
        """All remaining steps, with checkpoints, then the files."""
        config, main = self.config, self.accelerator.is_main_process
        self._restore()
        if main:
            write_records(config, self.facts, self.pairs)
        first, started = self.step, time.perf_counter()
        bar = tqdm(total=config.max_train_steps, initial=first, unit="step", disable=not (config.progress and main))
        with bar:
            while self.step < config.max_train_steps:
                self.history.append(self._train_step())
                self.step += 1
                speed = (self.step - first) * config.batch_size / (time.perf_counter() - started)
                bar.update()
                if on_step is not None:
                    values = dict(zip(METRICS, self.history[-1].tolist(), strict=True))
                    on_step(StepMetrics(self.step, config.max_train_steps, pairs_per_s=speed, **values))
                if self.step % config.log_every == 0:
                    recent = torch.stack(self.history[-config.log_every :]).mean(0).tolist()
                    bar.set_postfix(loss=f"{recent[0]:.4f}", accuracy=f"{recent[1]:.2f}", pairs_per_s=f"{speed:.1f}")
                if self.step % config.checkpoint_every == 0 and main:
                    self._save_checkpoint()
        elapsed_s = time.perf_counter() - started
        return self._finish(elapsed_s, (self.step - first) * config.batch_size)

    def _train_step(self) -> Tensor:
        """One update of the weights; returns the step's METRICS, (5,)."""
        config, processes = self.config, self.accelerator.num_processes
        size = config.batch_size // (processes * config.gradient_accumulation_steps)  # pairs in one forward pass
        start = self.step * config.batch_size + self.accelerator.process_index * (config.batch_size // processes)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(config, self.step)
        parts = []
        for part in range(config.gradient_accumulation_steps):
            loss, metrics = self._losses(start + part * size, start + (part + 1) * size)
            self.accelerator.backward(loss / config.gradient_accumulation_steps)
            parts.append(metrics)
        if config.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.weights, config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        metrics = torch.stack(parts).mean(0)
        return self.accelerator.reduce(metrics, "mean") if processes > 1 else metrics

    def _losses(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """The mean loss over positions first .. last-1, and their METRICS."""
        device, draws = self.accelerator.device, self.plan.at(first, last)
        chosen = torch.from_numpy(draws.pairs).to(device)  # (B,)
        clean = self.latents[chosen].float().transpose(0, 1).flatten(0, 1)  # (B, 2, C, H, W) -> (2B, C, H, W)
        # The same noise and timestep for both pictures of a pair: what differs is the picture alone.
        noise = torch.from_numpy(draws.noise).to(device).repeat(2, 1, 1, 1)
        timesteps = torch.from_numpy(draws.timesteps).to(device).repeat(2)
        dropped = torch.from_numpy(draws.caption_dropped).to(device)
        text = self.embeddings[self.prompt_rows[chosen].masked_fill(dropped, 0)].repeat(2, 1, 1)
        noisy = self.schedule.noisy(clean, noise, timesteps)
        target = self.schedule.target(clean, noise, timesteps)
        with self.switch.reference(), self.accelerator.autocast():
            reference = self.unet(noisy, timesteps, text, return_dict=False)[0]
        with self.accelerator.autocast():
            policy = self.policy(noisy, timesteps, text, return_dict=False)[0]
        reference_mse, policy_mse = _mse(reference, target).chunk(2), _mse(policy, target).chunk(2)  # 2 x (B,)
        errors = (policy_mse[0], policy_mse[1], reference_mse[0], reference_mse[1])
        loss = self.loss(*errors, self.config.beta_dpo).mean()
        with torch.no_grad():
            margin = preference_margin(*errors)
            accuracy = (margin > 0).float().mean()
            metrics = torch.stack([loss, accuracy, margin.mean(), policy_mse[0].mean(), policy_mse[1].mean()])
        return loss, metrics.detach()

    def _restore(self) -> None:
        if not self.config.resume:
            return
        found = load_checkpoint(self.config, self.facts)
        if found is None:
            logger.info("No checkpoint in %s: starting from the first step.", self.config.output_dir)
            return
        if len(found.weights) != len(self.weights):
            raise InputError(f"The checkpoint in {self.config.output_dir} is of another model; start without --resume.")
        with torch.no_grad():
            for weight, saved in zip(self.weights, found.weights, strict=True):
                weight.copy_(saved)
        self.optimizer.load_state_dict(found.optimizer)
        self.step = found.step
        self.history = list(found.history.to(self.accelerator.device))

    def _save_checkpoint(self) -> None:
        weights = [weight.detach().cpu() for weight in self.weights]
        history = torch.stack(self.history).cpu()
        save_checkpoint(self.config, self.facts, Checkpoint(self.step, weights, self.optimizer.state_dict(), history))

    def _finish(self, elapsed_s: float, pairs_seen: int) -> TrainResult:
        config = self.config
        path = config.output_dir / "pytorch_lora_weights.safetensors"
        speed = pairs_seen / elapsed_s if pairs_seen else None
        history = torch.stack(self.history).cpu()
        metrics = {
            "steps": self.step,
            "pairs": len(self.pairs),
            "pairs_seen": self.step * config.batch_size,
            "elapsed_s": round(elapsed_s, 3),
            "pairs_per_s": None if speed is None else round(speed, 2),
            **summarise(METRICS, history, config.log_every),
        }
        if self.accelerator.is_main_process:
            path = save_adapter(peft_adapter(self.unet), config.output_dir)
            self._save_checkpoint()
            write_records(config, self.facts, self.pairs, metrics, path)
        self.accelerator.wait_for_everyone()
        return TrainResult(path, sha256_file(path), metrics)


def learning_rate_at(config: TrainConfig, step: int) -> float:
    """The learning rate of update `step` (from 0): a linear warm-up, then constant or a cosine to zero."""
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    if config.lr_schedule == "constant":
        return config.learning_rate * warm
    return config.learning_rate * warm * 0.5 * (1 + math.cos(math.pi * step / config.max_train_steps))


def _both(pair: PreferencePair) -> np.ndarray:
    """(2, C, H, W) float16, preferred first."""
    return np.stack([pair.preferred, pair.rejected]).astype(np.float16, copy=False)


def _mse(prediction: Tensor, target: Tensor) -> Tensor:
    """One mean squared error per sample, (2B, C, H, W) -> (2B,), in float32."""
    return (prediction.float() - target).pow(2).flatten(1).mean(1)
