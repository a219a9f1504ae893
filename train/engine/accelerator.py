"""How a run meets its hardware: accelerate's processes and precision, and gradient checkpointing."""

from __future__ import annotations

from typing import Any

from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType

from npo_core.errors import InputError
from train.engine.config import TrainConfig


def make_accelerator(config: TrainConfig) -> Accelerator:
    """accelerate remembers the first precision and device of a process; a later run may want others."""
    state = AcceleratorState() if AcceleratorState._shared_state else None
    if state is not None and state.num_processes == 1:
        AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(
        mixed_precision=config.mixed_precision,
        cpu=config.device == "cpu",
        log_with=config.track_with,
        project_dir=config.output_dir,
    )
    if accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED):
        raise InputError(
            f"This was launched with {accelerator.distributed_type.value}, which splits what is trained, and a LoRA is "
            "too small for that; launch with --multi_gpu, and give --shard-base where the base itself is too large."
        )
    if config.shard_base and accelerator.num_processes == 1:
        raise InputError("One process has nobody to share the base with; launch several, or leave out --shard-base.")
    parts = accelerator.num_processes * config.gradient_accumulation_steps
    if config.batch_size % parts:
        raise InputError(
            f"The batch of {config.batch_size} pairs cannot be split equally over {accelerator.num_processes} "
            f"processes and {config.gradient_accumulation_steps} accumulation steps; give a multiple of {parts}."
        )
    return accelerator


def set_checkpointing(unet: Any, on: bool) -> None:
    unet.enable_gradient_checkpointing() if on else unet.disable_gradient_checkpointing()
