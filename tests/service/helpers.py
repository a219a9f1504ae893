"""Real services over the tiny family."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from collection.store import Store
from collection.types import AdapterRecord
from npo_core.catalog.adapter_files import Role
from npo_core.catalog.families import ModelFamily
from npo_core.catalog.prompts import load_guide
from npo_core.generator import Generator
from npo_core.media.files import sha256_file
from npo_core.requests import GenerationRequest
from npo_core.weights import save_adapter
from service.arena.compare import CompareService
from service.arena.limits import Limits, Turnstile
from service.arena.pool import PoolService
from service.arena.study import StudyService
from service.arena.visitors import Visitors
from service.generation.adapters_in_use import AdapterShelf
from service.operations.health import Health
from service.operations.shared_reads import SharedReads
from service.services import Services
from service.training.admin import AdminGate
from service.training.retrain import RetrainService
from tests.tiny import tiny_weights

SECRET = "0" * 32
REQUEST = GenerationRequest("a red apple", seed=7)


def make_services(folder: Path, family: ModelFamily, generator: Generator | None = None, seed: int = 0) -> Services:
    """Services with their database and media in `folder`; chance is seeded."""
    generator = generator or Generator(family)
    store = Store(f"sqlite:///{folder / 'npo.db'}", folder)
    shelf = AdapterShelf(store, generator)
    visitors = Visitors(store, SECRET, Turnstile(Limits()))
    compare = CompareService(store, generator, shelf, visitors, random.Random(seed))
    return Services(
        family=family,
        store=store,
        generator=generator,
        shelf=shelf,
        visitors=visitors,
        compare=compare,
        pool=PoolService(store, family.name, visitors, random.Random(seed)),
        guide=load_guide(family.guide) if family.guide else None,
        study=StudyService(store, SECRET),
        secret=SECRET,
        retrain=RetrainService(store, family.name, folder, AdminGate("right password")),
        health=Health(store, compare.desk, compare),
        reads=SharedReads(0.0),  # a test votes, and looks at once
    )


def register(
    services: Services, folder: Path, role: Role, seed: int, name: str, modality: str = "image"
) -> AdapterRecord:
    """Trains nothing: saves a random LoRA in `folder` and registers it, as a training does at its end."""
    file = save_adapter(tiny_weights(seed), folder / name)
    record = AdapterRecord(services.family.name, role, name, str(file), sha256_file(file), modality=modality)
    return services.store.register_adapter(record)


def without_shipped(family: ModelFamily, role: Role) -> ModelFamily:
    """The family without its own adapter of `role`."""
    return replace(family, aligned=None) if role == "aligned" else replace(family, negative=None)
