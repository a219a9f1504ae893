"""What the pages and the API are given: every service of one family over one store."""

from __future__ import annotations

import logging
import os
import secrets
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from collection.maintenance.belongings import SECRET_FILE
from collection.statistics.summary import Summary, summarise
from collection.store import Store
from collection.types import AllBut
from npo_core.catalog import hub
from npo_core.catalog.families import ModelFamily, get_family
from npo_core.catalog.prompts import PromptGuide, load_guide
from npo_core.generator import Generator
from service.arena.compare import CompareService
from service.arena.limits import Limits, Turnstile
from service.arena.pool import PoolService
from service.arena.study import StudyService
from service.arena.visitors import Visitors
from service.errors import InputError
from service.generation.adapters_in_use import AdapterShelf
from service.generation.families import SHIPPED, FamilyOffer, family_offers
from service.generation.generation_queue import Desk
from service.operations.health import Health
from service.operations.shared_reads import SharedReads
from service.training.admin import AdminGate
from service.training.retrain import RetrainService

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Services:
    """The services of one family. `guide` is None where it has no vocabulary; `secret` ties browsers to this data.

    `offers` is every family with what it lacks, `others` the services of those that can be chosen too, and `first` the
    family that the app opened with. `notice` is a sentence for the visitor: why it is not the one that was asked for.
    """

    family: ModelFamily
    store: Store
    generator: Generator
    shelf: AdapterShelf
    visitors: Visitors
    compare: CompareService
    pool: PoolService
    study: StudyService
    guide: PromptGuide | None
    secret: str
    retrain: RetrainService
    health: Health
    reads: SharedReads
    offers: tuple[FamilyOffer, ...] = ()
    others: tuple[Services, ...] = ()
    first: str = ""
    notice: str = ""

    @property
    def suggestions(self) -> tuple[str, ...]:
        """Prompts to try: of the family's vocabulary, or of the family itself."""
        return self.guide.suggestions if self.guide else self.family.suggestions

    def results(self, study: str | None = None, modality: str | None = None) -> Summary:
        """What everybody may know of the blind votes on this family, or of a study; of one modality, or of all.

        Nothing of a study that is open, or its participants would know what others said, and no prompts outside of
        studies, for visitors wrote them. Summed up once in a few seconds for all who ask. InputError for an open study.
        """
        return self.reads.get(("results", self.family.name, study, modality), lambda: self._summed_up(study, modality))

    def _summed_up(self, study: str | None, modality: str | None) -> Summary:
        open_now = self.store.open_studies()
        if study in open_now:
            raise InputError(f"The study {study!r} is open; its results can be read here when it is closed.")
        if study:
            return summarise(self.store, None, modality, study)
        summary = summarise(self.store, self.family.name, modality, AllBut(open_now))
        return replace(summary, best_prompts=[], worst_prompts=[])

    def results_by_modality(self) -> dict[str, Summary]:
        """The votes on this family's pictures and on its clips apart, of which there are any: how good a variant is at
        one says nothing of the other."""

        def voted_on() -> list[str]:
            return self.store.modalities_voted_on(self.family.name, AllBut(self.store.open_studies()))

        found = self.reads.get(("modalities", self.family.name), voted_on)
        return {modality: self.results(modality=modality) for modality in found}

    def decided_picks(self) -> dict[str, int]:
        """Modality -> picks that a training on it can use: one on clips takes none on pictures, and the other way
        round."""
        return {
            modality: sum(count.wins_a + count.wins_b for count in self.store.vote_counts(self.family.name, modality))
            for modality in self.family.modalities
        }


def open_services(
    family: str | ModelFamily,
    database_url: str,
    data_dir: Path | str,
    *,
    safety: bool = True,
    gate: AdminGate | None = None,
    limits: Limits | None = None,
) -> Services:
    """Opens the store and everything over it; the model itself is loaded at its first use.

    `gate` says who may retrain, nobody without one. `limits` are shared by all families. `safety` False switches off
    the safety checkers of the families that have one. Raises InputError (of either core) for an unknown family, a
    database or data folder that cannot be used.
    """
    generator = Generator(family, safety=safety)
    store = Store(database_url, data_dir)
    retrain = RetrainService(store, generator.family.name, Path(data_dir), gate or AdminGate(None))
    limits = limits or Limits()
    visitors = Visitors(store, browser_secret(Path(data_dir)), Turnstile(limits))
    return _services(generator, store, visitors, Desk(limits.waiting), SharedReads(limits.results_every_s), retrain)


def open_lab(
    family: str,
    database_url: str,
    data_dir: Path | str,
    *,
    safety: bool = True,
    gate: AdminGate | None = None,
    limits: Limits | None = None,
) -> Services:
    """As `open_services`, with every other family that is on this machine beside it.

    They share the store and take turns on the device. Where the one that was asked for is not on this machine, the
    family that ships with the lab is opened instead, with a notice that says what is missing.
    """
    offers = family_offers()
    here = [offer.family.name for offer in offers if not offer.missing]
    get_family(family)  # an unknown name is a mistake, not a model to fetch
    opened = family if family in here else SHIPPED
    first = open_services(opened, database_url, data_dir, safety=safety, gate=gate, limits=limits)

    def beside(name: str) -> Services:
        retrain = RetrainService(first.store, name, Path(data_dir), first.retrain.gate)
        generator = Generator(name, safety=safety)
        shared = (first.store, first.visitors, first.compare.desk, first.reads)
        return replace(_services(generator, *shared, retrain), offers=offers, first=opened)

    others = tuple(beside(name) for name in here if name != opened)
    notice = ""
    if opened != family:
        notice = _reason(get_family(family))
        logger.warning("%s Until then the lab serves %s.", notice, opened)
    return replace(first, offers=offers, others=others, first=opened, notice=notice)


def _services(
    generator: Generator, store: Store, visitors: Visitors, desk: Desk, reads: SharedReads, retrain: RetrainService
) -> Services:
    shelf = AdapterShelf(store, generator)
    family = generator.family
    compare = CompareService(store, generator, shelf, visitors, desk=desk)
    return Services(
        family=family,
        store=store,
        generator=generator,
        shelf=shelf,
        visitors=visitors,
        compare=compare,
        pool=PoolService(store, family.name, visitors),
        study=StudyService(store, visitors.secret, visitors.turnstile),
        guide=load_guide(family.guide) if family.guide else None,
        secret=visitors.secret,
        retrain=retrain,
        health=Health(store, desk, compare),
        reads=reads,
    )


def _reason(family: ModelFamily) -> str:
    """Why `family` cannot be opened."""
    try:
        hub.require(family)
    except InputError as error:
        return str(error)
    return f"{family.label} can be opened after a restart."


def browser_secret(data_dir: Path) -> str:
    """The secret that browsers' identities are kept with: made once, then read back, so that restarts keep them."""
    file = data_dir / SECRET_FILE
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        if not file.exists():
            complete = file.with_name(f".{file.name}.{os.getpid()}")
            complete.touch(mode=0o600)
            complete.write_text(secrets.token_hex(16), encoding="ascii")
            with suppress(FileExistsError):  # another process was first: its secret holds
                os.link(complete, file)
            complete.unlink()
        return file.read_text(encoding="ascii").strip()
    except OSError as error:
        raise InputError(
            f"The data folder {data_dir} cannot be used ({error.strerror}); make it writable or set NPO_DATA_DIR."
        ) from None
