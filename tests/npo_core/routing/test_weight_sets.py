"""Full fine-tuned weights, alone and together with LoRAs: rows grouped over sets of weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import MotionAdapter, UNet2DConditionModel, UNetMotionModel

from npo_core.errors import InputError
from npo_core.routing.execution import (
    ACTIVATION_RESERVE_BYTES,
    LOW_RANK,
    ROUTINGS,
    STREAMED_SETS,
    WEIGHT_SETS,
    choose_routing,
)
from npo_core.routing.network import RoutedUNet
from npo_core.variants import ALIGNED, BASE, Mix
from npo_core.weights import AdapterWeights, FullWeights
from tests.npo_core import by_hand
from tests.tiny import tiny_full_weights, tiny_pipeline, tiny_weights

UNET: Any = tiny_pipeline().unet.double()
LORA_ETA, LORA_DELTA = (tiny_weights(seed).to(dtype=torch.float64) for seed in (1, 2))
FULL_ETA, FULL_DELTA = (tiny_full_weights(UNET, seed) for seed in (3, 4))


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def routed_unet(eta: AdapterWeights, delta: AdapterWeights, routing: str | None = None, unet: Any = UNET) -> Any:
    routed = RoutedUNet(unet, routing)
    routed.set_adapter("aligned", eta)
    routed.set_adapter("negative", delta)
    return routed


@torch.no_grad()
def assert_rows_are_exact(routed: Any, mixes: list[Mix], eta: AdapterWeights, delta: AdapterWeights) -> None:
    """Every row equals a call of the UNet merged by hand, in double precision, and the base comes back afterwards."""
    sample, text = noise(len(mixes), 4, 8, 8), noise(len(mixes), 7, 32)
    with routed.rows(mixes):
        actual = routed(sample, 500, encoder_hidden_states=text).sample
    for row, mix in enumerate(mixes):
        alone = slice(row, row + 1)
        expected = by_hand.merged(routed.unet, mix, eta, delta)(sample[alone], 500, text[alone]).sample
        assert torch.allclose(actual[alone], expected, rtol=0, atol=1e-10), mix
    assert torch.pdist(actual.flatten(1)).min() > 1e-3, "the mixes must differ, or this test shows nothing"
    assert torch.equal(routed(sample, 500, text).sample, routed.unet(sample, 500, text).sample)


@pytest.mark.parametrize(
    ("eta", "delta", "routing"),
    [
        (FULL_ETA, LORA_DELTA, None),
        (FULL_ETA, FULL_DELTA, None),
        (LORA_ETA, FULL_DELTA, None),
        (FULL_ETA, LORA_DELTA, STREAMED_SETS),
        (LORA_ETA, LORA_DELTA, WEIGHT_SETS),
    ],
)
def test_every_row_runs_through_exactly_its_own_weights(
    eta: AdapterWeights, delta: AdapterWeights, routing: str | None
) -> None:
    routed = routed_unet(eta, delta, routing)
    assert routed.routing.name == (routing or WEIGHT_SETS)
    mixes = [BASE, ALIGNED, Mix(1.0, 1.0), Mix(0.6, 1.3), Mix(0.0, 0.8)]
    assert_rows_are_exact(routed, mixes, eta, delta)


def test_a_row_of_a_fine_tuned_model_passes_one_set_only() -> None:
    calls: list[int] = []
    unet: Any = tiny_pipeline().unet
    routed = routed_unet(tiny_full_weights(unet, 3), tiny_weights(2), unet=unet)
    hook = torch.nn.functional.group_norm

    def counting(x: Any, *rest: Any) -> Any:
        calls.append(len(x))
        return hook(x, *rest)

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(torch.nn.functional, "group_norm", counting)
        for mixes in ([BASE, ALIGNED, Mix(1.0, 1.0)], [BASE, ALIGNED, Mix(0.5, 1.0)]):
            calls.clear()
            with routed.rows(mixes):
                routed(noise(3, 4, 8, 8).float(), 500, noise(3, 7, 32).float())
            per_layer = sum(calls) / sum(isinstance(module, torch.nn.GroupNorm) for module in unet.modules())
            assert per_layer == (3 if mixes[2].aligned == 1 else 4)


def test_conditions_of_every_row_are_routed_with_it() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet: Any = UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(16, 32),
            layers_per_block=1,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
            cross_attention_dim=32,
            attention_head_dim=8,
            norm_num_groups=4,
            addition_embed_type="text_time",  # as SDXL has it
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=6 * 8 + 16,
        ).double()
    eta = tiny_full_weights(unet, 3)
    routed: Any = RoutedUNet(unet)
    routed.set_adapter("aligned", eta)
    mixes = [ALIGNED, BASE, Mix(0.5), ALIGNED]
    sample, text = noise(4, 4, 8, 8), noise(4, 7, 32)
    added = {"text_embeds": noise(4, 16), "time_ids": noise(4, 6)}
    with torch.no_grad(), routed.rows(mixes):
        actual = routed(sample, 500, text, added_cond_kwargs=added, return_dict=False)[0]
    for row, mix in enumerate(mixes):
        alone = slice(row, row + 1)
        one = {name: tensor[alone] for name, tensor in added.items()}
        with torch.no_grad():
            unet_of_row = by_hand.merged(unet, mix, eta, eta)
            expected = unet_of_row(sample[alone], 500, text[alone], added_cond_kwargs=one).sample
        assert torch.allclose(actual[alone], expected, rtol=0, atol=1e-10)


def test_what_belongs_to_no_row_stays_as_it_is_though_it_is_as_long() -> None:
    routed = routed_unet(FULL_ETA, LORA_DELTA)
    mixes, timesteps = [ALIGNED, BASE, Mix(0.5)], torch.tensor([100, 500, 900])
    sample, text = noise(3, 4, 8, 8), noise(3, 7, 32)
    for_all = {"ignored": torch.ones(3)}
    seen: list[Any] = []
    handle = routed.unet.register_forward_pre_hook(
        lambda module, given, named: seen.append(named["cross_attention_kwargs"]), with_kwargs=True
    )
    with torch.no_grad(), routed.rows(mixes):
        actual = routed(sample, timesteps, text, cross_attention_kwargs=for_all).sample
    handle.remove()
    assert seen[0] is for_all
    for row, mix in enumerate(mixes):
        alone = slice(row, row + 1)
        with torch.no_grad():
            unet_of_row = by_hand.merged(UNET, mix, FULL_ETA, LORA_DELTA)
            expected = unet_of_row(sample[alone], timesteps[row], text[alone]).sample
        assert torch.allclose(actual[alone], expected, rtol=0, atol=1e-10), "a timestep goes with its row"


def test_the_frames_of_a_clip_follow_their_row() -> None:
    motion = MotionAdapter(
        block_out_channels=(16, 32), motion_layers_per_block=1, motion_num_attention_heads=2, motion_norm_num_groups=4
    )
    unet: Any = UNetMotionModel.from_unet2d(tiny_pipeline().unet, motion).double().eval()
    still = tiny_full_weights(tiny_pipeline().unet.double(), 3)  # a fine-tuned image model
    routed = routed_unet(still, LORA_DELTA, unet=unet)
    mixes = [ALIGNED, BASE, Mix(0.7, 1.3)]
    sample = noise(3, 4, 2, 8, 8)  # (rows, C, frames, H, W)
    text = noise(3, 7, 32).repeat_interleave(2, dim=0)  # (rows * frames, tokens, width)
    with torch.no_grad(), routed.rows(mixes):
        actual = routed(sample, 500, encoder_hidden_states=text).sample
    for row, mix in enumerate(mixes):
        alone = by_hand.merged(unet, mix, still, LORA_DELTA)
        with torch.no_grad():
            expected = alone(sample[row : row + 1], 500, text[2 * row : 2 * row + 2]).sample
        assert torch.allclose(actual[row : row + 1], expected, rtol=0, atol=1e-10)


def test_layers_equal_to_the_bases_are_not_kept_twice() -> None:
    routed = RoutedUNet(UNET)
    routed.set_adapter("aligned", FullWeights(dict(UNET.state_dict())))
    assert routed.routing.name == LOW_RANK, "nothing full is left"
    with torch.no_grad(), routed.rows([ALIGNED]):
        actual = routed(noise(1, 4, 8, 8), 500, noise(1, 7, 32)).sample
    with torch.no_grad():
        assert torch.equal(actual, UNET(noise(1, 4, 8, 8), 500, noise(1, 7, 32)).sample)


def test_the_routing_follows_the_weights_and_the_memory() -> None:
    assert choose_routing(0, None).name == LOW_RANK
    assert choose_routing(10, None).name == WEIGHT_SETS
    assert choose_routing(10, ACTIVATION_RESERVE_BYTES + 10).name == WEIGHT_SETS
    tight = choose_routing(1_700_000_000, 2_000_000_000)
    assert tight.name == STREAMED_SETS
    assert tight.reason == "the fine-tuned weights are a full set of 1.70 GB and 2.00 GB are free"
    assert choose_routing(10, 0, WEIGHT_SETS).name == WEIGHT_SETS, "forced"


def test_a_routing_that_cannot_be_is_refused() -> None:
    with pytest.raises(InputError, match="Unknown routing 'fast'; choose from low_rank, weight_sets, streamed_sets"):
        RoutedUNet(UNET, "fast")
    routed = RoutedUNet(UNET, LOW_RANK)
    routed.set_adapter("negative", LORA_DELTA)
    with pytest.raises(InputError, match="The routing low_rank was asked for and an adapter is a full set"):
        routed.set_adapter("aligned", FULL_ETA)
    with torch.no_grad(), routed.rows([Mix(0.0, 1.0)]):
        routed(noise(1, 4, 8, 8), 500, noise(1, 7, 32))
    assert all(ROUTINGS.values())
