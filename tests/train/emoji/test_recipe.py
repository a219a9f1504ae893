"""The recipe of the emoji family, at toy size, on art drawn here: every step runs, resumes, and fits the next."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import StableDiffusionPipeline
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_motion_model import MotionAdapter, UNetMotionModel
from PIL import Image, ImageDraw
from torch import Tensor

from npo_core.emoji.scorer import Answers, Scorer, ScorerNet, load_scorer, read_prompt
from train.emoji import networks, scorer
from train.emoji.base import BaseTrainer
from train.emoji.drawing.art import load_art, save_art
from train.emoji.drawing.concepts import BACKGROUNDS, COLOURS, STYLES, concepts
from train.emoji.drawing.flaws import FLAW_NAMES
from train.emoji.drawing.motions import clip_times, pose_at
from train.emoji.drawing.render import render, tint, to_bytes
from train.emoji.drawing.views import (
    NEXT_TO,
    ON,
    PICTURES,
    SINGLE,
    Views,
    captions,
    draw_views,
    placed,
    plain_views,
)
from train.emoji.language import prompts, wording
from train.emoji.vae import VaeTrainer

PURPLE = list(BACKGROUNDS).index("purple")


@pytest.fixture(scope="module")
def art(tmp_path_factory: pytest.TempPathFactory) -> Tensor:
    """Two-coloured shapes, the same six for all concepts, read back from a file of train.emoji.drawing.art."""
    rng, pictures = np.random.default_rng(0), []
    for _ in range(2 * len(STYLES)):
        picture = Image.new("RGBA", (192, 192))
        draw = ImageDraw.Draw(picture)
        draw.ellipse((2, 2, 190, 190), (*tuple(int(value) for value in rng.integers(40, 255, 3)), 255))
        draw.rectangle((70, 40, 120, 150), (*tuple(int(value) for value in rng.integers(0, 200, 3)), 255))
        pictures.append(picture)
    file = tmp_path_factory.mktemp("art") / "art.npz"
    save_art(pictures, file)
    return load_art(file).repeat(PICTURES // len(pictures), 1, 1, 1)


@pytest.fixture(scope="module")
def vae(art: Tensor, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An autoencoder after two steps of training, saved and read back."""
    folder = tmp_path_factory.mktemp("vae")
    trainer = VaeTrainer(art, folder, steps=2, batch_size=2, peak_rate=1e-3, compiled=False)
    trainer.run.to_the_end(trainer.batch, trainer.loss, 2)
    found = trainer.finish(measured_views=4)
    assert found["psnr_db"] > 0
    trainer.vae.half().save_pretrained(folder / "vae")
    return AutoencoderKL.from_pretrained(folder / "vae").float()


def one(flaw: str = "", strength: float = 0.5) -> Views:
    views = plain_views(np.array([1]), np.array([PURPLE]), np.array([-1]))
    flaws = np.array([FLAW_NAMES.index(flaw) if flaw else -1])
    return replace(views, flaw=flaws, strength=np.array([strength]), draws=np.full((1, 6), 0.4))


def drawn_views(count: int) -> Views:
    rng = np.random.default_rng(2)
    return draw_views(rng.integers(PICTURES, size=count), rng)


def test_there_are_enough_concepts_styles_and_backgrounds() -> None:
    assert len(concepts()) >= 250
    assert len(STYLES) == 3
    assert len(BACKGROUNDS) == 6


@pytest.mark.parametrize("flaw", [name for name in FLAW_NAMES if name != "cropped"])  # which is a placement
def test_every_flaw_draws_a_picture_that_differs_from_the_clean_one(art: Tensor, flaw: str) -> None:
    clean, drawn = render(art, one()), render(art, one(flaw))
    assert drawn.shape == (1, 3, 256, 256)
    change, faint, strong = (
        float((picture - clean).abs().mean())
        for picture in (drawn, render(art, one(flaw, 0.2)), render(art, one(flaw, 1)))
    )
    assert faint < change < strong, "strength is graded"
    assert change > 0.005
    assert torch.equal(drawn, render(art, one(flaw))), "rendering is a pure function"


