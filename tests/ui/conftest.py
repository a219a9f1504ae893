from __future__ import annotations

from tests.service.conftest import family, generator, services

__all__ = ["family", "generator", "services"]
