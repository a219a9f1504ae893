"""Every negative, and every rival to one, trained on the same pairs in the same seconds.

    python -m train.emoji.adapters sample --out data/emoji/pairs                 # what all of them are trained on
    python -m train.emoji.adapters sample --variant aligned_npo --seeds 16 --out data/emoji/on_policy
    python -m benchmarks.negatives train --seconds 120 --out out/negatives       # goes on where it stopped
    python -m benchmarks.negatives flags --out out/negatives                     # for train.evaluate --protocol

How many steps fill the seconds is measured beforehand, one rival at a time (let nothing else run), and kept in
OUT/plan.json. Time to draw pictures (on-policy pairs, Self-NPO's) is not counted. The aligned model that they stand
beside is trained first, on the same pairs in the same time.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks.negatives.rivals import RIVALS, Bench, protocol_flags
from npo_core.catalog.families import get_family
from npo_core.console import exit_status, hush_libraries
from npo_core.errors import InputError
from train.emoji.adapters import read_pairs
from train.judging.scorers import load_scorer


def train(options: argparse.Namespace) -> None:
    """Trains the rivals that were asked for; raises InputError."""
    hush_libraries()
    family = get_family("emoji")
    on_policy = read_pairs([options.on_policy], options.margin, 1) if options.on_policy.is_dir() else None
    settings = {"batch_size": options.batch_size, "learning_rate": options.learning_rate, "beta_dpo": options.beta_dpo}
    pairs = read_pairs([options.pairs], options.margin, options.pairs_per_prompt)
    if not pairs:
        raise InputError(f"There are no pairs in {options.pairs}; draw some (see --help).")
    scorer = load_scorer(options.scorer, family)
    bench = Bench(family, options.out, options.seconds, pairs, on_policy, scorer, settings)
    for name in _wanted(options.only, on_policy is not None):
        bench.train(name)


def _wanted(only: str | None, on_policy: bool) -> Iterator[str]:
    names = [name.strip() for name in only.split(",")] if only else list(RIVALS)
    for name in names:
        if name not in RIVALS:
            raise InputError(f"Unknown rival {name!r}; choose from {', '.join(RIVALS)}.")
        if name == "on_policy" and not on_policy and not only:
            print("on_policy: left out, for no pairs were drawn on-policy", flush=True)
            continue
        yield name


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.negatives", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train every rival that is not there yet")
    add = training.add_argument
    add("--pairs", type=Path, default=Path("data/emoji/pairs"), help="(%(default)s)")
    add("--on-policy", type=Path, default=Path("data/emoji/on_policy"), help="(%(default)s)")
    add("--scorer", choices=("emoji", "jury"), default="emoji", help="who ordered the pairs; the reward (%(default)s)")
    add("--margin", type=float, default=0.5, help="least difference of scores in a pair (%(default)s)")
    add("--pairs-per-prompt", type=int, default=2, help="best against worst, second against second worst (%(default)s)")
    add("--seconds", type=float, default=120.0, help="that each is trained (%(default)s)")
    add("--batch-size", type=int, default=64, help="pairs a step (%(default)s)")
    add("--learning-rate", type=float, default=2e-4, help="(%(default)s)")
    add("--beta-dpo", type=float, default=500.0, help="(%(default)s)")
    add("--only", help=f"comma-separated, from {', '.join(RIVALS)} (all)")
    telling = commands.add_parser("flags", help="the flags of train.evaluate that measure them")
    for each in (training, telling):
        each.add_argument("--out", type=Path, default=Path("out/negatives"), help="(%(default)s)")
    training.set_defaults(command=train)
    telling.set_defaults(command=lambda options: print(" ".join(protocol_flags(options.out))))
    options = parser.parse_args(arguments)
    return exit_status(lambda: options.command(options))


if __name__ == "__main__":
    raise SystemExit(main())
