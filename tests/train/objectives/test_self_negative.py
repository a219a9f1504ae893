"""Self-NPO against its equations, on a tiny real network whose teacher is made to say what is known."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

from npo_core.errors import InputError
from tests.tiny import tiny_family, tiny_scheduler
from tests.train.helpers import SHAPE, small_config
from train.engine.config import TrainConfig
from train.network.schedule import NoiseSchedule
from train.objectives.self_negative import HUBER_C, Picture, SelfNegativeObjective, pseudo_huber
from train.self_npo import Sampling, train_on_itself

CPU = torch.device("cpu")


class Table:
    """Two prompts: 0 is none."""

    rows: ClassVar[dict[str, int]] = {"a cat": 1}

    def conditioning(self, rows: Tensor) -> dict[str, Any]:
        return {"rows": rows}


class Known:
    """A network whose teacher always sees one picture; it notes what it is asked."""

    processes, device = 1, CPU

    def __init__(self, picture: Tensor) -> None:
        self.schedule = NoiseSchedule(tiny_scheduler().config, CPU)
        self.picture = picture
        self.taught: list[tuple[Tensor, Tensor, Tensor]] = []
        self.asked: list[tuple[Tensor, Tensor, Tensor]] = []

    def answer(self, noisy: Tensor, timesteps: Tensor) -> Tensor:
        clean = self.picture.expand_as(noisy)
        return self.schedule.target(clean, self.schedule.noise(noisy, clean, timesteps), timesteps)

    def teacher(self, noisy: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
        self.taught.append((noisy, timesteps, conditioning["rows"]))
        return self.answer(noisy, timesteps)

    def policy(self, noisy: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
        self.asked.append((noisy, timesteps, conditioning["rows"]))
        return self.answer(noisy, timesteps)


@pytest.fixture
def seen(tmp_path: Path) -> tuple[Known, float]:
    """One look at 16 examples, and its loss."""
    random = np.random.default_rng(0)
    pictures = [Picture("a cat", random.standard_normal(SHAPE).astype(np.float16), f"{n}") for n in range(4)]
    network = Known(torch.from_numpy(random.standard_normal((1, *SHAPE)).astype(np.float32)))
    config = replace(TrainConfig("tiny", tmp_path), caption_dropout=0.0)
    objective = SelfNegativeObjective(config, pictures, Table(), network)  # type: ignore[arg-type]
    loss, _ = objective.losses(0, 16)
    return network, float(loss)


def test_the_teacher_takes_five_steps_without_the_prompt_and_looks_once_more(seen: tuple[Known, float]) -> None:
    network, _ = seen
    assert len(network.taught) == 5 + 1
    assert all(bool((rows == 0).all()) for _, _, rows in network.taught)
    timesteps = torch.stack([steps for _, steps, _ in network.taught])  # (6, B)
    assert set((timesteps[0] + 1).tolist()) <= set(range(40, 1001, 40))  # a grid of 25
    torch.testing.assert_close(timesteps[1:], (timesteps[:-1] - 40).clamp(min=0))


def test_the_solver_s_steps_are_ddim_s(seen: tuple[Known, float]) -> None:
    """With a teacher that is right, x_s = sqrt(a_s) x_0 + sqrt(1 - a_s) e with the e of the start."""
    network, _ = seen
    (start, first, _), (end, last, _) = network.taught[0], network.taught[-1]
    noise = network.schedule.noise(start, network.picture, first)
    expected = network.schedule.noisy(network.picture.expand_as(end), noise, last)
    torch.testing.assert_close(end, expected, rtol=1e-3, atol=1e-3)


def test_the_policy_is_asked_for_the_same_picture_at_noisier_timesteps_with_the_prompt(
    seen: tuple[Known, float],
) -> None:
    network, loss = seen
    ((noisy, timesteps, rows),) = network.asked
    assert bool((rows == 1).all())
    assert bool((timesteps > network.taught[-1][1]).all())
    assert loss == pytest.approx(0.0, abs=1e-4)  # teacher and policy see one picture
    noise = network.schedule.noise(noisy, network.picture, timesteps)
    assert float(noise.std()) == pytest.approx(1.0, abs=0.1)  # as much as there should be at u


def test_noising_in_two_steps_is_noising_in_one() -> None:
    """sqrt(a_u / a_t) x_t + sqrt(1 - a_u / a_t) e has the mean and variance of x_u; also at zero terminal SNR."""
    schedule = NoiseSchedule(tiny_scheduler().config, CPU)
    clean, count = torch.full((1, 4, 8, 8), 2.0), 2000
    early, late = torch.tensor([300]), torch.tensor([700])
    first, second = torch.randn(2, count, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    twice = schedule.noisier(schedule.noisy(clean.expand_as(first), first, early), early, late, second)
    once = schedule.noisy(clean.expand_as(first), first, late)
    assert float(twice.mean()) == pytest.approx(float(once.mean()), abs=0.01)
    assert float(twice.var()) == pytest.approx(float(once.var()), rel=0.02)
    last = torch.tensor([999])
    torch.testing.assert_close(schedule.noisier(clean, early, last, second[:1]), second[:1], atol=1e-3, rtol=0)


def test_the_loss_is_a_square_near_and_an_absolute_difference_far() -> None:
    near, far = torch.tensor(HUBER_C / 100), torch.tensor(3.0)
    assert float(pseudo_huber(near.double(), torch.zeros(()))) == pytest.approx(
        float(near) ** 2 / 2 / HUBER_C, rel=1e-2
    )
    assert float(pseudo_huber(far, torch.zeros(()))) == pytest.approx(3.0 - HUBER_C, abs=1e-6)


def test_the_teacher_is_the_moving_average(tmp_path: Path) -> None:
    """Without one there is nobody to learn from; with one a run that was interrupted ends with the same weights."""
    family = tiny_family(tmp_path)
    samples = Sampling(1, 2, 1.0)
    with pytest.raises(InputError, match=r"give its decay, such as 0\.999"):
        train_on_itself(small_config(tmp_path / "none"), family, ["a cat"], samples)
    whole = train_on_itself(small_config(tmp_path / "whole", ema_decay=0.9), family, ["a cat"], samples)
    train_on_itself(small_config(tmp_path / "half", ema_decay=0.9, max_train_steps=4), family, ["a cat"], samples)
    rest = small_config(tmp_path / "half", ema_decay=0.9, resume=True)
    assert train_on_itself(rest, family, ["a cat"], samples).sha256 == whole.sha256
