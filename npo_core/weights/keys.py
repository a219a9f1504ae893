"""The names of published tensors, brought to one form once: what stands around them goes, what they are is told.

unet._orig_mod.LAYER.lora_A.npo.weight   a compiled model's adapter called "npo"
module.LAYER.weight                      a model wrapped for several processes
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from torch import Tensor

from npo_core.errors import InputError

LORA_KEY = re.compile(
    r"^(?:base_model\.model\.)?(?:model\.)?(?:unet\.|diffusion_model\.|lora_unet_|lycoris_)?(?P<layer>.+?)"
    r"(?:(?P<a>\.lora_A(?:\.(?P<name_a>[^.]+))?|\.lora_down|[._]lora\.down|\.lora_linear_layer\.down)\.weight"
    r"|(?P<b>\.lora_B(?:\.(?P<name_b>[^.]+))?|\.lora_up|[._]lora\.up|\.lora_linear_layer\.up)\.weight"
    r"|(?P<alpha>\.alpha))$"
)
UNET_KEY = re.compile(r"^(?:base_model\.model\.)?(?:model\.)?(?:unet\.|diffusion_model\.)?(?P<name>.+)$")
ORIGINAL_PREFIX = "model.diffusion_model."  # of the UNet in a whole original checkpoint; the rest is not ours

_WRAPPERS = frozenset({"_orig_mod", "module", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
_TEXT_KEY = re.compile(
    r"^(?:bundle_emb\.|lora_te\d?_|(?:base_model\.model\.)?(?:text_encoder(?:_\d)?|text_model|te\d?|clip_[lg]|t5\w*)\.)"
)
_OTHER_METHODS = {
    r"\.hada_[wt]": "LoHa",
    r"\.lokr_[wt]": "LoKr",
    r"\.(dora_scale|lora_magnitude_vector)": "DoRA",
    r"\.(a[12]|b[12]|bm[12])\.weight$": "GLoRA",
    r"\.(on_input$|ia3_)": "IA3",
    r"\.(boft_|oft_)": "OFT",
    r"\.lora_mid\.": "LoCon with a core (lora_mid)",
    r"\.diff(_b)?$": "a difference of whole weights (.diff)",
    r"\.[wb]_norm$": "a difference of norms",
    r"\.vera_lambda": "VeRA",
    r"\.lora_E": "AdaLoRA",
}
_OTHER_INITS = {  # of PEFT's init_lora_weights: those that also put other weights into the base
    "pissa": "PiSSA",
    "olora": "OLoRA",
    "corda": "CorDA",
    "loftq": "LoftQ",
    "lora_ga": "LoRA-GA",
}


def plain_keys(tensors: Mapping[str, Tensor], what: object) -> dict[str, Tensor]:
    """`tensors` by their names without what wrappers put into them; InputError where two become one."""
    plain: dict[str, Tensor] = {}
    for key, tensor in tensors.items():
        name = ".".join(part for part in key.split(".") if part not in _WRAPPERS).replace("__orig_mod_", "_")
        if name in plain:
            raise InputError(f"{what} holds {name} twice, wrapped and not; save one of them alone.")
        plain[name] = tensor
    return plain


def unet_tensors(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The UNet's parameters without what tools put before their names."""
    if any(key.startswith(ORIGINAL_PREFIX) for key in tensors):
        tensors = {key: tensor for key, tensor in tensors.items() if key.startswith(ORIGINAL_PREFIX)}
    return {UNET_KEY.sub(r"\g<name>", key): tensor for key, tensor in tensors.items()}


def text_layer(key: str) -> str | None:
    """The layer of a text encoder (or the embedding for one) that this is a part of; None for a UNet's."""
    return re.split(r"\.lora|\.alpha$|\.hada|\.lokr", key)[0] if _TEXT_KEY.match(key) else None


def layer_name(name: str) -> str:
    """Older diffusers files name a projection by its attention processor: attn1.processor.to_out is attn1.to_out.0."""
    attention, is_processor, projection = name.rpartition(".processor.")
    if not is_processor:
        return name
    return f"{attention}.{projection}{'.0' if projection == 'to_out' else ''}"


def refuse_other_methods(what: object, keys: Iterable[str], config: Mapping[str, object]) -> None:
    """Raises InputError, naming it, for a method whose update is not B A alone."""
    for key in keys:
        for pattern, method in _OTHER_METHODS.items():
            if re.search(pattern, key):
                raise InputError(
                    f"{what} is not a plain LoRA: it holds {key}, and {method} is another method, so merge it into a "
                    "full UNet and give that."
                )
    kind = str(config.get("peft_type") or "LORA").upper()
    if kind != "LORA" or config.get("use_dora"):
        raise InputError(
            f"{what} is not a plain LoRA: by its configuration {'DoRA' if kind == 'LORA' else kind} is the method, so "
            "merge it into a full UNet and give that."
        )
    init = str(config.get("init_lora_weights") or "").lower()
    method = next((name for start, name in _OTHER_INITS.items() if init.startswith(start)), "")
    if method:
        raise InputError(
            f"{what} was trained by {method}, which also changes the base's own weights: on the base as it is, its A "
            "and B mean something else. Let PEFT convert it to a plain LoRA (save_pretrained with "
            "path_initial_model_for_weight_conversion), or merge it into a full UNet and give that."
        )


def refuse_several(what: object, names: Iterable[str | None]) -> None:
    """Raises InputError where a file holds more than one adapter."""
    found = sorted({name or "(no name)" for name in names})
    if len(found) > 1:
        raise InputError(f"{what} holds {len(found)} adapters ({', '.join(found)}); save the one to use alone.")
