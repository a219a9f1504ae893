from __future__ import annotations

from typing import Any

import pytest
import torch
from diffusers import ClassifierFreeGuidance, StableDiffusionXLAutoBlocks
from peft import LoraConfig
from torch import Tensor

from npo_core.guidance import NPOGuidance, attach
from npo_core.routing.network import RoutedUNet, guided_rows
from npo_core.variants import ALIGNED, Mix
from npo_core.weights import LowRankLayer, LowRankWeights
from tests.published import lora_tensors, tiny_sdxl

ETA, DELTA, STYLE = 21, 22, 23  # seeds


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


def routed(
    mix: Mix, aligned: Mix = ALIGNED, eta: LowRankWeights | None = None, delta: LowRankWeights | None = None
) -> Tensor:
    """The same picture by this project's own way."""
    stock = tiny_sdxl()
    stock.set_progress_bar_config(disable=True)
    unet = RoutedUNet(stock.unet)
    unet.set_adapter("aligned", eta or low_rank(ETA))
    unet.set_adapter("negative", delta or low_rank(DELTA))
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
    modular.set_adapters("npo")
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
    assert (again.aligned_adapter, again.alpha, again.beta) == ("aligned", 0.5, 2.0)
    assert guider.new(beta=1.0).beta == 1.0


@pytest.fixture
def fresh() -> Any:
    """A tiny modular SDXL pipeline of its own, with aligned, npo and a user's third adapter."""
    stock = tiny_sdxl()
    pipeline = StableDiffusionXLAutoBlocks().init_pipeline()
    pipeline.update_components(
        **{name: part for name, part in stock.components.items() if name in pipeline.components and part is not None}
    )
    for seed, name in ((ETA, "aligned"), (DELTA, "npo"), (STYLE, "style")):
        pipeline.load_lora_weights(lora_tensors(stock.unet, seed), adapter_name=name)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def state(pipeline: Any) -> Any:
    """Which adapters act in every layer, and by what."""
    layers = [layer for layer in pipeline.unet.modules() if hasattr(layer, "scaling")]
    return [(list(layer.active_adapters), layer.disable_adapters, dict(layer.scaling)) for layer in layers]


def combined(*parts: tuple[int, float]) -> LowRankWeights:
    """One LoRA that adds what several do, each (seed, weight)."""
    given = [(low_rank(seed).layers, weight) for seed, weight in parts]
    return LowRankWeights(
        {
            name: LowRankLayer(
                torch.cat([layers[name].a for layers, _ in given]),
                torch.cat([layers[name].b * layers[name].scale * weight for layers, weight in given], dim=1),
                1.0,
            )
            for name in given[0][0]
        }
    )


def test_a_users_own_adapter_acts_in_both_predictions_and_an_aligned_one_at_its_weight(fresh: Any) -> None:
    fresh.set_adapters(["aligned", "style"], [0.6, 1.0])
    before = state(fresh)
    guider = NPOGuidance(4.0, aligned_adapter="aligned", alpha=0.5, beta=2.0)
    made = paint(fresh, guider)
    assert state(fresh) == before
    conditional, unconditional = combined((ETA, 0.6), (STYLE, 1.0)), combined((ETA, 0.3), (STYLE, 1.0), (DELTA, 2.0))
    expected = routed(Mix(0.0, 1.0), eta=conditional, delta=unconditional)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(paint(fresh, guider), made, rtol=0, atol=0)


def test_a_prediction_that_fails_leaves_the_denoiser_as_it_was(fresh: Any) -> None:
    fresh.set_adapters(["aligned", "style"], [0.6, 1.0])
    before, guider = state(fresh), NPOGuidance(4.0, aligned_adapter="aligned", beta=2.0)
    guider.set_state(step=0, num_inference_steps=2, timestep=torch.tensor(10))
    for _ in range(2):  # the conditional one, then the negative one
        guider.prepare_models(fresh.unet)
        assert state(fresh) != before or guider.is_conditional
        with pytest.raises(Exception):  # noqa: B017, PT011  # whatever it is that fails
            fresh.unet(torch.ones(1, 3, 8, 8), 10, torch.ones(1, 7, 1))
        assert state(fresh) == before


def test_a_fused_adapter_is_refused_and_stays_fused(fresh: Any) -> None:
    fresh.fuse_lora(adapter_names=["aligned"])
    weight = next(layer for layer in fresh.unet.modules() if getattr(layer, "merged", False)).weight.clone()
    with pytest.raises(ValueError, match=r"aligned is fused .* unfuse_lora\(\)"):
        paint(fresh, NPOGuidance(4.0))
    merged = next(layer for layer in fresh.unet.modules() if getattr(layer, "merged", False))
    assert torch.equal(merged.weight, weight)


def test_attach_refuses_what_would_go_wrong_without_a_word(fresh: Any) -> None:
    with pytest.raises(ValueError, match="StableDiffusionXLPipeline has no guider"):
        attach(tiny_sdxl(), NPOGuidance(4.0))
    with pytest.raises(ValueError, match="both adapters are named 'npo'"):
        NPOGuidance(4.0, aligned_adapter="npo", alpha=0.5)
    attach(fresh, NPOGuidance(5.0, beta=0.5))
    assert (fresh.guider.guidance_scale, fresh.guider.beta) == (5.0, 0.5)
    fresh.text_encoder.add_adapter(LoraConfig(r=2, target_modules=["q_proj"]), adapter_name="npo")
    with pytest.raises(ValueError, match=r"layers in text_encoder, .*text_encoder\.delete_adapter\('npo'\)"):
        attach(fresh, NPOGuidance(4.0))
    fresh.text_encoder.delete_adapter("npo")
    attach(fresh, NPOGuidance(4.0))
