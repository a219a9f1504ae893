"""The jury as the teacher: its scores are its own answers, and pictures that were sampled can be scored anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from benchmarks.negatives.teachers import JuryAsTeacher, rescore
from tests.tiny import tiny_pipeline
from tests.train.judging.protocol.helpers import random_jury
from train.judging.jury import load_jury


def test_a_score_is_the_jury_s_own_answer_and_a_gradient_reaches_the_pixels(tmp_path: Path) -> None:
    jury = load_jury(random_jury(tmp_path))
    pixels = torch.rand(2, 3, 64, 64)
    found = jury.look(pixels)
    apple, rocket = (jury.words.concepts.index(name) for name in ("apple", "rocket"))
    named = functional.logsigmoid(found.concepts)[[0, 1], [apple, rocket]]
    expected = functional.logsigmoid(found.clean) + named
    asked = (2 * pixels - 1).requires_grad_(True)
    scores = JuryAsTeacher(jury).score_pixels(asked, ["a red apple", "two rockets, 3d style"])
    torch.testing.assert_close(scores, expected)
    scores.sum().backward()
    assert asked.grad is not None
    assert float(asked.grad.abs().sum()) > 0
    images = [Image.fromarray((255 * p).permute(1, 2, 0).byte().numpy()) for p in pixels]
    by_picture = JuryAsTeacher(jury).score(images, ["a red apple", "a rocket"])
    np.testing.assert_allclose(by_picture, expected.detach().numpy(), atol=0.05)


def test_sampled_pictures_are_scored_anew_and_nothing_else_of_them_changes(tmp_path: Path) -> None:
    prompts, latents = np.array(["a cat", "a cat", "a pizza"]), np.random.default_rng(0).standard_normal((3, 4, 8, 8))
    for name in ("00000", "00032"):
        np.savez(tmp_path / f"{name}.npz", prompts=prompts, latents=latents.astype(np.float16), scores=np.zeros(3))
    teacher, vae = JuryAsTeacher(load_jury(random_jury(tmp_path))), tiny_pipeline().vae
    rescore(tmp_path, tmp_path / "new", teacher, vae)
    with np.load(tmp_path / "new" / "00032.npz") as found:
        assert list(found["prompts"]) == list(prompts)
        np.testing.assert_array_equal(found["latents"], latents.astype(np.float16))
        assert len(set(found["scores"])) == 3
    (tmp_path / "new" / "00000.npz").unlink()
    before = (tmp_path / "new" / "00032.npz").stat().st_mtime_ns
    rescore(tmp_path, tmp_path / "new", teacher, vae)
    assert (tmp_path / "new" / "00000.npz").exists()
    assert (tmp_path / "new" / "00032.npz").stat().st_mtime_ns == before
