from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError
from npo_core.generator import Comparison, GenerationRequest, Generator, adapter_file
from npo_core.media.files import open_image, sha256_hex
from npo_core.progress import StepProgress
from npo_core.variants import VARIANTS
from tests.tiny import tiny_adapter

REQUEST = GenerationRequest("a red apple", seed=3)


def media(comparison: Comparison) -> dict[str, bytes]:
    return {sample.variant: sample.media for sample in comparison.samples}


def test_a_comparison_remembers_everything(family: ModelFamily, generator: Generator) -> None:
    comparison = generator.generate(REQUEST)
    assert comparison.family == family.name
    request = comparison.request
    assert (request.prompt, request.seed, request.steps, request.guidance_scale) == ("a red apple", 3, 3, 4.0)
    assert (request.alpha, request.beta, request.scheduler, request.width_px) == (1.0, 1.0, "ddim", 64)
    assert [sample.variant for sample in comparison.samples] == ["base", "aligned", "aligned_npo"]
    assert {role: adapter.id for role, adapter in comparison.adapters.items()} == {
        "aligned": "tiny-aligned",
        "negative": "tiny-negative",
    }
    assert comparison.versions.keys() >= {"torch", "diffusers"}
    assert comparison.elapsed_s > 0
    for sample in comparison.samples:
        assert sample.media_type == "image/png"
        assert sample.media_sha256 == sha256_hex(sample.media)
        assert open_image(sample.media).size == (64, 64)
        assert sample.latents.dtype == np.float16
        assert sample.latents.shape == (4, 8, 8)
    assert len(set(media(comparison).values())) == 3


def test_the_same_request_gives_the_same_bytes(generator: Generator) -> None:
    first = generator.generate(REQUEST)
    generator.generate(replace(REQUEST, seed=4, alpha=0.5, scheduler="euler"))
    assert media(generator.generate(REQUEST)) == media(first)


def test_the_seed_sets_the_noise(generator: Generator) -> None:
    assert media(generator.generate(REQUEST)) != media(generator.generate(replace(REQUEST, seed=4)))


def test_a_resolved_request_can_be_generated_again(generator: Generator) -> None:
    comparison = generator.generate(REQUEST)
    assert media(generator.generate(comparison.request)) == media(comparison)


def test_alpha_one_and_beta_zero_is_plain_guidance_with_the_aligned_model(generator: Generator) -> None:
    pictures = media(generator.generate(replace(REQUEST, alpha=1.0, beta=0.0)))
    assert pictures["aligned_npo"] == pictures["aligned"]


def test_alpha_zero_and_beta_zero_answers_the_negative_prompt_with_the_base(generator: Generator) -> None:
    variants = ("aligned_npo", "aligned_vs_base", "base_npo", "base")
    pictures = media(generator.generate(replace(REQUEST, alpha=0.0, beta=0.0, variants=variants)))
    assert pictures["aligned_npo"] == pictures["aligned_vs_base"]
    assert pictures["base_npo"] == pictures["base"]


def test_a_batch_gives_what_each_request_gives_alone(generator: Generator) -> None:
    requests = [
        REQUEST,
        replace(REQUEST, prompt="a cat", seed=9, negative_prompt="blurry", beta=2.0),
        replace(REQUEST, seed=11, variants=tuple(VARIANTS)),
    ]
    together = generator.generate_batch(requests)
    for request, comparison in zip(requests, together, strict=True):
        alone = generator.generate(request)
        assert comparison.request == alone.request
        for ours, expected in zip(comparison.samples, alone.samples, strict=True):
            assert ours.variant == expected.variant
            assert np.allclose(ours.latents, expected.latents, atol=2e-3)
    assert generator.generate_batch([]) == []


def test_a_batch_that_cannot_share_a_call_is_refused(generator: Generator) -> None:
    with pytest.raises(InputError, match=r"differ in steps \(3, 5\)"):
        generator.generate_batch([REQUEST, replace(REQUEST, steps=5)])


def test_every_step_is_reported_and_can_be_looked_at(generator: Generator) -> None:
    steps: list[tuple[int, int]] = []
    previews: list[list[Image.Image]] = []

    def look(progress: StepProgress) -> None:
        steps.append((progress.step, progress.total_steps))
        previews.append(progress.preview())

    comparison = generator.generate(REQUEST, on_step=look)
    assert steps == [(1, 3), (2, 3), (3, 3)]
    final = [open_image(sample.media) for sample in comparison.samples]
    assert [image.tobytes() for image in previews[-1]] == [image.tobytes() for image in final]
    assert previews[0][0].size == (64, 64)
    assert previews[0][0].tobytes() != previews[-1][0].tobytes()


def test_an_error_in_the_middle_leaves_the_generator_usable(generator: Generator) -> None:
    expected = media(generator.generate(REQUEST))

    def fail(progress: StepProgress) -> None:
        raise RuntimeError("the visitor left")

    with pytest.raises(RuntimeError, match="the visitor left"):
        generator.generate(REQUEST, on_step=fail)
    assert media(generator.generate(REQUEST)) == expected


