"""Every family loads and paints from the Hub's local cache, with models that are tiny but otherwise as published."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from npo_core import hub
from npo_core.families import FAMILIES
from tests.hub_server import LocalHub, local_hub
from tests.published import publish

PUBLISHED = [name for name in FAMILIES if name != "emoji"]


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalHub]:
    """A Hub with every published model, and an empty cache in front of it."""
    root = tmp_path_factory.mktemp("hub")
    publish(root / "models")
    with local_hub(root, root / "cache") as server:
        yield server


@pytest.fixture(scope="session")
def cache(published: LocalHub) -> Path:
    """The local cache after `fetch` of every family."""
    for name in PUBLISHED:
        hub.fetch(FAMILIES[name])
    return published.root / "cache"


def test_fetching_takes_what_is_needed_and_nothing_else(cache: Path) -> None:
    files = {str(path).split("/snapshots/")[1].split("/", 1)[1] for path in cache.glob("*/snapshots/*/**/*.*")}
    print(files)
