"""Time and memory of the published families at their real size, with random weights, on cards of several sizes.

    python -m benchmarks.families --out families.json              # one GPU, about three minutes, 17 GB of disk
    python -m benchmarks.families --tiny --out families.json       # a CPU, half a minute: does it run, not how fast

For each of sd15, sd15-spo, sdxl, sdxl-spo and clips of sd15: models of the published shapes are written to a folder,
loaded as the app loads them (a full aligned UNet, or a LoRA for the SPO ones, and an NPO LoRA of rank 8), and compare
three variants with the family's own settings. Seconds are the median of `--repeats` after one run to warm up. Then the
same on the largest share of the card that a smaller one would have: which placement is chosen, what it takes, whether
the pictures are the same, and whether a request that cannot fit is refused in one sentence and the next one works.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    MotionAdapter,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from npo_core.catalog.families import FAMILIES, ModelFamily
from npo_core.errors import InputError
from npo_core.generator import GenerationRequest, Generator
from npo_core.requests import resolve_request
from npo_core.sampling.pipelines import free_unused

SCHEDULE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1}
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")
MEASURED = (("sd15", "image"), ("sd15-spo", "image"), ("sd15", "video"), ("sdxl", "image"), ("sdxl-spo", "image"))
CARDS_GB = {"sd15": (8, 4), "sdxl": (16, 12, 8)}


def shapes(family: str, tiny: bool) -> dict[str, Any]:
    """The UNet's configuration as published; with `tiny` its kind with few channels."""
    if family == "sd15":
        config: dict[str, Any] = {"block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768}
        config["attention_head_dim"] = 8
    else:
        config = {
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": (1, 2, 10),
            "cross_attention_dim": 2048,
            "attention_head_dim": (5, 10, 20),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 6 * 256 + 1280,
        }
    if tiny:
        small = {"block_out_channels": tuple(width // 10 for width in config["block_out_channels"])}
        small["cross_attention_dim"] = 64 if family == "sd15" else 128
        if family == "sdxl":
            small |= {"transformer_layers_per_block": 1, "projection_class_embeddings_input_dim": 6 * 256 + 64}
        config |= small
    return {**config, "sample_size": 64 if family == "sd15" else 128, "norm_num_groups": 32}


def text_encoder(kind: Any, width: int, layers: int, tiny: bool) -> Any:
    width, layers = (64, 1) if tiny else (width, layers)
    return kind(
        CLIPTextConfig(
            vocab_size=49408,
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=max(1, width // 64),
            projection_dim=width,
            bos_token_id=0,
            eos_token_id=1,
            pad_token_id=1,
        )
    )


def tokenizer() -> CLIPTokenizer:
    """One token a character: the prompt's words do not matter here."""
    letters = [chr(code) for code in range(33, 127)]
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    return CLIPTokenizer(vocab={token: number for number, token in enumerate(tokens)}, merges=[], model_max_length=77)


def write_models(folder: Path, tiny: bool, device: str, dtype: torch.dtype) -> None:
    """Every model of the measured families, in half precision as they are run, under folder/sd15 and folder/sdxl."""
    for family in ("sd15", "sdxl"):
        torch.manual_seed(0)
        with torch.device(device):
            unet = UNet2DConditionModel(**shapes(family, tiny)).to(dtype)
            wide = (32, 32, 32, 32) if tiny else (128, 256, 512, 512)
            vae = AutoencoderKL(
                block_out_channels=wide,
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                layers_per_block=1 if tiny else 2,
                force_upcast=False,
            )
            first = text_encoder(CLIPTextModel, 768, 12, tiny)
            second = text_encoder(CLIPTextModelWithProjection, 1280, 32, tiny) if family == "sdxl" else None
        pipeline: Any
        if second is None:
            pipeline = StableDiffusionPipeline(
                vae, first, tokenizer(), unet, PNDMScheduler(**SCHEDULE, skip_prk_steps=True), None, None, None, False
            )
        else:
            schedule = EulerDiscreteScheduler(**SCHEDULE)
            pipeline = StableDiffusionXLPipeline(
                vae, first, second, tokenizer(), tokenizer(), unet, schedule, add_watermarker=False
            )
        pipeline.to(dtype).save_pretrained(folder / family / "base")
        for seed, name in enumerate(("aligned", "npo")):
            save_file(lora(unet, seed), folder / family / f"{name}.safetensors")
        with torch.no_grad():
            for parameter in unet.parameters():
                parameter.mul_(1 + 0.02 * torch.randn_like(parameter))
        unet.save_pretrained(folder / family / "unet")
        if family == "sd15":
            motion = MotionAdapter(block_out_channels=shapes(family, tiny)["block_out_channels"])
            motion.to(dtype).save_pretrained(folder / family / "motion")
        del pipeline, unet, vae, first, second
        release()


def lora(unet: torch.nn.Module, seed: int, rank: int = 8) -> dict[str, torch.Tensor]:
    """A random LoRA on the attention in the keys of diffusers, of a size that shows in the picture."""
    random = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, module in unet.named_modules():
        if name.endswith(TARGETS):
            out, inside = module.weight.shape  # type: ignore[misc]
            tensors[f"unet.{name}.lora_A.weight"] = torch.randn(rank, inside, generator=random) / inside**0.5
            tensors[f"unet.{name}.lora_B.weight"] = torch.randn(out, rank, generator=random) * 0.02
    return tensors


def local_family(name: str, folder: Path, tiny: bool) -> ModelFamily:
    """The shipped entry with its weights replaced by those in `folder`; everything else is as users run it."""
    place = folder / name.split("-")[0]
    family = replace(
        FAMILIES[name],
        base=str(place / "base"),
        aligned=str(place / ("aligned.safetensors" if "spo" in name else "unet")),
        negative=str(place / "npo.safetensors"),
        vae=None,
    )
    if family.video:
        family = replace(family, video=replace(family.video, motion_adapter=str(place / "motion")))
    if tiny:
        family = replace(family, width_px=64, height_px=64, steps=2)
        if family.video:
            family = replace(family, video=replace(family.video, steps=2, frames=4))
    return family


def release() -> None:
    free_unused(torch.device("cuda" if torch.cuda.is_available() else "cpu"))


def gb(number: int) -> float:
    return round(number / 1e9, 2)


class Loaded:
    """One family loaded as the app does it, on at most `card_gb` of the card."""

    def __init__(self, family: ModelFamily, modality: str, card_gb: float | None = None) -> None:
        release()
        self.on_gpu = torch.cuda.is_available()
        if self.on_gpu:
            total = torch.cuda.get_device_properties(0).total_memory
            card = min(total, int(card_gb * 1e9)) if card_gb else total
            torch.cuda.set_per_process_memory_fraction(card / total)
            torch.cuda.mem_get_info = lambda device=None: (card - torch.cuda.memory_reserved(device), card)
            torch.cuda.reset_peak_memory_stats()
        started = time.perf_counter()
        self.generator = Generator(family)
        self.sampler = self.generator._loaded(modality)
        self.load_s = time.perf_counter() - started
        self.weights = torch.cuda.memory_allocated() if self.on_gpu else 0
        self.request = resolve_request(GenerationRequest("a red apple", seed=7, modality=modality), family)

    def compare(self, **settings: Any) -> tuple[float, list[Any]]:
        """(seconds, what `Sampler.sample` gives) for one comparison of three variants."""
        if self.on_gpu:
            torch.cuda.synchronize()
        started = time.perf_counter()
        made = self.sampler.sample([replace(self.request, **settings)])
        return time.perf_counter() - started, made

    def told(self, repeats: int) -> tuple[dict[str, Any], np.ndarray]:
        """What is reported of it, and the latents."""
        self.compare()
        runs = [self.compare() for _ in range(repeats)]
        record = {
            "load_s": round(self.load_s, 1),
            "placement": self.sampler.placement.name,
            "why": self.sampler.placement.reason,
            "routing": self.sampler.unet.routing.name,
            "comparison_s": round(statistics.median(seconds for seconds, _ in runs), 2),
        }
        if self.on_gpu:
            record |= {"weights_gb": gb(self.weights), "peak_gb": gb(torch.cuda.max_memory_allocated())}
        return record, np.stack([latents for _, latents in runs[0][1]]).astype(np.float32)


def refusal(loaded: Loaded) -> dict[str, Any]:
    """A request far too large for the card, and an ordinary one after it."""
    try:
        many = ("base", "aligned", "aligned_npo", "base_npo", "aligned_vs_base")
        large = loaded.request.width_px * 2
        loaded.compare(width_px=large, height_px=large, variants=many, steps=1)
        sentence = "it fitted"
    except InputError as error:
        sentence = str(error)
    return {"too_large": sentence, "next_comparison_s": round(loaded.compare()[0], 2)}


def on_a_smaller_card(family: ModelFamily, modality: str, card_gb: float, expected: np.ndarray) -> dict[str, Any]:
    """What is reported of the family there, and whether the latents are those `expected`."""
    smaller = Loaded(family, modality, card_gb)
    try:
        record, made = smaller.told(1)
    except InputError as error:
        return {"placement": smaller.sampler.placement.name, "refused": str(error)}
    difference = float(np.abs(made - expected).max() / np.abs(expected).max())
    return {**record, "largest_difference": float(f"{difference:.2g}"), **refusal(smaller)}


def measure(folder: Path, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    records = []
    for name, modality in MEASURED:
        family = local_family(name, folder, arguments.tiny)
        loaded = Loaded(family, modality)
        record, expected = loaded.told(arguments.repeats)
        records.append({"family": name, "modality": modality, **record})
        print(json.dumps(records[-1]), flush=True)
        del loaded
        cards = CARDS_GB.get(name, ()) if modality == "image" and torch.cuda.is_available() else ()
        for card_gb in cards:
            record = on_a_smaller_card(family, modality, card_gb, expected)
            records.append({"family": name, "modality": modality, "card_gb": card_gb, **record})
            print(json.dumps(records[-1]), flush=True)
    return records


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="Time and memory of the published families, random weights.")
    parser.add_argument("--tiny", action="store_true", help="few channels, small pictures")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", type=Path, help="write the JSON here too")
    options = parser.parse_args(arguments)
    on_gpu = torch.cuda.is_available()
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        write_models(
            Path(folder), options.tiny, "cuda" if on_gpu else "cpu", torch.float16 if on_gpu else torch.float32
        )
        print(f"models written in {time.perf_counter() - started:.0f} s", flush=True)
        told = {
            "device": torch.cuda.get_device_name() if on_gpu else "cpu",
            "torch": torch.__version__,
            "records": measure(Path(folder), options),
        }
    if options.out:
        options.out.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
