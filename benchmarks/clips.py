"""Three AnimateDiff clips in one routed call against three runs of the stock pipeline, at the scale of SD1.5.

    python benchmarks/clips.py                         # random weights, 16 frames, 512 px; a minute on an H100
    python benchmarks/clips.py --tiny                  # a few seconds on a CPU: does it run, not how fast

Base, aligned and aligned + NPO from one noise. The stock runs are AnimateDiffPipeline with the adapters fused into a
UNet of its own for each variant, called one after the other; what it cannot do, another UNet for the negative prompt,
is left out there, so that both sides make as many UNet evaluations. Time of the denoising steps, the median over
`--repeats` after one run to warm up, and on a GPU the memory that they take beyond all weights. More than 16 frames are
sampled in windows of 16, as ClipSampler does it.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AnimateDiffPipeline, AutoencoderKL, DDIMScheduler, MotionAdapter, UNet2DConditionModel

from diffusers import UNetMotionModel  # isort: skip
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from npo_core.routing.network import RoutedUNet, guided_rows
from npo_core.sampling.clips import WINDOW_STRIDE
from npo_core.variants import DEFAULT_VARIANTS, VARIANTS, Mix
from npo_core.weights import LowRankLayer, LowRankWeights

RANK = 8
WINDOW = 16  # frames that motion adapters were trained with
TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


def build_pipeline(tiny: bool, device: str, dtype: torch.dtype) -> Any:
    """AnimateDiff on an SD1.5-shaped base (or a toy), random weights, without tokenizer."""
    widths = (32, 64, 64, 64) if tiny else (320, 640, 1280, 1280)
    width = 32 if tiny else 768
    torch.manual_seed(0)
    with torch.device(device):
        unet = UNet2DConditionModel(
            sample_size=8 if tiny else 64,
            block_out_channels=widths,
            cross_attention_dim=width,
            attention_head_dim=8,
            norm_num_groups=32,
        )
        adapter = MotionAdapter(block_out_channels=widths)
        vae = AutoencoderKL(
            block_out_channels=(32, 32, 32, 32) if tiny else (128, 256, 512, 512),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            layers_per_block=1 if tiny else 2,
        )
        text = CLIPTextModel(
            CLIPTextConfig(hidden_size=width, intermediate_size=4 * width, num_hidden_layers=1, num_attention_heads=8)
        )
    for part in (unet, adapter, vae, text):
        part.to(dtype).eval().requires_grad_(False)
    pipeline: Any = AnimateDiffPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=None,
        unet=UNetMotionModel.from_unet2d(unet, adapter).to(device),
        motion_adapter=adapter,
        scheduler=DDIMScheduler(beta_schedule="linear", clip_sample=False, steps_offset=1),
    )
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def random_lora(unet: nn.Module, seed: int) -> LowRankWeights:
    """A LoRA on the spatial attention, of a size that shows in the clip and not only in the last bits."""
    random = torch.Generator().manual_seed(seed)
    layers = {}
    for name, module in unet.named_modules():
        if name.endswith(TARGETS) and ".motion_modules." not in name:
            weight: Any = module.weight  # (out, in)
            a = torch.randn(RANK, weight.shape[1], generator=random) / weight.shape[1] ** 0.5
            layers[name] = LowRankLayer(a, torch.randn(weight.shape[0], RANK, generator=random) * 0.02, 1.0)
    return LowRankWeights(layers)


def fused(unet: nn.Module, mix: Mix, adapters: dict[str, LowRankWeights]) -> nn.Module:
    """A copy of `unet` with theta + aligned * eta + negative * delta in its weights."""
    unet = copy.deepcopy(unet)
    for role, weights in adapters.items():
        for name, layer in weights.layers.items():
            weight: Any = unet.get_submodule(name).weight
            weight.data += getattr(mix, role) * layer.scale * (layer.b @ layer.a).to(weight)
    return unet


class Comparison:
    """Both ways of making the three clips, from the same noise and text embeddings."""

    def __init__(self, pipeline: Any, frames: int, side_px: int, steps: int) -> None:
        self.pipeline, self.frames, self.side_px, self.steps = pipeline, frames, side_px, steps
        self.device, self.dtype = pipeline.unet.device, pipeline.unet.dtype
        width = pipeline.unet.config.cross_attention_dim
        random = torch.Generator().manual_seed(1)
        self.text = torch.randn(2, 1, 77, width, generator=random).to(self.device, self.dtype)  # prompt, negative
        self.adapters = {role: random_lora(pipeline.unet, seed) for seed, role in enumerate(("aligned", "negative"))}
        self.pairs = [VARIANTS[name].mixes(1.0, 1.0) for name in DEFAULT_VARIANTS]
        self.stock = pipeline.unet
        self.alone = [fused(self.stock, conditional, self.adapters) for conditional, _ in self.pairs]
        self.routed = RoutedUNet(self.stock)
        for role, weights in self.adapters.items():
            self.routed.set_adapter(role, weights)  # type: ignore[arg-type]

    def call(self, count: int) -> Tensor:
        """The final latents (count, C, F, H, W) of the stock pipeline's own call."""
        return self.pipeline(
            prompt_embeds=self.text[0].expand(count, -1, -1),
            negative_prompt_embeds=self.text[1].expand(count, -1, -1),
            generator=[torch.Generator().manual_seed(7) for _ in range(count)],
            num_frames=self.frames,
            width=self.side_px,
            height=self.side_px,
            num_inference_steps=self.steps,
            guidance_scale=7.5,
            output_type="latent",
        ).frames

    def side_by_side(self) -> Tensor:
        self.pipeline.unet = self.routed
        with self.routed.rows(guided_rows(self.pairs, 7.5)):
            return self.call(len(self.pairs))

    def one_after_the_other(self) -> Tensor:
        clips = []
        for unet in self.alone:
            self.pipeline.unet = unet
            clips.append(self.call(1))
        return torch.cat(clips)


