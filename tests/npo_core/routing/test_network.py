from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import MotionAdapter, UNetMotionModel
from torch import Tensor

from npo_core.catalog.families import SCHEDULERS, build_scheduler
from npo_core.errors import InputError
from npo_core.routing.network import RoutedUNet, guided_rows
from npo_core.variants import ALIGNED, BASE, VARIANTS, Mix
from npo_core.weights import LowRankWeights, save_adapter
from tests.npo_core import by_hand
from tests.tiny import tiny_pipeline, tiny_weights

ETA = tiny_weights(seed=1, rank=4, scale=0.5)
DELTA = tiny_weights(seed=2, rank=3, scale=2.0)
PROMPT, NEGATIVE_PROMPT = "a red apple", "blurry"
ALPHA, BETA, GUIDANCE = 0.7, 1.3, 4.0


def routed_pipeline() -> Any:
    """The stock pipeline with a RoutedUNet that has both adapters."""
    pipeline: Any = tiny_pipeline()
    pipeline.set_progress_bar_config(disable=True)
    pipeline.unet = RoutedUNet(pipeline.unet)
    pipeline.unet.set_adapter("aligned", ETA)
    pipeline.unet.set_adapter("negative", DELTA)
    return pipeline


def run(pipeline: Any, count: int = 1, seed: int = 5, guidance_scale: float = GUIDANCE, **options: Any) -> Tensor:
    """Final latents (count, C, H, W) of the stock pipeline's own call."""
    return pipeline(
        prompt=[PROMPT] * count,
        negative_prompt=[NEGATIVE_PROMPT] * count,
        generator=[torch.Generator().manual_seed(seed) for _ in range(count)],
        guidance_scale=guidance_scale,
        num_inference_steps=4,
        output_type="latent",
        **options,
    ).images


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def assert_same(actual: Tensor, expected: Tensor) -> None:
    """Equal to float32 rounding: sums are taken in another order, and Euler starts from noise 4,096 times as large as
    the latents it ends with, so 5e-5 of the value range."""
    assert actual.shape == expected.shape
    assert (actual - expected).abs().max() <= 5e-5 * expected.abs().max().clamp(min=1)


@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_variant_equals_a_loop_with_separately_merged_weights(scheduler: str) -> None:
    pipeline = routed_pipeline()
    pairs = [variant.mixes(ALPHA, BETA) for variant in VARIANTS.values()]
    base = pipeline.unet.unet
    settings: dict[str, Any] = {"seed": 5, "scheduler": scheduler, "steps": 4, "guidance_scale": GUIDANCE}
    expected = [
        by_hand.sample(
            pipeline,
            by_hand.merged(base, conditional, ETA, DELTA),
            by_hand.merged(base, unconditional, ETA, DELTA),
            prompt=PROMPT,
            negative_prompt=NEGATIVE_PROMPT,
            **settings,
        )
        for conditional, unconditional in pairs
    ]
    pipeline.scheduler = build_scheduler(scheduler, pipeline.scheduler.config)
    with pipeline.unet.rows(guided_rows(pairs, GUIDANCE)):
        actual = run(pipeline, len(pairs))
    for latents, by_loop in zip(actual, expected, strict=True):
        assert_same(latents, by_loop)
    distances = torch.pdist(actual.flatten(1))
    assert distances.min() > 1e-2 * actual.abs().max(), "the variants must differ, or this test shows nothing"


def test_base_and_aligned_equal_the_stock_pipeline_run_alone(tmp_path: Any) -> None:
    pipeline = routed_pipeline()
    with pipeline.unet.rows(guided_rows([(BASE, BASE), (ALIGNED, ALIGNED)], GUIDANCE)):
        base, aligned = run(pipeline, 2)
    stock: Any = tiny_pipeline()
    stock.set_progress_bar_config(disable=True)
    assert_same(base, run(stock)[0])
    save_adapter(ETA, tmp_path)
    stock.load_lora_weights(tmp_path)
    assert_same(aligned, run(stock)[0])


def test_a_row_does_not_depend_on_the_mixes_of_the_others() -> None:
    pipeline = routed_pipeline()
    wanted = (ALIGNED, Mix(ALPHA, BETA))
    with pipeline.unet.rows(guided_rows([wanted], GUIDANCE)):
        alone = run(pipeline)[0]
    with pipeline.unet.rows(guided_rows([(Mix(-1.0, 2.0), BASE), wanted, (BASE, Mix(3.0, 0.0))], GUIDANCE)):
        among_others = run(pipeline, 3)[1]
    assert_same(among_others, alone)


@pytest.mark.parametrize("guidance_scale", [0.5, 1.0])
def test_without_guidance_only_the_conditional_rows_are_asked_for(guidance_scale: float) -> None:
    pipeline = routed_pipeline()
    with pipeline.unet.rows(guided_rows([(ALIGNED, ALIGNED)], guidance_scale)):
        aligned = run(pipeline, guidance_scale=guidance_scale)[0]
    unet = by_hand.merged(pipeline.unet.unet, ALIGNED, ETA, DELTA)
    expected = by_hand.sample(
        pipeline, unet, unet, prompt=PROMPT, negative_prompt="", seed=5, scheduler="ddim", steps=4, guidance_scale=1.0
    )
    assert_same(aligned, expected)


