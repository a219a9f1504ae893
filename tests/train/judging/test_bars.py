"""The bars: each passes and fails by what it is about, on answers written by hand; and the command at toy size."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from npo_core.catalog import families
from npo_core.errors import InputError
from tests.train.judging.protocol.helpers import random_jury, rated_family
from train.emoji import bars as command
from train.judging.bars import Bar, judge_bars
from train.judging.protocol.viewing import Seen

PICTURES = 200
KINDS = ("blurred", "noisy", "dark", "warped")


def share(of: float, high: float = 1.0, low: float = -1.0) -> np.ndarray:
    """(200,) `high` for that share of pictures, `low` for the others."""
    return np.where(np.arange(PICTURES) < round(of * PICTURES), high, low)


def seen(clean: tuple[float, ...], top1: tuple[float, ...], flaws: tuple[float, ...], sharp: float = 2.0) -> Seen:
    columns = {
        name: {
            "jury_clean": share(clean[place]),
            "jury_top1": share(top1[place], 1, 0),
            "jury_found": share(top1[place], 1, 0),
            "sharpness": np.full(PICTURES, sharp),
            "steepness": np.full(PICTURES, 40.0),
            **{f"flaw: {kind}": share(flaws[place], 0.9, 0.1) for kind in KINDS},
        }
        for place, name in enumerate(("base", "aligned", "aligned_npo"))
    }
    apart = {("base", "aligned"): 10.0, ("base", "aligned_npo"): 20.0, ("aligned", "aligned_npo"): 7.0}
    differences = {pair: np.full(PICTURES, value) for pair, value in apart.items()}
    return Seen(columns, differences, [f"prompt {number}" for number in range(PICTURES)])


GOOD = seen((0.6, 0.8, 0.95), (0.96, 0.96, 0.97), (0.4, 0.2, 0.1))


def judged(**more: Any) -> dict[str, Bar]:
    scenes = seen((1, 1, 1), (0.5, 0.55, 0.65), (0, 0, 0))
    found = {"singles": GOOD, "scenes": scenes, "clips": None, "times_s": None, "clean_art": {}, **more}
    return {bar.what: bar for bar in judge_bars(found)}


def test_what_is_reached_passes_and_what_was_not_measured_is_neither() -> None:
    bars = judged()
    passed = {what for what, bar in bars.items() if bar.passed}
    assert passed == {
        "median rms difference, base to aligned_npo",
        "clean by the jury, base",
        "clean by the jury, aligned",
        "clean by the jury, aligned_npo",
        "jury's top-1, singles",
        "kinds of flaw that fall at each step",
        "scenes of two, both found",
    }
    assert {what for what, bar in bars.items() if bar.passed is False} == {
        "median rms difference, aligned to aligned_npo"
    }
    assert bars["clips: agreement"].passed is None


@pytest.mark.parametrize(
    ("singles", "failed"),
    [
        (seen((0.8, 0.9, 0.99), (0.96,) * 3, (0.4, 0.2, 0.1)), "clean by the jury, base"),
        (seen((0.6, 0.66, 0.95), (0.96,) * 3, (0.4, 0.2, 0.1)), "clean by the jury, aligned"),
        (seen((0.6, 0.7, 0.8), (0.96,) * 3, (0.4, 0.2, 0.1)), "clean by the jury, aligned_npo"),  # intervals touch
        (seen((0.6, 0.8, 0.95), (0.99, 0.97, 0.96), (0.4, 0.2, 0.1)), "jury's top-1, singles"),
        (seen((0.6, 0.8, 0.95), (0.9,) * 3, (0.4, 0.2, 0.1)), "jury's top-1, singles"),
        (seen((0.6, 0.8, 0.95), (0.96,) * 3, (0.4, 0.4, 0.1)), "kinds of flaw that fall at each step"),
    ],
)
def test_each_bar_fails_by_what_it_is_about(singles: Seen, failed: str) -> None:
    assert judged(singles=singles)[failed].passed is False


def test_sharpness_is_that_of_the_art_and_diversity_that_of_base() -> None:
    what = "sharpness of aligned_npo to the art's"
    assert judged(clean_art={"sharpness": 2.1, "steepness": 44.0})[what].passed
    assert judged(clean_art={"sharpness": 4.0, "steepness": 44.0})[what].passed is False

    def with_features(npo_alike: bool) -> Seen:
        rng = np.random.default_rng(0)
        columns = {name: {"features": rng.normal(size=(8, 6))} for name in ("base", "aligned", "aligned_npo")}
        if npo_alike:
            columns["aligned_npo"]["features"][:] = 1.0
        return Seen(columns, {}, ["a"] * 4 + ["b"] * 4)

    what = "diversity over seeds, aligned_npo to base"
    assert judged(diversity=with_features(False))[what].passed
    assert judged(diversity=with_features(True))[what].passed is False


def test_clips_are_read_from_their_evaluation_and_the_weakest_motion_counts() -> None:
    def evaluation(spin: float) -> dict[str, Any]:
        motions = {"bounce": {"agreement": 1.0, "identity": 0.99}, "spin": {"agreement": 0.9, "identity": spin}}
        return {"variants": {"aligned_npo": {"all": {"agreement": 0.95, "identity": 0.92}, "motions": motions}}}

    assert judged(clips=evaluation(0.8))["clips: identity"].passed
    weak = judged(clips=evaluation(0.4))["clips: identity"]
    assert weak.passed is False
    assert "spin" in weak.measured


def test_pictures_are_timed_in_turns_here_and_in_the_other_checkout(tmp_path: Path) -> None:
    folders: list[Path] = []

    def run(command: list[str], cwd: Path, **_: Any) -> SimpleNamespace:
        folders.append(cwd)
        return SimpleNamespace(returncode=0, stderr="")

    (tmp_path / "npo_core").mkdir()
    assert set(command.time_pictures(tmp_path, run)) == {"now", "before"}
    assert folders[1::2] == [tmp_path] * command.TIMED_RUNS
    with pytest.raises(InputError, match="is no checkout of this project"):
        command.time_pictures(tmp_path / "npo_core", run)


@pytest.fixture
def ready(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line up to what is asked for, for a tiny family in the place of the emoji family."""
    family = rated_family(tmp_path)
    monkeypatch.setitem(families.FAMILIES, "emoji", replace(family, name="emoji"))
    (tmp_path / "prompts.txt").write_text("a cat\na red apple, 3d style\na pizza\n")
    (tmp_path / "scenes.txt").write_text("a cat next to a pizza\n")
    return f"--prompts {tmp_path}/prompts.txt --scenes {tmp_path}/scenes.txt --steps 2".split()


