from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from urllib.request import urlopen

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from huggingface_hub import constants

from npo_core.catalog.families import FAMILIES
from service.arena.ballot_ids import read_ballot_id
from service.services import Services, open_lab
from tests.tiny import tiny_family
from tests.ui.serving import serving
from ui.components.family_menu import menu, results_links


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """Two families on this machine, one (whose label is hostile) not."""
    folder = tmp_path_factory.mktemp("lab")
    families = {
        "emoji": tiny_family(folder, "emoji"),
        "second": replace(tiny_family(folder, "second"), label="Second", guide=None),
        "absent": replace(FAMILIES["sdxl"], name="absent", label="<b>Absent</b>"),
    }
    before = dict(FAMILIES)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(constants, "HF_HUB_CACHE", str(folder / "cache"))
        patch.setattr(constants, "HF_HUB_OFFLINE", True)
        FAMILIES.clear()
        FAMILIES.update(families)
        yield open_lab("emoji", f"sqlite:///{folder}/npo.db", folder)
        FAMILIES.clear()
        FAMILIES.update(before)


@pytest.fixture(scope="module")
def address(lab: Services) -> Iterator[str]:
    with serving(lab) as running:
        yield running


def test_the_menu_links_what_is_here_and_tells_what_the_rest_needs(lab: Services) -> None:
    shown = menu(lab)
    assert "2 of 3 on this machine" in shown
    assert 'href="./second"' in shown
    assert 'href="./"' not in shown, "it is the one in use"
    assert 'href="./"' in menu(lab.others[0]), "and from the other page the way back"
    assert "<li>base model stabilityai/stable-diffusion-xl-base-1.0</li>" in shown
    assert "<li>VAE madebyollin/sdxl-vae-fp16-fix</li>" in shown
    assert "<code>python -m npo_core.weights fetch --family absent</code>" in shown
    assert "<b>" not in shown
    assert menu(replace(lab, offers=())) == ""
    rows = results_links(lab)
    assert '<a href="./results" aria-current=page>Tiny</a><a href="./second-results">Second</a>' in rows
    assert "absent" not in rows
    assert results_links(replace(lab, offers=())) == ""


def test_every_family_that_is_here_has_a_page_and_the_script_can_choose_it(lab: Services, address: str) -> None:
    with urlopen(f"{address}second") as page:
        assert b"Second" in page.read()
    with urlopen(f"{address}second-results") as page:
        assert page.status == 200
    client = Client(address, verbose=False)
    shown = client.predict("a red apple", 7, family="second", api_name="/generate")
    assert {made.family for made in lab.store.comparison(read_ballot_id(shown["ballot_id"]).key)} == {"second"}
    names = client.predict(shown["ballot_id"], "A", shown["participant_id"], api_name="/vote")
    assert set(names["panels"]) == {"A", "B", "C"}
    with pytest.raises(AppError, match="The family 'absent' is not on this machine; choose from emoji, second"):
        client.predict("a red apple", 7, family="absent", api_name="/generate")
