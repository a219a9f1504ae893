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
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from npo_core.catalog.adapter_files import ADAPTER_FILE_NAME, Role, adapter_file
from npo_core.catalog.families import ModelFamily, get_family
from npo_core.console import exit_status, hush_libraries
from npo_core.errors import InputError
from npo_core.weights import LowRankWeights, load_adapter
from train.commands.reward import REWARD_RANGE
from train.engine.config import TrainConfig, fastest_precision
from train.engine.files import write_json
from train.engine.loop import train_adapter
from train.engine.task import TrainResult
from train.judging.scorers import Scorer, load_scorer
from train.objectives.reward import train_on_reward
from train.pairs.pairs import PreferencePair, reverse_pairs
from train.self_npo import TEACHER_DECAY, Sampling, train_on_itself

WARM_UP_STEPS, TIMED_STEPS = 5, 20  # of a rival whose speed is measured
REWARD_BATCH = 32  # pictures a step: each is sampled and decoded
SELF_NPO_PROMPTS = 300

Train = Callable[["Bench", TrainConfig], TrainResult]


@dataclass(frozen=True)
class Bench:
    """What all rivals share. pairs: as preferred; on_policy: pairs of what is in use, None where none were drawn."""

    family: ModelFamily
    out: Path
    seconds: float
    pairs: Sequence[PreferencePair]
    on_policy: Sequence[PreferencePair] | None
    scorer: Scorer
    settings: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def prompts(self) -> list[str]:
        """Those of the pairs, each once."""
        return list(dict.fromkeys(pair.prompt for pair in self.pairs))

    @cached_property
    def eta(self) -> LowRankWeights:
        """The aligned model that the others stand beside; it must be trained already."""
        return load_adapter(self.out / "aligned")

    def config(self, name: str, folder: Path, steps: int, **changes: Any) -> TrainConfig:
        """The settings of the rival called `name`: everybody's, its own, and `changes`."""
        common: dict[str, Any] = {
            "batch_size": 64,
            "learning_rate": 2e-4,
            "lr_schedule": "cosine",
            "warmup_steps": 10,
            "rank": 16,
            "mixed_precision": fastest_precision(None),
            "compile": "off",
            "gradient_checkpointing": "off",
            "log_every": 50,
            "checkpoint_every": 50,
            "progress": False,
            "resume": True,
        }
        rival = RIVALS[name]
        settings = {**common, **self.settings, **rival.settings(self.family), **changes}
        return TrainConfig(self.family.name, folder, role=rival.role, max_train_steps=steps, **settings)

    def steps(self, name: str) -> int:
        """How many steps of this rival fill its seconds; measured once."""
        file = self.out / "plan.json"
        plan = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        if name not in plan:
            step_s = self._time(name)
            steps = max(1, round(RIVALS[name].share * self.seconds / step_s))
            plan[name] = {"seconds_a_step": round(step_s, 5), "steps": steps}
            write_json(file, plan)
        return int(plan[name]["steps"])

    def _time(self, name: str) -> float:
        """Seconds a step, after a warm-up: the second half of a run that is given more steps."""
        with TemporaryDirectory() as folder:
            for steps in (WARM_UP_STEPS, WARM_UP_STEPS + TIMED_STEPS):
                config = self.config(name, Path(folder), steps, lr_schedule="constant")
                made = RIVALS[name].train(self, config)
        return float(made.metrics["elapsed_s"]) / TIMED_STEPS

    def train(self, name: str) -> Path:
        """The folder of the rival's adapter; a finished one is left alone, an interrupted one goes on."""
        folder = self.out / name
        if not (folder / ADAPTER_FILE_NAME).is_file():
            made = RIVALS[name].train(self, self.config(name, folder, self.steps(name)))
            print(f"{name}: {made.metrics['steps']} steps in {made.metrics['elapsed_s']} s", flush=True)
        return folder


@dataclass(frozen=True)
class Rival:
    """One entry. role: "aligned" answers both prompts, "negative" the empty one beside the aligned model. settings: its
    own, by the family. share: of everybody's seconds."""

    label: str
    train: Train
    role: Role = "negative"
    settings: Callable[[ModelFamily], dict[str, Any]] = lambda family: {}
    share: float = 1.0


