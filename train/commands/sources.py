"""Where train.npo and train.dpo take their pairs from: flags, checks, and the pairs themselves."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import fields, replace
from pathlib import Path

from collection.store import Store
from collection.votes.ballots import POOL_STUDY
from npo_core.catalog.adapter_files import ROLES
from npo_core.catalog.families import ModelFamily
from npo_core.console import hush_libraries
from npo_core.errors import InputError
from train.commands.flags import read_prompts
from train.engine.config import HELD_OUT, HELD_OUT_FROM_PROMPTS, OF_PAIRS, TrainConfig
from train.engine.records import Sources
from train.judging.margins import default_margin, told_margins
from train.network.aligned import adapter_in_use
from train.pairs.pairs import WEIGHTINGS, PairSet, PreferencePair, VoteRule, from_store

ON_POLICY_SEEDS = 16  # pictures of each prompt, of which the best and the worst make a pair


def add_source_flags(parser: argparse.ArgumentParser) -> None:
    """Where the pairs come from, and which of them."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--from-db", action="store_true", help="train on the picks in the database")
    source.add_argument(
        "--dataset",
        metavar="PATH_OR_HUB_ID",
        help="train on a data set with Pick-a-Pic's columns, or a folder with pairs.csv (caption,preferred,rejected)",
    )
    source.add_argument("--reward", metavar="SCORER", help="train on the base's own pictures, judged by a scorer")
    add = parser.add_argument_group("what to train on").add_argument
    add("--study", help="of the database, only the picks of this study")
    add("--include-pictures", action="store_true", help="with --modality video, also picks on pictures, as still clips")
    add("--include-open", action="store_true", help="of the database, also picks made while the names were visible")
    add("--min-votes", type=int, default=1, help="of the database, votes that a pair of pictures needs (%(default)s)")
    add("--min-agreement", type=float, default=0.0, help="share of a pair's votes on one side (any majority)")
    add("--split", default="train", help="of a data set in splits, exactly this one (%(default)s)")
    add("--max-pairs", type=int, help="of a data set, use only so many")
    add("--prompts", type=Path, help="with --reward, a text file with one prompt a line")
    add("--reward-margin", type=float, help=f"with --reward, least difference of scores (of {told_margins()})")
    add("--reward-gradient", action="store_true", help="with --reward, follow its gradient instead of ranked pairs")
    add(
        "--on-policy",
        action="store_true",
        help=f"with --reward, pictures of what the app uses now, {ON_POLICY_SEEDS} seeds a prompt, best against worst",
    )
    add("--min-pairs", type=int, default=20, help="refuse to train on fewer (%(default)s)")
    add("--pair-weights", default="none", metavar="STR", help=f"one of {', '.join(WEIGHTINGS)} (%(default)s)")
    share = f"{HELD_OUT} where there are {HELD_OUT_FROM_PROMPTS}"
    add("--held-out", type=float, help=f"share of prompts to measure on, not to train on ({share}); --resume keeps it")


def check_sources(options: argparse.Namespace) -> None:
    """Raises InputError for flags that do not go together, before anything slow begins."""
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
    if options.on_policy and (not options.reward or options.reward_gradient):
        raise InputError("On-policy pairs are ranked by a scorer; give --reward, and leave --reward-gradient out.")
    if options.reward and options.prompts is None:
        raise InputError("A scorer needs pictures to judge; give --prompts FILE with one prompt a line.")


def _check_without_pairs(options: argparse.Namespace) -> None:
    """A setting that would be ignored may be what somebody counts on."""
    defaults = {entry.name: entry.default for entry in fields(TrainConfig)} | {"held_out": None, "pair_weights": "none"}
    for name in (*OF_PAIRS, "early_stop", "held_out", "pair_weights"):
        if getattr(options, name) != defaults[name]:
            flag = f"--{name.replace('_', '-')}"
            raise InputError(f"{flag} is about pairs and --reward-gradient trains on none; leave one of them out.")


def gather(
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
    return _rank(options, family, store)


def _rank(options: argparse.Namespace, family: ModelFamily, store: Store | None) -> PairSet:
    """Pairs that a scorer orders: of the base's own pictures, or of what is in use."""
    from npo_core.generator import Generator
    from train.judging.scorers import load_scorer
    from train.pairs.ranking import rank_pairs

    scorer, prompts = load_scorer(options.reward, family), read_prompts(options.prompts)
    margin = default_margin(options.reward) if options.reward_margin is None else options.reward_margin
    if not options.on_policy:
        plain = replace(family, aligned=None, negative=None)  # pictures of the base itself
        return rank_pairs(Generator(plain, device=options.device), scorer, prompts, margin=margin)
    aligned, negative = (adapter_in_use(role, family, store) for role in ROLES)
    generator = Generator(family, aligned=aligned, negative=negative, device=options.device)
    variant = "base" if aligned is None else "aligned" if negative is None else "aligned_npo"
    return rank_pairs(
        generator, scorer, prompts, variant=variant, samples_per_prompt=ON_POLICY_SEEDS, most_pairs=1, margin=margin
    )


def held_out_share(found: PairSet, options: argparse.Namespace) -> float:
    """The share of the prompts to measure on."""
    if options.held_out is not None:
        return float(options.held_out)
    prompts = {pair.prompt for pair in found.pairs}
    return HELD_OUT if options.validate_every and len(prompts) >= HELD_OUT_FROM_PROMPTS else 0.0


def check_some_left(
    pairs: Sequence[PreferencePair], held_out: Sequence[PreferencePair], options: argparse.Namespace
) -> None:
    """Raises InputError where everything was held back."""
    if not pairs:
        prompts = len({pair.prompt for pair in held_out})
        raise InputError(
            f"--held-out {options.held_out:g} holds back every pair ({len(held_out)}, of {prompts} "
            f"{'prompt' if prompts == 1 else 'prompts'}) and leaves none to train on; give a smaller share, or collect "
            "picks on more prompts."
        )


def check_count(found: PairSet, options: argparse.Namespace, store: Store | None) -> None:
    """Raises InputError where there is too little to train on."""
    count = len(found.pairs)
    if options.from_db and options.study is not None and store is not None:
        _check_study(found, options, store)
    if found.raters == 1 and options.min_votes > 1:
        raise InputError(
            f"All votes on {options.family} are of one person and {options.min_votes} votes a pair were asked for; "
            "ask others to vote, or lower --min-votes."
        )
    if count < options.min_pairs and options.dataset:
        raise InputError(
            f"{options.dataset} has {count} usable pairs and training wants {options.min_pairs} (there are "
            f"{found.told()}); give more, mend what was left out, or lower --min-pairs."
        )
    if count < options.min_pairs:
        raise InputError(
            f"There are {count} usable picks for {options.family} and training wants {options.min_pairs}"
            f"{_seen_instead(found)}; collect {options.min_pairs - count} more or lower --min-pairs."
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
            f"{options.min_pairs}{_seen_instead(found)}; collect {options.min_pairs - count} more in it, lower "
            "--min-pairs, or leave --study out to use those of all studies."
        )


def _seen_instead(found: PairSet) -> str:
    """What was left out, in brackets, where it explains that there is little: ties and skips go without saying."""
    return f" ({found.told()})" if not found.pairs or found.dropped.keys() - {"tie", "both_bad", "skip"} else ""
