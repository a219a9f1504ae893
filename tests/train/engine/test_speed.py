"""The choice of checkpointing and compilation, from costs as a GPU would report them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.train.helpers import small_config
from train.engine import speed
from train.engine.speed import GIB, plan_speed

GPU = torch.device("cuda")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """40 GiB free; an example costs 1 GiB and 50 ms, and everything else 1 GiB and 10 ms."""
    monkeypatch.setattr(speed, "_free_bytes", lambda device: 40 * GIB)
    monkeypatch.setattr(speed, "_cost", lambda device, probe, count: ((1 + count) * GIB, 0.01 + 0.05 * count))
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: object())


def plan(tmp_path: Path, steps: int, examples: int, **changes: object) -> speed.SpeedPlan:
    config = small_config(tmp_path, **changes)
    return plan_speed(config, GPU, steps, examples, lambda count: None, lambda on: None)


@pytest.mark.usefixtures("gpu")
def test_checkpointing_is_for_batches_that_do_not_fit(tmp_path: Path) -> None:
    fits, too_large = plan(tmp_path, 10, 32), plan(tmp_path, 10, 40)
    assert not fits.checkpointing
    assert too_large.checkpointing
    assert "need about 33.0 GiB without it and 40.0 GiB are free" in fits.reason


@pytest.mark.usefixtures("gpu")
def test_compilation_is_for_runs_that_earn_it_back(tmp_path: Path) -> None:
    """A step of 16 takes 810 ms, a quarter of which is saved: 741 steps earn 150 s."""
    assert not plan(tmp_path, 700, 16).compile
    assert plan(tmp_path, 760, 16).compile


@pytest.mark.parametrize("noise_s", [-0.003, 0.003])
def test_a_little_noise_does_not_compile_a_short_run_of_large_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, gpu: None, noise_s: float
) -> None:
    """A small UNet takes 40 ms whatever the batch; 3 ms of noise, times the 256 of a batch, must not look like more."""
    monkeypatch.setattr(
        speed, "_cost", lambda device, probe, count: (count * GIB // 64, 0.04 + (noise_s if count > 1 else 0.0))
    )
    assert not plan(tmp_path, 1000, 256).compile


@pytest.mark.usefixtures("gpu")
def test_what_was_asked_for_is_done(tmp_path: Path) -> None:
    asked = plan(tmp_path, 10, 16, gradient_checkpointing="on", compile="on")
    assert (asked.checkpointing, asked.compile) == (True, True)
    assert plan(tmp_path, 10, 400, gradient_checkpointing="off").checkpointing is False


def test_a_cpu_does_only_what_was_asked_for(tmp_path: Path) -> None:
    config = small_config(tmp_path, gradient_checkpointing="on")
    chosen = plan_speed(config, torch.device("cpu"), 10**6, 4, lambda count: None, lambda on: None)
    assert (chosen.checkpointing, chosen.compile) == (True, False)
