"""Time and memory of a call, on a CPU or a GPU."""

from __future__ import annotations

import contextlib
import gc
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

clock = time.perf_counter  # or time.process_time, see --cpu-time


def median_ms(call: Callable[[], Any], device: torch.device, repeats: int) -> float:
    times = []
    for number in range(repeats + 2):
        synchronise(device)
        started = clock()
        call()
        synchronise(device)
        if number >= 2:
            times.append(clock() - started)
    return 1e3 * statistics.median(times)


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def forget_peak(device: torch.device) -> None:
    """The next `peak_gb` counts from here."""
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    else:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_gb(device: torch.device) -> float | None:
    if device.type == "cuda":
        return torch.cuda.max_memory_reserved() / 1e9
    status = Path("/proc/self/status")
    lines = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")] if status.exists() else []
    return int(lines[0].split()[1]) * 1024 / 1e9 if lines else None
