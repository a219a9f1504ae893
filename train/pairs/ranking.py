"""Pairs from a scorer in the place of people: it ranks several pictures of each prompt."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image
from train.judging.scorers import Scorer
from train.pairs.pairs import PairSet, PreferencePair

SAMPLES_PER_PROMPT = 4


def rank_pairs(
    generator: Generator,
    scorer: Scorer,
    prompts: Sequence[str],
    *,
    variant: str = "base",
    samples_per_prompt: int = SAMPLES_PER_PROMPT,
    most_pairs: int | None = None,
    margin: float = 0.5,
    first_seed: int = 0,
    batch_size: int = 16,
) -> PairSet:
    """Samples each prompt with `samples_per_prompt` seeds and pairs best with worst, second best with second worst,
    and so on to `most_pairs` of a prompt, where the scores differ by more than `margin`; the others are dropped as "too
    close to call"."""
    requests = [
        GenerationRequest(prompt, seed=first_seed + number * samples_per_prompt + extra, variants=(variant,))
        for number, prompt in enumerate(prompts)
        for extra in range(samples_per_prompt)
    ]
    latents: list[np.ndarray] = []
    scores: list[float] = []
    for batch in _batched(requests, batch_size):
        made = [comparison.samples[0] for comparison in generator.generate_batch(batch)]
        latents += [sample.latents for sample in made]
        scores += scorer.score([open_image(s.media) for s in made], [request.prompt for request in batch]).tolist()
    pairs, close = [], 0
    for start in range(0, len(requests), samples_per_prompt):
        ordered, unsure = best_against_worst(scores[start : start + samples_per_prompt], margin, most_pairs)
        close += unsure
        for better, worse in ordered:
            source = f"scorer:seed {requests[start + better].seed} over {requests[start + worse].seed}"
            both = latents[start + better], latents[start + worse]
            pairs.append(PreferencePair(requests[start].prompt, *both, source))
    return PairSet(pairs, {"too close to call": close} if close else {})


def best_against_worst(
    scores: Sequence[float], margin: float, most_pairs: int | None = None
) -> tuple[list[tuple[int, int]], int]:
    """(the places of (better, worse) pictures: best and worst, second best and second worst, to the middle or to
    `most_pairs`; how many of them were left out because their scores differ by no more than `margin`)."""
    ranked = sorted(range(len(scores)), key=lambda place: -scores[place])
    both = list(zip(ranked, reversed(ranked), strict=True))[: len(ranked) // 2][:most_pairs]
    apart = [(better, worse) for better, worse in both if scores[better] - scores[worse] > max(margin, 0)]
    return apart, len(both) - len(apart)


def _batched(requests: Sequence[GenerationRequest], size: int) -> list[list[GenerationRequest]]:
    return [list(requests[start : start + size]) for start in range(0, len(requests), size)]
