"""Pictures of several contenders from the same noise, what judges say of them, and how the contenders compare."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
from PIL import Image
from tqdm import tqdm

from collection.statistics.rates import Z_95, wilson_interval
from npo_core.catalog.adapter_files import ROLES
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image
from npo_core.variants import VARIANTS
from train.engine.files import replacing
from train.judging.scorers import Scorer

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
    `rows` requests are kept. With a folder to `keep` scores in, a variant that was scored there already, alone or among
    others, is not made again: a long measurement goes on after a kill, and several processes share one.
    """
    batches = [requests[start : start + batch_size] for start in range(0, len(requests), batch_size)]
    drawn = -(-rows // batch_size)  # batches whose pictures are asked for
    scored, found = Scored(), {}
    rest = list(range(drawn, len(batches)))
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        random.shuffle(rest)  # processes that share the folder seldom meet at one batch
    with tqdm(total=len(requests), unit="prompt", leave=False) as bar:
        for number in [*range(min(drawn, len(batches))), *rest]:
            batch = batches[number]
            found[number], pictures = _score_batch(generator, scorers, batch, keep, anew=number < drawn)
            scored.rows += pictures[: rows - len(scored.rows)]
            bar.update(len(batch))
    for name in requests[0].variants:
        parts = [found[number][name] for number in range(len(batches))]
        scored.add(name, {scorer: np.concatenate([part[scorer] for part in parts]) for scorer in parts[0]})
    return scored


def _score_batch(
    generator: Generator,
    scorers: Mapping[str, Scorer],
    batch: Sequence[GenerationRequest],
    keep: Path | None,
    anew: bool,
) -> tuple[dict[str, Values], list[list[Image.Image]]]:
    """Variant -> what was said of its pictures; and the pictures, one row a request, where any were made.

    anew: make every variant, also those whose scores are kept.
    """
    names = batch[0].variants
    files = {name: keep / f"{_fingerprint(generator, scorers, batch, name)}.npz" for name in names} if keep else {}
    kept = {} if anew else {name: _load_scores(file) for name, file in files.items() if file.exists()}
    missing = tuple(name for name in names if name not in kept)
    if not missing:
        return kept, []
    prompts = [request.prompt for request in batch]
    results = generator.generate_batch([replace(request, variants=missing) for request in batch])
    made = [[open_image(sample.media) for sample in each.samples] for each in results]
    for name, pictures in zip(missing, zip(*made, strict=True), strict=True):
        kept[name] = _ask(scorers, list(pictures), prompts)
        if keep is not None:
            with replacing(files[name]) as opened:
                np.savez(opened, **cast(Any, kept[name]))
    return kept, made


def _fingerprint(
    generator: Generator, scorers: Mapping[str, Scorer], batch: Sequence[GenerationRequest], variant: str
) -> str:
    """Of everything that one variant's scores depend on, but the base and the scorers' weights."""
    adapters = generator.adapters(batch[0].modality)
    identity: list[Any] = [generator.family.name, list(scorers)]
    for request in map(generator.validate_request, batch):
        mixes = VARIANTS[variant].mixes(request.alpha, request.beta)
        used = [adapters[role].sha256 for role in ROLES if any(getattr(mix, role) for mix in mixes)]
        others = {**asdict(request), "variants": None, "alpha": None, "beta": None}
        identity += [[asdict(mix) for mix in mixes], used, others]
    return hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:24]


def _load_scores(file: Path) -> Values:
    with np.load(file) as arrays:
        return {scorer: arrays[scorer] for scorer in arrays.files}


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
