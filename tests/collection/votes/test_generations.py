"""Generations come back as they were stored, with latents and media."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from collection.errors import InputError
from collection.media.folder import MediaFiles, write_durably
from collection.store import Store
from tests.collection.helpers import VARIANTS, add_comparison, generation, open_store


def test_a_generation_remembers_everything(store: Store) -> None:
    made = generation("aligned_npo")
    (identity,) = store.add_generations([made])
    kept = store.get_generation(identity)
    assert kept.latents is not None
    assert kept.latents.dtype == np.float16
    np.testing.assert_array_equal(kept.latents, made.latents)
    same: dict[str, Any] = {"latents": None, "media": None, "id": None, "created_at": None}
    assert replace(kept, **same) == replace(made, **same)
    assert kept.created_at is not None
    assert kept.created_at.tzinfo is not None


def test_the_latents_of_a_clip_keep_their_four_axes(store: Store) -> None:
    clip = np.arange(2 * 4 * 3 * 3, dtype=np.float16).reshape(2, 4, 3, 3)  # (F, C, H, W)
    (identity,) = store.add_generations([generation(modality="video", latents=clip, frames=2, fps=8.0)])
    kept = store.get_generation(identity).latents
    assert kept is not None
    assert kept.shape == (2, 4, 3, 3)
    kept += 1  # a copy of one's own, writable as torch wants it


def test_media_lie_in_a_file_named_after_their_content(store: Store) -> None:
    made = generation()
    store.add_generations([made])
    path = store.media_path(made)
    assert path.relative_to(store.media.folder).as_posix() == f"{made.media_sha256[:2]}/{made.media_sha256}.png"
    assert path.read_bytes() == made.media
    assert list(path.parent.iterdir()) == [path]


def test_equal_pictures_are_kept_once(store: Store) -> None:
    made = generation()
    store.add_generations([made, made])
    assert len(list(store.media)) == 1


def test_a_comparison_comes_back_in_the_order_in_which_it_was_made(store: Store) -> None:
    ids = add_comparison(store)
    assert [made.variant for made in store.comparison("c1")] == list(VARIANTS)
    assert [made.id for made in store.comparison("c1")] == list(ids.values())
    assert store.comparison("unknown") == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda made: replace(made, media=b"other"), "not .* as stated"),
        (lambda made: replace(made, media=None), "has no media"),
        (lambda made: replace(made, media_type="image/bmp"), "use one of image/png"),
        (lambda made: replace(made, latents=made.latents.astype(np.float32)), "give finite float16"),
        (lambda made: replace(made, latents=made.latents * np.float16("nan")), "give finite float16"),
        (lambda made: replace(made, latents=made.latents[0]), "give finite float16"),
    ],
)
def test_a_generation_that_cannot_be_trusted_is_refused_and_nothing_is_kept(
    store: Store, change: Callable, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        store.add_generations([generation("base"), change(generation("aligned"))])
    assert store.comparison("c1") == []


def test_an_unknown_generation_is_named(store: Store) -> None:
    with pytest.raises(InputError, match="There is no generation 'x'"):
        store.get_generation("x")


def test_a_data_folder_that_cannot_be_written_gets_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("a file in the way")
    with open_store(tmp_path) as store, pytest.raises(InputError, match="make the data folder writable"):
        store.add_generations([generation()])


def test_a_missing_media_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is missing"):
        MediaFiles(tmp_path).read("ab" * 32, "image/png")


def test_a_write_that_fails_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_durably(tmp_path / "x.png", "not bytes")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []
