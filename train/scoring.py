"""Pictures of several contenders from the same noise, what judges say of them, and how the contenders compare."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from collection.statistics import Z_95, wilson_interval
from npo_core.generator import GenerationRequest, Generator
from npo_core.media import open_image
from train.files import replacing
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
    keep: Path | None = None,
) -> Scored:
    """Makes every variant of `requests`, which agree in all but prompt and seed, and asks every scorer.

    A scorer that also knows whether it recognises the picture (`top1`) is asked that too. The pictures of the first
    `rows` requests are kept. With a folder to `keep` scores in, what was scored there already is not made again: a
    long measurement goes on after a kill, and several processes share one.
    """
    starts = range(0, len(requests), batch_size)
    batches = [requests[start : start + batch_size] for start in starts]
    files = [keep and keep / f"{_fingerprint(generator, scorers, batch)}.npz" for batch in batches]
    scored, found = Scored(), {}
    order = list(range(len(batches)))
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        random.shuffle(order)  # processes that share the folder seldom meet at one batch
    with tqdm(total=len(requests), unit="prompt", leave=False) as bar:
        for number in sorted(order, key=lambda number: starts[number] >= rows):
            file, batch = files[number], batches[number]
            if file is None or not file.exists() or starts[number] < rows:
                found[number], pictures = _score_batch(generator, scorers, batch)
                scored.rows += pictures[: rows - len(scored.rows)]
                if file is not None:
                    _save_scores(found[number], file)
            else:
                found[number] = _load_scores(file)
            bar.update(len(batch))
    for name in requests[0].variants:
        parts = [found[number][name] for number in range(len(batches))]
        scored.add(name, {scorer: np.concatenate([part[scorer] for part in parts]) for scorer in parts[0]})
    return scored


def _score_batch(
    generator: Generator, scorers: Mapping[str, Scorer], batch: Sequence[GenerationRequest]
) -> tuple[dict[str, Values], list[list[Image.Image]]]:
    """Variant -> what was said of its pictures; and the pictures, one row a request."""
    prompts = [request.prompt for request in batch]
    made = [[open_image(s.media) for s in each.samples] for each in generator.generate_batch(batch)]
    columns = zip(batch[0].variants, zip(*made, strict=True), strict=True)
    return {name: _ask(scorers, list(pictures), prompts) for name, pictures in columns}, made


def _fingerprint(generator: Generator, scorers: Mapping[str, Scorer], batch: Sequence[GenerationRequest]) -> str:
    """Of everything that the scores of a batch depend on, but the base and the scorers' weights."""
    adapters = {role: each.sha256 for role, each in generator.adapters(batch[0].modality).items()}
    resolved = [asdict(generator.validate_request(request)) for request in batch]
    identity = [generator.family.name, adapters, list(scorers), resolved]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]


def _save_scores(scores: Mapping[str, Values], file: Path) -> None:
    flat: dict[str, Any] = {
        f"{name}/{scorer}": value for name, values in scores.items() for scorer, value in values.items()
    }
    with replacing(file) as opened:
        np.savez(opened, **flat)


def _load_scores(file: Path) -> dict[str, Values]:
    scores: dict[str, Values] = {}
    with np.load(file) as arrays:
        for key in arrays.files:
            name, scorer = key.split("/")
            scores.setdefault(name, {})[scorer] = arrays[key]
    return scores


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
