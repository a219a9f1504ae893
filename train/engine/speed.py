"""How to run the steps: gradient checkpointing and compilation, chosen from the free memory and the run's length."""

from __future__ import annotations

import gc
import importlib.util
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch

from train.engine.config import TrainConfig

HEADROOM = 0.9  # the share of the free memory that a plan may count on
COMPILED_SAVES = 0.25  # the share of a step that compiled kernels save, at the least that was seen
COMPILING_S = 150.0  # what compiling an SD1.5-sized UNet forwards and backwards takes
LARGE_PROBE = 16  # examples in the larger of two probes: between 1 and 2, noise would be multiplied by the batch
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
    """Chooses for `examples` in a forward pass; `probe(n)` runs forward and backward on n of them.

    On a GPU probes without checkpointing, of one example and of up to LARGE_PROBE, tell what one more costs, in bytes
    and seconds; what the batch needs is compared with what is free, and what compiling would save with what it takes.
    """
    if device.type != "cuda":
        checkpointing, compiled = config.gradient_checkpointing == "on", config.compile == "on"
        return SpeedPlan(checkpointing, compiled, f"on {device.type} nothing is chosen, only what was asked for")
    if config.gradient_checkpointing != "auto" and config.compile != "auto":
        reason = f"checkpointing {config.gradient_checkpointing} and compilation {config.compile} as asked"
        return SpeedPlan(config.gradient_checkpointing == "on", config.compile == "on", reason)
    set_checkpointing(config.gradient_checkpointing == "on")
    free = _free_bytes(device)
    try:
        bytes_1, seconds_1 = _cost(device, probe, 1)
        large = min(max(examples, 2), LARGE_PROBE)
        bytes_large, seconds_large = _cost(device, probe, large)
        more = (examples - 1) / (large - 1)
        needed = bytes_1 + round(more * max(bytes_large - bytes_1, 0))
        step_s = (seconds_1 + more * max(seconds_large - seconds_1, 0)) * config.gradient_accumulation_steps
    except torch.cuda.OutOfMemoryError:
        needed, step_s = free + 1, 0.0
    checkpointing, why = _checkpoints(config, examples, needed, free)
    compiled, why_compiled = _compiles(config, steps_left, step_s)
    return SpeedPlan(checkpointing, compiled, f"{why}; {why_compiled}")


def _checkpoints(config: TrainConfig, examples: int, needed: int, free: int) -> tuple[bool, str]:
    if config.gradient_checkpointing != "auto":
        return config.gradient_checkpointing == "on", f"checkpointing {config.gradient_checkpointing} as asked"
    on = needed > HEADROOM * free
    return on, (
        f"checkpointing {'on' if on else 'off'}: {examples} at once need about {needed / GIB:.1f} GiB without it and "
        f"{free / GIB:.1f} GiB are free"
    )


def _compiles(config: TrainConfig, steps_left: int, step_s: float) -> tuple[bool, str]:
    if config.compile != "auto":
        return config.compile == "on", f"compilation {config.compile} as asked"
    if importlib.util.find_spec("triton") is None:
        return False, "not compiled: triton is not installed"
    saved_s = COMPILED_SAVES * step_s * steps_left
    on = saved_s > COMPILING_S
    return on, (
        f"{'compiled' if on else 'not compiled'}: {steps_left} steps of {1000 * step_s:.0f} ms save about "
        f"{saved_s:.0f} s and compiling takes about {COMPILING_S:.0f} s"
    )


def _free_bytes(device: torch.device) -> int:
    """Free for new tensors: what no process has, after our allocator gave back what it keeps unused."""
    gc.collect()
    torch.cuda.empty_cache()
    return torch.cuda.mem_get_info(device)[0]


def _cost(device: torch.device, probe: Callable[[int], None], examples: int) -> tuple[int, float]:
    """(how far a probe raises the allocated memory at its peak, in bytes; how long it takes, in seconds)."""
    probe(examples)  # the first of a size also loads and chooses kernels
    torch.cuda.synchronize(device)
    before, started_s = torch.cuda.memory_allocated(device), time.perf_counter()
    torch.cuda.reset_peak_memory_stats(device)
    probe(examples)
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before, time.perf_counter() - started_s
