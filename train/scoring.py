"""Pictures of several contenders from the same noise, what judges say of them, and how the contenders compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from collection.statistics import Z_95, wilson_interval
from npo_core.generator import GenerationRequest, Generator
from npo_core.media import open_image
from train.scorers import Scorer

Values = dict[str, np.ndarray]
"""Scorer -> (N,) what it said of one contender's pictures, in the order of the requests. "top1" holds 0 and 1."""


@dataclass
class Scored:
    """What was said of every contender, and the first few pictures: one row a request, one column a contender."""

    values: dict[str, Values] = field(default_factory=dict)
    rows: list[list[Image.Image]] = field(default_factory=list)

    def add(self, name: str, other: Values) -> None:
        """One more contender, on the same requests."""
        self.values[name] = other


def score_requests(
    generator: Generator,
    scorers: Mapping[str, Scorer],
    requests: Sequence[GenerationRequest],
    batch_size: int = 8,
    rows: int = 0,
) -> Scored:
    """Makes every variant of `requests`, which agree in all but prompt and seed, and asks every scorer.

    A scorer that also knows whether it recognises the picture (`top1`) is asked that too. The pictures of the first
    `rows` requests are kept.
    """
    parts: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in requests[0].variants}
    scored = Scored()
    with tqdm(total=len(requests), unit="prompt", leave=False) as bar:
        for start in range(0, len(requests), batch_size):
            batch = requests[start : start + batch_size]
            prompts = [request.prompt for request in batch]
            made = [[open_image(s.media) for s in each.samples] for each in generator.generate_batch(batch)]
            scored.rows += made[: rows - len(scored.rows)]
            for name, pictures in zip(batch[0].variants, zip(*made, strict=True), strict=True):
                for scorer, value in _ask(scorers, list(pictures), prompts).items():
                    parts[name].setdefault(scorer, []).append(value)
            bar.update(len(batch))
    for name, values in parts.items():
        scored.add(name, {scorer: np.concatenate(value) for scorer, value in values.items()})
    return scored


def _ask(scorers: Mapping[str, Scorer], pictures: list[Image.Image], prompts: list[str]) -> Values:
    values = {name: np.asarray(scorer.score(pictures, prompts), np.float64) for name, scorer in scorers.items()}
    for scorer in scorers.values():
        if hasattr(scorer, "top1"):
            values["top1"] = np.asarray(scorer.top1(pictures, prompts), np.float64)
    return values


def summarise(values: Values) -> dict[str, Any]:
    """Each scorer's mean with a normal 95% interval; of top-1, the share with Wilson's."""
    found = {}
    for name, value in values.items():
        count, mean = len(value), float(value.mean())
        spread = float(value.std(ddof=1)) if count > 1 else 0.0
        reach = Z_95 * spread / count**0.5
        interval = list(wilson_interval(float(value.sum()), count)) if name == "top1" else [mean - reach, mean + reach]
        found[name] = {"mean": mean, "mean_95": interval}
    return found


def compare(name: str, against: str, scored: Mapping[str, Values], scorer: str) -> dict[str, Any]:
    """How often `name` scored above `against` on the same prompt and noise, a tie counting half; Wilson's 95%."""
    difference = scored[name][scorer] - scored[against][scorer]
    wins = float((difference > 0).sum() + (difference == 0).sum() / 2)
    low, high = wilson_interval(wins, len(difference))
    return {
        "variant": name,
        "against": against,
        "scorer": scorer,
        "win_rate": wins / len(difference),
        "win_rate_95": [low, high],
        "pairs": len(difference),
        "mean_difference": float(difference.mean()),
    }
