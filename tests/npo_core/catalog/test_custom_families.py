from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from npo_core.catalog import families
from npo_core.catalog.custom_families import add_families
from npo_core.catalog.families import FAMILIES, ModelFamily
from npo_core.errors import InputError
from npo_core.generator import GenerationRequest, Generator


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = dict(families.FAMILIES)
    yield
    families.FAMILIES.clear()
    families.FAMILIES.update(before)


def test_a_family_of_ones_own_paints_without_any_code(family: ModelFamily, tmp_path: Path) -> None:
    (tmp_path / "model").symlink_to(family.base)
    file = tmp_path / "families.toml"
    file.write_text(
        """
        [mine]
        like = "sd15"
        label = "Mine"
        base = "./model"
        aligned = "./model/aligned"
        negative = "./model/negative/pytorch_lora_weights.safetensors"
        width_px = 64
        height_px = 64
        steps = 2
        beta = 2
        """
    )
    add_families(file)
    mine = FAMILIES["mine"]
    assert (mine.label, mine.scheduler, mine.beta, mine.steps) == ("Mine", "dpmsolver++", 2, 2)
    assert len(Generator("mine").generate(GenerationRequest("a cat")).samples) == 3


def test_a_byte_order_mark_changes_nothing(tmp_path: Path) -> None:
    file = tmp_path / "families.toml"
    file.write_text('[tuned]\nlike = "sdxl"\nsteps = 7\n', encoding="utf-8-sig")
    add_families(file)
    assert FAMILIES["tuned"].steps == 7


def test_what_is_not_given_is_the_familys_it_is_like_and_weights_go_with_their_base(tmp_path: Path) -> None:
    file = tmp_path / "families.toml"
    file.write_text('[tuned]\nlike = "sdxl"\naligned = "me/tuned/unet"\n\n[own]\nlike = "sdxl"\nbase = "me/base"\n')
    add_families(file)
    assert FAMILIES["tuned"].base == FAMILIES["sdxl"].base
    assert FAMILIES["tuned"].negative == FAMILIES["sdxl"].negative
    assert FAMILIES["own"].aligned is FAMILIES["own"].negative is None
    assert FAMILIES["own"].vae == FAMILIES["sdxl"].vae
    add_families(None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[", "cannot be read"),
        ('[emoji]\nlike = "sd15"', "none that ships"),
        ('["a/b"]\nlike = "sd15"', "use small letters and digits"),
        ("[mine]", 'lacks like = "..."'),
        ("mine = 3", 'lacks like = "..."'),
        ('[mine]\nlike = "sd9"', "Unknown family 'sd9'; choose from emoji"),
        ('[mine]\nlike = "sd15"\nwidth = 3', "has no setting 'width'; choose from like, label"),
        ('[mine]\nlike = "sd15"\nsteps = "many"', "has steps = 'many'; give a whole number"),
        ('[mine]\nlike = "sd15"\nalpha = true', "has alpha = True; give a number"),
        ('[mine]\nlike = "sd15"\nbase = 3', "has base = 3; give a text"),
        ('[mine]\nlike = "sd15"\nbase = "tiny"', 'for what lies beside families.toml write "./tiny"'),
        ('[mine]\nlike = "sd15"\nvae = "sub/folder"', 'write "./sub/folder"'),
    ],
)
def test_a_wrong_file_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    file = tmp_path / "families.toml"
    file.write_text(text)
    (tmp_path / "sub" / "folder").mkdir(parents=True)
    with pytest.raises(InputError) as raised:
        add_families(file)
    assert sentence in str(raised.value)
    with pytest.raises(InputError, match="cannot be read"):
        add_families(tmp_path / "none.toml")
