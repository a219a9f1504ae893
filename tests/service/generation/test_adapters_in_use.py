from __future__ import annotations

from pathlib import Path

import pytest

from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from service.arena.compare import ComparisonView
from service.arena.picks import Pick
from service.errors import InputError
from service.generation.adapters_in_use import NEWEST, SHIPPED_NAME
from service.services import Services
from tests.service.helpers import REQUEST, make_services, register


def pictures(services: Services, **versions: str) -> dict[str, bytes]:
    """variant -> PNG bytes of REQUEST with the chosen versions."""
    who = services.visitors.named(None)
    view: ComparisonView = services.compare.compare(REQUEST, who, versions, own_seed=True)  # type: ignore[arg-type]
    revealed = services.compare.vote(view.comparison_id, who, Pick("A"))
    return {panel.variant: panel.media for panel in revealed.panels}


def test_the_shipped_version_is_offered_and_used_while_nothing_is_registered(services: Services) -> None:
    assert [version.name for version in services.shelf.versions("negative")] == [SHIPPED_NAME]
    in_use = services.shelf.put_on()
    assert in_use.names == {"aligned": SHIPPED_NAME, "negative": SHIPPED_NAME}
    assert in_use.notes == ()


def test_a_registered_version_is_offered_first_and_changes_only_the_variant_that_uses_it(
    services: Services, tmp_path: Path
) -> None:
    before = pictures(services)
    record = register(services, tmp_path, "negative", 11, "NPO from 24 picks")
    assert [version.name for version in services.shelf.versions("negative")] == ["NPO from 24 picks", SHIPPED_NAME]
    after = pictures(services)
    assert after["base"] == before["base"]
    assert after["aligned"] == before["aligned"]
    assert after["aligned_npo"] != before["aligned_npo"]
    newest = services.store.comparison(_last_comparison(services))[0]
    assert (newest.negative_id, newest.negative_sha256) == (record.id, record.sha256)


def test_an_older_version_can_be_asked_for_and_gives_its_pictures_back(services: Services, tmp_path: Path) -> None:
    before = pictures(services)
    register(services, tmp_path, "negative", 11, "newer")
    assert pictures(services, negative=NEWEST) != before
    assert pictures(services, negative="tiny-negative") == before


def test_a_corrupt_newest_version_is_passed_over_with_one_sentence(services: Services, tmp_path: Path) -> None:
    good = register(services, tmp_path, "negative", 11, "good")
    bad = register(services, tmp_path, "negative", 12, "bad")
    Path(bad.path).write_bytes(b"no safetensors")
    in_use = services.shelf.put_on()
    assert in_use.versions["negative"].id == good.id
    assert len(in_use.notes) == 1
    assert str(Path(bad.path)) in in_use.notes[0]
    assert "\n" not in in_use.notes[0]


def test_a_corrupt_version_asked_for_by_name_is_one_sentence_and_the_one_in_use_stays(
    services: Services, tmp_path: Path
) -> None:
    services.shelf.put_on()
    in_use = services.generator.adapters()["negative"]
    bad = register(services, tmp_path, "negative", 12, "bad")
    Path(bad.path).unlink()
    with pytest.raises(InputError, match="There is no adapter at"):
        services.shelf.put_on({"negative": bad.id or ""})
    assert services.generator.adapters()["negative"] == in_use


def test_a_file_that_changed_after_it_was_registered_is_not_used(services: Services, tmp_path: Path) -> None:
    record = register(services, tmp_path, "negative", 11, "first")
    register(services, tmp_path, "negative", 12, "first")  # overwrites the file and registers it once more
    with pytest.raises(InputError, match="changed since"):
        services.shelf.put_on({"negative": record.id or ""})


def test_an_unknown_version_is_one_sentence(services: Services) -> None:
    with pytest.raises(InputError, match="no negative version 'nonsense'"):
        services.shelf.put_on({"negative": "nonsense"})


def test_versions_of_another_family_are_not_offered(
    services: Services, tmp_path: Path, family: ModelFamily, generator: Generator
) -> None:
    from dataclasses import replace

    register(services, tmp_path, "negative", 11, "mine")
    other = make_services(tmp_path, replace(family, name="other"), Generator(replace(family, name="other")))
    assert [version.name for version in other.shelf.versions("negative")] == [SHIPPED_NAME]


def _last_comparison(services: Services) -> str:
    """The comparison whose pictures were stored last."""
    pairs = services.store.preference_pairs("tiny", blind_only=False).pairs
    vote = pairs[-1].vote_id
    found = [exported for exported in services.store.exported_votes() if exported.vote.id == vote]
    return found[0].left.comparison_id


def test_a_version_taken_back_gives_way_to_the_one_before_it_and_stays_on_offer(
    services: Services, tmp_path: Path
) -> None:
    first = register(services, tmp_path, "negative", 11, "first")
    second = register(services, tmp_path, "negative", 12, "second")
    with_first = pictures(services, negative=str(first.id))
    assert services.shelf.put_on().names["negative"] == "second"
    services.store.roll_back(services.family.name, "negative")
    assert services.shelf.put_on().names["negative"] == "first"
    assert pictures(services) == with_first
    assert [version.name for version in services.shelf.versions("negative")] == ["first", SHIPPED_NAME, "second"]
    services.store.promote(str(second.id))
    assert services.shelf.put_on().names["negative"] == "second"
    for _ in range(2):
        services.store.roll_back(services.family.name, "negative")
    assert services.shelf.put_on().names["negative"] == SHIPPED_NAME
