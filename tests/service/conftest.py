from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from npo_core.catalog.families import FAMILIES, ModelFamily
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


@pytest.fixture
def own_family(tmp_path: Path, family: ModelFamily, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The tiny family as one of the user's own, which a command or another process knows by NPO_FAMILIES alone."""
    settings = {"like": "emoji", "label": "Tiny", "base": family.base, "aligned": family.aligned}
    settings |= {"negative": family.negative, "steps": 2}
    numbers = {name: getattr(family, name) for name in ("width_px", "height_px", "size_multiple_px")}
    lines = [f"{name} = {json.dumps(value)}" for name, value in {**settings, **numbers}.items()]
    file = tmp_path / "families.toml"
    file.write_text("\n".join([f"[{family.name}]", *lines]))
    monkeypatch.setenv("NPO_FAMILIES", str(file))
    assert family.name not in FAMILIES
    yield
    FAMILIES.pop(family.name, None)
