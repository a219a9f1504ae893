from __future__ import annotations

import pytest

from npo_core.catalog.families import FAMILIES, SCHEDULERS, build_scheduler, get_family
from npo_core.errors import InputError
from tests.tiny import tiny_scheduler


@pytest.mark.parametrize("name", SCHEDULERS)
def test_every_scheduler_keeps_the_schedule_the_model_was_trained_with(name: str) -> None:
    trained = tiny_scheduler().config
    scheduler = build_scheduler(name, trained)
    assert type(scheduler).__name__ == SCHEDULERS[name]
    for key in ("prediction_type", "beta_schedule", "beta_start", "rescale_betas_zero_snr", "timestep_spacing"):
        assert scheduler.config[key] == trained[key]
    assert build_scheduler(name, trained) is not scheduler, "a scheduler has state, so each generation gets its own"


def test_an_unknown_scheduler_is_refused_naming_the_known() -> None:
    with pytest.raises(InputError, match="Unknown scheduler 'ddpm'; choose from ddim, euler"):
        build_scheduler("ddpm", tiny_scheduler().config)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_found_by_its_own_name(name: str) -> None:
    family = get_family(name)
    assert family.name == name
    assert family.label
    assert family.description
