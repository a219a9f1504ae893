"""The command behind train.npo and train.dpo: gather pairs, say what will happen, train, register.

The two differ in one thing: for the negative model the pairs are reversed. (Through guidance they are not: there the
sign comes from guidance itself, see GuidedObjective.)
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from collection.store import Store
from npo_core.catalog.adapter_files import AdapterFile, Role
from npo_core.catalog.families import ModelFamily
from npo_core.console import hush_libraries
from npo_core.errors import InputError
from train.commands.beside import aligned_for, beside, facts_beside, validators
from train.commands.flags import add_place_flags, add_training_flags, check_output_dir, read_config, read_family
from train.commands.jobs import Job, carry_out, exit_status_of
from train.commands.reward import reward_job
from train.commands.sources import (
    add_source_flags,
    check_count,
    check_some_left,
    check_sources,
    gather,
    held_out_share,
)
from train.engine.config import METHODS, TrainConfig, check_config, check_early_stop
from train.engine.records import read_sources
from train.network.aligned import load_aligned
from train.pairs.pairs import (
    TIE_POLICY,
    PairSet,
    PreferencePair,
    reverse_pairs,
    sources_of,
    split_as_before,
    split_by_prompt,
    weigh_pairs,
)

if TYPE_CHECKING:
    from train.engine.task import TrainResult

PASSES = 16  # how often each pick is seen by default: fewer hardly show, many more learn the picks by heart
FEWEST_STEPS, MOST_STEPS = 60, 1000


def run_command(role: Role, arguments: Sequence[str] | None = None) -> int:
    """Runs train.npo (role negative) or train.dpo (role aligned); returns the exit status."""
    options = build_parser(role).parse_args(arguments)
    return exit_status_of(partial(train, role, options))


def build_parser(role: Role) -> argparse.ArgumentParser:
    """The same flags for both commands."""
    what = "the negative model from reversed picks" if role == "negative" else "the aligned model from picks"
    parser = argparse.ArgumentParser(prog=f"python -m train.{METHODS[role].lower()}", description=f"Train {what}.")
    add_source_flags(parser)
    add_place_flags(parser)
    add_training_flags(parser)
    return parser


def default_steps(pair_count: int, batch_size: int) -> int:
    """PASSES over the pairs, within bounds: a few dozen picks take a minute or two on two CPU cores."""
    return min(MOST_STEPS, max(FEWEST_STEPS, math.ceil(PASSES * pair_count / batch_size)))


def train(role: Role, options: argparse.Namespace) -> None:
    """Does what `options` ask for; raises InputError of either package."""
    family = read_family(options)
    if options.modality not in family.modalities:
        raise InputError(
            f"{family.label} does not make modality {options.modality!r}; choose from {', '.join(family.modalities)}."
        )
    config = read_config(role, METHODS[role], options)
    check_config(config)
    check_sources(options)
    check_output_dir(config, options)
    store = None
    if options.from_db or options.register or options.on_policy:
        store = Store(options.database_url, options.data_dir, create=not options.from_db)
    try:
        make = reward_job if options.reward_gradient else _pairs_job
        carry_out(make(config, options, family, store), options, store)
    finally:
        if store is not None:
            store.close()


def _pairs_job(config: TrainConfig, options: argparse.Namespace, family: ModelFamily, store: Store | None) -> Job:
    """Preference training on pairs from votes, a data set or a scorer."""
    began_with = read_sources(config.output_dir) if options.from_db and options.resume else None
    found = gather(options, family, store, began_with)
    if began_with is None:
        check_count(found, options, store)
        pairs, held_out = split_by_prompt(found.pairs, held_out_share(found, options))
    else:  # it was enough when the run began
        pairs, held_out = split_as_before(found.pairs, began_with.held_out)
    check_some_left(pairs, held_out, options)
    check_early_stop(config, len(held_out))
    pairs = weigh_pairs(pairs, options.pair_weights)
    steps = options.max_train_steps or default_steps(len(pairs), config.batch_size)
    config = replace(config, max_train_steps=steps)
    reverse = config.role == "negative" and config.through_guidance is None
    if reverse:
        pairs, held_out = reverse_pairs(pairs), reverse_pairs(held_out)
    what = {"from_db": "picks", "dataset": "pairs", "reward": "scored pairs"}
    kind = next(text for name, text in what.items() if getattr(options, name))
    name = options.name or f"{METHODS[config.role]} from {len(found.pairs)} {kind}, {datetime.now():%Y-%m-%d %H:%M}"
    aligned = aligned_for(config, family, store)
    return Job(
        config,
        family,
        name,
        (*_describe(config, family, found, pairs, held_out), *beside(config, aligned)),
        tuple(sources_of([*pairs, *held_out])),
        partial(_train_on_pairs, config, family, pairs, held_out, aligned),
        facts_beside(config, aligned),
    )


def _train_on_pairs(
    config: TrainConfig,
    family: ModelFamily,
    pairs: Sequence[PreferencePair],
    held_out: Sequence[PreferencePair],
    aligned: AdapterFile | None,
) -> TrainResult:
    hush_libraries()
    from train.engine.loop import train_adapter

    return train_adapter(
        config,
        pairs,
        family,
        held_out=held_out,
        validators=validators(config, family, [pair.prompt for pair in (held_out or pairs)], aligned),
        aligned=load_aligned(aligned) if config.through_guidance else None,
        more_facts=facts_beside(config, aligned),
    )


def _describe(
    config: TrainConfig,
    family: ModelFamily,
    found: PairSet,
    pairs: Sequence[PreferencePair],
    held_out: Sequence[PreferencePair],
) -> tuple[str, ...]:
    """What will be trained on, as a few lines for a person."""
    prompts = len({pair.prompt for pair in pairs})
    passes = config.max_train_steps * config.batch_size / len(pairs)
    if config.through_guidance is not None:
        direction = f"as picked, through guidance at {config.through_guidance:g}"
    elif config.role == "negative":
        direction = f"reversed: rejected {'clips' if config.modality == 'video' else 'pictures'} become likelier"
    else:
        direction = "as picked" + (" with their prompts, reversed without" if config.both_signs else "")
    lines = [f"{METHODS[config.role]} for {family.label}: {len(pairs)} pairs on {prompts} prompts, {direction}."]
    if held_out:
        lines.append(f"Held out: {len(held_out)} pairs on other prompts.")
    told = found.told()
    lines.append(f"{told[0].upper()}{told[1:]} ({TIE_POLICY}).")
    if found.raters == 1:
        lines.append("All picks are of one person: this adapter will learn that person's taste.")
    lines.append(
        f"{config.max_train_steps} steps of {config.batch_size} pairs, {passes:.1f} passes; {config.loss} loss, "
        f"beta {config.beta_dpo:g}, learning rate {config.learning_rate:g}, rank {config.rank} on "
        f"{config.targets}, mixed precision {config.mixed_precision}, seed {config.seed}."
    )
    return tuple(lines)
