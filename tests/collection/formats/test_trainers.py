"""Folders for other trainers say the same pairs in their own words.

What each loader does was read in its source (August 2026) and is written down beside the checks: SimpleTuner's
`MultiAspectSampler.get_conditioning_sample` and `prepare_instance_prompt_from_textfile`, OneTrainer's pattern concepts,
pull request 1427 of sd-scripts, and `OfflineDPODataset` of VeRL-Omni.
"""

from __future__ import annotations

import hashlib
import io
import json
import tomllib
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from collection.__main__ import main
from collection.errors import InputError
from collection.formats.exporters import EXPORTERS
from collection.store import Store
from tests.collection.helpers import cast, generation

PROMPTS = ("a red apple\n  on a\u2028table", "تفاحة حمراء 🍎", "👩‍👩‍👧‍👦 family", 'a "12" pizza', "tie", "both", "skip")
CHOICES = ("left", "right", "left", "right", "tie", "both_bad", "skip")
Pairs = list[tuple[str, bytes, bytes]]


def picture(colour: str, format: str = "PNG") -> tuple[bytes, str]:
    buffer = io.BytesIO()
    Image.new("RGB", (16, 16), colour).save(buffer, format)
    return buffer.getvalue(), f"image/{format.lower()}"


@pytest.fixture
def pairs(store: Store) -> Pairs:
    """(prompt, preferred, rejected) of what was decided in `store`; the last pair is of two formats."""
    person, expected = store.create_participant(), []
    for number, (prompt, choice) in enumerate(zip(PROMPTS, CHOICES, strict=True)):
        both = [picture(f"#{number:02x}0000"), picture(f"#00{number:02x}ff", "JPEG" if number == 3 else "PNG")]
        made = [
            generation(
                variant,
                f"c{number}",
                prompt=prompt,
                seed=number,
                media=media,
                media_type=kind,
                media_sha256=hashlib.sha256(media).hexdigest(),
            )
            for variant, (media, kind) in zip(("base", "aligned"), both, strict=True)
        ]
        cast(store, person, *store.add_generations(made), choice)  # type: ignore[arg-type]
        if choice in ("left", "right"):
            first, second = (media for media, _ in both)
            expected.append((prompt, first, second) if choice == "left" else (prompt, second, first))
    return expected


def one_line(prompt: str) -> str:
    return " ".join(part.strip() for part in prompt.split("\n"))


def by_simpletuner(folder: Path) -> Pairs:
    """A preferred picture's partner has its path with one data folder in place of the other."""
    preferred, rejected, texts = json.loads((folder / "multidatabackend.json").read_text(encoding="utf-8"))
    assert preferred["conditioning_data"] == [rejected["id"]]
    assert (rejected["dataset_type"], rejected["conditioning_type"]) == ("conditioning", "reference_strict")
    assert (preferred["dataset_type"], rejected["source_dataset_id"]) == ("image", preferred["id"])
    assert (texts["dataset_type"], texts["default"]) == ("text_embeds", True)
    assert preferred["caption_strategy"] == "textfile"
    assert preferred["disable_multiline_split"] is True, "or a line break makes two captions"
    found = []
    for file in sorted(Path(preferred["instance_data_dir"]).glob("*.png")):
        partner = Path(str(file).replace(preferred["instance_data_dir"], rejected["instance_data_dir"], 1))
        found.append((file.with_suffix(".txt").read_bytes().decode(), file.read_bytes(), partner.read_bytes()))
    return found


def by_onetrainer(folder: Path) -> Pairs:
    """In one concept the files that match a pattern are chosen; {} of the other pattern is what {} stood for."""
    (concept,) = json.loads((folder / "concepts.json").read_text(encoding="utf-8"))
    assert (concept["type"], concept["enabled"], concept["include_subdirectories"]) == ("STANDARD", True, True)
    assert concept["text"]["prompt_source"] == "sample"
    root, found = Path(concept["path"]), []
    for file in sorted(root.glob(concept["dpo_chosen_pattern"].format("*") + ".png")):
        partner = root / (concept["dpo_rejected_pattern"].format(file.stem) + ".png")
        (caption,) = file.with_suffix(".txt").read_text(encoding="utf-8").split("\n")
        found.append((caption, file.read_bytes(), partner.read_bytes()))
    return found


