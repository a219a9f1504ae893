"""The protocol: every contender is tuned on choice prompts by the rater, then all are measured once, at their best."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from npo_core.catalog.adapter_files import AdapterFile, Role
from train.judging.protocol.contenders import GUIDANCE_SCALES, Contender, Setting
from train.judging.protocol.judges import RATER, Columns
from train.judging.protocol.measuring import Call, Entry, Item, Key, Measurer, plan


@dataclass(frozen=True)
class Protocol:
    """What is compared, on what. own: the family's adapters. A contender whose grid is one point is not tuned."""

    contenders: Sequence[Contender]
    choice: Sequence[Item]
    held_out: Sequence[Item]
    own: Mapping[Role, AdapterFile]
    batch_size: int
    guidance_scales: Sequence[float] = GUIDANCE_SCALES

    def grid(self, contender: Contender) -> list[Setting]:
        """All that `contender` may be set to."""
        return contender.settings(contender.guidance_scales or self.guidance_scales)

    def tuning_calls(self) -> list[Call]:
        """The calls of the first half."""
        entries = [
            Entry(contender, setting)
            for contender in self.contenders
            if len(grid := self.grid(contender)) > 1
            for setting in grid
        ]
        return plan(entries, self.choice, self.batch_size, self.own)

    def measuring_calls(self, best: Mapping[str, Setting]) -> list[Call]:
        """The calls of the second half."""
        entries = [Entry(contender, best[contender.name]) for contender in self.contenders]
        return plan(entries, self.held_out, self.batch_size, self.own)

    def cost(self) -> dict[str, int]:
        """How many pictures the two halves make, and how often a row goes through the UNet for each step of them."""
        tuning = sum(call.pictures for call in self.tuning_calls())
        measuring = len(self.contenders) * len(self.held_out)
        return {"tuning": tuning, "measuring": measuring, "rows a step": 2 * (tuning + measuring)}


def tune(protocol: Protocol, measurer: Measurer) -> tuple[dict[str, Setting], dict[str, dict[Setting, float]]]:
    """(contender -> its best setting, contender -> every setting's mean of the rater's clean logit)."""
    answers = measurer.run(protocol.tuning_calls())
    best: dict[str, Setting] = {}
    means: dict[str, dict[Setting, float]] = {}
    for contender in protocol.contenders:
        grid = protocol.grid(contender)
        means[contender.name] = {
            setting: float(answers[contender.name, setting][RATER].mean()) for setting in grid if len(grid) > 1
        }
        best[contender.name] = max(means[contender.name], key=means[contender.name].__getitem__, default=grid[0])
    return best, means


def at_the_edge(contender: Contender, guidance_scales: Sequence[float], setting: Setting) -> list[str]:
    """The numbers that were best at an end of what was tried, so that more beyond it might be better still."""
    axes: dict[str, tuple[Sequence[float], float]] = {
        "guidance": (contender.guidance_scales or guidance_scales, setting.guidance_scale),
        "alpha": (contender.alphas, setting.alpha),
        "beta": (contender.betas, setting.beta),
    }
    return [name for name, (tried, chosen) in axes.items() if len(tried) > 1 and chosen in (min(tried), max(tried))]


def measure(protocol: Protocol, measurer: Measurer, best: Mapping[str, Setting]) -> dict[str, Columns]:
    """Contender -> everything that is said of its pictures of the held-out prompts."""
    answers: dict[Key, Any] = measurer.run(protocol.measuring_calls(best))
    return {name: answers[name, setting] for name, setting in best.items()}
