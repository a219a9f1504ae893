"""Who answered with care: what a person's answers in a study look like, and the rule that leaves them out. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from collection.studies.study_config import QualityRule
from collection.types import Choice

MIRRORED: dict[Choice, Choice] = {"left": "right", "right": "left"}


@dataclass(frozen=True)
class Answer:
    """One answer. right: whether a check was right (None for any other ballot). first_time: for a repeat, what was
    answered then (None otherwise)."""

    choice: Choice
    response_time_s: float | None = None
    right: bool | None = None
    first_time: Choice | None = None


@dataclass(frozen=True)
class Quality:
    """What one person's answers look like. Shares are None where there is nothing to judge by."""

    votes: int
    checks: int
    check_pass: float | None
    repeats: int
    consistency: float | None
    median_response_s: float | None
    decided: int
    one_side: float | None  # the larger side's share of the decided votes


def quality_of(answers: Sequence[Answer]) -> Quality:
    """The numbers that `broken_rule` looks at. A repeat has its sides swapped: the same answer is the other."""
    checks = [answer.right for answer in answers if answer.right is not None]
    repeats = [
        MIRRORED.get(answer.choice, answer.choice) == answer.first_time
        for answer in answers
        if answer.first_time not in (None, "skip") and answer.choice != "skip"
    ]
    times = [answer.response_time_s for answer in answers if answer.response_time_s is not None]
    sides = [answer.choice for answer in answers if answer.choice in MIRRORED]
    return Quality(
        votes=len(answers),
        checks=len(checks),
        check_pass=_share(checks),
        repeats=len(repeats),
        consistency=_share(repeats),
        median_response_s=median(times) if times else None,
        decided=len(sides),
        one_side=max(sides.count("left"), sides.count("right")) / len(sides) if sides else None,
    )


def broken_rule(quality: Quality, rule: QualityRule) -> str | None:
    """Why this person's votes are flagged, in words with numbers; None when they count."""
    if (
        quality.check_pass is not None
        and quality.checks >= rule.min_checks
        and quality.check_pass < rule.min_check_pass
    ):
        return f"passed {quality.check_pass:.0%} of {quality.checks} checks, {rule.min_check_pass:.0%} are needed"
    fast = quality.median_response_s
    if fast is not None and quality.votes >= rule.min_votes and fast < rule.min_median_response_s:
        return f"took {fast:.2f} s at the median, {rule.min_median_response_s:g} s are needed"
    same = quality.consistency
    if same is not None and quality.repeats >= rule.min_repeats and same < rule.min_consistency:
        return f"repeated {same:.0%} of {quality.repeats} answers, {rule.min_consistency:.0%} are needed"
    side = quality.one_side
    if side is not None and quality.decided >= rule.min_votes and side > rule.max_one_side:
        return f"chose one side in {side:.0%} of {quality.decided} votes, {rule.max_one_side:.0%} is the most"
    return None


def _share(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None
