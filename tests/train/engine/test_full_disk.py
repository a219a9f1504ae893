"""A disk that is full: one sentence, nothing half-written, and what was there before stays.

A limit on the size of files stands for it: the system then refuses writes in the middle of a file, as a full disk does.
"""

from __future__ import annotations

import resource
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from npo_core.errors import InputError
from npo_core.generator import Comparison, GenerationRequest, Generator
from npo_core.weights import save_adapter
from tests.tiny import tiny_family, tiny_weights
from tests.train.helpers import random_pairs, small_config
from train.engine.records import Sources
from train.engine.results import COMFYUI_FILE_NAME, About, save_comfyui, write_results
from train.engine.validation import PictureGrid
from train.objectives.reference import ReferenceErrors

SENTENCE = "cannot be written .*; make room and run again. What was saved before is untouched."


@contextmanager
def room_for(size: int) -> Iterator[None]:
    """Within it no file grows beyond `size` bytes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def contents(folder: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_an_adapter_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    save_adapter(tiny_weights(1), tmp_path)
    save_comfyui(tiny_weights(1), tmp_path)
    before = contents(tmp_path)
    with room_for(4096):
        with pytest.raises(OSError, match="File too large"):
            save_adapter(tiny_weights(2), tmp_path)
        with pytest.raises(InputError, match=f"{COMFYUI_FILE_NAME} {SENTENCE}"):
            save_comfyui(tiny_weights(2), tmp_path)
    assert contents(tmp_path) == before


def test_a_run_that_cannot_leave_its_adapter_says_so(tmp_path: Path) -> None:
    facts = {"base": "tiny", "base_unet_sha256": "0" * 64}
    with room_for(4096), pytest.raises(InputError, match=f"pytorch_lora_weights.safetensors {SENTENCE}"):
        write_results(small_config(tmp_path), About("NPO", "1 pair"), facts, Sources(["v1"]), tiny_weights(1), {}, [])
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("drawn", [False, True])
def test_a_grid_that_does_not_fit_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, drawn: bool) -> None:
    """Where the adapter to draw with does not fit, and where the drawn pictures do not."""
    generator = Generator(tiny_family(tmp_path), device="cpu")
    grid = PictureGrid(generator, "negative", ["a cat"], None)
    draw = generator.generate_batch

    with room_for(1 << 30 if drawn else 4096):

        def then_no_room(requests: Sequence[GenerationRequest]) -> list[Comparison]:
            made = draw(requests)
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
            return made

        monkeypatch.setattr(generator, "generate_batch", then_no_room)
        file = "step_000007.png" if drawn else "pytorch_lora_weights.safetensors"
        with pytest.raises(InputError, match=f"{file} {SENTENCE}"):
            grid.measure(7, lambda: tiny_weights(5), tmp_path)
    left = set(contents(tmp_path / "validation"))
    assert left == ({"pytorch_lora_weights.safetensors"} if drawn else set())


def test_reference_errors_have_their_room_on_the_disk_before_they_are_mapped(tmp_path: Path) -> None:
    """A file with holes behind a memory map ends the process with SIGBUS when the disk fills up."""
    file = tmp_path / "reference" / "errors.f32"
    pairs = random_pairs(2)
    with room_for(4096), pytest.raises(InputError, match=f"errors.f32 {SENTENCE}"):
        ReferenceErrors(file, pairs, 100_000)
    assert not file.exists()
    ReferenceErrors(file, pairs, 100_000)
    assert file.stat().st_size == 800_000
    assert file.stat().st_blocks * 512 >= 800_000
    with room_for(900_000), pytest.raises(InputError, match=f"errors.f32 {SENTENCE}"):
        ReferenceErrors(file, pairs, 200_000)
    assert file.stat().st_size == 800_000
