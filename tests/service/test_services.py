from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from PIL import Image

from npo_core.catalog.families import ModelFamily
from npo_core.generator import Generator
from npo_core.media.files import open_image
from service.about_figure import draw_rows, make_figure
from service.arena.picks import Pick
from service.arena.strip import strip_json, strip_png
from service.errors import INPUT_ERRORS, InputError
from service.services import Services, browser_secret, open_services
from tests.service.helpers import REQUEST


def test_the_browser_secret_is_made_once_and_outlives_a_restart(tmp_path: Path) -> None:
    secret = browser_secret(tmp_path / "new")
    assert len(secret) == 32
    assert browser_secret(tmp_path / "new") == secret
    assert browser_secret(tmp_path / "other") != secret


def test_a_data_folder_that_cannot_be_used_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(InputError, match=r"data folder .* cannot be used .*; make it writable or set NPO_DATA_DIR"):
        browser_secret(tmp_path / "file")


@pytest.mark.parametrize(
    ("family", "url", "words"),
    [
        ("nonsense", "sqlite:///{tmp}/npo.db", "Unknown family 'nonsense'; choose from"),
        ("emoji", "sqlite:///{tmp}/file/npo.db", "cannot be"),
        ("emoji", "mysql://host/name", "scheme 'mysql' is unknown"),
        ("emoji", "nonsense", "not a database URL"),
    ],
)
def test_what_cannot_be_opened_is_one_sentence(tmp_path: Path, family: str, url: str, words: str) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(INPUT_ERRORS) as raised:
        open_services(family, url.format(tmp=tmp_path), tmp_path / "data")
    assert words in str(raised.value)
    assert "\n" not in str(raised.value)


def test_open_services_reads_the_familys_vocabulary(tmp_path: Path, family: ModelFamily) -> None:
    services = open_services(family, f"sqlite:///{tmp_path / 'npo.db'}", tmp_path)
    assert services.guide is not None
    assert services.guide.styles == ("3d", "cartoon", "flat")


def test_the_strip_shows_names_and_settings_and_carries_its_record(services: Services) -> None:
    who = services.visitors.named(None)
    view = services.compare.compare(REQUEST, who)
    revealed = services.compare.vote(view.comparison_id, who, Pick("A", "B"))
    record = json.loads(strip_json(revealed))
    assert record["settings"]["prompt"] == "a red apple"
    assert record["settings"]["negative_sha256"] == services.generator.adapters()["negative"].sha256
    assert record["pick"] == {"best": "A", "worst": "B", "no_difference": False, "blind": True}
    png = strip_png(revealed)
    image = open_image(png)
    assert image.width > 3 * 256
    with Image.open(io.BytesIO(png)) as opened:
        opened.load()
        assert json.loads(opened.text["diffusion-npo-lab"]) == record  # type: ignore[attr-defined]


def test_the_figure_of_about_has_a_row_for_each_prompt_and_a_column_for_each_variant(generator: Generator) -> None:
    one = make_figure(generator, ["a red apple"], 0)
    two = make_figure(generator, ["a red apple", "a cat"], 0)
    assert one.width == two.width > 3 * 256
    assert two.height - one.height >= 256
    plain = draw_rows([("p", [Image.new("RGB", (8, 8), "red")] * 3)], ["x", "y", "z"])
    assert plain.getpixel((100, 100)) == (255, 0, 0)
