"""The jury in the rater's place as the teacher: would another judge have taught the same order?

    python -m benchmarks.negatives.teachers --pairs data/emoji/pairs --out data/emoji/pairs_by_jury
    python -m benchmarks.negatives train --teacher jury --pairs data/emoji/pairs_by_jury --out out/by_jury

The same pictures, scored anew. In this one experiment the jury teaches, so that what it says of the result counts for
nothing; the rater, which then taught nobody, is the judge.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from npo_core.catalog.families import get_family
from npo_core.console import exit_status, hush_libraries
from npo_core.errors import InputError
from npo_core.sampling.pipelines import load_pipeline
from train.engine.files import replacing
from train.judging.jury import Jury, load_jury, to_side

DECODED_AT_ONCE = 32


class JuryAsTeacher:
    """A DifferentiableScorer: the log-probability, by the jury, that a picture is clean and shows what is named."""

    def __init__(self, jury: Jury) -> None:
        self._jury = jury

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """See Scorer."""
        pixels = torch.stack([torch.from_numpy(np.asarray(image.convert("RGB"))).permute(2, 0, 1) for image in images])
        with torch.no_grad():
            return self.score_pixels(pixels.to(self._device) / 127.5 - 1, prompts).cpu().numpy()

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """See DifferentiableScorer; the jury goes where the pixels are."""
        jury = self._jury
        logits = jury.net.to(pixels.device)(to_side(pixels / 2 + 0.5))
        logs = functional.logsigmoid(logits)  # (B, concepts + 1 + flaws)
        things = [logs[row, jury.named(prompt)].sum() for row, prompt in enumerate(prompts)]
        return logs[:, len(jury.words.concepts)] + torch.stack(things)

    @property
    def _device(self) -> torch.device:
        return next(self._jury.net.parameters()).device


@torch.no_grad()
def rescore(pairs: Path, out: Path, teacher: JuryAsTeacher, vae: Any) -> None:
    """Every file of `pairs`, as train.emoji.adapters sampled them, with the scores of `teacher`; goes on where it
    stopped."""
    out.mkdir(parents=True, exist_ok=True)
    files = sorted(pairs.glob("*.npz"))
    if not files:
        raise InputError(f"There are no sampled pictures in {pairs}; see python -m train.emoji.adapters --help.")
    for file in files:
        if (out / file.name).exists():
            continue
        with np.load(file) as arrays:
            kept = {name: arrays[name] for name in arrays.files}
        scores = []
        for start in range(0, len(kept["prompts"]), DECODED_AT_ONCE):
            some = slice(start, start + DECODED_AT_ONCE)
            latents = torch.from_numpy(kept["latents"][some]).to(vae.device, vae.dtype)
            pixels = vae.decode(latents / vae.config.scaling_factor).sample.float().clamp(-1, 1)
            scores.append(teacher.score_pixels(pixels, [str(prompt) for prompt in kept["prompts"][some]]).cpu().numpy())
        with replacing(out / file.name) as opened:
            np.savez(opened, **cast(Any, {**kept, "scores": np.concatenate(scores)}))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.negatives.teachers", description=__doc__.split("\n")[0])
    parser.add_argument("--pairs", type=Path, default=Path("data/emoji/pairs"), help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("data/emoji/pairs_by_jury"), help="(%(default)s)")
    options = parser.parse_args(arguments)

    def run() -> None:
        hush_libraries()
        device = "cuda" if torch.cuda.is_available() else "cpu"
        teacher = JuryAsTeacher(load_jury(device=device))
        rescore(options.pairs, options.out, teacher, load_pipeline(get_family("emoji")).vae.to(device))

    return exit_status(run)


if __name__ == "__main__":
    raise SystemExit(main())
