from __future__ import annotations

from pathlib import Path

import pytest

from tests.tiny import tiny_pipeline
from train.pairs.dataset import LatentCache


@pytest.fixture
def cache(tmp_path: Path) -> LatentCache:
    return LatentCache(tiny_pipeline(), 64, 64, tmp_path / "latents")
