"""A ZeroGPU Space, as far as it can be had here: a stand-in for the package `spaces` with its way of calling."""

from __future__ import annotations

import multiprocessing
import pickle
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from npo_core.catalog.families import FAMILIES, ModelFamily
from npo_core.generator import GenerationRequest, Generator
from service.generation.zero_gpu import comparison_seconds, is_lent, lend_gpu
from tests.service.helpers import REQUEST, make_services


class Spaces(types.ModuleType):
    """Every call runs in a forked process; arguments and result are pickled; the duration is asked for first."""

    def __init__(self) -> None:
        super().__init__("spaces")
        self.asked_s: list[int] = []

    def GPU(self, task: Callable[..., Any], *, duration: Callable[..., int]) -> Callable[..., Any]:  # noqa: N802
        def decorated(*arguments: Any) -> Any:
            self.asked_s.append(duration(*arguments))
            sent = pickle.dumps(arguments)
            ours, theirs = multiprocessing.get_context("fork").Pipe()

            def work() -> None:
                torch.set_num_threads(1)  # the pool of threads is not there in a forked process: it would be waited for
                theirs.send_bytes(pickle.dumps(task(*pickle.loads(sent))))

            process = multiprocessing.get_context("fork").Process(target=work)
            process.start()
            assert ours.poll(120), "the forked process does not answer"
            result = pickle.loads(ours.recv_bytes())
            process.join()
            return result

        decorated.zerogpu = None  # type: ignore[attr-defined]
        return decorated


def test_without_the_package_a_function_stays_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spaces", None)
    assert lend_gpu(len, lambda *arguments: 1) is len
    assert not is_lent(len)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Here as in the forked process, so that both round alike."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_thread")
def test_a_comparison_runs_in_the_process_that_the_gpu_is_lent_to(
    tmp_path: Path, family: ModelFamily, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = make_services(tmp_path / "here", family, generator)
    expected = here.compare.compare(REQUEST, here.visitors.named(None), own_seed=True)
    lender = Spaces()
    monkeypatch.setitem(sys.modules, "spaces", lender)
    lent = make_services(tmp_path / "lent", family, generator)
    assert lent.compare.on_lent_gpu
    steps: list[Any] = []
    made = lent.compare.compare(REQUEST, lent.visitors.named(None), on_step=steps.append, own_seed=True)
    assert not steps, "another process has no way to show them"
    assert sorted(panel.media for panel in made.panels) == sorted(panel.media for panel in expected.panels)
    assert lender.asked_s == [comparison_seconds(REQUEST, family)]


def test_the_duration_grows_with_what_is_asked_for() -> None:
    def seconds(family: str, **settings: Any) -> int:
        return comparison_seconds(GenerationRequest("a cat", **settings), FAMILIES[family])

    assert seconds("sd15") < seconds("sd15", steps=100) < seconds("sdxl") < seconds("sdxl", steps=50)
    assert seconds("sd15") < seconds("sd15", width_px=1024, height_px=1024)
    assert seconds("sd15") < seconds("sd15", modality="video")
    assert seconds("emoji") <= seconds("sd15") <= 60, (
        "a call may not take more than a minute or two of a visitor's quota"
    )
    tiny = replace(FAMILIES["sd15"], width_px=64, height_px=64)
    assert comparison_seconds(GenerationRequest("a cat"), tiny) > 0
