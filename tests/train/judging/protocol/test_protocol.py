"""The protocol: its pictures are the app's, it goes on after a kill, and its tables say what holds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from npo_core.catalog import families
from npo_core.catalog.families import ModelFamily
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image
from tests.tiny import tiny_adapter
from tests.train.judging.protocol.helpers import random_jury, rated_family
from train import evaluate
from train.judging.protocol import command
from train.judging.protocol.contenders import CONTENDERS, NPO, Contender, Setting, choose
from train.judging.protocol.judges import JURY, RATER
from train.judging.protocol.measuring import Entry, Measurer, items_of, plan
from train.judging.protocol.painting import UNGUIDED, Painter, requests_for
from train.judging.protocol.report import numbers
from train.judging.protocol.run import Protocol, tune


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> ModelFamily:
    return rated_family(tmp_path_factory.mktemp("family"))


@pytest.fixture(scope="module")
def painter(family: ModelFamily) -> Painter:
    painter = Painter(family, "cpu")
    painter.wear(Generator(family, device="cpu").adapters())
    return painter


def painted(painter: Painter, family: ModelFamily, name: str, setting: Setting) -> Tensor:
    """(2, 3, 64, 64): two prompts."""
    requests = requests_for(family, ["a cat", "a red apple"], [3, 4], setting)
    mixes = CONTENDERS[name].mixes(setting.alpha, setting.beta)
    return painter.paint(requests, [mixes], setting.rescale, setting.interval)[0]


@pytest.mark.parametrize(
    ("contender", "variant"),
    [("base", "base"), ("aligned", "aligned"), ("vs_base", "aligned_vs_base"), (NPO, "aligned_npo")],
)
def test_the_pictures_are_those_of_the_app(painter: Painter, family: ModelFamily, contender: str, variant: str) -> None:
    ours = painted(painter, family, contender, Setting(3.0, alpha=0.5, beta=0.7))
    generator = Generator(family, device="cpu")
    for row, (prompt, seed) in enumerate((("a cat", 3), ("a red apple", 4))):
        request = GenerationRequest(prompt, seed=seed, variants=(variant,), guidance_scale=3.0, alpha=0.5, beta=0.7)
        theirs = np.asarray(open_image(generator.generate(request).samples[0].media), np.float32)
        np.testing.assert_allclose(255 * ours[row].permute(1, 2, 0).numpy(), theirs, atol=1)


def test_settings_do_what_their_papers_say(painter: Painter, family: ModelFamily) -> None:
    guided = painted(painter, family, "aligned", Setting(4.0))
    unguided = painted(painter, family, "aligned", Setting(UNGUIDED))
    never = painted(painter, family, "aligned", Setting(4.0, interval=(1.0, 1.0)))
    always = painted(painter, family, "aligned", Setting(4.0, interval=(0.0, 1.5)))
    first_only = painted(painter, family, "aligned", Setting(4.0, interval=(0.0, 0.3)))
    torch.testing.assert_close(never, unguided, atol=1.1 / 255, rtol=0)
    torch.testing.assert_close(always, guided, atol=1.1 / 255, rtol=0)
    assert not torch.equal(first_only, guided)
    assert not torch.equal(first_only, unguided)
    rescaled = painted(painter, family, "aligned", Setting(4.0, rescale=1.0))
    assert not torch.equal(rescaled, guided)
    assert torch.equal(painted(painter, family, "extrapolated", Setting(4.0, alpha=1.0)), guided), (
        "alpha 1 without a negative is the aligned model"
    )
    assert torch.equal(
        painted(painter, family, "scaled", Setting(4.0, alpha=0.0)), painted(painter, family, "base", Setting(4.0))
    )


def brightness(pixels: Tensor, prompts: Any) -> dict[str, np.ndarray]:
    return {RATER: pixels.mean((1, 2, 3)).numpy()}


def small_protocol(family: ModelFamily, batch_size: int = 8) -> Protocol:
    contenders = [
        CONTENDERS["base"],
        replace(CONTENDERS["extrapolated"], alphas=(-0.5, -1.0)),
        replace(CONTENDERS[NPO], alphas=(1.0,), betas=(0.5, 1.0)),
    ]
    prompts = ["a cat", "a red apple", "a pizza"]
    own = Generator(family, device="cpu").adapters()
    return Protocol(contenders, items_of(prompts, 1, 100), items_of(prompts, 2), own, batch_size, (2.0, 4.0))


def test_a_killed_run_goes_on_and_finds_the_same(painter: Painter, family: ModelFamily, tmp_path: Path) -> None:
    protocol = small_protocol(family)

    def measurer(folder: str, stop_after: int = 10**6) -> Measurer:
        asked = []

        def ask(pixels: Tensor, prompts: Any) -> dict[str, np.ndarray]:
            asked.append(len(pixels))
            if len(asked) > stop_after:
                raise KeyboardInterrupt
            return brightness(pixels, prompts)

        found = Measurer(family, painter, ask, tmp_path / folder, 2, "brightness")
        found.asked = asked  # type: ignore[attr-defined]
        return found

    whole = measurer("whole")
    best, means = tune(protocol, whole)
    with pytest.raises(KeyboardInterrupt):
        tune(protocol, measurer("killed", stop_after=3))
    rest = measurer("killed")
    assert tune(protocol, rest) == (best, means)
    assert len(rest.asked) == len(whole.asked) - 3  # type: ignore[attr-defined]
    assert sum(whole.asked) == protocol.cost()["tuning"] == 3 * 2 * (2 + 4 + 4)  # type: ignore[attr-defined]
    for name, setting in best.items():
        assert means[name][setting] == max(means[name].values())


def test_calls_share_what_can_be_shared_and_no_more(family: ModelFamily) -> None:
    protocol = small_protocol(family, batch_size=100)
    calls = protocol.tuning_calls()
    # 2 scales x 2 rescales, with and without the negative
    assert len(calls) == 8
    assert sorted({len(call.entries) for call in calls}) == [2, 3]
    assert all(call.pictures <= 7 for call in small_protocol(family, batch_size=7).tuning_calls())


def test_an_adapter_of_its_own_changes_its_contender_alone(
    painter: Painter, family: ModelFamily, tmp_path: Path
) -> None:
    tiny_adapter(tmp_path / "other", "negative", seed=9)
    (other,) = [command.given_negative(f"other={tmp_path / 'other'}@1/1")]
    own = Generator(family, device="cpu").adapters()
    ours = replace(CONTENDERS[NPO], alphas=(1.0,), betas=(1.0,))
    setting, items = Setting(4.0, 1.0, 1.0), items_of(["a cat"], 1)

    def measured(*contenders: Contender) -> dict[str, float]:
        entries = [Entry(contender, setting) for contender in contenders]
        measurer = Measurer(family, painter, brightness, tmp_path / "kept", 2, "")
        found = measurer.run(plan(entries, items, 8, own))
        return {name: float(columns[RATER][0]) for (name, _), columns in found.items()}

    before = measured(ours)
    after = measured(other, ours)
    assert after[NPO] == before[NPO]
    assert after["other"] != after[NPO]


def columns(clean: np.ndarray, jury: np.ndarray) -> dict[str, np.ndarray]:
    plain = {"rater_all": clean, "jury_things": jury}
    return {RATER: clean, JURY: jury, **plain}


def test_rater_and_jury_stand_side_by_side_and_a_contradiction_is_told() -> None:
    rng = np.random.default_rng(0)
    prompts = [f"prompt {number // 2}" for number in range(120)]
    noise = rng.normal(size=120)
    found = {
        "plain": columns(noise, noise),
        "better": columns(noise + 1, noise + 1),
        "flatterer": columns(noise + 1, noise - 1),
        "equal": columns(noise + rng.normal(size=120) * 0.01, noise + rng.normal(size=120) * 0.01),
    }
    report = numbers(found, prompts)
    rows = {(row["contender"], row["against"]): row for row in report["comparisons"]}
    assert rows["better", "plain"]["says"] == "agree"
    assert rows["better", "plain"][RATER]["difference"] == pytest.approx(1)
    assert rows["better", "plain"][RATER]["win_rate"] == 1
    assert rows["flatterer", "plain"]["says"].startswith("disagree: the rater says above")
    assert rows["equal", "plain"]["says"] == "nobody can tell them apart"
    assert rows["flatterer", "better"]["says"].startswith("the jury alone sees")
    summary = report["contenders"]["better"][RATER]
    assert summary["median"] == pytest.approx(np.median(noise) + 1)
    assert summary["low_5"] == pytest.approx(np.quantile(noise, 0.05) + 1)


@pytest.fixture
def ready(family: ModelFamily, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The command line up to the contenders, for the tiny family with a rater and a jury."""
    monkeypatch.setitem(families.FAMILIES, "tiny", replace(family, name="tiny"))
    jury = random_jury(tmp_path)
    (tmp_path / "held_out.txt").write_text("a cat\na red apple, 3d style\n")
    (tmp_path / "choice.txt").write_text("a pizza\n")
    return (
        f"--protocol --family tiny --prompts {tmp_path}/held_out.txt --choice-prompts {tmp_path}/choice.txt "
        f"--seeds-per-prompt 2 --steps 2 --guidance-sweep 2,4 --no-features --device cpu "
        f"--keep {tmp_path}/kept --jury {jury}"
    ).split()


