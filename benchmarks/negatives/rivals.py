"""Who takes part: one entry each in RIVALS, all trained on the same pairs in the same seconds."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from npo_core.catalog.adapter_files import ADAPTER_FILE_NAME, Role, adapter_file
from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError
from npo_core.weights import LowRankWeights, load_adapter
from train.commands.reward import REWARD_RANGE
from train.engine.config import TrainConfig, fastest_precision
from train.engine.files import write_json
from train.engine.loop import train_adapter
from train.engine.task import TrainResult
from train.judging.scorers import Scorer
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
