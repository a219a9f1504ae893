"""By how much two scores on the same prompt must differ to order a pair; cheap to import, for the help texts."""

from __future__ import annotations

OTHER = 0.5
MARGINS: dict[str, float] = {
    "emoji": 0.5,  # a log-probability
    "jury": 0.5,  # a log-probability
    "pickscore": 0.5,  # 100 times a cosine
    "hpsv2": 0.005,  # a cosine, mostly from 0.2 to 0.3
    "imagereward": 0.5,  # made to have standard deviation 1 over pictures of many models
    "aesthetic": 0.2,  # points from 1 to 10
}
"""Scorer -> its default of --reward-margin, in its own unit."""


def default_margin(scorer: str) -> float:
    """Of the scorer called `scorer`, one that is not in MARGINS too."""
    return MARGINS.get(scorer, OTHER)


def told_margins() -> str:
    """The defaults for a help text."""
    return ", ".join(f"{name} {margin:g}" for name, margin in MARGINS.items())
