"""The settings of a training run, checked before anything is loaded."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from npo_core.catalog.adapter_files import ROLES, Role
from npo_core.catalog.families import MODALITIES
from npo_core.errors import InputError
from npo_core.requests import MIX_RANGE
from train.objectives.losses import LOSSES
from train.pairs.draws import TIMESTEP_SAMPLING

PRECISIONS = ("no", "bf16", "fp16")
LR_SCHEDULES = ("constant", "linear", "cosine")
OPTIMIZERS = ("adamw", "adamw8bit")
SWITCH = ("auto", "on", "off")
TRACKERS = {"tensorboard": ("tensorboard", "tensorboardX"), "wandb": ("wandb",)}  # the packages, any of which will do

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")  # what Diffusion-DPO and Diffusion-NPO train
OTHERS = ("ff.net.0.proj", "ff.net.2", "proj_in", "proj_out", "conv1", "conv2", "conv_shortcut")
TARGETS: dict[str, tuple[str, ...]] = {  # by the end of the layer's name; what moves a clip is left alone
    "attention": ATTENTION,
    "all": (*ATTENTION, *OTHERS),
    "attention+motion": ATTENTION,  # the temporal attention of a clip's motion modules too
}
WITH_MOTION = ("attention+motion",)
BATCH_SIZES = {"image": 16, "video": 4}  # pairs a step by default: a clip has as many pictures as frames

METHODS: dict[Role, str] = {"negative": "NPO", "aligned": "DPO"}
HELD_OUT, HELD_OUT_FROM_PROMPTS = 0.1, 50  # the default share, of at least so many prompts: of fewer it says nothing
OF_PAIRS = (
    "loss",
    "beta_dpo",
    "label_smoothing",
    "share_reference",
    "both_signs",
)  # settings that say nothing without pairs

# What does not change the weights of a given step, so that a resumed run may differ in it.
FREE_ON_RESUME = (
    "resume", "checkpoint_every", "log_every", "progress", "max_train_steps", "gradient_checkpointing", "compile",
    "cache_dir", "share_reference", "track_with", "shard_base",
)  # fmt: skip


@dataclass(frozen=True)
class TrainConfig:
    """How to train one adapter. Batches count pairs, over all processes and accumulation steps together.

    modality: what the pairs are, pictures or clips; a clip's loss is the mean over its frames.
    role: which branch the adapter is for; it is only written down, the direction is in the pairs.
    lora_alpha: None means `rank`, a scale of 1. targets: a key of TARGETS. optimizer: one of OPTIMIZERS.
    label_smoothing: the share of preferences expected to be the wrong way round (see losses.py).
    through_guidance: None, or the guidance scale W > 1 at which the loss is taken on uncond + W * (cond - uncond) with
    the aligned branch frozen; the pairs then stay in their given order (see GuidedObjective). alpha, beta: the shares
    of alignment and of the trained offset in the negative branch there, and the app's default for the adapter.
    both_signs: one network for both branches, whose pairs are exchanged where the caption is dropped (Diff-SNPO).
    beta_dpo: times mean squared errors of what the base predicts, so it means something else for each prediction type
    (see docs/training.md).
    caption_dropout: the share of pairs shown with the empty prompt, on which guidance will call the negative model.
    timestep_range: the share of the noise schedule that is trained, 0 the cleanest end; timestep_sampling: a key of
    TIMESTEP_SAMPLING, the density inside it.
    max_grad_norm: None for no clipping. ema_decay: None, or the decay of the moving average that is kept as the result.
    It warms up (see `ema_decay_at`).
    validate_every: steps between validations, None for none; where there are held-out pairs the weights with the best
    accuracy on them are the result. early_stop: stop after so many validations without a better one; None never stops.
    mixed_precision: "bf16" trains 1.7 times as fast as "no" on CPUs with avx512_bf16 (see `fastest_precision`).
    gradient_checkpointing, compile: one of SWITCH; auto decides by the free memory and the length of the run.
    cache_dir: where text embeddings and, with share_reference, the reference's errors are kept for other runs.
    shard_base: several processes keep a share of the frozen base each (see sharding.py); nothing is compiled then, and
    no grid drawn.
    device: None for the GPU if there is one. track_with: one of TRACKERS, or None.
    """

    family: str
    output_dir: Path
    modality: str = "image"
    role: Role = "negative"
    max_train_steps: int = 100
    batch_size: int = 16
    gradient_accumulation_steps: int = 1
    optimizer: str = "adamw"
    learning_rate: float = 1e-4
    lr_schedule: str = "constant"
    warmup_steps: int = 0
    weight_decay: float = 0.01
    max_grad_norm: float | None = 1.0
    ema_decay: float | None = None
    rank: int = 8
    lora_alpha: int | None = None
    targets: str = "attention"
    loss: str = "sigmoid"
    beta_dpo: float = 500.0
    label_smoothing: float = 0.0
    through_guidance: float | None = None
    alpha: float = 1.0
    beta: float = 1.0
    both_signs: bool = False
    caption_dropout: float = 0.1
    timestep_range: tuple[float, float] = (0.0, 1.0)
    timestep_sampling: str = "uniform"
    seed: int = 0
    resume: bool = False
    checkpoint_every: int = 50
    log_every: int = 10
    validate_every: int | None = None
    early_stop: int | None = None
    mixed_precision: str = "no"
    gradient_checkpointing: str = "auto"
    compile: str = "auto"
    cache_dir: Path | None = None
    share_reference: bool = False
    shard_base: bool = False
    device: str | None = None
    progress: bool = True
    track_with: str | None = None

    @property
    def strength(self) -> float:
        """What the trained offset is multiplied with while it is trained."""
        return 1.0 if self.through_guidance is None else self.beta

    @property
    def trained_for(self) -> dict[str, float]:
        """Where in guidance the adapter was trained to stand, for its file: what the app takes as its default."""
        if self.through_guidance is None:
            return {}
        return {"alpha": self.alpha, "beta": self.beta, "guidance_scale": self.through_guidance}

    def as_json(self) -> dict[str, Any]:
        """The settings as plain JSON values; without the folders, which are this machine's, and without shares that
        nothing was trained for."""
        values = {**asdict(self), "timestep_range": list(self.timestep_range)}
        hidden = ("output_dir", "cache_dir", *(("alpha", "beta") if self.through_guidance is None else ()))
        return {name: value for name, value in values.items() if name not in hidden}

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
    import torch

    if device != "cpu" and torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    capabilities = torch.cpu.get_capabilities()
    return "bf16" if capabilities.get("avx512_bf16") or capabilities.get("amx_bf16") else "no"


def check_config(config: TrainConfig) -> None:
    """Raises InputError for the first setting that is out of range."""
    _choice("loss", config.loss, LOSSES)
    _choice("modality", config.modality, MODALITIES)
    _choice("targets", config.targets, TARGETS)
    if config.targets in WITH_MOTION and config.modality != "video":
        raise InputError(f"Pictures have no motion modules to train ({config.targets}); leave --targets out.")
    _choice("role", config.role, ROLES)
    _choice("mixed precision", config.mixed_precision, PRECISIONS)
    _choice("learning rate schedule", config.lr_schedule, LR_SCHEDULES)
    _choice("optimizer", config.optimizer, OPTIMIZERS)
    _choice("timestep sampling", config.timestep_sampling, TIMESTEP_SAMPLING)
    _choice("gradient checkpointing", config.gradient_checkpointing, SWITCH)
    _choice("compile", config.compile, SWITCH)
    if config.track_with is not None:
        _choice("tracker", config.track_with, TRACKERS)
        _check_tracker(config.track_with)
    _check_counts(config)
    _check_numbers(config)


def _check_tracker(name: str) -> None:
    """accelerate leaves a tracker out without a word where its package is missing."""
    if not any(find_spec(package) for package in TRACKERS[name]):
        raise InputError(
            f"Logging to {name} needs the package {TRACKERS[name][0]}; run pip install {TRACKERS[name][0]}, or leave "
            "--track-with out."
        )


def _check_counts(config: TrainConfig) -> None:
    for what, count in {
        "number of training steps": config.max_train_steps,
        "batch size": config.batch_size,
        "number of accumulation steps": config.gradient_accumulation_steps,
        "rank": config.rank,
        "number of steps between checkpoints": config.checkpoint_every,
        "number of steps between reports": config.log_every,
        "number of steps between validations": config.validate_every,
        "number of validations before an early stop": config.early_stop,
    }.items():
        if count is not None and count < 1:
            raise InputError(f"The {what} is {count}; give 1 or more.")
    if config.early_stop is not None and config.validate_every is None:
        raise InputError("An early stop needs validations; give --validate-every too.")
    if config.share_reference and config.cache_dir is None:
        raise InputError("Sharing the reference's errors needs a place to keep them; give a cache folder.")
    if config.shard_base and config.compile == "on":
        raise InputError("A base that is shared among processes is not compiled; leave out --compile or --shard-base.")
    if config.batch_size % config.gradient_accumulation_steps:
        raise InputError(
            f"The batch of {config.batch_size} pairs cannot be split into {config.gradient_accumulation_steps} equal "
            "parts; give a batch size that is a multiple of the accumulation steps."
        )


def check_early_stop(config: TrainConfig, held_out: int) -> None:
    """Raises InputError where a run shall stop by its held-out pairs and has none. A run that goes on may lack those it
    began with: what it wrote down about them may be of an earlier version."""
    if config.early_stop is not None and held_out == 0 and not config.resume:
        raise InputError(
            "An early stop goes by held-out pairs and there are none; give --held-out SHARE, as is only done by itself "
            f"where there are {HELD_OUT_FROM_PROMPTS} prompts or more, or leave --early-stop out."
        )


def _check_numbers(config: TrainConfig) -> None:
    for what, value in {"learning rate": config.learning_rate, "beta": config.beta_dpo}.items():
        if not (math.isfinite(value) and value > 0):
            raise InputError(f"The {what} is {value}; give a finite number above 0.")
    if not 0 <= config.seed < 2**63:
        raise InputError(f"The seed is {config.seed}; give a whole number from 0 to {2**63 - 1}.")
    if config.warmup_steps < 0:
        raise InputError(f"The number of warm-up steps is {config.warmup_steps}; give 0 or more.")
    if not 0 <= config.caption_dropout <= 1:
        raise InputError(f"The caption dropout is {config.caption_dropout}; give a share from 0 to 1.")
    if not 0 <= config.label_smoothing < 0.5:
        raise InputError(f"The label smoothing is {config.label_smoothing}; give a share from 0 to below 0.5.")
    if config.ema_decay is not None and not 0 <= config.ema_decay < 1:
        raise InputError(f"The EMA decay is {config.ema_decay}; give a number from 0 to below 1, such as 0.99.")
    _check_guidance(config)
    low, high = config.timestep_range
    if not 0 <= low < high <= 1:
        raise InputError(f"The timestep range is {low} to {high}; give two rising shares from 0 to 1.")


def _check_guidance(config: TrainConfig) -> None:
    scale = config.through_guidance
    if scale is not None and config.role != "negative":
        raise InputError("What is trained through guidance is the negative model; leave --through-guidance out.")
    if scale is not None and not (math.isfinite(scale) and scale > 1):
        raise InputError(f"The guidance scale to train through is {scale}; give a number above 1, such as 4.")
    low, high = MIX_RANGE
    if not low <= config.alpha <= high:
        raise InputError(f"Alpha is {config.alpha}; give a number from {low:g} to {high:g}.")
    if not 0 < config.beta <= high:
        raise InputError(f"Beta is {config.beta}; give a number above 0 and at most {high:g}.")
    if scale is None and (config.alpha, config.beta) != (1, 1):
        raise InputError("Alpha and beta are trained for through guidance; give --through-guidance too.")
    if config.shard_base and config.alpha != 1:
        raise InputError("A base that is shared among processes is trained on at alpha 1; leave out --shard-base.")
    if config.both_signs and config.role != "aligned":
        raise InputError("One network with both signs answers prompts too; train it with train.dpo.")


def _choice(what: str, value: str, allowed: Any) -> None:
    if value not in allowed:
        raise InputError(f"Unknown {what} {value!r}; choose from {', '.join(allowed)}.")
