"""The flags that every trainer takes; defaults are those of TrainConfig."""

from __future__ import annotations

import argparse
import os
from collections.abc import Collection
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import Any

from collection.database.connection import DEFAULT_DATA_DIR, DEFAULT_URL
from collection.errors import InputError as CollectionInputError
from collection.texts import lines_of
from npo_core.catalog.adapter_files import ADAPTER_FILE_NAME, Role
from npo_core.catalog.custom_families import add_families
from npo_core.catalog.families import FAMILIES, MODALITIES, ModelFamily, get_family
from npo_core.errors import InputError
from train.engine.config import (
    BATCH_SIZES,
    LR_SCHEDULES,
    OPTIMIZERS,
    PRECISIONS,
    SWITCH,
    TARGETS,
    TRACKERS,
    TrainConfig,
    fastest_precision,
)
from train.objectives.losses import LOSSES
from train.pairs.draws import TIMESTEP_SAMPLING

CACHE_FOLDER = "cache"


def add_place_flags(parser: argparse.ArgumentParser, clips: bool = True) -> None:
    """Which family, and where things lie. clips: whether the trainer also makes adapters for clips."""
    environment = os.environ
    add = parser.add_argument_group("of what, and where to").add_argument
    add("--family", default=environment.get("NPO_FAMILY", "emoji"), help=f"one of {', '.join(FAMILIES)} (%(default)s)")
    if clips:
        add("--modality", default="image", metavar="STR", help=f"one of {', '.join(MODALITIES)} (%(default)s)")
    else:
        parser.set_defaults(modality="image")
    add("--database-url", default=environment.get("NPO_DATABASE_URL", DEFAULT_URL), help="(%(default)s)")
    add("--data-dir", type=Path, default=Path(environment.get("NPO_DATA_DIR", DEFAULT_DATA_DIR)), help="(%(default)s)")
    add("--output-dir", type=Path, help="folder for the adapter (a new one in DATA_DIR/adapters)")
    add("--name", help="what the app calls this version (says from what, and when)")
    add("--register", action="store_true", help="make it known to the app, as --from-db always does")
    add("--no-promote", action="store_true", help="make it known to the app without putting it to use")
    add("--push-to-hub", metavar="REPO_ID", help="upload the finished adapter and its model card")
    add("--dry-run", action="store_true", help="say what would be trained on and stop")


class _Flags:
    """Flags called after settings of TrainConfig, but for those `without` a meaning for the trainer."""

    def __init__(self, parser: argparse.ArgumentParser, title: str, without: Collection[str]) -> None:
        self.group, self._without = parser.add_argument_group(title), without
        self._defaults = {entry.name: entry.default for entry in fields(TrainConfig)}

    def add(self, name: str, text: str, kind: type = str) -> None:
        """A value, whose default the help names."""
        default = self._defaults[name.replace("-", "_")]
        shown = "" if default is None else f" ({default})"
        self._add(name, type=kind, default=default, metavar=kind.__name__.upper(), help=text + shown)

    def switch(self, name: str, text: str) -> None:
        """On where it is given."""
        self._add(name, action="store_true", help=text)

    def _add(self, name: str, **how: Any) -> None:
        if name.replace("-", "_") not in self._without:
            self.group.add_argument(f"--{name}", **how)


def add_training_flags(parser: argparse.ArgumentParser, without: Collection[str] = ()) -> None:
    """How to train: one flag for each setting that people change, but those `without` a meaning for the trainer."""
    flags = _Flags(parser, "how to train", without)
    flags.group.add_argument("--max-train-steps", type=int, metavar="INT", help="chosen by the number of pairs if not")
    sizes = " or ".join(f"{size} of {modality}" for modality, size in BATCH_SIZES.items())
    flags.group.add_argument(
        "--batch-size", type=int, metavar="INT", help=f"pairs a step, over all processes ({sizes})"
    )
    flags.add("optimizer", f"one of {', '.join(OPTIMIZERS)}")
    flags.add("learning-rate", "of AdamW", float)
    flags.add("lr-schedule", f"one of {', '.join(LR_SCHEDULES)}")
    flags.add("warmup-steps", "of the learning rate", int)
    flags.add("ema-decay", "keep the moving average of the weights with this decay, such as 0.99", float)
    flags.add("rank", "of the LoRA", int)
    flags.add("targets", f"layers with a LoRA, one of {', '.join(TARGETS)}")
    flags.add("seed", "of noise, timesteps and order", int)
    _add_loss_flags(parser, without)
    _add_run_flags(parser, without)


