"""What the emoji family's trainings share: when the learning rate falls, and how a run is kept and taken up again."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from train.engine.config import fastest_precision

WARMUP_STEPS = 200


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm-up, constant, cosine to zero over the last 40%."""
    tail = max(1, round(0.4 * steps))
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, (step - steps + tail) / tail))))
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * fall


def native_precision(device: torch.device) -> torch.autocast:
    """bfloat16 products where the machine has units for them; float32 elsewhere, for emulation is far slower."""
    return torch.autocast(device.type, torch.bfloat16, enabled=fastest_precision(device.type) == "bf16")


def diffuse(clean: Tensor, noise: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """What a model is given and what it has to say of it, v (arXiv 2202.00512, appendix D), both as `clean` (N, ...).

    alphas: (N,) the cumulative products of the schedule at each row's timestep.
    """
    alphas = alphas.view(-1, *[1] * (clean.ndim - 1))
    signal, sigma = alphas.sqrt(), (1 - alphas).sqrt()
    return signal * clean + sigma * noise, signal * noise - sigma * clean


class Run:
    """Weights, their moving average, AdamW and the number of steps done; one file on disk."""

    def __init__(self, parameters: Sequence[Tensor], file: Path, steps: int, peak_rate: float, decay: float) -> None:
        self.parameters, self.file, self.steps, self.peak_rate, self.decay = (
            list(parameters), file, steps, peak_rate, decay,
        )  # fmt: skip
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        self.done = 0

    def update(self, loss: Tensor) -> None:
        """One step of AdamW down the gradient of `loss`, clipped to norm 1."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.done, self.steps, self.peak_rate)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        decay = min(self.decay, (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)

    def save(self) -> None:
        """Writes to a temporary name first, so that a kill never leaves half a file."""
        state = {
            "parameters": self.parameters,
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
        }
        self.file.parent.mkdir(parents=True, exist_ok=True)
        torch.save(state, self.file.with_suffix(".tmp"))
        self.file.with_suffix(".tmp").replace(self.file)

    def resume(self) -> None:
        """Goes on where the file stopped, if there is one."""
        if not self.file.exists():
            return
        state: dict[str, Any] = torch.load(self.file, map_location=self.parameters[0].device, weights_only=True)
        with torch.no_grad():
            for mine, kept in zip(self.parameters + self.average, state["parameters"] + state["average"], strict=True):
                mine.copy_(kept)
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]

    def take_average(self) -> None:
        """The averaged weights become the weights."""
        with torch.no_grad():
            for mine, kept in zip(self.parameters, self.average, strict=True):
                mine.copy_(kept)

    def to_the_end(self, step: Callable[[int], Tensor], batch_size: int, every: int = 100) -> None:
        """All steps that are left; `step(n)` gives the loss of step n. Reports `every` so many; saves rarely."""
        started, first = time.perf_counter(), self.done
        while self.done < self.steps:
            loss = step(self.done)
            self.update(loss)
            if self.done % every == 0 or self.done == self.steps:
                rate = (self.done - first) * batch_size / (time.perf_counter() - started)
                print(
                    f"step {self.done}/{self.steps} loss {float(loss.detach()):.4f} {rate:.0f} pictures/s", flush=True
                )
            if self.done % (10 * every) == 0 or self.done == self.steps:
                self.save()
