from __future__ import annotations

from pathlib import Path

import pytest

from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from tests.tiny import tiny_family


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> ModelFamily:
    """The tiny family on disk; tests must not change its files."""
    return tiny_family(tmp_path_factory.mktemp("family"))


@pytest.fixture
def own_family(tmp_path: Path) -> ModelFamily:
    """A tiny family that a test may damage."""
    return tiny_family(tmp_path)


@pytest.fixture(scope="session")
def generator(family: ModelFamily) -> Generator:
    """A loaded generator of the tiny family with its own adapters; tests must not swap them."""
    generator = Generator(family)
    generator.load()
    return generator