def test_the_command_measures_every_contender_and_writes_both_files(
    ready: list[str], family: ModelFamily, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = f"--rival-negative other={family.negative}@1/0.5 --longer-aligned {family.aligned} --rescales 0 "
    more += (
        f"--alphas 1 --betas 0.4,1 --json {tmp_path}/out.json --markdown {tmp_path}/out.md --grid {tmp_path}/grid.png"
    )
    assert evaluate.main([*ready, *more.split()]) == 0
    report = json.loads((tmp_path / "out.json").read_text())
    everybody = [*CONTENDERS, "aligned_longer", "other", "shipped"]
    assert list(report["contenders"]) == everybody
    assert len(report["comparisons"]) == len(everybody) * (len(everybody) - 1)
    assert report["tuned"]["shipped"]["grid"] == []
    assert report["tuned"]["extrapolated"]["setting"]["alpha"] < 0
    same = next(
        row for row in report["comparisons"] if (row["contender"], row["against"]) == ("aligned_longer", "aligned")
    )
    assert same[RATER]["difference"] == pytest.approx(0, abs=1e-4), "the same LoRA under another name"
    grid = Image.open(tmp_path / "grid.png")
    assert grid.size[0] == len(everybody) * 68 + 4, "one column each, two prompts with two seeds each"
    assert grid.size[1] > 4 * 68
    text = (tmp_path / "out.md").read_text()
    assert "| aligned + NPO, as shipped |" in text
    assert text in capsys.readouterr().out


def test_a_dry_run_counts_pictures_and_makes_none(ready: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate.main([*ready, "--contenders", "base,aligned_npo", "--dry-run"]) == 0
    # base: 2 scales x 2 rescales; aligned_npo: that x 2 alphas x 4 betas; one choice prompt; 2 x 2 x 2 to measure
    assert "2 contenders: 36 pictures of 1 choice prompts to tune them, 8 of 2 held-out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ("--contenders base,best", "Unknown contender 'best'"),
        ("--rival nothing", "'nothing' is not NAME=PATH"),
        ("--rival far=/nowhere", "There is no adapter at /nowhere"),
        ("--rival-negative x=/nowhere@1", "There is no adapter at /nowhere"),
        ("--rescales 2", "The guidance rescale 2 of base is out of range"),
        ("--guidance-sweep 1", "The guidance scale 1 asks no negative branch"),
        ("--choice-prompts {held_out}", "are in"),
    ],
)
def test_bad_input_gets_one_sentence(
    ready: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], more: str, sentence: str
) -> None:
    assert evaluate.main([*ready, *more.format(held_out=tmp_path / "held_out.txt").split()]) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1


def test_two_of_one_name_are_refused() -> None:
    from npo_core.errors import InputError

    with pytest.raises(InputError, match="Two contenders are called 'base'"):
        choose(None, [CONTENDERS["base"]])