def test_a_centred_picture_has_its_background_all_round_and_its_object_inside(art: Tensor) -> None:
    drawn = to_bytes(render(art, one()))[0]
    assert (drawn[0] == BACKGROUNDS["purple"]).all()
    assert (drawn[128, 128] != BACKGROUNDS["purple"]).any()


def test_a_sliding_object_moves_across_the_frames(art: Tensor) -> None:
    count = 16
    still = plain_views(np.zeros(count, int), np.zeros(count, int), np.full(count, -1))
    views = replace(still, placement=placed(pose_at("slide_left", clip_times(count))))
    darkness = 1 - render(art, views).mean((1, 2))  # (F, W)
    centre = (darkness * torch.arange(256)).sum(1) / darkness.sum(1)
    assert (centre.diff() < 0).all()
    assert float(centre[0] - centre[-1]) > 80


def test_a_tint_keeps_the_outline_and_turns_the_colour(art: Tensor) -> None:
    rgba = art[:1].float() / 255
    rgba[:, :3] *= rgba[:, 3:]
    blue = tint(rgba, np.array([COLOURS["blue"]]))
    assert torch.equal(blue[:, 3], rgba[:, 3])
    inside = blue[0, :3, rgba[0, 3] == 1]
    assert (inside[2] >= inside[0]).all()


def test_most_views_are_spoiled_and_a_few_captions_are_wrong() -> None:
    views = drawn_views(3000)
    assert 0.55 < (views.flaw >= 0).mean() < 0.65
    assert ((views.strength > 0) == (views.flaw >= 0)).all()
    assert 0.06 < (views.wrong >= 0).mean() < 0.1
    assert set(np.unique(views.flaw)) == set(range(-1, len(FLAW_NAMES)))
    text = " ".join(captions(views, np.random.default_rng(0)))
    assert not any(flaw in text for flaw in FLAW_NAMES if flaw != "dark")


def test_what_a_caption_says_can_be_read_back_and_is_true_unless_it_is_marked_as_wrong() -> None:
    views, lies = drawn_views(2000), 0
    number = (views.picture == views.picture[:, :1]).sum(1)
    for row, words in enumerate(captions(views, np.random.default_rng(0))):
        told = read_prompt(words, scorer.LABELS)
        colours = [hue + 1 if hue >= 0 else None for hue in views.colour[row]]
        shown = [(views.concept[row, 0], colours[0], number[row])]
        if views.layout[row] >= NEXT_TO:
            shown.append((views.concept[row, 1], colours[1], 1))
        true = told.things == tuple(shown) and (told.backdrop or 0) == views.background[row]
        assert told.style in (views.style[row], None), words
        assert true == (views.wrong[row] < 0), words
        lies += not true
    assert lies > 100


def test_a_scene_has_two_or_three_things_in_one_style_that_stay_on_the_canvas() -> None:
    views = drawn_views(3000)
    scenes = views[(views.layout != SINGLE) & (views.flaw != FLAW_NAMES.index("cropped"))]
    assert 0.3 < (views.layout != SINGLE).mean() < 0.4
    shown = scenes.picture >= 0
    assert (shown.sum(1) >= 2).all()
    assert (scenes.picture[shown] % len(STYLES) == np.repeat(scenes.style, shown.sum(1))).all()
    reach = np.abs(scenes.placement.x - 0.5) + scenes.placement.side / 2
    assert float(reach[shown].max()) < 0.56
    assert (scenes.motion < 0).all()


