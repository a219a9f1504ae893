"""What goes into a run besides its settings, and what comes out of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from train.engine.records import Sources
from train.engine.results import About
from train.objectives.objective import MakeObjective


@dataclass(frozen=True)
class StepMetrics:
    """How training stands after a step. values: the objective's metrics, means over the step's examples."""

    step: int
    total_steps: int
    values: dict[str, float]
    pairs_per_s: float


OnStep = Callable[[StepMetrics], None]


@dataclass(frozen=True)
class Task:
    """What to train on. make: builds the objective once the network stands. examples: how many there are; sources:
    where they come from, for the records. facts: what makes this data this data. about: for the model card."""

    make: MakeObjective
    examples: int
    sources: Sources
    facts: dict[str, Any]
    about: About


@dataclass(frozen=True)
class TrainResult:
    """The finished adapter: its safetensors file, the file's sha256, and the metrics also in metrics.json."""

    adapter_path: Path
    sha256: str
    metrics: dict[str, Any]
