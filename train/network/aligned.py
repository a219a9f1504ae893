"""The adapters that the app uses: the aligned model that a negative one is trained beside, above all."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from collection.store import Store
from npo_core.catalog.adapter_files import AdapterFile, Role, adapter_file
from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError

if TYPE_CHECKING:
    from npo_core.weights import AdapterWeights

logger = logging.getLogger(__name__)


def adapter_in_use(role: Role, family: ModelFamily, store: Store | None, modality: str = "image") -> AdapterFile | None:
    """The version that was put to use last, in the database, or where that cannot be read the one before it; the
    family's own where there is none, and None where it has none either.

    A file is told by what is in it now, so that the records say what was trained beside.
    """
    for record in store.promoted(family.name, role, modality) if store is not None else ():
        try:
            return adapter_file(record.path, role, record.id)
        except InputError as error:  # the app passes it over too
            logger.warning("%s is passed over: %s", record.name, error)
    own = family.aligned if role == "aligned" else family.negative
    return adapter_file(own, role, f"{family.name}-{role}") if own else None


def load_aligned(aligned: AdapterFile | None) -> AdapterWeights | None:
    """Its weights."""
    from npo_core.weights import load_adapter

    return load_adapter(aligned.path) if aligned is not None else None


def aligned_facts(aligned: AdapterFile | None) -> dict[str, str]:
    """What the records of a training beside it say of it."""
    return {} if aligned is None else {"aligned_id": aligned.id, "aligned_sha256": aligned.sha256}
