"""Diffusion-NPO in diffusers' modular pipelines (SDXL, SD3, Wan, Qwen-Image, ...): a guider that switches adapters.

    pipeline.load_lora_weights("wangfuyun/Diffusion-NPO", weight_name=..., adapter_name="npo")
    attach(pipeline, NPOGuidance(guidance_scale=5.0))

It needs nothing of this project but this file, and works with every denoiser that has LoRA adapters of PEFT.
`pipeline.update_components(guider=...)` does the same, but cannot refuse a pipeline that would never ask the guider.
"""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

from diffusers.configuration_utils import register_to_config
from diffusers.guiders.classifier_free_guidance import ClassifierFreeGuidance
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

GUIDERS = ("guider", "guider_2")  # the second is that of a second denoiser (Wan 2.2)


class NPOGuidance(ClassifierFreeGuidance):
    """Classifier-free guidance whose unconditional prediction is the negative model's (arXiv 2505.11245).

        prediction = unconditional + guidance_scale * (conditional - unconditional)
        conditional by    theta + eta                     unconditional by    theta + alpha * eta + beta * delta

    `negative_adapter` is the name of delta, the NPO LoRA. Where the aligned model is a LoRA too, `aligned_adapter` is
    its name, and eta is what it adds at the weight that it was given (`set_adapters`); where the pipeline's own weights
    are the aligned model, leave it out: alpha is 1 then. Every other adapter that is active acts in both predictions.
    With alpha 1 and beta 0 this is plain guidance of the aligned model. The other arguments are
    ClassifierFreeGuidance's.
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
        """Raises ValueError for an alpha other than 1 without an aligned adapter to weigh, and for one name for two."""
        if aligned_adapter is None and alpha != 1:
            raise ValueError(
                f"alpha is {alpha} and there is no aligned_adapter to weigh with it; name one or leave it 1"
            )
        if aligned_adapter == negative_adapter:
            raise ValueError(f"both adapters are named {negative_adapter!r}; load them under two names")
        super().__init__(  # by name: the base registers what it is given as the configuration
            guidance_scale=guidance_scale,
            guidance_rescale=guidance_rescale,
            use_original_formulation=use_original_formulation,
            start=start,
            stop=stop,
            enabled=enabled,
        )
        self.negative_adapter, self.aligned_adapter = negative_adapter, aligned_adapter
        self.alpha, self.beta = alpha, beta

    def prepare_models(self, denoiser: nn.Module) -> None:
        """Puts on the adapters of the denoiser's next call, and has them put back right after it, also if it fails.

        Raises ValueError when an adapter is not loaded, or one is fused into the weights.
        """
        super().prepare_models(denoiser)
        adapters = Adapters(denoiser)
        adapters.require(self.negative_adapter, *([self.aligned_adapter] if self.aligned_adapter else []))
        weights = dict.fromkeys(adapters.active, 1.0)
        if self.aligned_adapter:
            weights[self.aligned_adapter] = 1.0 if self.is_conditional else self.alpha
        weights.pop(self.negative_adapter, None)
        adapters.put_on(weights)
        if not self.is_conditional:
            adapters.add(self.negative_adapter, self.beta)

        def put_back(*_: Any) -> None:
            hook.remove()
            adapters.put_back()

        hook = denoiser.register_forward_hook(put_back, always_call=True)


class Adapters:
    """The LoRA layers of a denoiser: which adapters are active, by which factor, and the way back to that."""

    def __init__(self, denoiser: nn.Module) -> None:
        self.loaded = sorted(getattr(denoiser, "peft_config", {}))
        self._layers: list[Any] = [layer for layer in denoiser.modules() if isinstance(layer, BaseTunerLayer)]
        fused = sorted({name for layer in self._layers for name in layer.merged_adapters})
        if fused:
            raise ValueError(
                f"{', '.join(fused)} is fused into the denoiser's weights, where nothing can be added beside it; call "
                "unfuse_lora(), or unload_lora_weights() to keep it in the weights"
            )
        self._before = [
            (list(layer.active_adapters), bool(layer.disable_adapters), dict(layer.scaling)) for layer in self._layers
        ]

    @property
    def active(self) -> list[str]:
        """The names of what acts now."""
        names = (name for active, disabled, _ in self._before if not disabled for name in active)
        return list(dict.fromkeys(names))

    def require(self, *names: str) -> None:
        """Raises ValueError for a name that is not among the adapters."""
        for name in names:
            if name not in self.loaded:
                raise ValueError(
                    f"the denoiser has no adapter {name!r} (it has {self.loaded}); load it under that name"
                )

    def put_on(self, weights: dict[str, float]) -> None:
        """Exactly these act, each by its weight times the factor that it had before."""
        for layer, (_, _, scaling) in zip(self._layers, self._before, strict=True):
            wanted = {name: weight for name, weight in weights.items() if weight and name in scaling}
            _activate(layer, list(wanted))
            for name, weight in wanted.items():
                layer.scaling[name] = scaling[name] * weight

    def add(self, name: str, weight: float) -> None:
        """`name` acts beside the others, by `weight` itself."""
        for layer in self._layers if weight else ():
            if name in layer.scaling:
                _activate(layer, [*layer.active_adapters, name])
                layer.set_scale(name, weight)

    def put_back(self) -> None:
        """Everything as it was."""
        for layer, (active, disabled, scaling) in zip(self._layers, self._before, strict=True):
            layer.scaling.update(scaling)
            _activate(layer, active)
            layer._disable_adapters = disabled


def _activate(layer: Any, names: list[str]) -> None:
    """Without touching which parameters are trained, as `set_adapter` does."""
    layer._active_adapter = names
    layer._disable_adapters = False


def attach(pipeline: Any, guider: NPOGuidance) -> None:
    """Makes `guider` the guidance of every denoiser of a modular pipeline.

    Raises ValueError where it would act wrongly without a word: a pipeline that asks no guider would run with the
    negative model in both predictions, and text-encoder layers of the negative would act in both, too.
    """
    names = [name for name in GUIDERS if name in getattr(pipeline, "component_names", ())]
    if not names:
        raise ValueError(
            f"{type(pipeline).__name__} has no guider, so the negative model would answer the prompt as well; take a "
            "modular pipeline with classifier-free guidance, or two networks"
        )
    for name, part in _text_encoders(pipeline):
        if guider.negative_adapter in getattr(part, "peft_config", {}):
            raise ValueError(
                f"the adapter {guider.negative_adapter!r} has layers in {name}, which would act in both predictions; "
                f"take them away with pipeline.{name}.delete_adapter({guider.negative_adapter!r})"
            )
    pipeline.update_components(**{name: deepcopy(guider) for name in names})  # each counts its own calls


def _text_encoders(pipeline: Any) -> Iterator[tuple[str, Any]]:
    for name in getattr(pipeline, "component_names", ()):
        if name.startswith("text_encoder") and getattr(pipeline, name, None) is not None:
            yield name, getattr(pipeline, name)