def test_threads_do_not_disturb_each_other(family: ModelFamily, generator: Generator) -> None:
    requests = [replace(REQUEST, seed=seed, beta=float(seed)) for seed in range(4)]
    expected = [media(generator.generate(request)) for request in requests]
    shared = Generator(family)  # not loaded yet: the threads race for that too
    results: list[Any] = [None] * len(requests)

    def run(index: int) -> None:
        results[index] = media(shared.generate(requests[index]))

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(requests))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == expected


def test_a_swapped_negative_changes_only_the_variants_that_use_it(family: ModelFamily, tmp_path: Path) -> None:
    generator = Generator(family)
    before = generator.generate(REQUEST)
    newer = tiny_adapter(tmp_path / "newer", "negative", seed=7)
    generator.use_adapter(newer)
    after = generator.generate(REQUEST)
    assert after.adapters["negative"] == newer
    assert after.adapters["aligned"] == before.adapters["aligned"]
    assert media(after)["base"] == media(before)["base"]
    assert media(after)["aligned"] == media(before)["aligned"]
    assert media(after)["aligned_npo"] != media(before)["aligned_npo"]
    generator.use_adapter(before.adapters["negative"])
    assert media(generator.generate(REQUEST)) == media(before)
    assert media(Generator(family, negative=newer).generate(REQUEST)) == media(after)


def test_a_damaged_adapter_is_refused_and_the_one_in_use_stays(family: ModelFamily, tmp_path: Path) -> None:
    generator = Generator(family)
    before = generator.generate(REQUEST)
    changed = tiny_adapter(tmp_path / "changed", "negative", seed=8)
    tiny_adapter(tmp_path / "changed", "negative", seed=9)
    with pytest.raises(InputError, match="changed since it was named"):
        generator.use_adapter(changed)
    corrupt = tiny_adapter(tmp_path / "corrupt", "negative", seed=8)
    corrupt.path.write_bytes(b"corrupt")
    with pytest.raises(InputError, match="cannot be read as weights"):
        generator.use_adapter(corrupt)
    assert generator.adapters() == before.adapters
    assert media(generator.generate(REQUEST)) == media(before)


def test_a_family_without_adapters_makes_what_needs_none(family: ModelFamily, generator: Generator) -> None:
    bare = Generator(replace(family, aligned=None, negative=None))
    assert bare.adapters() == {}
    request = replace(REQUEST, variants=("base",))
    assert media(bare.generate(request)) == media(generator.generate(request))
    with pytest.raises(InputError, match="need an adapter of role 'aligned' and none is loaded for Tiny"):
        bare.generate(REQUEST)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"prompt": " \n"}, "The prompt is empty"),
        ({"prompt": "x" * 76}, "The prompt has 76 tokens and Tiny reads 75; shorten it."),
        ({"negative_prompt": "x" * 80}, "The negative prompt has 80 tokens"),
        ({"guidance_scale": 1.0}, "give more than 1 for variants that answer it with other weights"),
    ],
)
def test_what_only_the_model_can_tell_is_checked_before_generating(
    generator: Generator, change: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        generator.validate_request(replace(REQUEST, **change))


def test_a_prompt_may_fill_the_text_encoder_and_guidance_may_be_off(generator: Generator) -> None:
    assert generator.token_limit == 75
    full = replace(REQUEST, prompt="x" * 75, guidance_scale=0.5, variants=("base", "aligned"))
    assert generator.validate_request(full).guidance_scale == 0.5
    assert len(generator.generate(full).samples) == 2


def test_missing_weights_are_one_sentence(family: ModelFamily, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Tiny is not complete on this machine"):
        Generator(replace(family, base=str(tmp_path / "nowhere"))).load()
    with pytest.raises(InputError, match="missing: negative weights"):
        Generator(replace(family, negative=str(tmp_path / "nowhere"))).load()
    with pytest.raises(InputError, match="Unknown family 'nowhere'; choose from emoji"):
        Generator("nowhere")


def test_a_damaged_base_is_one_sentence(own_family: ModelFamily) -> None:
    (Path(own_family.base) / "unet" / "diffusion_pytorch_model.safetensors").write_bytes(b"damaged")
    with pytest.raises(InputError, match="cannot be loaded"):
        Generator(own_family).load()


def test_adapters_are_known_before_anything_is_loaded(family: ModelFamily) -> None:
    assert Generator(family).adapters()["negative"] == adapter_file(str(family.negative), "negative", "tiny-negative")


def test_a_warm_up_changes_no_picture(family: ModelFamily, generator: Generator) -> None:
    expected = generator.generate(REQUEST)
    assert expected.execution == {"routing": "low_rank", "forward": "eager"}
    warmed = Generator(family)
    warmed.warm_up()
    assert media(warmed.generate(REQUEST)) == media(expected)
    Generator(replace(family, aligned=None, negative=None)).warm_up()  # of what can be made without adapters


def test_a_forced_routing_is_reported_and_makes_the_same_pictures(family: ModelFamily, generator: Generator) -> None:
    expected = generator.generate(REQUEST)
    forced = Generator(family, routing="weight_sets").generate(REQUEST)
    assert forced.execution["routing"] == "weight_sets"
    for ours, theirs in zip(forced.samples, expected.samples, strict=True):
        assert np.allclose(ours.latents, theirs.latents, atol=2e-3)
    with pytest.raises(InputError, match="Unknown routing 'fast'"):
        Generator(family, routing="fast")
