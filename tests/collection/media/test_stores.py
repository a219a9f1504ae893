"""Media in other places than a folder: real fsspec file systems, in memory and local."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from collection.errors import InputError
from collection.media.folder import MediaFiles
from collection.media.stores import open_media
from collection.store import Store
from tests.collection.helpers import add_comparison, cast, open_store


@pytest.fixture
def place() -> Iterator[str]:
    """An empty folder of fsspec's memory."""
    url = f"memory://npo/{uuid.uuid4().hex}"
    yield url
    files, root = fsspec.core.url_to_fs(url)
    if files.exists(root):
        files.rm(root, recursive=True)


@pytest.fixture
def remote(tmp_path: Path, place: str) -> Iterator[Store]:
    with open_store(tmp_path, media_url=place) as opened:
        yield opened


def files_at(place: str) -> tuple[fsspec.AbstractFileSystem, list[str]]:
    files, root = fsspec.core.url_to_fs(place)
    return files, sorted(files.find(root))


def test_pictures_kept_elsewhere_are_read_on_a_machine_that_has_none(remote: Store, tmp_path: Path, place: str) -> None:
    made = remote.get_generation(add_comparison(remote)["base"])
    assert len(files_at(place)[1]) == len(list(remote.media.names())) == 3
    with Store(str(remote.url), tmp_path / "another machine", media_url=place) as other:
        path = other.media_path(made)
        assert path.read_bytes() == b"picture of c1 by base"
        assert path.is_relative_to(tmp_path / "another machine")
        assert other.media.read(made.media_sha256, made.media_type) == path.read_bytes()


def test_verify_finds_what_is_missing_damaged_or_unknown_elsewhere(remote: Store, place: str) -> None:
    add_comparison(remote)
    assert remote.verify() == []
    files, paths = files_at(place)
    files.rm(paths[0])
    files.pipe_file(paths[1], b"scribbled over")
    files.pipe_file(f"{paths[2]}.png", b"")
    problems = "\n".join(remote.verify())
    assert len(remote.verify()) == 3
    for part in ("is missing", "is damaged", "No generation knows the media file memory://"):
        assert part in problems


def test_a_file_that_arrived_in_part_is_written_again(remote: Store, place: str) -> None:
    add_comparison(remote)
    files, paths = files_at(place)
    files.pipe_file(paths[0], b"pict")
    add_comparison(remote)
    assert remote.verify() == []


def test_erasing_a_person_deletes_their_pictures_elsewhere_too(remote: Store, place: str) -> None:
    person, own = remote.create_participant(), add_comparison(remote)
    cast(remote, person, own["base"], own["aligned"], "left")
    remote.erase_participant(person)
    assert files_at(place)[1] == []
    assert remote.verify() == []


def test_backups_and_copies_bring_the_media_along(remote: Store, tmp_path: Path, place: str) -> None:
    add_comparison(remote)
    target = remote.backup(tmp_path / "backup")
    with Store(f"sqlite:///{target}", target.parent) as restored:
        assert restored.verify() == []
    with Store(f"sqlite:///{tmp_path / 'new.db'}", tmp_path / "new", media_url=f"file://{tmp_path}/shared") as copy:
        remote.copy_to(copy)
        assert copy.verify() == []
        assert len(list((tmp_path / "shared").glob("??/*.png"))) == 3
    files, paths = files_at(place)
    files.pipe_file(paths[0], b"scribbled over")
    told: list[str] = []
    remote.backup(tmp_path / "later", told.append)
    (problem,) = told
    assert problem.endswith("is damaged.")


def test_where_media_lie_is_said_by_a_url_the_environment_or_the_data_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NPO_MEDIA_URL", raising=False)
    here = open_media(tmp_path)
    assert isinstance(here, MediaFiles)
    assert here.folder == tmp_path / "media"
    monkeypatch.setenv("NPO_MEDIA_URL", "memory://npo")
    assert open_media(tmp_path).where("ab/c.png") == "memory://npo/ab/c.png"
    local = open_media(tmp_path, f"file://{tmp_path}/elsewhere")
    assert isinstance(local, MediaFiles)
    assert local.folder == tmp_path / "elsewhere"
    with pytest.raises(InputError, match="cannot be kept at 'nothing://at/all'"):
        open_media(tmp_path, "nothing://at/all")


def test_what_is_missing_elsewhere_or_out_of_reach_is_told_in_one_sentence(tmp_path: Path, place: str) -> None:
    media = open_media(tmp_path, place)
    with pytest.raises(InputError, match="is missing; check NPO_MEDIA_URL"):
        media.read("ab" * 32, "image/png")
    with pytest.raises(InputError, match="cannot be kept at 'ftp://127"):
        open_media(tmp_path, "ftp://127.0.0.1:1/media")