def by_sd_scripts(folder: Path) -> Pairs:
    """w/ and l/ of a preference subset, equal names, each with a caption file of one line."""
    settings = tomllib.loads((folder / "dataset.toml").read_text(encoding="utf-8"))
    ((subset,),) = [dataset["subsets"] for dataset in settings["datasets"]]
    assert subset["preference"] is True
    root, suffix = Path(subset["image_dir"]), settings["general"]["caption_extension"]
    found = []
    for file in sorted((root / "w").glob("*.png")):
        partner = root / "l" / file.name
        caption = file.with_suffix(suffix).read_text(encoding="utf-8")
        assert partner.with_suffix(suffix).read_text(encoding="utf-8") == caption.split("\n")[0] == caption
        found.append((caption, file.read_bytes(), partner.read_bytes()))
    return found


def by_verl_omni(folder: Path) -> Pairs:
    """Paths start at the file; scores are in order; extra_info has the plain prompt, which is also what users said."""
    found = []
    for row in pq.read_table(folder / "pairs.parquet").to_pylist():
        assert row["win_score"] > row["lose_score"]
        assert [message["content"] for message in row["prompt"] if message["role"] == "user"] == [
            row["extra_info"]["raw_prompt"]
        ]
        pictures = [(folder / row[name]).read_bytes() for name in ("img_win", "img_lose")]
        found.append((row["extra_info"]["raw_prompt"], *pictures))
    assert len({row["uid"] for row in pq.read_table(folder / "pairs.parquet").to_pylist()}) == len(found)
    return found


LOADERS: dict[str, tuple[Callable[[Path], Pairs], Callable[[str], str]]] = {
    "simpletuner": (by_simpletuner, str),
    "onetrainer": (by_onetrainer, one_line),
    "sd-scripts": (by_sd_scripts, one_line),
    "verl-omni": (by_verl_omni, str),
}


def pixels(picture: bytes) -> bytes:
    return Image.open(io.BytesIO(picture)).convert("RGB").tobytes()


@pytest.mark.parametrize("name", LOADERS)
def test_a_loader_finds_the_pairs_that_people_decided(name: str, store: Store, pairs: Pairs, tmp_path: Path) -> None:
    load, said = LOADERS[name]
    folder = tmp_path / 'a "new" folder' / "pairs"
    assert EXPORTERS[name](store.exported_votes(), store.media, folder) == len(pairs) == 4
    found = load(folder)
    assert [prompt for prompt, _, _ in found] == [said(prompt) for prompt, _, _ in pairs]
    assert [both for _, *both in found[:3]] == [both for _, *both in pairs[:3]], "the very bytes"
    assert [pixels(picture) for picture in found[3][1:]] == [pixels(picture) for picture in pairs[3][1:]]
    assert list(folder.parent.iterdir()) == [folder]


@pytest.mark.parametrize("name", LOADERS)
def test_a_folder_with_other_pairs_is_not_mixed_up(name: str, store: Store, pairs: Pairs, tmp_path: Path) -> None:
    (tmp_path / "pairs" / "w").mkdir(parents=True)
    with pytest.raises(InputError, match="holds something already"):
        EXPORTERS[name](store.exported_votes(), store.media, tmp_path / "pairs")
    assert [path.name for path in (tmp_path / "pairs").iterdir()] == ["w"]
    (tmp_path / "pairs" / "w").rmdir()
    media = store.media_path(next(store.exported_votes()).left)
    media.rename(media.with_suffix(".gone"))
    with pytest.raises(InputError, match="is missing"):
        EXPORTERS[name](store.exported_votes(), store.media, tmp_path / "pairs")
    assert list((tmp_path / "pairs").iterdir()) == [], "all or nothing"


def test_the_command_tells_what_is_in_no_pair(
    store: Store, pairs: Pairs, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = ["--database-url", store.url.render_as_string(False), "--data-dir", str(tmp_path / "data")]
    assert main(["export", "--format", "sd-scripts", "--out", str(tmp_path / "pairs"), *database]) == 0
    assert "Wrote 4 votes" in (told := capsys.readouterr().out)
    assert "Left out 3 votes that do not count, or order no pair" in told