def _as_given(bench: Bench, config: TrainConfig) -> TrainResult:
    aligned = bench.eta if config.through_guidance is not None else None
    return train_adapter(config, bench.pairs, bench.family, aligned=aligned)


def _reversed(bench: Bench, config: TrainConfig) -> TrainResult:
    return train_adapter(config, reverse_pairs(bench.pairs), bench.family)


def _on_policy(bench: Bench, config: TrainConfig) -> TrainResult:
    if bench.on_policy is None:
        raise InputError("No pairs were drawn on-policy; draw some (see --help) and name them with --on-policy.")
    return train_adapter(config, reverse_pairs(bench.on_policy), bench.family)


def _reward_gradient(bench: Bench, config: TrainConfig) -> TrainResult:
    return train_on_reward(config, bench.family, bench.prompts, bench.scorer, bench.eta)


def _self_npo(bench: Bench, config: TrainConfig) -> TrainResult:
    family = bench.family
    samples = Sampling(2, family.steps, family.guidance_scale)
    return train_on_itself(config, family, bench.prompts[:SELF_NPO_PROMPTS], samples)


def _through_guidance(family: ModelFamily) -> dict[str, Any]:
    return {"through_guidance": family.guidance_scale, "alpha": family.alpha, "beta": family.beta}


RIVALS: dict[str, Rival] = {
    "aligned": Rival("aligned", _as_given, "aligned"),
    "aligned_longer": Rival("aligned, trained twice as long", _as_given, "aligned", share=2.0),
    "reversed": Rival("reversed pairs", _reversed),
    "empty_prompt": Rival("reversed pairs, empty prompt alone", _reversed, settings=lambda _: {"caption_dropout": 1.0}),
    "on_policy": Rival("reversed pairs of what is in use", _on_policy),
    "bounded": Rival("reversed pairs, bounded loss", _reversed, settings=lambda _: {"loss": "bounded"}),
    "noisy_half": Rival(
        "reversed pairs, t over 500 alone", _reversed, settings=lambda _: {"timestep_range": (0.5, 1.0)}
    ),
    "clean_half": Rival(
        "reversed pairs, t under 500 alone", _reversed, settings=lambda _: {"timestep_range": (0.0, 0.5)}
    ),
    "through_guidance": Rival("through guidance", _as_given, settings=_through_guidance),
    "reward_gradient": Rival(
        "reward gradient through guidance",
        _reward_gradient,
        settings=lambda family: {
            **_through_guidance(family),
            "batch_size": REWARD_BATCH,
            "timestep_range": REWARD_RANGE,
        },
    ),
    "self_npo": Rival("Self-NPO, no votes", _self_npo, settings=lambda _: {"ema_decay": TEACHER_DECAY}),
    "both_signs": Rival(
        "one network with both signs",
        _as_given,
        "aligned",
        settings=lambda _: {"both_signs": True, "loss": "bounded", "caption_dropout": 0.5},
    ),
}


def protocol_flags(out: Path) -> list[str]:
    """What train.evaluate --protocol is given to measure those that are trained, each at its best; what was trained at
    shares of its own is measured at those."""
    flags = ["--aligned", str(out / "aligned"), "--negative", str(out / "reversed")]
    for name, rival in RIVALS.items():
        if name in ("aligned", "reversed") or not (out / name / ADAPTER_FILE_NAME).is_file():
            continue  # everybody's aligned model, and the protocol's own aligned_npo
        own = adapter_file(out / name, rival.role).trained_for
        shares = f"@{own['alpha']:g}/{own['beta']:g}" if own else ""
        flags += ["--rival" if rival.role == "aligned" else "--rival-negative", f"{name}={out / name}{shares}"]
    return flags


def train(options: argparse.Namespace) -> None:
    """Trains the rivals that were asked for; raises InputError."""
    from train.emoji.adapters import read_pairs

    hush_libraries()
    family = get_family("emoji")
    on_policy = read_pairs(options.on_policy, options.margin) if options.on_policy.is_dir() else None
    settings = {"batch_size": options.batch_size, "learning_rate": options.learning_rate, "beta_dpo": options.beta_dpo}
    pairs = read_pairs(options.pairs, options.margin)
    if not pairs:
        raise InputError(f"There are no pairs in {options.pairs}; draw some (see --help).")
    scorer = load_scorer("emoji", family)
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
    add("--margin", type=float, default=0.5, help="least difference of scores in a pair (%(default)s)")
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
