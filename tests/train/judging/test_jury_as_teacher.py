"""The jury as the teacher: its scores are its own answers, and their gradient can be followed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from tests.train.judging.protocol.helpers import random_jury
from train.judging.jury import JuryScorer, load_jury


def test_a_score_is_the_jury_s_own_answer_and_a_gradient_reaches_the_pixels(tmp_path: Path) -> None:
    jury = load_jury(random_jury(tmp_path))
    pixels = torch.rand(2, 3, 64, 64)
    found = jury.look(pixels)
    apple, rocket = (jury.words.concepts.index(name) for name in ("apple", "rocket"))
    named = functional.logsigmoid(found.concepts)[[0, 1], [apple, rocket]]
    expected = functional.logsigmoid(found.clean) + named
    asked = (2 * pixels - 1).requires_grad_(True)
    scores = JuryScorer(jury).score_pixels(asked, ["a red apple", "two rockets, 3d style"])
    torch.testing.assert_close(scores, expected)
    scores.sum().backward()
    assert asked.grad is not None
    assert float(asked.grad.abs().sum()) > 0
    images = [Image.fromarray((255 * p).permute(1, 2, 0).byte().numpy()) for p in pixels]
    by_picture = JuryScorer(jury).score(images, ["a red apple", "a rocket"])
    np.testing.assert_allclose(by_picture, expected.detach().numpy(), atol=0.05)
