"""What is measured every so many steps: preferences on held-out pairs, and pictures with the adapter in its role."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import torch

from npo_core.catalog.adapter_files import ADAPTER_FILE_NAME, Role, adapter_file
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image
from npo_core.media.layout import draw_grid
from npo_core.weights import LowRankWeights, save_adapter
from train.engine.config import TrainConfig
from train.engine.files import in_one_sentence, replacing
from train.judging.scorers import Scorer
from train.objectives.preference import PreferenceObjective, accuracy

HELD_OUT_BATCH = 16
DRAWS_PER_PAIR = 4  # noises and timesteps at which each held-out pair is looked at, the same ones every time


class Validator(Protocol):
    """Something to measure about the adapter as it is now."""

    everywhere: bool
    """Whether every process measures it (all then get the same), or the main one alone."""

    def measure(self, step: int, adapter: Callable[[], LowRankWeights], output_dir: Path) -> dict[str, float]:
        """Named numbers for metrics.csv; may write files under `output_dir`."""


class HeldOut:
    """How often the policy prefers what people preferred, on pairs whose prompts it is not trained on."""

    everywhere = True

    def __init__(self, objective: PreferenceObjective, pairs: int) -> None:
        """objective: on the held-out pairs, see `on_its_branch`; pairs: how many."""
        self._objective, self._pairs = objective, pairs

    @torch.no_grad()
    def measure(self, step: int, adapter: Callable[[], LowRankWeights], output_dir: Path) -> dict[str, float]:
        """held_out_loss, and held_out_accuracy: the share of pairs whose margin, the mean over DRAWS_PER_PAIR noises
        and timesteps, is above 0; a margin of exactly 0 counts half."""
        positions = self._pairs * DRAWS_PER_PAIR
        margins, losses = torch.zeros(self._pairs), torch.zeros(())
        for first in range(0, positions, HELD_OUT_BATCH):
            compared = self._objective.compare(first, min(first + HELD_OUT_BATCH, positions))
            margins.index_add_(0, compared.chosen.cpu(), compared.margin.float().cpu())
            losses += compared.loss.float().sum().cpu()
        return {"held_out_loss": float(losses) / positions, "held_out_accuracy": float(accuracy(margins))}


def on_its_branch(config: TrainConfig) -> TrainConfig:
    """`config` for held-out pairs: other draws than training's, and on the branch of guidance that the adapter serves.

    An aligned model answers the prompt and a negative one the empty prompt. Through guidance both are asked anyway, and
    a network with both signs serves either.
    """
    on_prompt = config.role == "aligned" or config.through_guidance is not None
    dropout = 0.5 if config.both_signs else 0.0 if on_prompt else 1.0
    return replace(config, seed=config.seed + 1, caption_dropout=dropout)


class PictureGrid:
    """Pictures of a few prompts with the adapter in the role it is trained for: a negative one answers the empty
    prompt and is never sampled alone. One row a prompt; columns: aligned (or base), and the same with the adapter.

    A second copy of the model makes them, in the way the app does.
    """

    everywhere = False

    def __init__(self, generator: Generator, role: Role, prompts: Sequence[str], scorer: Scorer | None) -> None:
        self._generator, self._role, self._scorer = generator, role, scorer
        before, after = ("base", "aligned") if role == "aligned" else ("aligned", "aligned_npo")
        if role == "negative" and "aligned" not in generator.adapters():
            before, after = "base", "base_npo"
        self._requests = [
            GenerationRequest(prompt, seed=seed, variants=(before, after)) for seed, prompt in enumerate(prompts)
        ]

    def measure(self, step: int, adapter: Callable[[], LowRankWeights], output_dir: Path) -> dict[str, float]:
        """Writes validation/step_000100.png; validation_win_rate where the family has a scorer."""
        folder = output_dir / "validation"
        with in_one_sentence(folder / ADAPTER_FILE_NAME):
            save_adapter(adapter(), folder)
        self._generator.use_adapter(adapter_file(folder, self._role))
        rows = []
        for made in self._generator.generate_batch(self._requests):
            rows.append([open_image(sample.media) for sample in made.samples])
        with replacing(folder / f"step_{step:06d}.png") as opened:
            draw_grid(rows).save(opened, format="png")
        if self._scorer is None:
            return {}
        prompts = [request.prompt for request in self._requests]
        before, after = (self._scorer.score(list(pictures), prompts) for pictures in zip(*rows, strict=True))
        return {"validation_win_rate": float((after > before).mean() + (after == before).mean() / 2)}
