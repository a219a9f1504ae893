from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import AnimateDiffPipeline, MotionAdapter, StableDiffusionPipeline

from npo_core.catalog.adapter_files import adapter_file
from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError
from npo_core.generator import Comparison, GenerationRequest, Generator
from npo_core.media.files import open_clip, sha256_hex
from npo_core.progress import StepProgress
from npo_core.sampling.clips import clip_noise
from npo_core.sampling.sampler import Sampler
from npo_core.variants import VARIANTS
from npo_core.weights import load_adapter
from tests.npo_core import by_hand
from tests.tiny import tiny_adapter, tiny_motion_adapter
from tests.train.helpers import CLIP_SHAPE, random_pairs, small_config
from train.engine.loop import train_adapter

REQUEST = GenerationRequest("a red apple", "blurry", seed=3, modality="video")


def latents(comparison: Comparison) -> dict[str, np.ndarray]:
    return {sample.variant: sample.latents.astype(np.float32) for sample in comparison.samples}


def test_a_comparison_of_clips_remembers_everything(generator: Generator) -> None:
    comparison = generator.generate(REQUEST)
    request = comparison.request
    assert (request.modality, request.frames, request.fps, request.steps) == ("video", 4, 8.0, 2)
    assert (request.guidance_scale, request.width_px) == (3.0, 64)
    for sample in comparison.samples:
        assert sample.media_type == "video/mp4"
        assert sample.media_sha256 == sha256_hex(sample.media)
        assert sample.latents.dtype == np.float16
        assert sample.latents.shape == (4, 4, 8, 8)  # frames, channels, height, width
        frames = open_clip(sample.media)
        assert [frame.size for frame in frames] == [(64, 64)] * 4
    assert len({sample.media for sample in comparison.samples}) == 3
    assert [sample.media for sample in generator.generate(REQUEST).samples] == [s.media for s in comparison.samples]


@pytest.mark.parametrize("scheduler", ["ddim", "euler"])
def test_every_variant_equals_a_loop_with_separately_merged_weights(
    family: ModelFamily, generator: Generator, scheduler: str
) -> None:
    made = generator.generate(replace(REQUEST, scheduler=scheduler, alpha=0.7, beta=1.3, variants=tuple(VARIANTS)))
    eta, delta = load_adapter(str(family.aligned)), load_adapter(str(family.negative))
    pipeline = stock(family)
    for name, actual in latents(made).items():
        conditional, unconditional = VARIANTS[name].mixes(0.7, 1.3)
        expected = by_hand.sample(
            pipeline,
            by_hand.merged(pipeline.unet, conditional, eta, delta),
            by_hand.merged(pipeline.unet, unconditional, eta, delta),
            prompt="a red apple",
            negative_prompt="blurry",
            seed=3,
            scheduler=scheduler,
            steps=2,
            guidance_scale=3.0,
            shape=(4, 4, 8, 8),
        )
        assert np.allclose(actual, expected.transpose(0, 1).numpy(), atol=2e-3 * float(expected.abs().max()))


def test_a_negative_model_trained_on_the_motion_modules_acts_in_them(family: ModelFamily, tmp_path: Path) -> None:
    config = small_config(
        tmp_path, modality="video", batch_size=2, max_train_steps=6, targets="attention+motion", learning_rate=0.05
    )
    train_adapter(config, random_pairs(4, shape=CLIP_SHAPE), family)
    eta, delta = load_adapter(str(family.aligned)), load_adapter(str(tmp_path))
    assert any(".motion_modules." in layer for layer in delta.layers)
    generator = Generator(family)
    generator.use_adapter(adapter_file(tmp_path, "negative"), "video")
    made = latents(generator.generate(replace(REQUEST, variants=("aligned_npo",))))["aligned_npo"]
    pipeline, mixes = stock(family), VARIANTS["aligned_npo"].mixes(1.0, 1.0)
    expected = by_hand.sample(
        pipeline,
        *(by_hand.merged(pipeline.unet, mix, eta, delta) for mix in mixes),
        prompt="a red apple",
        negative_prompt="blurry",
        seed=3,
        scheduler="ddim",
        steps=2,
        guidance_scale=3.0,
        shape=(4, 4, 8, 8),
    )
    assert_clip(made, expected.transpose(0, 1))


