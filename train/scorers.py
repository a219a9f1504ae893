"""Judges of pictures: SCORERS name -> a loader. The family's own ships with it; the others are downloaded models.

A scorer is asked for `score(images, prompts)`; higher is better, and only comparisons on the same prompt mean anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image
from torch import Tensor

from npo_core.errors import InputError
from npo_core.families import ModelFamily


@runtime_checkable
class Scorer(Protocol):
    """Judges pictures by the prompts they were made from."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """(B,) float, higher is better."""


@runtime_checkable
class DifferentiableScorer(Scorer, Protocol):
    """A scorer through which a gradient reaches the pixels."""

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) from pixels (B, 3, H, W) in [-1, 1], as a VAE decodes them."""


class FamilyScorer:
    """The scorer that ships with a family: the log-probability that the picture is clean and what the prompt says."""

    def __init__(self, family: ModelFamily) -> None:
        if family.scorer is None:
            raise InputError(f"{family.label} has no scorer; choose a family that has one, such as emoji.")
        from npo_core.emoji.scorer import load_scorer

        self._scorer = load_scorer(family.scorer)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """See Scorer."""
        return np.asarray(self._scorer.log_probability(images, prompts))

    def top1(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """(B,) bool: whether what the prompt names is the first guess."""
        return np.asarray(self._scorer.top1(images, prompts))
