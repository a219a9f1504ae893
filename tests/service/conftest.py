from __future__ import annotations

from pathlib import Path

import pytest

from npo_core.families import ModelFamily
from npo_core.generator import Generator
from service.services import Services
from tests.service.helpers import make_services
from tests.tiny import tiny_family


@pytest.fixture(scope="session")
def family(tmp_path_factory: pytest.TempPathFactory) -> ModelFamily:
    """The tiny family on disk; tests must not change its files."""
    return tiny_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="session")
def generator(family: ModelFamily) -> Generator:
    """A loaded generator; every comparison puts its own versions on, so that tests may share it."""
    generator = Generator(family)
    generator.load()
    return generator


@pytest.fixture
def services(tmp_path: Path, family: ModelFamily, generator: Generator) -> Services:
    return make_services(tmp_path, family, generator)
