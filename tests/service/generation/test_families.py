from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import constants

from npo_core.catalog.families import FAMILIES, ModelFamily
from npo_core.errors import FlaggedError, InputError
from npo_core.generator import GenerationRequest
from service.generation.families import family_offers
from service.services import Services, open_lab
from tests.published import tiny_safety_checker, tiny_sd15
from tests.tiny import tiny_family

REQUEST = GenerationRequest("a red apple", seed=1)


@pytest.fixture
def two_families(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The menu holds the shipped one (tiny), a second one on this machine, and one that is not."""
    families = {
        "emoji": tiny_family(tmp_path, "emoji"),
        "second": replace(tiny_family(tmp_path, "second"), guide=None),
        "sd15": FAMILIES["sd15"],
    }
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    before = dict(FAMILIES)
    FAMILIES.clear()
    FAMILIES.update(families)
    yield
    FAMILIES.clear()
    FAMILIES.update(before)


def lab(family: str, tmp_path: Path, **options: bool) -> Services:
    return open_lab(family, f"sqlite:///{tmp_path}/npo.db", tmp_path / "data", **options)


def test_the_menu_has_every_family_and_says_what_is_missing(two_families: None) -> None:
    offers = {offer.family.name: offer for offer in family_offers()}
    assert list(offers) == ["emoji", "second", "sd15"]
    assert offers["second"].missing == ()
    assert offers["sd15"].missing[0] == "base model stable-diffusion-v1-5/stable-diffusion-v1-5"
    assert offers["sd15"].command == "python -m npo_core.weights fetch --family sd15"


def test_a_family_that_is_not_here_opens_the_shipped_one_and_says_why(two_families: None, tmp_path: Path) -> None:
    services = lab("sd15", tmp_path)
    assert services.family.name == services.first == "emoji"
    assert services.notice.startswith("Stable Diffusion 1.5 is not complete on this machine (missing: base model")
    assert services.notice.endswith("fetch it with `python -m npo_core.weights fetch --family sd15`.")
    assert len(services.compare.compare(REQUEST, services.visitors.named(None)).panels) == 3
    with pytest.raises(InputError, match="Unknown family 'sd9'"):
        lab("sd9", tmp_path)


def test_families_share_the_store_and_take_turns_in_memory(two_families: None, tmp_path: Path) -> None:
    services = lab("second", tmp_path)
    assert (services.family.name, services.notice) == ("second", "")
    (other,) = services.others
    assert (other.family.name, other.store, other.first) == ("emoji", services.store, "second")
    who = services.visitors.named(None)
    shown = services.compare.compare(REQUEST, who, own_seed=True)
    assert services.generator._samplers
    other.compare.compare(REQUEST, who, own_seed=True)
    assert other.generator._samplers
    assert not services.generator._samplers, "the first made room"
    again = services.compare.compare(REQUEST, who, own_seed=True)
    made = {generation.family for generation in services.store.comparison(again.comparison_id)}
    assert made == {"second"}
    assert sorted(panel.media for panel in again.panels) == sorted(panel.media for panel in shown.panels)


@pytest.fixture
def flagging(tmp_path: Path) -> ModelFamily:
    """A family whose safety checker flags everything."""
    family = tiny_family(tmp_path, "flagging")
    pipeline = tiny_sd15()
    pipeline.register_modules(safety_checker=tiny_safety_checker(flags=True))
    pipeline.save_pretrained(family.base)
    return family


def test_what_the_safety_checker_flags_is_neither_shown_nor_stored(
    two_families: None, flagging: ModelFamily, tmp_path: Path
) -> None:
    FAMILIES["flagging"] = flagging
    services = lab("flagging", tmp_path)
    who = services.visitors.named(None)
    previews = []
    with pytest.raises(FlaggedError, match="flagged 3 of 3 results, so none is shown or kept"):
        services.compare.compare(REQUEST, who, on_step=lambda progress: previews.extend(progress.preview()))
    assert previews
    assert all(image.getextrema() == ((0, 0),) * 3 for image in previews), "previews are black"
    assert not list((tmp_path / "data").rglob("*.png"))
    assert (services.results().totals.votes, services.results().totals.comparisons) == (0, 0)
    for_research = lab("flagging", tmp_path, safety=False)
    assert len(for_research.compare.compare(REQUEST, who).panels) == 3