def test_base_and_aligned_equal_the_stock_pipeline_run_alone(family: ModelFamily, generator: Generator) -> None:
    made = latents(generator.generate(replace(REQUEST, variants=("base", "aligned"))))
    pipeline = stock(family)
    assert_clip(made["base"], run(pipeline))
    pipeline.load_lora_weights(family.aligned)
    assert_clip(made["aligned"], run(pipeline))


def stock(family: ModelFamily) -> Any:
    """diffusers' own AnimateDiffPipeline from the family's files."""
    parts = StableDiffusionPipeline.from_pretrained(family.base).components
    for name in ("safety_checker", "feature_extractor", "image_encoder"):
        parts.pop(name)
    assert family.video is not None
    pipeline: Any = AnimateDiffPipeline(
        **parts, motion_adapter=MotionAdapter.from_pretrained(family.video.motion_adapter)
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def run(pipeline: Any, frames: int = 4, **more: Any) -> Any:
    """The final latents (F, C, H, W) of the stock pipeline's own call."""
    return (
        pipeline(
            prompt="a red apple",
            negative_prompt="blurry",
            generator=torch.Generator().manual_seed(3),
            num_frames=frames,
            num_inference_steps=2,
            guidance_scale=3.0,
            output_type="latent",
            **more,
        )
        .frames[0]
        .transpose(0, 1)
    )


def assert_clip(actual: np.ndarray, expected: Any) -> None:
    """Equal to the rounding of float16, in which latents are kept."""
    assert np.allclose(actual, expected.numpy(), atol=2e-3 * float(expected.abs().max()))


def test_the_frames_of_a_clip_are_not_alike_and_depend_on_each_other(generator: Generator) -> None:
    short = latents(generator.generate(REQUEST))["base"]
    still = latents(generator.generate(replace(REQUEST, frames=2)))["base"]
    assert np.abs(np.diff(short, axis=0)).mean() > 0.1 * np.abs(short).mean()
    assert not np.allclose(short[:2], still, atol=1e-2)


def test_clips_share_every_weight_of_the_base(generator: Generator) -> None:
    generator.load("video")
    pictures, clips = generator._loaded("image"), generator._loaded("video")
    ours = dict(clips.unet.unet.named_parameters())
    for name, parameter in pictures.unet.unet.named_parameters():
        assert ours[name].data_ptr() == parameter.data_ptr()
    assert clips.pipeline.vae is pictures.pipeline.vae


def test_adapters_of_clips_and_of_pictures_are_swapped_apart(family: ModelFamily, tmp_path: Path) -> None:
    generator = Generator(family)
    picture = replace(REQUEST, modality="image")
    before = latents(generator.generate(picture))
    clips_before = latents(generator.generate(REQUEST))
    newer = tiny_adapter(tmp_path / "newer", "negative", seed=7)
    generator.use_adapter(newer, "video")
    assert generator.adapters("video")["negative"] == newer
    assert generator.adapters()["negative"] != newer
    after = latents(generator.generate(REQUEST))
    assert np.array_equal(after["aligned"], clips_before["aligned"])
    assert not np.array_equal(after["aligned_npo"], clips_before["aligned_npo"])
    assert np.array_equal(latents(generator.generate(picture))["aligned_npo"], before["aligned_npo"])


def test_steps_are_reported_with_the_middle_frames(generator: Generator) -> None:
    seen: list[tuple[int, int]] = []
    shown: list[int] = []

    def look(progress: StepProgress) -> None:
        seen.append((progress.step, progress.total_steps))
        shown.append(len(progress.preview()))

    generator.generate(REQUEST, on_step=look)
    assert seen == [(1, 2), (2, 2)]
    assert shown == [3, 3]


def test_clips_that_do_not_fit_together_are_made_in_several_calls(
    family: ModelFamily, generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    together = latents(generator.generate(REQUEST))
    small = Generator(family)
    small.load("video")
    denoise, sizes = Sampler.denoise, []

    def short_of_memory(self: Sampler, copies: Any, pairs: Any, on_step: Any) -> Any:
        sizes.append(len(copies))
        if len(copies) > 1:
            raise torch.OutOfMemoryError("out of memory")
        return denoise(self, copies, pairs, on_step)

    monkeypatch.setattr(Sampler, "denoise", short_of_memory)
    steps: list[tuple[int, int]] = []
    apart = latents(small.generate(REQUEST, on_step=lambda step: steps.append((step.step, step.total_steps))))
    assert sizes == [3, 1, 1, 1]
    assert steps == [(number, 6) for number in range(1, 7)]
    for name, clip in together.items():
        assert np.allclose(apart[name], clip, atol=2e-3 * np.abs(clip).max())


def test_a_long_clip_attends_in_windows_and_short_ones_stay_as_they_were(generator: Generator) -> None:
    before = latents(generator.generate(REQUEST))
    long = latents(generator.generate(replace(REQUEST, frames=10)))
    assert long["base"].shape == (10, 4, 8, 8)
    assert len({clip.tobytes() for clip in long.values()}) == 3
    after = latents(generator.generate(REQUEST))
    assert all(np.array_equal(after[name], clip) for name, clip in before.items())


@pytest.mark.parametrize("name", ["base", "aligned"])
def test_a_long_clip_equals_the_stock_pipeline_with_free_noise(
    name: str, family: ModelFamily, generator: Generator
) -> None:
    made = latents(generator.generate(replace(REQUEST, frames=10, variants=(name,))))[name]
    pipeline = stock(family)
    if name == "aligned":
        pipeline.load_lora_weights(family.aligned)
    pipeline.enable_free_noise(context_length=4, context_stride=4, noise_type="random")
    noise = clip_noise(3, 10, (4, 8, 8), 4, torch.float32)[None]
    assert_clip(made, run(pipeline, 10, latents=noise))


def test_the_noise_of_a_long_clip_repeats_its_first_window() -> None:
    noise = clip_noise(5, 12, (4, 8, 8), 8, torch.float32)
    short = clip_noise(5, 8, (4, 8, 8), 8, torch.float32)
    assert noise.shape == (4, 12, 8, 8)
    assert torch.equal(noise[:, :8], short)
    assert torch.equal(short, torch.randn(4, 8, 8, 8, generator=torch.Generator().manual_seed(5)))
    repeated = {noise[:, frame].numpy().tobytes() for frame in range(8, 12)}
    assert repeated == {noise[:, frame].numpy().tobytes() for frame in range(4)}


def test_a_motion_adapter_that_is_missing_or_of_another_base_is_one_sentence(
    family: ModelFamily, tmp_path: Path
) -> None:
    assert family.video is not None

    def with_adapter(path: Path) -> Generator:
        return Generator(replace(family, video=replace(family.video, motion_adapter=str(path))))

    with pytest.raises(InputError, match=r"missing: motion adapter .*nowhere"):
        with_adapter(tmp_path / "nowhere").load("video")
    MotionAdapter(
        block_out_channels=(16,), motion_layers_per_block=1, motion_num_attention_heads=2, motion_norm_num_groups=4
    ).save_pretrained(tmp_path / "other")
    with pytest.raises(InputError, match="The motion adapter does not fit this base"):
        with_adapter(tmp_path / "other").load("video")
    tiny_motion_adapter().save_pretrained(tmp_path / "damaged")
    (tmp_path / "damaged" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be loaded"):
        with_adapter(tmp_path / "damaged").load("video")


def test_a_family_without_a_motion_adapter_makes_no_clips(family: ModelFamily) -> None:
    with pytest.raises(InputError, match="does not make modality 'video'; choose from image"):
        Generator(replace(family, video=None)).generate(REQUEST)
