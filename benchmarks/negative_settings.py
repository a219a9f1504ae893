"""How much training benchmarks/negatives.py gives what learns without pairs; docs/results.md says it."""

from __future__ import annotations

SELF_NPO_PROMPTS = 300  # the first of the pairs' prompts


def self_npo_steps(steps: int) -> int:
    """Of self-NPO, where the trainings on pairs have `steps`."""
    return max(2, steps // 2)


def reward_steps(steps: int) -> int:
    """Of the reward gradient, each of which samples its pictures."""
    return max(2, steps // 10)


def reward_batch(batch: int) -> int:
    """Of the reward gradient, where the trainings on pairs have `batch` pairs a step."""
    return min(32, batch)