def test_without_guidance_a_variant_with_its_own_negative_branch_is_refused() -> None:
    with pytest.raises(InputError, match="At a guidance scale of 1 the negative branch is not used; give more than 1"):
        guided_rows([(BASE, BASE), (ALIGNED, Mix(1.0, 1.0))], 1.0)


def test_the_update_is_exact_up_to_rounding_in_double_precision() -> None:
    base: Any = tiny_pipeline().unet.double()
    eta, delta = ETA.to(dtype=torch.float64), DELTA.to(dtype=torch.float64)
    routed: Any = RoutedUNet(base)
    routed.set_adapter("aligned", eta)
    routed.set_adapter("negative", delta)
    mixes = [BASE, ALIGNED, Mix(ALPHA, BETA), Mix(-2.0, 4.0)]
    sample, text = noise(4, 4, 8, 8).double(), noise(4, 7, 32).double()
    with torch.no_grad(), routed.rows(mixes):
        actual = routed(sample, 500, encoder_hidden_states=text).sample
    for row, mix in enumerate(mixes):
        with torch.no_grad():
            expected = by_hand.merged(base, mix, eta, delta)(sample[row : row + 1], 500, text[row : row + 1]).sample
        assert torch.allclose(actual[row : row + 1], expected, rtol=0, atol=1e-10)


def test_an_adapter_may_touch_layers_that_the_other_does_not() -> None:
    names = list(ETA.layers)
    eta = LowRankWeights({name: ETA.layers[name] for name in names[:5]})
    delta = LowRankWeights({name: DELTA.layers[name] for name in names[3:]})
    base: Any = tiny_pipeline().unet
    routed: Any = RoutedUNet(base)
    routed.set_adapter("aligned", eta)
    routed.set_adapter("negative", delta)
    mixes = [BASE, ALIGNED, Mix(ALPHA, BETA)]
    sample, text = noise(3, 4, 8, 8), noise(3, 7, 32)
    with torch.no_grad(), routed.rows(mixes):
        actual = routed(sample, 500, encoder_hidden_states=text).sample
    for row, mix in enumerate(mixes):
        with torch.no_grad():
            expected = by_hand.merged(base, mix, eta, delta)(sample[row : row + 1], 500, text[row : row + 1]).sample
        assert_same(actual[row : row + 1], expected)


def test_the_frames_of_a_clip_all_run_through_the_mix_of_their_row() -> None:
    torch.manual_seed(0)
    motion = MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_num_attention_heads=2, motion_norm_num_groups=4
    )
    unet: Any = UNetMotionModel.from_unet2d(tiny_pipeline().unet, motion).eval()
    routed: Any = RoutedUNet(unet)
    routed.set_adapter("aligned", ETA)
    routed.set_adapter("negative", DELTA)
    mixes = [BASE, ALIGNED, Mix(ALPHA, BETA)]
    sample = noise(3, 4, 2, 8, 8)  # (rows, C, frames, H, W)
    text = noise(3, 7, 32).repeat_interleave(2, dim=0)  # (rows * frames, tokens, width), as AnimateDiff has it
    with torch.no_grad(), routed.rows(mixes):
        actual = routed(sample, 500, encoder_hidden_states=text).sample
    for row, mix in enumerate(mixes):
        alone = by_hand.merged(unet, mix, ETA, DELTA)
        with torch.no_grad():
            expected = alone(sample[row : row + 1], 500, text[2 * row : 2 * row + 2]).sample
        assert_same(actual[row : row + 1], expected)


def test_a_batch_of_another_size_than_the_mixes_is_an_error() -> None:
    pipeline = routed_pipeline()
    with (
        pytest.raises(ValueError, match=r"called with 2 rows within rows\(\) of 3 mixes"),
        pipeline.unet.rows([BASE] * 3),
    ):
        run(pipeline)


def test_an_exception_leaves_the_base_unet_behind() -> None:
    pipeline = routed_pipeline()
    expected = run(pipeline)

    def stop(*_: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), pipeline.unet.rows([ALIGNED, ALIGNED]):
        run(pipeline, callback_on_step_end=stop)
    assert not any(module._forward_hooks for module in pipeline.unet.modules())
    assert torch.equal(run(pipeline), expected)


def test_a_mix_that_needs_an_adapter_which_is_not_there_is_refused() -> None:
    routed = RoutedUNet(tiny_pipeline().unet)
    routed.set_adapter("aligned", ETA)
    with pytest.raises(InputError, match="role 'negative'"), routed.rows([Mix(1.0, 1.0)]):
        pass
    routed.set_adapter("aligned", None)
    with pytest.raises(InputError, match="role 'aligned'"), routed.rows([ALIGNED]):
        pass


def test_rows_cannot_be_nested() -> None:
    routed = RoutedUNet(tiny_pipeline().unet)
    with pytest.raises(RuntimeError, match="nested"), routed.rows([BASE]), routed.rows([BASE]):
        pass


def test_the_wrapped_unet_shows_through() -> None:
    base: Any = tiny_pipeline().unet
    routed: Any = RoutedUNet(base)
    assert routed.config is base.config
    assert routed.dtype == torch.float32
    assert routed.device == torch.device("cpu")
    assert routed.conv_in is base.conv_in
    with pytest.raises(AttributeError):
        _ = routed.no_such_attribute
