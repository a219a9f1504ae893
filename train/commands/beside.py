"""What stands beside the adapter that a command trains: the aligned model of the app, and what validates it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from collection.store import Store
from npo_core.catalog.adapter_files import AdapterFile
from npo_core.catalog.families import ModelFamily
from train.engine.config import TrainConfig
from train.network.aligned import adapter_in_use, aligned_facts

if TYPE_CHECKING:
    from train.engine.validation import Validator

GRID_PROMPTS = 6


def aligned_for(config: TrainConfig, family: ModelFamily, store: Store | None) -> AdapterFile | None:
    """The aligned model that the app uses, where this training needs it: to train beside it, or to draw with."""
    draws = config.validate_every is not None and config.modality == "image"
    if config.through_guidance is None and not draws:
        return None
    return adapter_in_use("aligned", family, store, config.modality)


def beside(config: TrainConfig, aligned: AdapterFile | None) -> tuple[str, ...]:
    """Which aligned model stands on the prompt, for a person."""
    if config.through_guidance is None or aligned is None:
        return ()
    return (f"The aligned model beside it is {aligned.id} (sha256 {aligned.sha256[:12]}).",)


def facts_beside(config: TrainConfig, aligned: AdapterFile | None) -> dict[str, str]:
    """What the records say of it."""
    return {} if config.through_guidance is None else aligned_facts(aligned)


def validators(
    config: TrainConfig, family: ModelFamily, prompts: Sequence[str], aligned: AdapterFile | None
) -> list[Validator]:
    """A grid of pictures of the first few distinct `prompts` beside `aligned`, where the run validates at all and is
    about pictures."""
    if config.validate_every is None or config.modality != "image":
        return []
    from npo_core.generator import Generator
    from train.engine.validation import PictureGrid
    from train.judging.scorers import load_scorer

    distinct = list(dict.fromkeys(prompts))[:GRID_PROMPTS]
    scorer = load_scorer("emoji", family) if family.scorer else None
    return [PictureGrid(Generator(family, aligned=aligned, device=config.device), config.role, distinct, scorer)]
