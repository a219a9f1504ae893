from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import ClassifierFreeGuidance, StableDiffusionXLAutoBlocks
from torch import Tensor

from npo_core.guidance import NPOGuidance
from npo_core.routing.network import RoutedUNet, guided_rows
from npo_core.variants import ALIGNED, Mix
from npo_core.weights import LowRankLayer, LowRankWeights
from tests.published import lora_tensors, tiny_sdxl

ETA, DELTA = 21, 22  # seeds


@pytest.fixture(scope="module")
def modular() -> Any:
    """A tiny modular SDXL pipeline with two adapters."""
    stock = tiny_sdxl()
    pipeline = StableDiffusionXLAutoBlocks().init_pipeline()
    pipeline.update_components(
        **{name: part for name, part in stock.components.items() if name in pipeline.components and part is not None}
    )
    pipeline.load_lora_weights(lora_tensors(stock.unet, ETA), adapter_name="aligned")
    pipeline.load_lora_weights(lora_tensors(stock.unet, DELTA), adapter_name="npo")
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def paint(pipeline: Any, guider: Any) -> Tensor:
    pipeline.update_components(guider=guider)
    return pipeline(
        prompt="a red apple",
        negative_prompt="blurry",
        num_inference_steps=2,
        height=64,
        width=64,
        generator=torch.Generator().manual_seed(3),
        output="latents",
    )


def low_rank(seed: int) -> LowRankWeights:
    tensors = lora_tensors(tiny_sdxl().unet, seed)
    names = {key.removeprefix("unet.").split(".lora.")[0] for key in tensors}
    return LowRankWeights(
        {
            name: LowRankLayer(tensors[f"unet.{name}.lora.down.weight"], tensors[f"unet.{name}.lora.up.weight"], 1.0)
            for name in names
        }
    )


def routed(mix: Mix, aligned: Mix = ALIGNED) -> Tensor:
    """The same picture by this project's own way."""
    stock = tiny_sdxl()
    stock.set_progress_bar_config(disable=True)
    unet = RoutedUNet(stock.unet)
    unet.set_adapter("aligned", low_rank(ETA))
    unet.set_adapter("negative", low_rank(DELTA))
    stock.unet = unet
    with unet.rows(guided_rows([(aligned, mix)], 4.0)):
        return stock(
            "a red apple",
            negative_prompt="blurry",
            num_inference_steps=2,
            guidance_scale=4.0,
            height=64,
            width=64,
            generator=torch.Generator().manual_seed(3),
            output_type="latent",
        ).images


@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 1.0), (0.5, 2.0), (0.0, 1.0), (0.0, 0.0)])
def test_a_modular_pipeline_paints_what_the_routed_one_does(modular: Any, alpha: float, beta: float) -> None:
    made = paint(modular, NPOGuidance(4.0, aligned_adapter="aligned", alpha=alpha, beta=beta))
    torch.testing.assert_close(made, routed(Mix(alpha, beta)), rtol=1e-4, atol=1e-4)


def test_without_an_offset_it_is_plain_guidance_of_the_aligned_model(modular: Any) -> None:
    made = paint(modular, NPOGuidance(4.0, aligned_adapter="aligned", beta=0.0))
    modular.unet.set_adapters("aligned")
    torch.testing.assert_close(made, paint(modular, ClassifierFreeGuidance(4.0)), rtol=0, atol=0)


def test_where_the_own_weights_are_the_aligned_model_one_adapter_does(modular: Any) -> None:
    made = paint(modular, NPOGuidance(4.0))
    torch.testing.assert_close(made, routed(Mix(0.0, 1.0), aligned=Mix()), rtol=1e-4, atol=1e-4)


def test_an_adapter_that_is_not_loaded_is_named(modular: Any) -> None:
    with pytest.raises(ValueError, match=r"no adapter 'other' \(it has \['aligned', 'npo'\]\)"):
        paint(modular, NPOGuidance(4.0, negative_adapter="other"))
    with pytest.raises(ValueError, match="no aligned_adapter to weigh"):
        NPOGuidance(4.0, alpha=0.5)


def test_it_is_saved_and_made_again_like_every_guider() -> None:
    guider = NPOGuidance(guidance_scale=5.0, aligned_adapter="aligned", alpha=0.5, beta=2.0, stop=0.8)
    again = NPOGuidance.from_config(guider.config)
    assert dict(again.config) == dict(guider.config)
    assert again.unconditional == {"aligned": 0.5, "npo": 2.0}
    assert guider.new(beta=1.0).unconditional == {"aligned": 0.5, "npo": 1.0}
