"""What the emoji family's trainings share: when the learning rate falls, and how a run is kept and taken up again."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
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
    return torch.autocast(
        device.type,
        torch.bfloat16,
        enabled=fastest_precision(device.type) == "bf16",
        cache_enabled=False,  # no weight is cast twice in a step, and a recorded step must not hold casts of the first
    )


def diffuse(clean: Tensor, noise: Tensor, alphas: Tensor) -> tuple[Tensor, Tensor]:
    """What a model is given and what it has to say of it, v (arXiv 2202.00512, appendix D), both as `clean` (N, ...).

    alphas: (N,) the cumulative products of the schedule at each row's timestep.
    """
    alphas = alphas.view(-1, *[1] * (clean.ndim - 1))
    signal, sigma = alphas.sqrt(), (1 - alphas).sqrt()
    return signal * clean + sigma * noise, signal * noise - sigma * clean


Batch = tuple[Tensor, ...]
Loss = Callable[..., Tensor]  # of the tensors of a batch


def write_whole(file: Path, content: Any) -> None:
    """Writes under another name first, so that a kill never leaves half a file."""
    file.parent.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(f".{os.getpid()}")
    torch.save(content, partial)
    partial.replace(file)


class RecordedGradients:
    """Forward and backward passes as one CUDA graph: at these sizes eager calls are bound by the CPU that makes them.

    The gradients stay where the first pass put them, so that an ordinary optimizer reads them after each replay.
    """

    WARM_UPS = 3

    def __init__(self, differentiate: Loss, example: Batch) -> None:
        self._given = [tensor.clone() for tensor in example]
        aside = torch.cuda.Stream()
        aside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(aside):
            for _ in range(self.WARM_UPS):
                differentiate(*self._given)
        torch.cuda.current_stream().wait_stream(aside)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._value = differentiate(*self._given)

    def __call__(self, *batch: Tensor) -> Tensor:
        """The loss of `batch`, of the same shapes as the example's; its gradients lie in the parameters."""
        for place, tensor in zip(self._given, batch, strict=True):
            place.copy_(tensor)
        self._graph.replay()
        return self._value


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

    def differentiate(self, loss: Loss, *batch: Tensor) -> Tensor:
        """The loss of `batch`; its gradients, clipped to norm 1, take the place of those before."""
        self.optimizer.zero_grad(set_to_none=True)
        value = loss(*batch)
        value.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        return value.detach()

    def update(self) -> None:
        """One step of AdamW down the gradients, and the average after it."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.done, self.steps, self.peak_rate)
        self.optimizer.step()
        self.done += 1
        decay = min(self.decay, (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)

    def save(self) -> None:
        """Keeps everything that `resume` needs."""
        state = {
            "parameters": self.parameters,
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
        }
        write_whole(self.file, state)

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

    def to_the_end(self, batch: Callable[[int], Batch], loss: Loss, batch_size: int, every: int = 100) -> None:
        """All steps that are left; `batch(n)` draws what step n learns from, `loss` says how far off the networks are.

        Recorded as a CUDA graph where there is a GPU. Reports `every` so many steps; saves rarely.
        """
        if self.done == self.steps:
            return
        differentiate: Loss = partial(self.differentiate, loss)
        if self.parameters[0].is_cuda:
            torch.backends.cudnn.benchmark = True  # shapes never change
            differentiate = RecordedGradients(differentiate, batch(self.done))
        started, first = time.perf_counter(), self.done
        while self.done < self.steps:
            value = differentiate(*batch(self.done))
            self.update()
            if self.done % every == 0 or self.done == self.steps:
                rate = (self.done - first) * batch_size / (time.perf_counter() - started)
                print(f"step {self.done}/{self.steps} loss {float(value):.4f} {rate:.0f} pictures/s", flush=True)
            if self.done % (10 * every) == 0 or self.done == self.steps:
                self.save()
