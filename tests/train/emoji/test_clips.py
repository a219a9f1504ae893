"""The recipe of the clips on tiny real pipelines and art drawn here: first the words, then the adapter."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffPipeline, MotionAdapter
from torch import Tensor
from transformers import CLIPTextModel

from npo_core.catalog.families import get_family
from npo_core.emoji.scorer import load_scorer
from tests.tiny import tiny_pipeline
from train.emoji.bank import token_ids
from train.emoji.drawing.motions import MOTIONS
from train.emoji.drawing.views import MOTION_NAMES, NEXT_TO, PICTURES, captions
from train.emoji.language.words import MotionWords, teach_words
from train.emoji.motion import MotionTrainer, build_bank, draw_clips, frames_of
from train.emoji.motion_measure import measure_drawn
from train.emoji.training import diffuse

WORDLESS = "Q, 7 W"  # the tiny tokenizer spells: a caption without a letter of the phrases


def copied(module: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in module.state_dict().items()}


def changed(module: Any, before: dict[str, Tensor]) -> set[str]:
    return {name for name, value in module.state_dict().items() if not torch.equal(value.float(), before[name].float())}


@pytest.fixture
def pipeline() -> Any:
    made = tiny_pipeline()
    made.text_encoder.requires_grad_(False)
    return made


@pytest.fixture(scope="module")
def art() -> Tensor:
    """Every picture of the family as an opaque square of noise: (PICTURES, 4, 32, 32) uint8."""
    drawn = torch.randint(0, 255, (PICTURES, 4, 32, 32), generator=torch.Generator().manual_seed(0))
    drawn[:, 3] = 255
    return drawn.to(torch.uint8)


def test_teaching_moves_the_words_and_nothing_else(pipeline: Any, art: Tensor) -> None:
    words = MotionWords(pipeline.text_encoder, pipeline.tokenizer)
    unet, text, before = copied(pipeline.unet), copied(pipeline.text_encoder), words.rows.detach().clone()
    named = teach_words(pipeline, words, art, steps=2, batch_size=3)
    assert 0 <= named <= 1
    assert not torch.equal(words.rows, before)
    assert not changed(pipeline.unet, unet)
    assert not changed(pipeline.text_encoder, text)
    assert not any(module._forward_hooks for module in pipeline.unet.modules())


@pytest.mark.slow
def test_the_base_learns_to_hear_the_words(pipeline: Any, art: Tensor) -> None:
    words = MotionWords(pipeline.text_encoder, pipeline.tokenizer)
    named = teach_words(pipeline, words, art, steps=60, batch_size=16)
    assert named > 0.22, "one in eight by chance, give or take 0.02"


def test_a_caption_without_the_words_is_read_as_before(pipeline: Any) -> None:
    def states(caption: str) -> Tensor:
        read: Tensor = pipeline.text_encoder(token_ids(pipeline.tokenizer, [caption]))[0]
        return read

    plain, moving = states(WORDLESS), states("sliding left")
    words = MotionWords(pipeline.text_encoder, pipeline.tokenizer)
    assert torch.equal(states(WORDLESS), plain)
    assert not torch.allclose(states("sliding left"), moving, atol=1e-4)
    with words.as_they_were():
        assert torch.equal(states("sliding left"), moving)
    said = states("sliding left")
    words.write_back()
    assert torch.equal(states("sliding left"), said)
    assert torch.equal(states(WORDLESS), plain)


def test_what_the_model_says_gives_the_clean_latents_back() -> None:
    clean, noise = torch.randn(2, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0)).unbind()
    alphas = torch.tensor([0.9, 0.5, 0.0])
    noisy, velocity = diffuse(clean, noise, alphas)
    signal, sigma = alphas.sqrt().view(-1, 1, 1, 1), (1 - alphas).sqrt().view(-1, 1, 1, 1)
    torch.testing.assert_close(signal * noisy - sigma * velocity, clean)
    torch.testing.assert_close(sigma * noisy + signal * velocity, noise)


@pytest.mark.slow
def test_the_adapter_is_trained_resumed_and_read_by_the_stock_pipeline(
    pipeline: Any, art: Tensor, tmp_path: Path
) -> None:
    bank = build_bank(art[:2], pipeline, clips_per_picture=1)
    assert bank.latents.shape == (2, 4, 16, 32, 32)

    def trainer(name: str) -> MotionTrainer:
        fresh = tiny_pipeline()
        fresh.text_encoder.requires_grad_(False)
        words = MotionWords(fresh.text_encoder, fresh.tokenizer)
        return MotionTrainer(fresh, words, bank, tmp_path / name, 3, 2, peak_rate=1e-3, compiled=False)

    through = trainer("through.pt")
    before = copied(through.unet)
    through.run.to_the_end(through.batch, through.loss, 2)
    moved = changed(through.unet, before)
    assert moved
    assert all(".motion_modules." in name for name in moved)
    first = trainer("resumed.pt")
    first.run.differentiate(first.loss, *first.batch(0))
    first.run.update()
    first.run.save()
    second = trainer("resumed.pt")
    second.run.resume()
    second.run.to_the_end(second.batch, second.loss, 2)
    for mine, theirs in zip(through.run.average, second.run.average, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)

    second.export(tmp_path / "out")
    encoder: Any = CLIPTextModel.from_pretrained(tmp_path / "out/text_encoder", dtype=torch.float32)
    stock = AnimateDiffPipeline(
        pipeline.vae,
        encoder,
        pipeline.tokenizer,
        pipeline.unet,
        MotionAdapter.from_pretrained(tmp_path / "out/motion", torch_dtype=torch.float32),  # type: ignore[arg-type]
        pipeline.scheduler,
    )
    stock.set_progress_bar_config(disable=True)
    frames = stock("a cat", num_frames=2, num_inference_steps=1, height=64, width=64).frames[0]
    assert len(frames) == 2


def test_all_things_of_a_scene_move_together_and_stay_themselves() -> None:
    rng = np.random.default_rng(0)
    clips = draw_clips(rng.integers(PICTURES, size=200), rng)
    slide = MOTION_NAMES.index("slide_left")
    clips = clips[(clips.layout == NEXT_TO) & (clips.motion >= 0)][:3]
    clips = replace(clips, motion=np.full(len(clips), slide))
    frames = frames_of(clips)
    assert len(frames) == 16 * len(clips)
    assert (frames.picture == np.repeat(clips.picture, 16, axis=0)).all()
    first, last = frames.placement[::16], frames.placement[15::16]
    moved = last.x - first.x
    assert (moved < -0.3).all()
    assert np.allclose(moved, moved[:, :1])
    assert all(
        " sliding left" in caption and "next" not in caption.split("sliding")[1] for caption in captions(clips, rng)
    )


def test_the_measure_reads_the_motion_off_clips_as_they_were_drawn() -> None:
    flag = torch.zeros(4, 64, 64, dtype=torch.uint8)
    flag[[0, 3], :, 24:40] = 255  # a red pole
    flag[2:, :24, 40:] = 255  # and a blue cloth at its top: nothing that looks alike when turned
    table = measure_drawn(flag.expand(PICTURES, -1, -1, -1), load_scorer(str(get_family("emoji").scorer)), 1)
    assert {motion: row["agreement"] for motion, row in table.items()} == dict.fromkeys(MOTIONS, 1.0)