def test_a_cropped_view_is_cut_by_the_edge_as_deep_as_it_is_strong() -> None:
    views = drawn_views(3000)
    views = views[(views.flaw == FLAW_NAMES.index("cropped")) & (views.layout == SINGLE) & (views.motion < 0)]
    place = views.placement
    over = [np.abs(getattr(place, name)[:, 0] - 0.5) + place.side[:, 0] / 2 - 0.5 for name in ("x", "y")]
    cut = np.max(over, axis=0) / place.side[:, 0]
    assert (cut > 0.1).all()
    assert float(np.corrcoef(cut, views.strength)[0, 1]) > 0.8


def test_what_is_on_something_stands_on_it(art: Tensor) -> None:
    views = drawn_views(400)
    views = replace(views[views.layout == ON][:4], flaw=np.full(4, -1), background=np.zeros(4, int))
    lower = replace(views, picture=np.where([False, True, False], views.picture, -1))
    both, below = (1 - render(art, each).amin(1) > 0.05 for each in (views, lower))
    for row in range(4):
        assert both[row].any(1).int().argmax() < below[row].any(1).int().argmax(), "something is above"
        filled = both[row].any(1).int()
        assert int(filled.diff().abs().sum()) <= 2, "without a gap"


@pytest.mark.parametrize("name", prompts.LISTS)
def test_the_lists_of_prompts_are_what_the_recipe_writes(name: str) -> None:
    written = (Path(prompts.__file__).parents[1] / "prompt_lists" / name).read_text().splitlines()
    assert written == prompts.LISTS[name]()
    assert len(set(written)) == len(written)


def test_prompts_of_pairs_show_no_held_out_concept_and_two_in_five_are_scenes() -> None:
    held_out, scenes = set(prompts.held_out_concepts()), 0
    pairs, choice = prompts.pair_prompts(), prompts.choice_prompts()
    assert not set(pairs) & set(choice)
    for prompt in pairs[:1000] + choice:
        things = read_prompt(prompt, scorer.LABELS).things
        assert things, prompt
        assert not held_out & {scorer.LABELS.concepts[concept] for concept, _, _ in things}, prompt
        scenes += sum(number for _, _, number in things) > 1
    assert 0.36 < scenes / (1000 + len(choice)) < 0.44


def test_the_tokenizer_numbers_its_tokens_alike_every_time_and_knows_every_word_as_one(tmp_path: Path) -> None:
    first, second = (networks.build_tokenizer(tmp_path / name) for name in ("first", "second"))
    assert first.get_vocab() == second.get_vocab()
    assert all(len(first(word).input_ids) == 2 + 1 for word in wording.words() if word.isalpha())
    assert len(first("a red fox sliding left, flat style, pink background").input_ids) == 2 + 11
    again = networks.build_tokenizer(tmp_path / "first")
    assert again("a cat, 3d style").input_ids == first("a cat, 3d style").input_ids


def test_the_scorer_learns_resumes_and_is_read_back(art: Tensor, vae: Any, tmp_path: Path) -> None:
    def trainer(name: str) -> scorer.ScorerTrainer:
        return scorer.ScorerTrainer(art, vae, tmp_path / name, steps=4, batch_size=4)

    through, first = trainer("through.pt"), trainer("resumed.pt")
    for _ in range(3):
        through.step()
    first.step()
    first.save()
    second = trainer("resumed.pt")
    second.resume()
    assert second.done == 1
    second.step()
    second.step()
    for mine, theirs in zip(through.net.parameters(), second.net.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)
    metrics = scorer.measure_net(second.net.eval(), art, vae, measured_views=16)
    scorer.save(second.net, metrics, tmp_path / "scorer.safetensors")
    judge = load_scorer(tmp_path / "scorer.safetensors")
    images = [Image.fromarray(image) for image in to_bytes(render(art, drawn_views(4)))]
    told = ["a cat, 3d style", "two dogs", "a red cat on a chair, flat style, night sky", "a zeppelin"]
    assert (judge.log_probability(images, told) < 0).all()
    assert not judge.top1(images, told)[3]
    with torch.no_grad():
        pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1
        again = judge.log_probability_of_pixels(pixels, told)
    assert np.allclose(again.numpy(), judge.log_probability(images, told), atol=0.05)


