"""Every variant by one routed transformer equals two separately merged networks in the stock pipeline."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from typing import Any

import pytest
import torch
from diffusers import (
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    FlowMatchEulerDiscreteScheduler,
    FluxTransformer2DModel,
    QwenImagePipeline,
    QwenImageTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    WanPipeline,
    WanTransformer3DModel,
)
from torch import Tensor, nn

from npo_core.errors import InputError
from npo_core.routing.network import guided_rows
from npo_core.routing.transformer import RoutedTransformer
from npo_core.variants import Mix
from npo_core.weights import FullWeights, LowRankLayer, LowRankWeights

PAIRS = [  # (conditional, unconditional), as base, aligned and aligned_npo have them
    (Mix(0, 0), Mix(0, 0)),
    (Mix(1, 0), Mix(1, 0)),
    (Mix(1, 0), Mix(0.5, 0.7)),
]
SCALE, STEPS = 4.0, 2


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def sd3() -> tuple[nn.Module, Callable[[Any, int], Tensor]]:
    """One batch for both sides."""
    torch.manual_seed(1)
    network = SD3Transformer2DModel(
        sample_size=8, patch_size=1, in_channels=4, num_layers=2, attention_head_dim=8, num_attention_heads=4,
        joint_attention_dim=32, caption_projection_dim=32, pooled_projection_dim=64, out_channels=4,
        pos_embed_max_size=16, dual_attention_layers=(0,), qk_norm="rms_norm",
    )  # fmt: skip

    def paint(transformer: Any, samples: int) -> Tensor:
        parts = dict.fromkeys(
            ("vae", "text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "text_encoder_3", "tokenizer_3")
        )
        pipeline = StableDiffusion3Pipeline(
            transformer=transformer, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0), **parts
        )
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            prompt_embeds=noise(1, 7, 32, seed=1).expand(samples, -1, -1),
            negative_prompt_embeds=noise(1, 7, 32, seed=2).expand(samples, -1, -1),
            pooled_prompt_embeds=noise(1, 64, seed=5).expand(samples, -1),
            negative_pooled_prompt_embeds=noise(1, 64, seed=6).expand(samples, -1),
            latents=noise(1, 4, 8, 8, seed=9).expand(samples, -1, -1, -1).clone(),
            guidance_scale=SCALE, num_inference_steps=STEPS, height=64, width=64,
            output_type="latent",
        ).images  # fmt: skip

    return network, paint


def qwen() -> tuple[nn.Module, Callable[[Any, int], Tensor]]:
    """Two calls, with shapes and positions that have no rows."""
    torch.manual_seed(2)
    network = QwenImageTransformer2DModel(
        patch_size=2, in_channels=16, out_channels=4, num_layers=2, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=16, axes_dims_rope=(8, 4, 4),
    )  # fmt: skip
    vae = AutoencoderKLQwenImage(
        base_dim=8, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, latents_mean=[0.0] * 4, latents_std=[1.0] * 4
    )

    def paint(transformer: Any, samples: int) -> Tensor:
        pipeline = QwenImagePipeline(
            scheduler=FlowMatchEulerDiscreteScheduler(), vae=vae, text_encoder=None, tokenizer=None,
            transformer=transformer,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        mask = torch.ones(samples, 5, dtype=torch.long)
        return pipeline(
            prompt_embeds=noise(1, 5, 16, seed=3).expand(samples, -1, -1), prompt_embeds_mask=mask,
            negative_prompt_embeds=noise(1, 5, 16, seed=4).expand(samples, -1, -1), negative_prompt_embeds_mask=mask,
            true_cfg_scale=SCALE, num_inference_steps=STEPS, height=64, width=64, output_type="latent",
            latents=noise(1, 16, 16, seed=5).expand(samples, -1, -1).clone(),
        ).images  # fmt: skip

    return network, paint


def wan() -> tuple[nn.Module, Callable[[Any, int], Tensor]]:
    """Two calls, on clips."""
    torch.manual_seed(3)
    network = WanTransformer3DModel(
        patch_size=(1, 2, 2), num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, text_dim=16,
        freq_dim=16, ffn_dim=32, num_layers=2, rope_max_seq_len=32,
    )  # fmt: skip
    vae = AutoencoderKLWan(
        base_dim=3, z_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1, temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4, latents_std=[1.0] * 4,
    )  # fmt: skip

    def paint(transformer: Any, samples: int) -> Tensor:
        pipeline = WanPipeline(
            tokenizer=None, text_encoder=None, vae=vae, scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
            transformer=transformer,
        )  # fmt: skip
        pipeline.set_progress_bar_config(disable=True)
        return pipeline(
            prompt_embeds=noise(1, 6, 16, seed=6).expand(samples, -1, -1),
            negative_prompt_embeds=noise(1, 6, 16, seed=7).expand(samples, -1, -1),
            guidance_scale=SCALE, num_inference_steps=STEPS, num_frames=5, height=32, width=32, output_type="latent",
            latents=noise(1, 4, 2, 4, 4, seed=8).expand(samples, -1, -1, -1, -1).clone(),
        ).frames  # fmt: skip

    return network, paint


FAMILIES = {"sd3": sd3, "qwen": qwen, "wan": wan}


class TwoNetworks(nn.Module):
    """The reference: two whole networks, each asked for its own side of guidance."""

    def __init__(self, conditional: nn.Module, unconditional: nn.Module) -> None:
        super().__init__()
        self.sides = nn.ModuleDict({"cond": conditional, "uncond": unconditional})
        self.side = ""

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("sides")["cond"], name)

    @contextmanager
    def cache_context(self, name: str, **more: Any) -> Iterator[None]:
        self.side = name
        yield
        self.side = ""

    def forward(self, **named: Any) -> Any:
        if self.side:
            return self.sides[self.side](**named)
        halves = [
            {key: value.chunk(2)[half] if isinstance(value, Tensor) else value for key, value in named.items()}
            for half in (0, 1)
        ]
        return (
            torch.cat([self.sides[side](**half)[0] for side, half in zip(("uncond", "cond"), halves, strict=True)]),
        )


def low_rank(network: nn.Module, seed: int) -> LowRankWeights:
    """A LoRA on every attention projection, the added ones too."""
    chance = torch.Generator().manual_seed(seed)
    layers = {
        name: LowRankLayer(
            torch.randn(3, layer.in_features, generator=chance) / 4,
            torch.randn(layer.out_features, 3, generator=chance) / 4,
            0.8,
        )
        for name, layer in network.named_modules()
        if isinstance(layer, nn.Linear)
        and name.rpartition(".")[2] in ("to_q", "to_k", "to_v", "add_k_proj", "add_q_proj")
    }
    assert len(layers) >= 6
    return LowRankWeights(layers)


def changed(network: nn.Module, seed: int) -> FullWeights:
    """Another network of the same kind: every layer that has weights is a little different."""
    chance = torch.Generator().manual_seed(seed)
    return FullWeights(
        {
            name: value + 0.05 * torch.randn(value.shape, generator=chance)
            for name, value in network.state_dict().items()
            if value.is_floating_point() and "scale_shift_table" not in name and "pos_embed.pos_embed" not in name
        }
    )


def merged(network: nn.Module, mix: Mix, eta: Any, delta: Any) -> nn.Module:
    """theta + aligned * eta + negative * delta, by hand."""
    made = deepcopy(network)
    state = made.state_dict()
    for share, weights in ((mix.aligned, eta), (mix.negative, delta)):
        if isinstance(weights, LowRankWeights):
            for name, layer in weights.layers.items():
                state[f"{name}.weight"] += share * layer.scale * layer.b @ layer.a
        else:
            own = network.state_dict()
            for name, value in weights.tensors.items():
                state[name] += share * (value - own[name])
    return made


@pytest.mark.parametrize("kind", ["low-rank", "whole"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_every_variant_equals_two_separately_merged_networks(family: str, kind: str) -> None:
    network, paint = FAMILIES[family]()
    network.eval()
    eta = low_rank(network, 11) if kind == "low-rank" else changed(network, 11)
    delta = low_rank(network, 12)
    routed = RoutedTransformer(deepcopy(network))
    routed.set_adapter("aligned", eta)
    routed.set_adapter("negative", delta)
    context = routed.rows(guided_rows(PAIRS, SCALE)) if family == "sd3" else routed.branches(PAIRS)
    with context:
        made = paint(routed, len(PAIRS))
    expected = [paint(TwoNetworks(*(merged(network, mix, eta, delta) for mix in pair)), 1) for pair in PAIRS]
    torch.testing.assert_close(made, torch.cat(expected), rtol=1e-4, atol=1e-5)
    assert float((expected[2] - expected[1]).abs().max()) > 1e-3, "the negative acts"
    torch.testing.assert_close(paint(routed, 1), paint(TwoNetworks(network, network), 1), rtol=1e-5, atol=1e-5)


def test_a_distilled_transformer_and_a_pipeline_that_does_not_tell_its_sides_apart_are_refused() -> None:
    distilled = FluxTransformer2DModel(
        in_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=32, axes_dims_rope=(4, 4, 8), guidance_embeds=True,
    )  # fmt: skip
    with pytest.raises(InputError, match="guidance-distilled"):
        RoutedTransformer(distilled)
    network, paint = sd3()
    routed = RoutedTransformer(network)
    routed.set_adapter("negative", low_rank(network, 12))
    with routed.branches([(Mix(0, 0), Mix(0, 1))]), pytest.raises(InputError, match="which side of guidance"):
        paint(routed, 1)
