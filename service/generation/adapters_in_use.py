"""Which adapter versions the app offers, and putting one on without a restart."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from collection.store import Store
from collection.types import AdapterRecord
from npo_core.catalog.adapter_files import ROLES, AdapterFile, Role, adapter_file, locate_adapter
from npo_core.generator import Generator
from service.errors import InputError

NEWEST = "newest"
"""The choice that follows training: the version put to use last, or the shipped one where there is none."""

SHIPPED_NAME = "Shipped with the model"

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class AdapterVersion:
    """One LoRA that can be put on. sha256 is None for the shipped one until it is read."""

    id: str
    role: Role
    name: str
    path: Path
    sha256: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True)
class VersionsInUse:
    """What the next pictures are made with, by role, and one sentence for each version that had to be passed over."""

    versions: dict[Role, AdapterVersion]
    notes: tuple[str, ...] = ()

    @property
    def names(self) -> dict[str, str]:
        """Role -> the version's readable name."""
        return {role: version.name for role, version in self.versions.items()}


class AdapterShelf:
    """The shipped adapters of the generator's family and those registered for it in the store."""

    def __init__(self, store: Store, generator: Generator) -> None:
        self._store = store
        self._generator = generator
        self.family = generator.family

    def versions(self, role: Role, modality: str = "image") -> list[AdapterVersion]:
        """Everything on offer, what is in use first: the versions put to use, latest first, then the shipped one, then
        those that were never put to use or were taken back.

        What was trained on clips is offered for clips, and on pictures for pictures. The shipped ones were trained on
        pictures and serve both.
        """
        family = self.family.name
        promoted = [_registered(record) for record in self._store.promoted(family, role, modality)]
        others = [_registered(record) for record in self._store.adapters(family, role, modality)]
        shipped = self.family.aligned if role == "aligned" else self.family.negative
        own = [] if shipped is None else [AdapterVersion(f"{family}-{role}", role, SHIPPED_NAME, Path(shipped))]
        return [*promoted, *own, *(version for version in others if version not in promoted)]

    def _to_fall_back_on(self, role: Role, modality: str) -> list[AdapterVersion]:
        """What NEWEST stands for, and after it the versions to use where it cannot be read."""
        promoted = len(self._store.promoted(self.family.name, role, modality))
        return [
            version
            for place, version in enumerate(self.versions(role, modality))
            if place < promoted or not version.sha256
        ]

    def shares(self, choice: str = NEWEST, modality: str = "image") -> tuple[float, float]:
        """(alpha, beta) by default beside the chosen version of the negative model: what it was trained for, else the
        family's."""
        found = self._to_fall_back_on("negative", modality) if choice == NEWEST else self.versions("negative", modality)
        trained_for: dict[str, float] = {}
        for version in [one for one in found if choice in (NEWEST, one.id)][:1]:
            with suppress(InputError):
                trained_for = _adapter_file(version).trained_for
        family = self.family.at_shares(trained_for)
        return family.alpha, family.beta

    def put_on(self, choices: dict[Role, str] | None = None, modality: str = "image") -> VersionsInUse:
        """Puts on the chosen version of each role (an id, or NEWEST, the default) for the next pictures or clips;
        returns what is in use for them then.

        A version asked for by its id that cannot be read raises InputError and leaves what was in use. A newest one
        that cannot be read is passed over for the next, with a note: a failed training must not stop the app.
        """
        versions: dict[Role, AdapterVersion] = {}
        notes: list[str] = []
        for role in ROLES:
            choice = (choices or {}).get(role, NEWEST)
            if choice == NEWEST:
                chosen = self._put_on_first_readable(self._to_fall_back_on(role, modality), notes, modality)
            else:
                chosen = _find(self.versions(role, modality), choice, role)
                self._put_on_one(chosen, modality)
            if chosen is not None:
                versions[role] = chosen
        return VersionsInUse(versions, tuple(notes))

    def _put_on_first_readable(
        self, offered: list[AdapterVersion], notes: list[str], modality: str
    ) -> AdapterVersion | None:
        for version in offered:
            try:
                self._put_on_one(version, modality)
                return version
            except InputError as error:
                logger.warning("Version %s passed over: %s", version.name, error)
                notes.append(f"{error} The version before it is used.")
        if offered:
            raise InputError(notes[-1].removesuffix(" The version before it is used."))
        return None

    def _put_on_one(self, version: AdapterVersion, modality: str) -> None:
        current = self._generator.adapters(modality).get(version.role) if version.sha256 else None
        if current and (current.id, current.sha256) == (version.id, version.sha256):
            return
        adapter = _adapter_file(version)
        current = self._generator.adapters(modality).get(version.role)
        if current is None or (current.id, current.sha256) != (adapter.id, adapter.sha256):
            self._generator.use_adapter(adapter, modality)


def _registered(record: AdapterRecord) -> AdapterVersion:
    assert record.id is not None  # the store gives every record one
    return AdapterVersion(record.id, record.role, record.name, Path(record.path), record.sha256, record.created_at)


def _adapter_file(version: AdapterVersion) -> AdapterFile:
    """The file behind a version. A registered one keeps its registered sha256, so that a change is noticed."""
    if version.sha256 is None:
        return adapter_file(version.path, version.role, id=version.id)
    return AdapterFile(version.id, version.role, locate_adapter(version.path), version.sha256)


def _find(offered: list[AdapterVersion], choice: str, role: Role) -> AdapterVersion:
    for version in offered:
        if version.id == choice:
            return version
    raise InputError(f"There is no {role} version {choice!r}; choose one that the list offers, or {NEWEST!r}.")
