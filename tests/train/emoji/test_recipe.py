"""The recipe of the emoji family, at toy size, on art drawn here: every step runs, resumes, and fits the next."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers.models.unets.unet_motion_model import MotionAdapter, UNetMotionModel
from PIL import Image, ImageDraw

from npo_core.emoji.scorer import Labels, load_scorer, read_prompt
from train.emoji import base, clean, latents, scorer, vae
from train.emoji.concepts import BACKGROUNDS, COLOURS, STYLES, common_concepts, concepts
from train.emoji.data import BACKGROUND_NAMES, FLAW_NAMES, View, caption, draw_view, place, render, tint
from train.emoji.prompts import draw_prompts, held_out_concepts, pair_concepts

LABELS = Labels(**{name: tuple(words) for name, words in scorer.LABELS.items()})
VIEWS = 120


def art(seed: int) -> np.ndarray:
    """A two-coloured shape, (256, 256, 4) uint8."""
    rng = np.random.default_rng(seed)
    picture = Image.new("RGBA", (256, 256))
    draw = ImageDraw.Draw(picture)
    draw.ellipse((20, 20, 236, 236), (*tuple(int(value) for value in rng.integers(40, 255, 3)), 255))
    draw.rectangle((90, 60, 150, 200), (*tuple(int(value) for value in rng.integers(0, 200, 3)), 255))
    return np.asarray(picture)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as train.emoji.data writes it, with views of the first two concepts."""
    folder = tmp_path_factory.mktemp("emoji")
    rng = np.random.default_rng(0)
    views = [draw_view(index % 6, rng) for index in range(VIEWS)]
    np.save(folder / "images.npy", np.stack([render(art(index % 6), view, rng) for index, view in enumerate(views)]))
    (folder / "views.json").write_text(json.dumps([list(vars(view).values()) for view in views]))
    return folder


def test_there_are_enough_concepts_styles_and_backgrounds() -> None:
    assert len(concepts()) >= 250
    assert len(STYLES) == 3
    assert len(BACKGROUNDS) == 6
    assert set(common_concepts()) <= set(concepts())


@pytest.mark.parametrize("flaw", ["", *FLAW_NAMES])
def test_every_flaw_draws_a_picture_that_differs_from_the_clean_one(flaw: str) -> None:
    clean = render(art(1), View(0, 0, 2, -1, ""), np.random.default_rng(5))
    drawn = render(art(1), View(0, 0, 2, -1, flaw), np.random.default_rng(5))
    assert drawn.shape == (128, 128, 3)
    assert np.array_equal(drawn, clean) == (flaw == "")


def test_a_tint_keeps_the_outline_and_turns_the_colour() -> None:
    blue = tint(art(3), COLOURS["blue"])
    assert np.array_equal(blue[..., 3], art(3)[..., 3])
    inside = blue[blue[..., 3] == 255][:, :3].astype(int)
    assert (inside[:, 2] >= inside[:, 0]).all()


def test_captions_never_mention_a_flaw_and_read_back_as_what_they_show() -> None:
    rng = np.random.default_rng(2)
    for _ in range(300):
        view = draw_view(int(rng.integers(len(concepts()) * len(STYLES))), rng)
        words = caption(view, rng)
        wanted = read_prompt(words, LABELS)
        assert wanted.concept == view.concept, words
        assert wanted.colour == (view.colour + 1 if view.colour >= 0 else None), words
        assert wanted.style in (view.style, None), words
        assert (wanted.background or 0) == view.background, words


def test_the_colour_orange_and_the_fruit_are_told_apart() -> None:
    names = list(concepts())
    assert read_prompt("an orange cat, 3d style", LABELS).concept == names.index("cat")
    assert read_prompt("a blue orange, 3d style", LABELS).concept == names.index("orange")


def test_held_out_concepts_are_in_no_pair_prompt() -> None:
    held_out = set(held_out_concepts())
    assert not held_out & set(pair_concepts())
    names = list(concepts())
    for prompt in draw_prompts(pair_concepts(), 300, seed=0):
        concept = read_prompt(prompt, LABELS).concept
        assert concept is not None
        assert names[concept] not in held_out


