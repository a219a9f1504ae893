"""How to run the steps: gradient checkpointing and compilation, chosen from the free memory and the run's length."""

from __future__ import annotations

import gc
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from train.config import TrainConfig

HEADROOM = 0.9  # the share of the free memory that a plan may count on
COMPILE_FROM_STEPS = 300  # compiling takes about as long as it saves in so many steps of an SD1.5-sized UNet
GIB = 2**30


@dataclass(frozen=True)
class SpeedPlan:
    """What was chosen, and why in one line."""

    checkpointing: bool
    compile: bool
    reason: str


def plan_speed(
    config: TrainConfig,
    device: torch.device,
    steps_left: int,
    examples: int,
    probe: Callable[[int], None],
    set_checkpointing: Callable[[bool], None],
) -> SpeedPlan:
    """Chooses for batches of `examples` a forward pass; `probe(n)` runs forward and backward on n examples.

    On a GPU two small probes without checkpointing tell what one more example costs; what the batch needs is compared
    with what is free.
    """
    if device.type != "cuda":
        checkpointing, compile_it = config.gradient_checkpointing == "on", config.compile == "on"
        return SpeedPlan(checkpointing, compile_it, f"{device.type}: no checkpointing, no compilation unless asked for")
    compile_it, why_compile = _compiles(config, steps_left)
    if config.gradient_checkpointing != "auto":
        on = config.gradient_checkpointing == "on"
        return SpeedPlan(on, compile_it, f"checkpointing {config.gradient_checkpointing} as asked; {why_compile}")
    set_checkpointing(False)
    free = _free_bytes(device)
    try:
        one, two = (_peak_bytes(device, partial(probe, count)) for count in (1, 2))
        needed = one + (examples - 1) * max(two - one, 0)
    except torch.cuda.OutOfMemoryError:
        needed = free + 1
    checkpointing = needed > HEADROOM * free
    reason = (
        f"{examples} examples at once need about {needed / GIB:.1f} GiB without checkpointing and {free / GIB:.1f} GiB "
        f"are free: checkpointing {'on' if checkpointing else 'off'}; {why_compile}"
    )
    return SpeedPlan(checkpointing, compile_it, reason)


def _compiles(config: TrainConfig, steps_left: int) -> tuple[bool, str]:
    if config.compile != "auto":
        return config.compile == "on", f"compilation {config.compile} as asked"
    if importlib.util.find_spec("triton") is None:
        return False, "not compiled: triton is not installed"
    if steps_left < COMPILE_FROM_STEPS:
        return False, f"not compiled: {steps_left} steps are too few to earn it back"
    return True, f"compiled: {steps_left} steps earn it back"


def _free_bytes(device: torch.device) -> int:
    """Free for new tensors: what no process has, and what our allocator keeps unused."""
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def _peak_bytes(device: torch.device, run: Callable[[], None]) -> int:
    """How far `run` raises the allocated memory at its peak."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before
