"""Pick-a-Pic rows to pairs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import train.npo
from npo_core.catalog import families
from npo_core.errors import InputError
from npo_core.media.files import open_image, png_bytes
from tests.tiny import tiny_family, tiny_pipeline
from train.pairs.dataset import LatentCache, from_dataset, pairs_of_rows


def picture(seed: int, width_px: int = 96, height_px: int = 64) -> bytes:
    return png_bytes(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height_px, width_px, 3), np.uint8)))


def row(label_0: float, first: bytes = picture(1), second: bytes = picture(2), **more: Any) -> dict[str, Any]:
    return {"caption": "a cat", "jpg_0": first, "jpg_1": second, "label_0": label_0, "label_1": 1 - label_0, **more}


def test_the_picture_with_label_1_is_preferred(cache: LatentCache) -> None:
    found = pairs_of_rows([row(1.0), row(0.0)], "file", cache)
    first, second = found.pairs
    assert first.source == "file#0"
    assert first.preferred.dtype == np.float16
    assert first.preferred.shape == (4, 8, 8)
    np.testing.assert_array_equal(first.preferred, second.rejected)
    assert not np.array_equal(first.preferred, first.rejected)


def test_ties_and_unusable_rows_are_left_out_and_counted(cache: LatentCache) -> None:
    rows = [
        row(0.5, has_label=False),
        row(0.5),
        row(1.0, has_label=False),
        row(1.0, second=b"no picture"),
        row(1.0, second=picture(1)),
        row(1.0, jpg_1=None),
        row(1.0, has_label=True),
    ]
    found = pairs_of_rows(rows, "file", cache)
    assert [pair.source for pair in found.pairs] == ["file#6"]
    assert found.dropped == {"tie": 3, "unreadable picture": 2, "same picture twice": 1}


def test_latents_are_those_the_pipeline_would_decode(cache: LatentCache) -> None:
    pipeline = tiny_pipeline()
    data = picture(3, 64, 64)
    (latents,) = cache.latents([data])
    pixels = torch.from_numpy(np.array(open_image(data))).float() / 127.5 - 1  # (H, W, 3)
    with torch.no_grad():
        expected = pipeline.vae.encode(pixels.permute(2, 0, 1)[None]).latent_dist.mean[0]
    expected = expected * pipeline.vae.config.scaling_factor
    np.testing.assert_allclose(latents, expected.numpy(), rtol=2e-3, atol=2e-3)


def test_a_picture_is_encoded_once(cache: LatentCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = pairs_of_rows([row(1.0)], "file", cache)
    assert len(list((tmp_path / "latents").rglob("*.npy"))) == 2
    monkeypatch.setattr(cache, "_encode", None)  # would fail if it were needed
    again = pairs_of_rows([row(1.0)], "file", cache)
    np.testing.assert_array_equal(first.pairs[0].preferred, again.pairs[0].preferred)


def test_another_autoencoder_does_not_use_these_latents(tmp_path: Path) -> None:
    for seed in (0, 1):
        LatentCache(tiny_pipeline(seed), 64, 64, tmp_path / "latents").latents([picture(1)])
    assert len(list((tmp_path / "latents").rglob("*.npy"))) == 2


def test_a_limit_stops_early(cache: LatentCache) -> None:
    rows = [row(1.0, picture(number), picture(number + 100)) for number in range(9)]
    assert len(pairs_of_rows(rows, "file", cache, max_pairs=5).pairs) == 5


def test_missing_columns_get_one_sentence(cache: LatentCache) -> None:
    with pytest.raises(InputError, match="no column jpg_0; it needs Pick-a-Pic's caption, jpg_0"):
        pairs_of_rows([{"caption": "a cat"}], "file", cache)


def test_training_reads_a_parquet_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    family = tiny_family(tmp_path)
    monkeypatch.setitem(families.FAMILIES, family.name, family)
    rows = [row(float(number % 2), picture(number), picture(number + 50), has_label=True) for number in range(4)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "pairs.parquet")
    command = f"--dataset {tmp_path}/pairs.parquet --family tiny --data-dir {tmp_path}/data --output-dir {tmp_path}/out"
    more = "--min-pairs 4 --max-train-steps 2 --batch-size 2 --rank 2 --device cpu"
    assert train.npo.main([*command.split(), *more.split()]) == 0
    assert (tmp_path / "out" / "pytorch_lora_weights.safetensors").is_file()


def test_a_data_set_that_is_not_there_gets_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    family = tiny_family(tmp_path)
    monkeypatch.setitem(families.FAMILIES, family.name, family)
    (tmp_path / "empty").mkdir()
    assert train.npo.main(["--dataset", str(tmp_path / "empty"), "--family", "tiny", "--data-dir", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1


def folder_of_pairs(folder: Path, rows: str) -> Path:
    folder.mkdir()
    for number in (1, 2, 3):
        (folder / f"{number}.png").write_bytes(picture(number))
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "pairs.csv").write_text("caption,preferred,rejected\n" + rows)
    return folder


def test_a_folder_of_pairs_is_read_in_its_order_and_a_corrupt_picture_left_out(
    cache: LatentCache, tmp_path: Path
) -> None:
    folder = folder_of_pairs(tmp_path / "pairs", "a cat,1.png,2.png\na dog,3.png,1.png\na car,broken.png,1.png\n")
    found = from_dataset(str(folder), cache)
    assert [pair.prompt for pair in found.pairs] == ["a cat", "a dog"]
    assert found.dropped == {"unreadable picture": 1}
    np.testing.assert_array_equal(found.pairs[0].preferred, found.pairs[1].rejected)


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [("a cat,1.png,gone.png\n", "names gone.png, which cannot be read"), ("a cat,1.png\n", "has no rejected")],
)
def test_a_folder_of_pairs_that_lacks_something_gets_one_sentence(
    cache: LatentCache, tmp_path: Path, rows: str, sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        from_dataset(str(folder_of_pairs(tmp_path / "pairs", rows)), cache)


def test_an_exported_study_loads_with_datasets_and_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What `collection export --format pickapic` writes is read by `datasets` and by `train.npo --dataset`."""
    from datasets import load_dataset

    from collection.__main__ import main as collection_main
    from tests.collection.helpers import open_store
    from tests.collection.study_helpers import take_part
    from tests.ui.voting import fill_study

    monkeypatch.setitem(families.FAMILIES, "tiny", tiny_family(tmp_path))
    with open_store(tmp_path) as store:
        fill_study(store, prompts=20, training=False, check_share=0.0, ballots_per_participant=40, min_view_s=0.0)
        take_part(store, lambda ballot: ("left", "right", "tie")[ballot.number % 3])
    database = ["--database-url", f"sqlite:///{tmp_path / 'npo.db'}", "--data-dir", str(tmp_path / "data")]
    folder = tmp_path / "pairs"
    export = ["export", "--format", "pickapic", "--study", "pilot", "--out", str(folder), *database]
    assert collection_main(export) == 0
    loaded = load_dataset(str(folder), cache_dir=str(tmp_path / "cache"))
    assert set(loaded) == {"train", "validation", "test"}
    assert len(loaded["train"].column_names) == 19
    open_image(loaded["train"][0]["jpg_0"])
    decided = sum(row["has_label"] for row in loaded["train"])
    assert 0 < decided < len(loaded["train"])
    how = "--family tiny --max-train-steps 2 --batch-size 4 --rank 2 --min-pairs 3 --device cpu"
    run = [*how.split(), "--dataset", str(folder), "--output-dir", str(tmp_path / "run"), *database]
    capsys.readouterr()
    assert train.npo.main(run) == 0
    assert f"{decided} pairs" in capsys.readouterr().out