def test_the_autoencoder_is_the_latent_basis_before_any_training(data: Path) -> None:
    basis, stored = latents.encode_folder(data)
    images = np.load(data / "images.npy")[:8]
    autoencoder = vae.build_vae(basis)
    with torch.no_grad():
        encoded = autoencoder.encode(vae.to_tensor(images)).latent_dist.mode()
        decoded = autoencoder.decode(encoded).sample
    torch.testing.assert_close(encoded, torch.from_numpy(basis.encode(images)), atol=1e-4, rtol=1e-4)
    linear = vae.to_tensor(basis.decode(basis.encode(images)))
    assert (decoded.clamp(-1, 1) - linear).abs().max() < 0.02  # 8-bit rounding
    assert np.mean(stored.astype(np.float32) ** 2) == pytest.approx(1.0, rel=0.25)


def test_the_decoder_and_the_scorer_learn_and_the_scorer_is_read_back(data: Path, tmp_path: Path) -> None:
    trainer = vae.DecoderTrainer(data, tmp_path, steps=6, batch_size=4, peak_rate=1e-3, device="cpu")
    losses = [trainer.step() for _ in range(6)]
    assert np.isfinite(losses).all()
    assert trainer.quality_db() > 10
    command = [sys.executable, "-m", "train.emoji.scorer", "--data", str(data), "--steps", "3", "--batch-size", "8"]
    subprocess.run([*command, "--out", str(tmp_path / "scorer.safetensors")], check=True, capture_output=True)
    judge = load_scorer(tmp_path / "scorer.safetensors")
    images = [Image.fromarray(image) for image in np.load(data / "images.npy")[:4]]
    prompts = ["a cat, 3d style", "a dog", "a red cat, flat style, blue background", "a zeppelin"]
    assert (judge.log_probability(images, prompts) < 0).all()
    assert not judge.top1(images, prompts)[3]


def test_clean_latents_are_those_of_the_rendered_picture_on_every_background(data: Path) -> None:
    basis, _ = latents.encode_folder(data)
    views = [view for view in clean.clean_views("common") if view.concept == 0 and view.style == 0]
    made = clean.on_all_backgrounds(art(4), basis).astype(np.float32)
    assert len(made) == len(views)
    for number in (0, 5, 20, 47):
        drawn = place(art(4), views[number], BACKGROUNDS[BACKGROUND_NAMES[views[number].background]])
        np.testing.assert_allclose(made[number], basis.encode(drawn[None])[0], atol=0.05)
    assert clean.clean_index(views, "common").tolist() == list(range(len(views)))


def test_training_the_base_resumes_to_the_same_weights_to_rounding(data: Path, tmp_path: Path) -> None:
    basis, _ = latents.encode_folder(data)
    # The clean pictures of all concepts, as far as two shapes drawn here can stand for them.
    pair = np.concatenate([clean.on_all_backgrounds(art(seed), basis) for seed in range(2)])
    np.save(data / "clean-common.npy", np.resize(pair, (len(clean.clean_views("common")), *pair.shape[1:])))
    text_encoder = base.build_text_encoder(base.build_tokenizer(tmp_path / "tokenizer"))

    def trainer(folder: Path) -> base.BaseTrainer:
        folder.mkdir(exist_ok=True)
        torch.save({"text": text_encoder.state_dict()}, folder / "text.pt")
        return base.BaseTrainer(data, folder, "common", batch_size=2, peak_rate=1e-3, steps=4, device="cpu")

    through, again, first = (trainer(tmp_path / name) for name in ("through", "again", "resumed"))
    for _ in range(3):
        through.step()
    for _ in range(3):
        again.step()
    first.step()
    first.checkpoint()
    second = trainer(tmp_path / "resumed")
    second.resume()
    assert second.done == 1
    for _ in range(2):
        second.step()

    def distance(one: base.BaseTrainer, other: base.BaseTrainer) -> float:
        pairs = zip(one.parameters, other.parameters, strict=True)
        return float(sum((mine - theirs).abs().sum() for mine, theirs in pairs))

    # bfloat16 products are not repeatable to the bit, and Adam's first steps show it: an uninterrupted second run
    # gives the measure of what is the same.
    assert distance(through, second) < 1.3 * distance(through, again) + 1


def test_animatediff_accepts_the_unet() -> None:
    adapter = MotionAdapter(
        block_out_channels=(192, 288),
        motion_layers_per_block=1,
        motion_num_attention_heads=4,
        use_motion_mid_block=False,
    )
    UNetMotionModel.from_unet2d(base.build_unet(), adapter)
