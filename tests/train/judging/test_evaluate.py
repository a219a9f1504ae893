"""The table of evaluate, with a judge whose verdicts can be computed by hand."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from npo_core.catalog import families
from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image
from tests.tiny import tiny_family
from train import evaluate
from train.commands.flags import read_prompts
from train.judging import scorers
from train.judging.scoring import compare, score_requests, summarise


class Brightness:
    """Likes bright pictures, and takes one brighter than the middle for a hit."""

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        assert len(images) == len(prompts)
        return np.array([np.asarray(image).mean() for image in images]) / 255 - 1

    def top1(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        return self.score(images, prompts) > -0.5


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> ModelFamily:
    return tiny_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def generator(tiny: ModelFamily) -> Generator:
    return Generator(tiny, device="cpu")


def test_the_table_counts_same_seed_pairs_whatever_the_batches(tmp_path: Path, generator: Generator) -> None:
    requests = [GenerationRequest(f"cat {seed}", seed=seed, variants=("base", "aligned")) for seed in range(5)]
    table = evaluate.evaluate(
        generator, {"brightness": Brightness()}, requests, batch_size=2, grid=tmp_path / "grid.png"
    )
    alone = [generator.generate(request) for request in requests]
    bright = np.array([[np.asarray(open_image(s.media)).mean() / 255 - 1 for s in each.samples] for each in alone])
    assert table["variants"]["base"]["brightness"]["mean"] == pytest.approx(bright[:, 0].mean(), abs=1e-3)
    (row,) = table["win_rates"]
    assert (row["variant"], row["against"], row["pairs"]) == ("aligned", "base", 5)
    assert row["win_rate"] == pytest.approx((bright[:, 1] > bright[:, 0]).mean())
    assert row["win_rate_95"][0] < row["win_rate"] < row["win_rate_95"][1] or row["win_rate"] in (0.0, 1.0)
    assert Image.open(tmp_path / "grid.png").size == (2 * 68 + 4, 5 * 68 + 4)


def test_kept_scores_serve_every_table_that_asks_for_the_same_pictures(tmp_path: Path, generator: Generator) -> None:
    judge, keep = {"brightness": Brightness()}, tmp_path / "kept"
    requests = [
        GenerationRequest(f"cat {seed}", seed=seed, variants=("base", "aligned", "aligned_npo")) for seed in range(3)
    ]
    aligned = [replace(request, variants=("aligned",)) for request in requests]
    gentle = [replace(request, beta=0.5) for request in requests]
    score_requests(generator, judge, aligned, batch_size=2, keep=keep)
    first = {file: file.stat().st_mtime_ns for file in keep.iterdir()}
    assert len(first) == 2
    scored = score_requests(generator, judge, requests, batch_size=2, keep=keep)
    assert len(list(keep.iterdir())) == 6
    score_requests(generator, judge, gentle, batch_size=2, keep=keep)
    assert len(list(keep.iterdir())) == 8, "beta changes aligned_npo alone"
    assert {file: file.stat().st_mtime_ns for file in first} == first
    plain = score_requests(generator, judge, requests, batch_size=2)
    for name, values in plain.values.items():
        assert values["brightness"] == pytest.approx(scored.values[name]["brightness"], abs=1e-3)


def test_equal_scores_count_half() -> None:
    values = {"a": {"s": np.array([-1.0, -2.0, -3.0, -4.0])}, "b": {"s": np.array([-1.0, -2.0, -4.0, -3.0])}}
    assert compare("a", "b", values, "s")["win_rate"] == 0.5


def test_a_mean_comes_with_the_textbook_interval() -> None:
    summary = summarise({"s": np.array([-1.0, -2.0, -3.0]), "top1": np.array([1.0, 1.0, 0.0])})
    assert summary["s"]["mean"] == -2.0
    assert summary["s"]["mean_95"] == pytest.approx([-2 - 1.96 / 3**0.5, -2 + 1.96 / 3**0.5], abs=1e-3)
    assert summary["top1"]["mean"] == pytest.approx(2 / 3)


def test_every_request_has_a_seed_of_its_own(tmp_path: Path, tiny: ModelFamily) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("a cat\n\na dog\na car\n")
    options = evaluate.build_parser().parse_args(
        ["--prompts", str(file), "--seeds-per-prompt", "2", "--limit", "2", "--first-seed", "7"]
    )
    requests = evaluate.build_requests(options, tiny)
    assert [(each.prompt, each.seed) for each in requests] == [("a cat", 7), ("a cat", 8), ("a dog", 9), ("a dog", 10)]


def test_a_sweep_makes_one_table_for_each_guidance_scale(
    tmp_path: Path, tiny: ModelFamily, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(families.FAMILIES, tiny.name, tiny)
    monkeypatch.setitem(scorers.SCORERS, "brightness", lambda family: Brightness())
    (tmp_path / "prompts.txt").write_text("a cat\na dog\n")
    command = f"--family tiny --prompts {tmp_path}/prompts.txt --guidance-sweep 2,4 --json {tmp_path}/out.json "
    command += f"--scorers brightness --markdown {tmp_path}/out.md --plot {tmp_path}/out.png "
    command += f"--betas 0,1 --longer-aligned {tiny.negative}"
    assert evaluate.main([*command.split(), "--steps", "2"]) == 0
    content = json.loads((tmp_path / "out.json").read_text())
    assert [table["settings"]["guidance_scale"] for table in content["tables"]] == [2.0, 4.0]
    assert [row["variant"] for row in content["tables"][0]["win_rates"]] == ["aligned_npo", "aligned_npo", "aligned"]
    assert content["adapters"]["negative"]["sha256"]
    assert "aligned_npo against aligned, brightness: " in capsys.readouterr().out
    without, with_negative = content["shares"]
    assert (without["alpha"], without["beta"], without["win_rate"]) == (1.0, 0.0, 0.5)  # beta 0 is aligned itself
    assert abs(with_negative["mean_difference"]) > 10 * abs(without["mean_difference"])
    assert [(row["variant"], row["against"]) for row in content["longer"]] == [
        ("aligned_npo", "aligned_longer"),
        ("aligned_longer", "aligned"),
        ("aligned_npo", "aligned"),
    ]
    assert (tmp_path / "out.md").read_text().count("| variant |") == 5
    assert Image.open(tmp_path / "out.png").size[0] > 100


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        (["--prompts", "/nowhere.txt"], "cannot be read"),
        (["--variants", "base,best"], "Unknown variant 'best'"),
        (["--guidance-sweep", "2;4"], "The guidance sweep is '2;4'"),
        (["--guidance-sweep", "2,-4"], "guidance scale is -4"),
        (["--scorers", "magic"], "Unknown scorer 'magic'"),
        (["--betas", "x"], "The list of betas is 'x'"),
        (["--longer-aligned", "/nowhere"], "There is no adapter at /nowhere"),
        (["--steps", "0"], "The number of steps is 0"),
        (["--seeds-per-prompt", "0"], "seeds per prompt is 0"),
        (["--family", "dragon"], "Unknown family"),
        ([], "has no scorer"),
    ],
)
def test_bad_input_gets_one_sentence(
    tmp_path: Path,
    tiny: ModelFamily,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    sentence: str,
) -> None:
    monkeypatch.setitem(families.FAMILIES, tiny.name, replace(tiny, scorer=None))
    (tmp_path / "prompts.txt").write_text("a cat\n")
    assert evaluate.main(["--family", "tiny", "--prompts", f"{tmp_path}/prompts.txt", *more]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_a_file_without_prompts_gets_one_sentence(
    tmp_path: Path, tiny: ModelFamily, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(families.FAMILIES, tiny.name, tiny)
    (tmp_path / "prompts.txt").write_text("\n\n")
    assert evaluate.main(["--family", "tiny", "--prompts", f"{tmp_path}/prompts.txt"]) == 2
    assert "has no prompt" in capsys.readouterr().err


def test_prompts_with_a_mark_or_a_strange_separator_are_what_was_written(tmp_path: Path) -> None:
    file = tmp_path / "prompts.txt"
    file.write_bytes("\ufeffa red apple\u2028on a table\r\n\r\na cat\n".encode())
    assert read_prompts(file) == ["a red apple\u2028on a table", "a cat"]
    assert read_prompts(file, limit=1) == ["a red apple\u2028on a table"]
    with pytest.raises(InputError, match="The limit is 0; give 1 or more"):
        read_prompts(file, limit=0)
    file.write_bytes(b"caf\xe9")
    with pytest.raises(InputError, match=r"Line 1 of .* is not UTF-8"):
        read_prompts(file)
