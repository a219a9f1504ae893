"""What the pages and the API are given: every service of one family over one store."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from collection.report import Summary, summarise
from collection.store import Store
from npo_core.families import ModelFamily
from npo_core.generator import Generator
from npo_core.prompts import PromptGuide, load_guide
from service.adapters import AdapterShelf
from service.compare import CompareService
from service.errors import InputError
from service.pool import PoolService

SECRET_FILE_NAME = "participant_secret"


@dataclass(frozen=True)
class Services:
    """One app's services. `guide` is None for a family without a vocabulary; `secret` ties browsers to this data."""

    family: ModelFamily
    store: Store
    generator: Generator
    shelf: AdapterShelf
    compare: CompareService
    pool: PoolService
    guide: PromptGuide | None
    secret: str

    def results(self) -> Summary:
        """What the blind votes on this family say so far."""
        return summarise(self.store, self.family.name)


def open_services(family: str | ModelFamily, database_url: str, data_dir: Path | str) -> Services:
    """Opens the store and everything over it; the model itself is loaded at its first use.

    Raises InputError (of either core) for an unknown family, a database or data folder that cannot be used.
    """
    generator = Generator(family)
    store = Store(database_url, data_dir)
    shelf = AdapterShelf(store, generator)
    guide = load_guide(generator.family.guide) if generator.family.guide else None
    return Services(
        family=generator.family,
        store=store,
        generator=generator,
        shelf=shelf,
        compare=CompareService(store, generator, shelf),
        pool=PoolService(store, generator.family.name),
        guide=guide,
        secret=browser_secret(Path(data_dir)),
    )


def browser_secret(data_dir: Path) -> str:
    """The secret that browsers' identities are kept with: made once, then read back, so that restarts keep them."""
    file = data_dir / SECRET_FILE_NAME
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