def test_the_command_prints_every_bar_and_the_table_of_flaws(
    ready: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = f"--jury {random_jury(tmp_path)} --no-features --device cpu --json {tmp_path}/bars.json"
    assert command.main([*ready, *more.split()]) == 0
    told = capsys.readouterr().out
    assert "| jury's top-1, singles |" in told
    assert "| blurred |" in told
    content = json.loads((tmp_path / "bars.json").read_text())
    assert {bar["passed"] for bar in content["bars"]} <= {True, False, None}
    assert sorted(content["prompts"]) == ["a cat", "a pizza", "a red apple, 3d style"]


def test_the_blind_sheet_has_no_names_and_its_key_says_what_stands_where(ready: list[str], tmp_path: Path) -> None:
    assert command.main([*ready, "--sheet", str(tmp_path / "blind")]) == 0
    key = json.loads((tmp_path / "blind" / "key.json").read_text())
    assert [entry["row"] for entry in key] == [1, 2, 3]
    assert all(sorted(entry["columns"]) == ["aligned", "aligned_npo", "base"] for entry in key)
    assert len({tuple(entry["columns"]) for entry in key}) > 1, "the order is drawn for each row"
    sheet = Image.open(tmp_path / "blind" / "sheet.png")
    assert sheet.size[1] == 3 * 68 + 4
    assert not sheet.info


def test_without_a_jury_one_sentence_says_how_to_train_one(
    ready: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert command.main([*ready, "--jury", "/nowhere/jury.safetensors", "--device", "cpu"]) == 2
    assert "python -m train.emoji.jury --export" in capsys.readouterr().err