def test_the_scorer_is_told_which_things_are_there_and_each_once() -> None:
    views = drawn_views(300)
    truth = scorer.truth_of(views, torch.device("cpu"))
    kinds = [len({concept for concept in row if concept >= 0}) for row in views.concept]
    assert truth.present.sum(1).tolist() == kinds
    assert (truth.thing >= 0).sum(1).tolist() == kinds
    three = torch.from_numpy((views.concept == views.concept[:, :1]).all(1))
    assert (truth.number[three, 0] == 2).all()
    assert (truth.flaws.sum(1) == 1 - truth.clean).all()


def test_the_score_falls_when_a_thing_its_colour_or_its_number_is_another() -> None:
    torch.manual_seed(0)
    judge = Scorer(ScorerNet(scorer.LABELS), scorer.LABELS)
    right = "two red cats on a chair, flat style, snow"
    wanted = read_prompt(right, scorer.LABELS)

    def logits(size: tuple[int, ...], *truths: tuple[int, ...]) -> Tensor:
        told = torch.full((1, *size), -5.0)
        for place in truths:
            told[(0, *place)] = 5.0
        return told

    count, labels = len(scorer.LABELS.concepts), scorer.LABELS
    (cat, red, two), (chair, _, one) = wanted.things
    assert wanted.style is not None
    assert wanted.backdrop is not None
    assert red is not None
    answers = Answers(
        present=logits((count,), (cat,), (chair,)),
        colour=logits((count, len(labels.colours)), (cat, red), (chair, 0)),
        number=logits((count, 3), (cat, two - 1), (chair, one - 1)),
        style=logits((3,), (wanted.style,)),
        backdrop=logits((len(labels.backdrops),), (wanted.backdrop,)),
        clean=torch.full((1,), 5.0),
        flaws=torch.full((1, len(labels.flaws)), -5.0),
    )
    score = float(judge._wanted(answers, [right]))
    for wrong in (
        "two red dogs on a chair, flat style, snow",
        "two blue cats on a chair, flat style, snow",
        "three red cats on a chair, flat style, snow",
        "two red cats on a book, flat style, snow",
        "two red cats on a chair, 3d style, snow",
        "two red cats on a chair, flat style, grass",
        "two red cats on a chair, flat style",
        "two red cats, flat style, snow",  # and nothing is said of a chair
    ):
        assert float(judge._wanted(answers, [wrong])) < score - 4, wrong


@pytest.mark.slow
def test_training_the_base_resumes_to_the_same_weights_and_exports_a_pipeline(
    art: Tensor, vae: Any, tmp_path: Path
) -> None:
    def trainer(name: str) -> BaseTrainer:
        return BaseTrainer(
            art, vae, tmp_path / name, steps=3, batch_size=4, peak_rate=1e-3, views_per_picture=2, compiled=False
        )

    through = trainer("through")
    through.run.to_the_end(through.batch, through.loss, 4)
    first = trainer("resumed")
    first.run.differentiate(first.loss, *first.batch(0))
    first.run.update()
    first.run.save()
    second = trainer("resumed")
    second.run.resume()
    assert second.run.done == 1
    second.run.to_the_end(second.batch, second.loss, 4)
    for mine, theirs in zip(through.run.average, second.run.average, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)

    vae.save_pretrained(tmp_path / "out/vae")
    second.export(tmp_path / "out")
    pipeline = StableDiffusionPipeline.from_pretrained(tmp_path / "out", dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline("a cat, 3d style", num_inference_steps=1).images[0].size == (128, 128)


def test_animatediff_accepts_the_unet() -> None:
    unet = networks.build_unet()
    adapter = MotionAdapter(
        block_out_channels=unet.config.block_out_channels,
        motion_layers_per_block=1,
        motion_num_attention_heads=4,
        use_motion_mid_block=False,
    )
    UNetMotionModel.from_unet2d(unet, adapter)
