"""The jury at toy size: its answers' truth, its two arts, resuming, and the file that evaluation reads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from npo_core.catalog.scenes import Words
from npo_core.errors import InputError
from train.emoji.drawing.concepts import BACKGROUNDS, COLOURS, GROUNDS, STYLES
from train.emoji.drawing.flaws import FLAW_NAMES
from train.emoji.drawing.views import (
    CONCEPT_NAMES,
    LAYOUTS,
    PICTURES,
    WRONG_KINDS,
    Views,
    captions,
    draw_views,
    plain_views,
)
from train.emoji.jury import JuryTrainer, augmented, targets_of
from train.judging.jury import Jury, JuryNet, load_jury

WORDS = Words(CONCEPT_NAMES, STYLES, tuple(BACKGROUNDS), tuple(COLOURS), tuple(GROUNDS))


def named(prompt: str) -> list[str]:
    """The things that the jury looks for."""
    jury = Jury(JuryNet(1), WORDS, FLAW_NAMES)
    return [CONCEPT_NAMES[place] for place in jury.named(prompt)]


def tinted(count: int, red: int) -> Tensor:
    """(count, 4, 24, 24): opaque squares, of one red each and otherwise random."""
    art = torch.randint(0, 256, (count, 4, 24, 24), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    art[:, 0], art[:, 3] = red, 255
    return art


def drawn(count: int) -> Views:
    rng = np.random.default_rng(5)
    return draw_views(rng.integers(PICTURES, size=count), rng)


def trainer(work: Path, steps: int = 3) -> JuryTrainer:
    return JuryTrainer(tinted(PICTURES, 0), tinted(len(CONCEPT_NAMES), 255), None, work, steps, batch_size=3)


def test_the_truth_is_every_thing_shown_and_the_one_flaw() -> None:
    views = drawn(300)
    targets = targets_of(views).numpy()
    for row in range(len(views)):
        things = {int(place) for place in views.concept[row] if place >= 0}
        assert set(np.flatnonzero(targets[row, : len(CONCEPT_NAMES)])) == things
        assert targets[row, len(CONCEPT_NAMES)] == (views.flaw[row] < 0)
        flaws = np.flatnonzero(targets[row, len(CONCEPT_NAMES) + 1 :]).tolist()
        assert flaws == ([int(views.flaw[row])] if views.flaw[row] >= 0 else [])
    assert (targets[:, : len(CONCEPT_NAMES)].sum(1) == 2).any(), "scenes show two things"


def test_the_things_that_a_caption_names_are_found_in_it() -> None:
    views = drawn(400)
    views = views[views.wrong != WRONG_KINDS.index("thing")]
    for row, words in enumerate(captions(views, np.random.default_rng(0))):
        things = list(dict.fromkeys(int(place) for place in views.concept[row] if place >= 0))
        assert named(words) == [CONCEPT_NAMES[place] for place in things], (words, LAYOUTS[views.layout[row]])


@pytest.mark.parametrize(
    ("prompt", "names"),
    [
        ("an orange cat next to two oranges", ["cat", "orange"]),
        ("three fire trucks on a pink background", ["fire truck"]),
        ("a guitar next to a fire, night sky", ["guitar", "fire"]),
        ("an ice cream cone, 3d style", ["ice cream cone"]),
        ("a zeppelin", []),
    ],
)
def test_prompts_are_read_word_by_word(prompt: str, names: list[str]) -> None:
    assert named(prompt) == names


def test_a_share_of_the_views_is_drawn_from_the_other_art(tmp_path: Path) -> None:
    none = np.full(6, -1)
    views = plain_views(np.arange(6) * 7, np.full(6, 2), none)
    reds = trainer(tmp_path).draw(views, others=2)[:, 0, 128, 128]
    assert (reds[:2] > 0.9).all()
    assert (reds[2:] < 0.1).all()


def test_augmentation_keeps_what_is_shown_and_depends_on_its_rng_alone() -> None:
    pixels = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    one, same, other = (augmented(pixels, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)
    assert float((one.mean((1, 2, 3)) - pixels.mean((1, 2, 3))).abs().max()) < 0.06


def test_a_resumed_training_ends_with_the_same_jury_and_evaluation_reads_it(tmp_path: Path) -> None:
    through = trainer(tmp_path / "through")
    through.run.to_the_end(through.batch, through.loss, 3)
    first = trainer(tmp_path / "resumed")
    first.run.differentiate(first.loss, *first.batch(0))
    first.run.update()
    first.run.save()
    second = trainer(tmp_path / "resumed")
    second.run.resume()
    assert second.run.done == 1
    second.run.to_the_end(second.batch, second.loss, 3)
    for mine, theirs in zip(through.run.parameters, second.run.parameters, strict=True):
        torch.testing.assert_close(mine, theirs)

    metrics = second.export(tmp_path / "out", measured_views=12)
    assert {"top-1, clean views, art", "top-1, clean views, more art"} <= set(metrics)
    file = tmp_path / "out" / "jury.safetensors"
    assert file.stat().st_size < 3_000_000
    jury = load_jury(file)
    assert jury.flaws == FLAW_NAMES
    findings = jury.look(torch.rand(2, 3, 128, 128))
    assert findings.concepts.shape == (2, len(CONCEPT_NAMES))
    assert findings.clean.shape == (2,)
    assert findings.flaws.shape == (2, len(FLAW_NAMES))


def test_each_picture_is_drawn_once_and_learned_from_a_few_times_in_changing_company(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    drawn: list[int] = []
    drawing = made._drawing

    def counted(number: int) -> Any:
        drawn.append(number)
        return drawing(number)

    made._drawing = counted  # type: ignore[method-assign]
    batches = [made.batch(number) for number in range(8)]
    assert drawn == [0, 1], "eight steps need two drawings"
    assert not torch.equal(batches[4][0], batches[5][0])
    resumed = trainer(tmp_path).batch(7)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(batches[7], resumed, strict=True))


def test_a_jury_of_another_architecture_is_refused_in_one_sentence(tmp_path: Path) -> None:
    labels = json.dumps({"concepts": ["cat"], "flaws": []})
    save_file({"head.bias": torch.zeros(2)}, tmp_path / "jury.safetensors", {"labels": labels})
    with pytest.raises(InputError, match="of another architecture than today's; train it again"):
        load_jury(tmp_path / "jury.safetensors")


def test_where_there_is_no_jury_one_sentence_says_how_to_train_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"python -m train\.emoji\.jury --export"):
        load_jury(tmp_path / "jury.safetensors")
