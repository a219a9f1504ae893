"""Judges of pictures: SCORERS name -> a loader. The emoji family's ships with it; the others are downloaded models.

A scorer is asked for `score(images, prompts)`; higher is better, and only comparisons on the same prompt mean anything.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

SCORE_BATCH = 32  # pictures that a downloaded scorer reads at once


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


class EmojiScorer:
    """The emoji family's own: the log-probability that the picture is clean and shows what the prompt names."""

    def __init__(self, path: str) -> None:
        from npo_core.emoji.scorer import load_scorer

        self._scorer = load_scorer(path)
        self._scorer.net.requires_grad_(False)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """See Scorer."""
        self._scorer.net.cpu()
        return np.asarray(self._scorer.log_probability(images, prompts))

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """See DifferentiableScorer."""
        return self._scorer.log_probability_of_pixels(pixels, prompts)

    def top1(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """(B,) bool: whether what the prompt names is the first guess."""
        self._scorer.net.cpu()
        return np.asarray(self._scorer.top1(images, prompts))


class PickScore:
    """PickScore (arXiv 2305.01569): a CLIP tuned on Pick-a-Pic; logit scale times the cosine of picture and prompt."""

    MODEL, PROCESSOR = "yuvalkirstain/PickScore_v1", "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"

    def __init__(self, model: str = MODEL, processor: str = PROCESSOR, device: str | None = None) -> None:
        from transformers import CLIPModel, CLIPProcessor

        self._device = device or _own_device()
        self._model = CLIPModel.from_pretrained(model).eval().requires_grad_(False).to(self._device)
        self._processor = CLIPProcessor.from_pretrained(processor)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """See Scorer."""
        parts = []
        for start in range(0, len(images), SCORE_BATCH):
            inputs = self._processor(
                text=list(prompts[start : start + SCORE_BATCH]),
                images=list(images[start : start + SCORE_BATCH]),
                padding=True,
                truncation=True,
                return_tensors="pt",
            ).to(self._device)
            parts.append(self._model(**inputs).logits_per_image.diagonal().cpu().numpy())
        return np.concatenate(parts)


def score_by_prompt(
    score: Callable[[list[Image.Image], str], Any], images: Sequence[Image.Image], prompts: Sequence[str]
) -> np.ndarray:
    """(B,) by a package that scores several pictures of one prompt: one call a distinct prompt, for hpsv2 reads its
    checkpoint anew in each."""
    places: dict[str, list[int]] = {}
    for place, prompt in enumerate(prompts):
        places.setdefault(prompt, []).append(place)
    scores = np.zeros(len(images))
    for prompt, ours in places.items():
        scores[ours] = score([images[place] for place in ours], prompt)  # of one picture ImageReward gives a number
    return scores


class Hpsv2:
    """HPSv2.1 (arXiv 2306.09341), by its package."""

    def __init__(self) -> None:
        self._package = _import("hpsv2", "hpsv2")

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """See Scorer."""
        return score_by_prompt(partial(self._package.score, hps_version="v2.1"), images, prompts)


class ImageReward:
    """ImageReward (arXiv 2304.05977), by its package."""

    def __init__(self) -> None:
        self._model = _import("ImageReward", "image-reward").load("ImageReward-v1.0")

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """See Scorer."""
        return score_by_prompt(lambda ours, prompt: self._model.score(prompt, ours), images, prompts)


class Aesthetic:
    """LAION's aesthetic predictor, which does not read the prompt, by the package simple-aesthetics-predictor."""

    MODEL = "shunk031/aesthetics-predictor-v2-sac-logos-ava1-l14-linearMSE"

    def __init__(self, model: str = MODEL, device: str | None = None) -> None:
        package = _import("aesthetics_predictor", "simple-aesthetics-predictor")
        from transformers import CLIPImageProcessor

        self._device = device or _own_device()
        self._model = (
            package.AestheticsPredictorV2Linear.from_pretrained(model).eval().requires_grad_(False).to(self._device)
        )
        self._processor = CLIPImageProcessor.from_pretrained(model)

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """See Scorer."""
        parts = []
        for start in range(0, len(images), SCORE_BATCH):
            inputs = self._processor(images=list(images[start : start + SCORE_BATCH]), return_tensors="pt")
            parts.append(self._model(**inputs.to(self._device)).logits[:, 0].float().cpu().numpy())
        return np.concatenate(parts)


def _own_device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _own(family: ModelFamily) -> Scorer:
    if family.scorer is None:
        raise InputError(f"{family.label} has no scorer; choose a family that has one, such as emoji.")
    return EmojiScorer(family.scorer)


def _jury() -> Scorer:
    from train.judging.jury import JuryScorer, load_jury

    return JuryScorer(load_jury())


SCORERS: dict[str, Callable[[ModelFamily], Scorer]] = {
    "emoji": _own,
    "jury": lambda family: _jury(),
    "pickscore": lambda family: PickScore(),
    "hpsv2": lambda family: Hpsv2(),
    "imagereward": lambda family: ImageReward(),
    "aesthetic": lambda family: Aesthetic(),
}


def load_scorer(name: str, family: ModelFamily) -> Scorer:
    """The scorer called `name`; raises InputError for an unknown one, or where its package or model is missing."""
    if name not in SCORERS:
        raise InputError(f"Unknown scorer {name!r}; choose from {', '.join(SCORERS)}.")
    try:
        return SCORERS[name](family)
    except InputError:  # says already what is missing
        raise
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"The scorer {name} cannot be loaded ({reason}); check the network or its files.") from None


def _import(module: str, package: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == module:
            raise InputError(f"This scorer needs the package {package}; run pip install {package}.") from None
        reason = " ".join(str(error).split())
        raise InputError(
            f"The package {package} is installed but cannot be imported ({reason}); install what it misses, or the "
            "versions that it was written for."
        ) from None