def timed(make: Callable[[], Tensor], repeats: int, device: torch.device) -> tuple[Tensor, dict[str, float]]:
    """What `make` gives, its median time in seconds after one run to warm up, and its working memory."""
    on_gpu = device.type == "cuda"
    made = make()
    if on_gpu:
        resident = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(repeats):
        if on_gpu:
            torch.cuda.synchronize()
        started = time.perf_counter()
        made = make()
        if on_gpu:
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    told = {"seconds": round(statistics.median(seconds), 3)}
    if on_gpu:
        told["working_gib"] = round((torch.cuda.max_memory_allocated() - resident) / 2**30, 2)
    return made, told


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--steps", type=int, default=8, help="time grows in proportion")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--out", help="write the JSON here too")
    arguments = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32
    pipeline = build_pipeline(arguments.tiny, device, dtype)
    frames, side_px = (4, 64) if arguments.tiny else (arguments.frames, 512)
    if frames > WINDOW:
        pipeline.enable_free_noise(context_length=WINDOW, context_stride=WINDOW_STRIDE)
        pipeline._free_noise_context_length = None  # as ClipSampler has it: prompts and noise are not its business
    comparison = Comparison(pipeline, frames, side_px, 2 if arguments.tiny else arguments.steps)
    separate, stock = timed(comparison.one_after_the_other, arguments.repeats, comparison.device)
    together, ours = timed(comparison.side_by_side, arguments.repeats, comparison.device)
    error = (together[:2] - separate[:2]).float().abs().max() / separate[:2].float().abs().max()
    told = {
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "frames": frames,
        "side_px": side_px,
        "steps": comparison.steps,
        "unet_gib": round(sum(p.numel() * p.element_size() for p in comparison.stock.parameters()) / 2**30, 2),
        "three_stock_runs": stock,
        "one_routed_call": ours,
        "speedup": round(stock["seconds"] / ours["seconds"], 3),
        "largest_difference_base_aligned": float(f"{float(error):.2g}"),
    }
    if device == "cuda":
        decoded = pipeline.vae.decode  # chunked, as ClipSampler does it
        _, decoding = timed(
            lambda: torch.cat([decoded(part).sample for part in together.transpose(1, 2).flatten(0, 1).split(8)]),
            arguments.repeats,
            comparison.device,
        )
        told["decoding_in_chunks_of_8"] = decoding
    print(json.dumps(told, indent=1))
    if arguments.out:
        with open(arguments.out, "w", encoding="utf-8") as file:
            file.write(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
