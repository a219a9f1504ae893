"""Diffusion-NPO in diffusers' modular pipelines (SDXL, SD3, Wan, Qwen-Image, ...): a guider that switches adapters.

    pipeline.load_lora_weights("wangfuyun/Diffusion-NPO", weight_name=..., adapter_name="npo")
    pipeline.update_components(guider=NPOGuidance(guidance_scale=5.0))

It needs nothing of this project but this file, and works with every denoiser that has LoRA adapters of PEFT.
"""

from __future__ import annotations

from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance


class NPOGuidance(ClassifierFreeGuidance):
    """Classifier-free guidance whose unconditional prediction is the negative model's (arXiv 2505.11245).

        prediction = unconditional + guidance_scale * (conditional - unconditional)
        conditional by    theta + eta                     unconditional by    theta + alpha * eta + beta * delta

    `negative_adapter` is the name of delta, the NPO LoRA. Where the aligned model is a LoRA too, `aligned_adapter` is
    its name; where the pipeline's own weights are the aligned model, leave it out: alpha is 1 then. With alpha 1 and
    beta 0 this is plain guidance of the aligned model. The other arguments are ClassifierFreeGuidance's.
    """

    @register_to_config
    def __init__(
        self,
        guidance_scale: float = 7.5,
        negative_adapter: str = "npo",
        aligned_adapter: str | None = None,
        alpha: float = 1.0,
        beta: float = 1.0,
        guidance_rescale: float = 0.0,
        use_original_formulation: bool = False,
        start: float = 0.0,
        stop: float = 1.0,
        enabled: bool = True,
    ) -> None:
        """Raises ValueError for an alpha other than 1 without an aligned adapter to weigh."""
        if aligned_adapter is None and alpha != 1:
            raise ValueError(
                f"alpha is {alpha} and there is no aligned_adapter to weigh with it; name one or leave it 1"
            )
        super().__init__(  # by name: the base registers what it is given as the configuration
            guidance_scale=guidance_scale,
            guidance_rescale=guidance_rescale,
            use_original_formulation=use_original_formulation,
            start=start,
            stop=stop,
            enabled=enabled,
        )
        self.conditional = {aligned_adapter: 1.0} if aligned_adapter else {}
        self.unconditional = {**({aligned_adapter: alpha} if aligned_adapter else {}), negative_adapter: beta}

    def prepare_models(self, denoiser: Any) -> None:
        """Puts the adapters of the next prediction on; diffusers asks for the conditional one first."""
        super().prepare_models(denoiser)
        put_on(denoiser, self.conditional if self.is_conditional else self.unconditional)

    def cleanup_models(self, denoiser: Any) -> None:
        """Leaves the denoiser as the conditional model, which is what a user of it expects."""
        put_on(denoiser, self.conditional)


def put_on(denoiser: Any, weights: dict[str, float]) -> None:
    """Makes exactly the adapters in `weights` with a weight other than 0 act, by that weight.

    Raises ValueError when the denoiser has no adapter of such a name.
    """
    wanted = {name: weight for name, weight in weights.items() if weight}
    loaded = getattr(denoiser, "peft_config", {})
    for name in wanted:
        if name not in loaded:
            raise ValueError(f"the denoiser has no adapter {name!r} (it has {sorted(loaded)}); load it under that name")
    if wanted:
        denoiser.enable_adapters()
        denoiser.set_adapters(list(wanted), list(wanted.values()))
    elif loaded:
        denoiser.disable_adapters()
