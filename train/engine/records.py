"""The files beside an adapter: checkpoint.pt while it trains, and config, metrics and provenance for afterwards."""

from __future__ import annotations

import csv
import io
import json
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from platform import python_version
from typing import TYPE_CHECKING, Any

from npo_core.errors import InputError
from npo_core.media.files import sha256_file
from train.engine.config import TrainConfig
from train.engine.files import replacing, write_json

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT_FILE_NAME = "checkpoint.pt"
METRICS_FILE_NAME = "metrics.csv"
PROVENANCE_FILE_NAME = "provenance.json"
SINCE_THE_BASE_S_HASH = ("prediction_type",)  # facts that were added later and are in the base's hash anyway
LIBRARIES = ("torch", "diffusers", "peft", "accelerate", "transformers", "numpy")


@dataclass(frozen=True)
class Best:
    """The weights with the best held-out accuracy so far, when that was, and the held-out loss there."""

    accuracy: float
    loss: float
    step: int
    weights: list[Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """A run after `step` updates. history: (step, metrics). The random state needs no place: see draws.py.

    ema: the moving averages, empty without them. rows: of metrics.csv. best: None where nothing is held out.
    """

    step: int
    weights: list[Tensor]
    optimizer: dict[str, Any]
    history: Tensor
    ema: list[Tensor]
    scaler: dict[str, Any]
    rows: list[dict[str, float]]
    best: Best | None


def prepare_folder(output_dir: Path) -> None:
    """Makes the output folder; raises InputError, before anything slow begins, where it cannot be written."""
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        (output_dir / CHECKPOINT_FILE_NAME).with_suffix(".partial").write_bytes(b"")
        (output_dir / CHECKPOINT_FILE_NAME).with_suffix(".partial").unlink()
    except OSError as error:
        raise InputError(f"{output_dir} cannot be written ({error.strerror}); give another --output-dir.") from None


def save_checkpoint(config: TrainConfig, facts: dict[str, Any], checkpoint: Checkpoint) -> None:
    """Replaces the checkpoint in the output folder: a kill at any moment leaves the old one or the new one."""
    import torch

    content = io.BytesIO()  # torch turns a full disk into an error of its own; plain bytes do not
    best = checkpoint.best and vars(checkpoint.best)
    torch.save({"identity": {**config.identity(), **facts}, **vars(checkpoint), "best": best}, content)
    with replacing(config.output_dir / CHECKPOINT_FILE_NAME) as opened:
        opened.write(content.getbuffer())


def load_checkpoint(config: TrainConfig, facts: dict[str, Any]) -> Checkpoint | None:
    """The checkpoint in the output folder, None if there is none; raises InputError if it is of another run."""
    file = config.output_dir / CHECKPOINT_FILE_NAME
    if not file.is_file():
        return None
    import torch

    try:
        found = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise InputError(f"{file} cannot be read ({type(error).__name__}); start without --resume.") from None
    defaults = {entry.name: entry.default for entry in fields(TrainConfig)}  # earlier versions wrote down less
    known = {name: value for name, value in facts.items() if name in SINCE_THE_BASE_S_HASH}
    identity = {**defaults, **known, **found.pop("identity")}
    for name, value in {**config.identity(), **facts}.items():
        if identity.get(name) != value:
            raise InputError(
                f"{file} was made with {name} {identity.get(name)!r} and this run has {value!r}; "
                "give the same or start without --resume."
            )
    checkpoint = Checkpoint(**{**found, "best": _best(found["best"])})
    if checkpoint.step > config.max_train_steps:
        raise InputError(
            f"{file} is at step {checkpoint.step}, beyond the {config.max_train_steps} asked for; "
            "ask for more steps or start without --resume."
        )
    return checkpoint


def _best(found: dict[str, Any] | tuple[float, int, list[Tensor]] | None) -> Best | None:
    """Earlier versions kept (accuracy, step, weights)."""
    if isinstance(found, tuple):
        accuracy, step, weights = found
        return Best(accuracy, float("inf"), step, weights)
    return None if found is None else Best(**found)


def summarise(names: Sequence[str], history: Tensor, window: int) -> dict[str, Any]:
    """The means over the last tenth of the run as final_NAME, and the course as means over `window` steps.

    history: (steps, metrics), columns called `names`.
    """
    last = history[-max(1, len(history) // 10) :].mean(0).tolist()
    course = [
        {"step": min(start + window, len(history)), **dict(zip(names, part.mean(0).tolist(), strict=True))}
        for start, part in zip(range(0, len(history), window), history.split(window), strict=True)
    ]
    return {**{f"final_{name}": value for name, value in zip(names, last, strict=True)}, "history": course}


def table(rows: Sequence[dict[str, float]]) -> str:
    """`rows` as CSV; a column that a row does not have is empty there."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    content = io.StringIO()
    writer = csv.DictWriter(content, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return content.getvalue()


@dataclass(frozen=True)
class Sources:
    """Where the examples of a run come from, in order: those it is trained on, and those that only measure it."""

    trained_on: Sequence[str]
    held_out: Sequence[str] = ()


def write_records(
    config: TrainConfig, facts: dict[str, Any], sources: Sources, adapter: Path | None = None
) -> dict[str, Any]:
    """config.json and provenance.json, at the start; with the adapter's sha256 once it is finished."""
    provenance = {
        "family": config.family,
        "role": config.role,
        **facts,
        "sources": list(sources.trained_on),
        "held_out_sources": list(sources.held_out),
        "versions": {"python": python_version(), **{name: metadata.version(name) for name in LIBRARIES}},
    }
    if adapter is not None:
        provenance["adapter_sha256"] = sha256_file(adapter)
        provenance["finished_at"] = datetime.now(UTC).isoformat(timespec="seconds")
    write_json(config.output_dir / "config.json", config.as_json())
    write_json(config.output_dir / PROVENANCE_FILE_NAME, provenance)
    return provenance


def read_sources(output_dir: Path) -> Sources | None:
    """Which preferences the run in `output_dir` began with; None where no run began.

    Runs of earlier versions did not write down what they held out: theirs is read as nothing.
    """
    file = output_dir / PROVENANCE_FILE_NAME
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return Sources(*(list(map(str, part)) for part in (found["sources"], found.get("held_out_sources", []))))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{file} cannot be read ({error}); start without --resume.") from None
