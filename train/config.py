"""The settings of a training run, checked before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from npo_core.adapters import ROLES, Role
from npo_core.errors import InputError
from train.losses import LOSSES

PRECISIONS = ("no", "bf16", "fp16")
LR_SCHEDULES = ("constant", "cosine")

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")  # what Diffusion-DPO and Diffusion-NPO train
TARGETS: dict[str, tuple[str, ...]] = {  # by the end of the layer's name
    "attention": ATTENTION,
    "all": (*ATTENTION, "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut"),
}

# What does not change the weights of a given step, so that a resumed run may differ in it.
FREE_ON_RESUME = (
    "resume", "checkpoint_every", "log_every", "progress", "max_train_steps", "gradient_checkpointing",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """How to train one adapter. Batches count pairs, over all processes and accumulation steps together.

    role: which branch the adapter is for; it is only written down, the direction is in the pairs.
    lora_alpha: None means `rank`, a scale of 1. targets: a key of TARGETS.
    caption_dropout: the share of pairs shown with the empty prompt, on which guidance will call the negative model.
    timestep_range: the share of the noise schedule that is trained, 0 the cleanest end; uniform inside.
    max_grad_norm: None for no clipping. mixed_precision: "bf16" trains 1.7 times as fast as "no" on CPUs with
    avx512_bf16 (see `fastest_precision`). device: None for the GPU if there is one.
    """

    family: str
    output_dir: Path
    role: Role = "negative"
    max_train_steps: int = 100
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    learning_rate: float = 1e-4
    lr_schedule: str = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    max_grad_norm: float | None = 1.0
    rank: int = 8
    lora_alpha: int | None = None
    targets: str = "attention"
    loss: str = "sigmoid"
    beta_dpo: float = 500.0
    caption_dropout: float = 0.1
    timestep_range: tuple[float, float] = (0.0, 1.0)
    seed: int = 0
    resume: bool = False
    checkpoint_every: int = 50
    log_every: int = 10
    mixed_precision: str = "no"
    gradient_checkpointing: bool = False
    device: str | None = None
    progress: bool = True

    def as_json(self) -> dict[str, Any]:
        """The settings as plain JSON values; without the output folder, which is where this is written to."""
        values = {**asdict(self), "timestep_range": list(self.timestep_range)}
        return {name: value for name, value in values.items() if name != "output_dir"}

    def identity(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run it goes on with."""
        kept = {name: value for name, value in self.as_json().items() if name not in FREE_ON_RESUME}
        if self.lr_schedule != "constant":
            kept["max_train_steps"] = self.max_train_steps  # the schedule ends there
        return kept


def fastest_precision(device: str | None) -> str:
    """The precision that the machine computes natively at twice the speed of float32, or "no" where there is none.

    device: None for the GPU if there is one, as in TrainConfig.
    """
    if device != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "no"


def check_config(config: TrainConfig) -> None:
    """Raises InputError for the first setting that is out of range."""
    _choice("loss", config.loss, LOSSES)
    _choice("targets", config.targets, TARGETS)
    _choice("role", config.role, ROLES)
    _choice("mixed precision", config.mixed_precision, PRECISIONS)
    _choice("learning rate schedule", config.lr_schedule, LR_SCHEDULES)
    for what, count in {
        "number of training steps": config.max_train_steps,
        "batch size": config.batch_size,
        "number of accumulation steps": config.gradient_accumulation_steps,
        "rank": config.rank,
        "number of steps between checkpoints": config.checkpoint_every,
        "number of steps between reports": config.log_every,
    }.items():
        if count < 1:
            raise InputError(f"The {what} is {count}; give 1 or more.")
    if config.batch_size % config.gradient_accumulation_steps:
        raise InputError(
            f"The batch of {config.batch_size} pairs cannot be split into {config.gradient_accumulation_steps} equal "
            "parts; give a batch size that is a multiple of the accumulation steps."
        )
    for what, value in {"learning rate": config.learning_rate, "beta": config.beta_dpo}.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"The {what} is {value}; give a finite number above 0.")
    if not 0 <= config.seed < 2**63:
        raise InputError(f"The seed is {config.seed}; give a whole number from 0 to {2**63 - 1}.")
    if config.warmup_steps < 0:
        raise InputError(f"The number of warm-up steps is {config.warmup_steps}; give 0 or more.")
    if not 0 <= config.caption_dropout <= 1:
        raise InputError(f"The caption dropout is {config.caption_dropout}; give a share from 0 to 1.")
    low, high = config.timestep_range
    if not 0 <= low < high <= 1:
        raise InputError(f"The timestep range is {low} to {high}; give two rising shares from 0 to 1.")


def _choice(what: str, value: str, allowed: Any) -> None:
    if value not in allowed:
        raise InputError(f"Unknown {what} {value!r}; choose from {', '.join(allowed)}.")
