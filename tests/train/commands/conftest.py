"""A tiny family that the commands know, and a store to train from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from collection.store import Store
from npo_core.catalog import families
from npo_core.catalog.families import ModelFamily
from tests.collection.helpers import open_store
from tests.tiny import tiny_family


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFamily:
    return tiny_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(autouse=True)
def known(tiny: ModelFamily, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(families.FAMILIES, tiny.name, tiny)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(tmp_path) as opened:
        yield opened