def _add_loss_flags(parser: argparse.ArgumentParser, without: Collection[str]) -> None:
    flags = _Flags(parser, "what is minimised", without)
    flags.add("loss", f"one of {', '.join(LOSSES)}")
    flags.add("beta-dpo", "how closely to stay with the base: higher is closer (see the docs)", float)
    flags.add("label-smoothing", "the share of preferences expected to be the wrong way round", float)
    flags.switch("both-signs", "of train.dpo: one network, the pair exchanged where its caption is dropped (Diff-SNPO)")
    flags.add("through-guidance", "train the guided prediction at this scale, with the aligned model frozen", float)
    for name in ("alpha", "beta") if "through_guidance" not in without else ():
        text = f"with --through-guidance, {name} of the negative branch there (the family's)"
        flags.group.add_argument(f"--{name}", type=float, metavar="FLOAT", help=text)
    flags.add("caption-dropout", "share of pairs trained on the empty prompt", float)
    flags.group.add_argument(
        "--timestep-range",
        type=float,
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="shares of the noise to train between, 0 the cleanest (0 1; 0 0.25 for a reward's gradient)",
    )
    flags.add("timestep-sampling", f"one of {', '.join(TIMESTEP_SAMPLING)}")


def _add_run_flags(parser: argparse.ArgumentParser, without: Collection[str]) -> None:
    flags = _Flags(parser, "how the run goes", without)
    flags.add("gradient-accumulation-steps", "split each batch into so many parts, to save memory", int)
    flags.group.add_argument(
        "--mixed-precision",
        default="auto",
        metavar="STR",
        help=f"one of {', '.join(PRECISIONS)}, or auto: the fastest that this machine computes natively (auto)",
    )
    flags.add("device", "cpu, or the GPU if there is one")
    flags.add("checkpoint-every", "steps between checkpoints", int)
    flags.add("validate-every", "steps between validations: held-out accuracy and a grid of pictures", int)
    flags.add("early-stop", "stop after so many validations without a better held-out accuracy", int)
    flags.add("gradient-checkpointing", f"less memory, a third more time: one of {', '.join(SWITCH)}")
    flags.add("compile", f"torch.compile, one of {', '.join(SWITCH)}")
    flags.switch("share-reference", "keep the reference's errors for the next run")
    flags.switch("shard-base", "of several processes each keeps a share of the base")
    flags.add("track-with", f"also log to one of {', '.join(TRACKERS)}")
    flags.switch("resume", "go on with the interrupted run in --output-dir")


def read_family(options: argparse.Namespace) -> ModelFamily:
    """The family that was asked for, one of the user's own among them; raises InputError for an unknown one."""
    add_families(os.environ.get("NPO_FAMILIES"))
    return get_family(options.family)


def read_config(role: Role, method: str, options: argparse.Namespace) -> TrainConfig:
    """The settings in `options`; where no number of steps was given it is 1, for the caller to fill in."""
    folder = f"{method.lower()}-{datetime.now():%Y%m%d-%H%M%S}"
    names = {entry.name for entry in fields(TrainConfig)} & vars(options).keys()
    settings: dict[str, Any] = {name: getattr(options, name) for name in names}
    settings["output_dir"] = options.output_dir or options.data_dir / "adapters" / options.family / folder
    settings["max_train_steps"] = 1 if options.max_train_steps is None else options.max_train_steps
    settings["cache_dir"] = options.data_dir / CACHE_FOLDER
    if options.batch_size is None:
        settings["batch_size"] = BATCH_SIZES.get(options.modality, BATCH_SIZES["image"])
    if options.mixed_precision == "auto":
        settings["mixed_precision"] = fastest_precision(options.device)
    settings |= _shares(options)
    settings["timestep_range"] = tuple(options.timestep_range or (0.0, 1.0))
    return TrainConfig(role=role, **settings)


def _shares(options: argparse.Namespace) -> dict[str, float]:
    """Alpha and beta of a negative model that is trained through guidance: as asked for, else the family's."""
    asked = {name: getattr(options, name, None) for name in ("alpha", "beta")}
    given = {name: value for name, value in asked.items() if value is not None}
    if getattr(options, "through_guidance", None) is None:
        return {**dict.fromkeys(asked, 1.0), **given}
    family = get_family(options.family)
    return {"alpha": family.alpha, "beta": family.beta, **given}


def check_output_dir(config: TrainConfig, options: argparse.Namespace) -> None:
    """Raises InputError where a run would have no folder, or overwrite a finished one."""
    if options.output_dir is None and options.resume:
        raise InputError("No run to resume was named; give its folder with --output-dir.")
    if options.output_dir is None and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("Several processes train together and no folder was named; give one with --output-dir.")
    if (config.output_dir / ADAPTER_FILE_NAME).exists() and not options.resume:
        raise InputError(f"{config.output_dir} already holds an adapter; give another --output-dir or --resume.")


def read_prompts(file: Path, limit: int | None = None) -> list[str]:
    """The prompts in a text file, one a line; raises InputError when it cannot be read or has none.

    limit: take only the first so many.
    """
    if limit is not None and limit < 1:
        raise InputError(f"The limit is {limit}; give 1 or more prompts.")
    try:
        prompts = [line.strip() for _, line in lines_of(file) if line.strip()][:limit]
    except CollectionInputError as error:
        raise InputError(str(error)) from None
    if not prompts:
        raise InputError(f"{file} has no prompt; write one a line.")
    return prompts
