"""Everybody who is asked about a picture: the rater, who tunes the contenders, and the jury, who taught nobody."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from npo_core.catalog.families import ModelFamily
from npo_core.emoji.scorer import load_scorer
from npo_core.errors import InputError
from npo_core.media.files import sha256_file
from train.judging.features import Features
from train.judging.jury import WEIGHTS, Jury, load_jury
from train.judging.plain import MEASURES

Columns = dict[str, np.ndarray]
"""Measure -> (B,) float32; "features" -> (B, 1280) float16."""

RATER, JURY, THINGS = "rater_clean", "jury_clean", "jury_things"
FLAW = "flaw: "


def joined(parts: Sequence[Columns]) -> Columns:
    """What was said of several batches, as of one."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


class Judges:
    """All of them, on one device. Raises InputError where the family has no rater, or there is no jury."""

    def __init__(
        self, family: ModelFamily, device: torch.device | str = "cpu", features: bool = True, jury: Path = WEIGHTS
    ) -> None:
        """features: False leaves out the network of others, and with it KID and diversity."""
        if family.scorer is None:
            raise InputError(
                f"{family.label} has no rater to tune contenders by; choose a family that has one, such as emoji."
            )
        self._rater = load_scorer(family.scorer)
        self._rater.net.to(device)
        self.jury = load_jury(jury, device)
        self._features = Features(device) if features else None
        self.identity = [sha256_file(jury), features]
        self.rater_identity = sha256_file(Path(family.scorer))

    def rate(self, pixels: Tensor, prompts: Sequence[str]) -> Columns:
        """The rater's clean logit alone, of pixels (B, 3, H, W) in [0, 1]: what contenders are tuned by."""
        return {RATER: _numbers(self._rater.clean_logit(2 * pixels - 1))}

    @torch.no_grad()
    def ask(self, pixels: Tensor, prompts: Sequence[str]) -> Columns:
        """Everybody, about pixels (B, 3, H, W) in [0, 1]."""
        found = self.rate(pixels, prompts)
        found["rater_all"] = _numbers(self._rater.log_probability_of_pixels(2 * pixels - 1, prompts))
        found |= listen(self.jury, pixels, prompts)
        found |= {name: _numbers(measure(pixels)) for name, measure in MEASURES.items()}
        if self._features is not None:
            found["features"] = self._features(pixels).half().cpu().numpy()
        return found


def listen(jury: Jury, pixels: Tensor, prompts: Sequence[str]) -> Columns:
    """What the jury says of pixels (B, 3, H, W) in [0, 1]: jury_clean, a logit; jury_things, the mean log-probability
    of the things named; jury_found, whether all of them are seen; jury_top1, whether the likeliest is one that is
    named; of each flaw its probability. NaN where a prompt names nothing that it knows."""
    findings = jury.look(pixels).cpu()  # asked row by row, which a GPU is slow at
    logs, best = functional.logsigmoid(findings.concepts), findings.concepts.argmax(1).tolist()
    things, found, top1 = [], [], []
    for row, prompt in enumerate(prompts):
        named = jury.named(prompt)
        things.append(float(logs[row, named].mean()) if named else np.nan)
        found.append(float((findings.concepts[row, named] > 0).all()) if named else np.nan)
        top1.append(float(best[row] in named) if named else np.nan)
    columns = {JURY: _numbers(findings.clean), THINGS: things, "jury_found": found, "jury_top1": top1}
    columns |= {f"{FLAW}{name}": _numbers(p) for name, p in zip(jury.flaws, findings.flaws.sigmoid().T, strict=True)}
    return {name: np.asarray(column, np.float32) for name, column in columns.items()}


def _numbers(values: Tensor) -> np.ndarray:
    return values.float().cpu().numpy()
