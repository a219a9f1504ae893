"""The command behind train.npo and train.dpo: gather pairs, say what will happen, train, register.

The two differ in one thing: for the negative model the pairs are reversed. (Through guidance they are not: there the
sign comes from guidance itself, see objectives.py.)
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from dataclasses import fields, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from collection.store import Store
from collection.votes.ballots import POOL_STUDY
from npo_core.catalog.adapter_files import AdapterFile, Role
from npo_core.catalog.families import ModelFamily
from npo_core.console import hush_libraries
from npo_core.errors import InputError
from train.commands.flags import (
    add_place_flags,
    add_training_flags,
    check_output_dir,
    read_config,
    read_family,
    read_prompts,
)
from train.commands.jobs import Job, carry_out, exit_status_of
from train.engine.config import (
    HELD_OUT,
    HELD_OUT_FROM_PROMPTS,
    OF_PAIRS,
    TrainConfig,
    check_config,
    check_early_stop,
)
from train.engine.records import Sources, read_sources
from train.judging.margins import default_margin, told_margins
from train.network.aligned import aligned_facts, aligned_in_use, load_aligned
from train.pairs.pairs import (
    TIE_POLICY,
    WEIGHTINGS,
    PairSet,
    PreferencePair,
    VoteRule,
    from_store,
    reverse_pairs,
    sources_of,
    split_as_before,
    split_by_prompt,
    weigh_pairs,
)

if TYPE_CHECKING:
    from train.engine.run import TrainResult
    from train.engine.validation import Validator

METHODS: dict[Role, str] = {"negative": "NPO", "aligned": "DPO"}

PASSES = 16  # how often each pick is seen by default: fewer hardly show, many more learn the picks by heart
FEWEST_STEPS, MOST_STEPS = 60, 1000
REWARD_STEPS = 100  # by default, where a reward's gradient is followed
GRID_PROMPTS = 6


def run_command(role: Role, arguments: Sequence[str] | None = None) -> int:
    """Runs train.npo (role negative) or train.dpo (role aligned); returns the exit status."""
    options = build_parser(role).parse_args(arguments)
    return exit_status_of(partial(train, role, options))


def build_parser(role: Role) -> argparse.ArgumentParser:
    """The same flags for both commands."""
    what = "the negative model from reversed picks" if role == "negative" else "the aligned model from picks"
    parser = argparse.ArgumentParser(prog=f"python -m train.{METHODS[role].lower()}", description=f"Train {what}.")
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--from-db", action="store_true", help="train on the picks in the database")
    source.add_argument(
        "--dataset",
        metavar="PATH_OR_HUB_ID",
        help="train on a data set with Pick-a-Pic's columns, or a folder with pairs.csv (caption,preferred,rejected)",
    )
    source.add_argument("--reward", metavar="SCORER", help="train on the base's own pictures, judged by a scorer")
    _add_source_flags(parser)
    add_place_flags(parser)
    add_training_flags(parser)
    return parser


def _add_source_flags(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument_group("what to train on").add_argument
    add("--study", help="of the database, only the picks of this study")
    add("--include-pictures", action="store_true", help="with --modality video, also picks on pictures, as still clips")
    add("--include-open", action="store_true", help="of the database, also picks made while the names were visible")
    add("--min-votes", type=int, default=1, help="of the database, votes that a pair of pictures needs (%(default)s)")
    add("--min-agreement", type=float, default=0.0, help="share of a pair's votes on one side (any majority)")
    add("--split", default="train", help="of a data set on the Hub (%(default)s)")
    add("--max-pairs", type=int, help="of a data set, use only so many")
    add("--prompts", type=Path, help="with --reward, a text file with one prompt a line")
    add("--reward-margin", type=float, help=f"with --reward, least difference of scores (of {told_margins()})")
    add("--reward-gradient", action="store_true", help="with --reward, follow its gradient instead of ranked pairs")
    add("--min-pairs", type=int, default=20, help="refuse to train on fewer (%(default)s)")
    add("--pair-weights", default="none", metavar="STR", help=f"one of {', '.join(WEIGHTINGS)} (%(default)s)")
    share = f"{HELD_OUT} where there are {HELD_OUT_FROM_PROMPTS}"
    add("--held-out", type=float, help=f"share of prompts to measure on, not to train on ({share}); --resume keeps it")


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
    _check_sources(options)
    check_output_dir(config, options)
    store = None
    if options.from_db or options.register:
        store = Store(options.database_url, options.data_dir, create=not options.from_db)
    try:
        make = _reward_job if options.reward_gradient else _pairs_job
        carry_out(make(config, options, family, store), options, store)
    finally:
        if store is not None:
            store.close()


def _check_sources(options: argparse.Namespace) -> None:
    if options.min_pairs < 1:
        raise InputError(f"The least number of pairs is {options.min_pairs}; give 1 or more.")
    if options.min_votes < 1:
        raise InputError(f"The least number of votes is {options.min_votes}; give 1 or more.")
    if not 0 <= options.min_agreement <= 1:
        raise InputError(f"The least agreement is {options.min_agreement}; give a share from 0 to 1.")
    if options.held_out is not None and not 0 <= options.held_out < 1:
        raise InputError(f"The share to hold out is {options.held_out}; give a number from 0 to below 1.")
    if options.pair_weights not in WEIGHTINGS:
        raise InputError(f"Unknown pair weights {options.pair_weights!r}; choose from {', '.join(WEIGHTINGS)}.")
    if options.modality == "video" and not options.from_db:
        raise InputError("Clips to train on come from the database; give --from-db, or leave --modality video out.")
    if options.include_pictures and options.modality != "video":
        raise InputError("--include-pictures adds picks on pictures to those on clips; give --modality video too.")
    if options.reward_gradient and not options.reward:
        raise InputError("There is no reward to follow the gradient of; give --reward too.")
    if options.reward_gradient:
        _check_without_pairs(options)
    if options.reward and options.prompts is None:
        raise InputError("A scorer needs pictures to judge; give --prompts FILE with one prompt a line.")


def _check_without_pairs(options: argparse.Namespace) -> None:
    """A setting that would be ignored may be what somebody counts on."""
    defaults = {entry.name: entry.default for entry in fields(TrainConfig)} | {"held_out": None, "pair_weights": "none"}
    for name in (*OF_PAIRS, "early_stop", "held_out", "pair_weights"):
        if getattr(options, name) != defaults[name]:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} is about pairs and --reward-gradient trains on none; leave one of them out.")


def _pairs_job(config: TrainConfig, options: argparse.Namespace, family: ModelFamily, store: Store | None) -> Job:
    """Preference training on pairs from votes, a data set or a scorer."""
    began_with = read_sources(config.output_dir) if options.from_db and options.resume else None
    found = _gather(options, family, store, began_with)
    if began_with is None:
        _check_count(found, options, store)
        pairs, held_out = split_by_prompt(found.pairs, _held_out_share(found, options))
    else:  # it was enough when the run began
        pairs, held_out = split_as_before(found.pairs, began_with.held_out)
    _check_some_left(pairs, held_out, options)
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
        (*_describe(config, family, found, pairs, held_out), *_beside(config, aligned)),
        tuple(sources_of([*pairs, *held_out])),
        partial(_train_on_pairs, config, family, pairs, held_out, aligned),
        _facts(config, aligned),
    )


def aligned_for(config: TrainConfig, family: ModelFamily, store: Store | None) -> AdapterFile | None:
    """The aligned model that the app uses, where this training needs it: to train beside it, or to draw with."""
    draws = config.validate_every is not None and config.modality == "image"
    if config.through_guidance is None and not draws:
        return None
    return aligned_in_use(family, store, config.modality)


def _beside(config: TrainConfig, aligned: AdapterFile | None) -> tuple[str, ...]:
    """Which aligned model stands on the prompt, for a person."""
    if config.through_guidance is None or aligned is None:
        return ()
    return (f"The aligned model beside it is {aligned.id} (sha256 {aligned.sha256[:12]}).",)


def _facts(config: TrainConfig, aligned: AdapterFile | None) -> dict[str, str]:
    return {} if config.through_guidance is None else aligned_facts(aligned)


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
        more_facts=_facts(config, aligned),
    )


def validators(
    config: TrainConfig, family: ModelFamily, prompts: Sequence[str], aligned: AdapterFile | None
) -> list[Validator]:
    """A grid of pictures of the first few distinct `prompts` beside `aligned`, where the run validates at all and is
    about pictures."""
    if config.validate_every is None or config.modality != "image":
        return []
    from npo_core.generator import Generator
    from train.engine.validation import PictureGrid
    from train.judging.scorers import load_scorer

    distinct = list(dict.fromkeys(prompts))[:GRID_PROMPTS]
    scorer = load_scorer("emoji", family) if family.scorer else None
    return [PictureGrid(Generator(family, aligned=aligned, device=config.device), config.role, distinct, scorer)]


def _reward_job(config: TrainConfig, options: argparse.Namespace, family: ModelFamily, store: Store | None) -> Job:
    """Training along the gradient of a scorer, turned round for the negative model."""
    prompts = read_prompts(options.prompts)
    config = replace(config, max_train_steps=options.max_train_steps or REWARD_STEPS)
    direction = "rising" if config.role == "aligned" or config.through_guidance else "falling"
    lines = (
        f"{METHODS[config.role]} for {family.label}: {direction} {options.reward} reward on {len(prompts)} prompts, "
        "by its gradient through the last step of sampling.",
        f"{config.max_train_steps} steps of {config.batch_size} pictures, learning rate {config.learning_rate:g}, rank "
        f"{config.rank} on {config.targets}, mixed precision {config.mixed_precision}, seed {config.seed}.",
    )
    name = options.name or f"{METHODS[config.role]} by {options.reward} gradient, {datetime.now():%Y-%m-%d %H:%M}"
    aligned = aligned_for(config, family, store)
    return Job(
        config,
        family,
        name,
        (*lines, *_beside(config, aligned)),
        tuple(f"prompt:{prompt}" for prompt in prompts),
        partial(_train_on_reward, config, family, prompts, options.reward, aligned),
        _facts(config, aligned),
    )


def _train_on_reward(
    config: TrainConfig, family: ModelFamily, prompts: Sequence[str], scorer: str, aligned: AdapterFile | None
) -> TrainResult:
    hush_libraries()
    from train.judging.scorers import load_scorer
    from train.objectives.reward import train_on_reward

    return train_on_reward(
        config,
        family,
        prompts,
        load_scorer(scorer, family),
        load_aligned(aligned) if config.through_guidance else None,
        validators(config, family, prompts, aligned),
        _facts(config, aligned),
    )


def _gather(
    options: argparse.Namespace, family: ModelFamily, store: Store | None, began_with: Sources | None
) -> PairSet:
    """What there is to train on; of the votes just those that an interrupted run began with, where there is one."""
    if options.from_db and store is not None:
        rule = VoteRule(options.min_votes, options.min_agreement)
        return from_store(
            store,
            family.name,
            options.modality,
            blind_only=not options.include_open,
            study=options.study,
            rule=rule,
            only_votes=None if began_with is None else [*began_with.trained_on, *began_with.held_out],
            still_frames=family.video.frames if family.video and options.include_pictures else None,
        )
    hush_libraries()
    import torch

    from npo_core.sampling.pipelines import load_pipeline
    from train.pairs.dataset import LatentCache, from_dataset

    if options.dataset:
        folder = options.data_dir / "cache" / "latents"
        pipeline = load_pipeline(family)
        if options.device != "cpu" and torch.cuda.is_available():
            pipeline.vae.to("cuda")
        cache = LatentCache(pipeline, family.width_px, family.height_px, folder)
        return from_dataset(options.dataset, cache, split=options.split, max_pairs=options.max_pairs)
    from npo_core.generator import Generator
    from train.judging.scorers import load_scorer
    from train.objectives.reward import rank_pairs

    plain = replace(family, aligned=None, negative=None)  # pictures of the base itself
    scorer = load_scorer(options.reward, family)
    margin = default_margin(options.reward) if options.reward_margin is None else options.reward_margin
    return rank_pairs(Generator(plain, device=options.device), scorer, read_prompts(options.prompts), margin=margin)


def _held_out_share(found: PairSet, options: argparse.Namespace) -> float:
    if options.held_out is not None:
        return float(options.held_out)
    prompts = {pair.prompt for pair in found.pairs}
    return HELD_OUT if options.validate_every and len(prompts) >= HELD_OUT_FROM_PROMPTS else 0.0


def _check_some_left(
    pairs: Sequence[PreferencePair], held_out: Sequence[PreferencePair], options: argparse.Namespace
) -> None:
    if not pairs:
        prompts = len({pair.prompt for pair in held_out})
        raise InputError(
            f"--held-out {options.held_out:g} holds back every pair ({len(held_out)}, of {prompts} "
            f"{'prompt' if prompts == 1 else 'prompts'}) and leaves none to train on; give a smaller share, or collect "
            "picks on more prompts."
        )


def _check_count(found: PairSet, options: argparse.Namespace, store: Store | None) -> None:
    count = len(found.pairs)
    if options.from_db and options.study is not None and store is not None:
        _check_study(found, options, store)
    if found.raters == 1 and options.min_votes > 1:
        raise InputError(
            f"All votes on {options.family} are of one person and {options.min_votes} votes a pair were asked for; "
            "ask others to vote, or lower --min-votes."
        )
    if count < options.min_pairs:
        raise InputError(
            f"There are {count} usable picks for {options.family} and training wants {options.min_pairs}; "
            f"collect {options.min_pairs - count} more or lower --min-pairs."
        )


def _check_study(found: PairSet, options: argparse.Namespace, store: Store) -> None:
    """Raises InputError for a study that is not there, or that has too few picks."""
    count = len(found.pairs)
    if count == 0 and not any(found.dropped.values()):
        if options.study != POOL_STUDY:
            store.study_plan(options.study)  # raises where there is none of this name
        raise InputError(
            f"In the study {options.study!r} nobody has voted on {options.family} in modality {options.modality}; "
            "collect picks there, or leave --study out to use those of all studies."
        )
    if count < options.min_pairs:
        raise InputError(
            f"The study {options.study!r} has {count} usable picks for {options.family} and training wants "
            f"{options.min_pairs}; collect {options.min_pairs - count} more in it, lower --min-pairs, or leave --study "
            "out to use those of all studies."
        )


def _describe(
    config: TrainConfig,
    family: ModelFamily,
    found: PairSet,
    pairs: Sequence[PreferencePair],
    held_out: Sequence[PreferencePair],
) -> tuple[str, ...]:
    """What will be trained on, as a few lines for a person."""
    dropped = ", ".join(f"{count} {reason}" for reason, count in found.dropped.items() if count) or "none"
    prompts = len({pair.prompt for pair in pairs})
    passes = config.max_train_steps * config.batch_size / len(pairs)
    if config.through_guidance is not None:
        direction = f"as picked, through guidance at {config.through_guidance:g}"
    elif config.role == "negative":
        direction = f"reversed: rejected {'clips' if config.modality == 'video' else 'pictures'} become likelier"
    else:
        direction = "as picked"
    lines = [f"{METHODS[config.role]} for {family.label}: {len(pairs)} pairs on {prompts} prompts, {direction}."]
    if held_out:
        lines.append(f"Held out: {len(held_out)} pairs on other prompts.")
    lines.append(f"Left out: {dropped} ({TIE_POLICY}).")
    if found.raters == 1:
        lines.append("All picks are of one person: this adapter will learn that person's taste.")
    lines.append(
        f"{config.max_train_steps} steps of {config.batch_size} pairs, {passes:.1f} passes; {config.loss} loss, "
        f"beta {config.beta_dpo:g}, learning rate {config.learning_rate:g}, rank {config.rank} on "
        f"{config.targets}, mixed precision {config.mixed_precision}, seed {config.seed}."
    )
    return tuple(lines)
