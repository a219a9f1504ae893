"""What an objective computes with: the UNet as policy and as reference, its noise, and the prompts it was given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn

from train.engine.files import write_array
from train.network.models import Exchange, ReferenceSwitch, holding
from train.network.schedule import NoiseSchedule

TEXT_BATCH = 64  # prompts that the text encoder reads at once


@dataclass(frozen=True)
class PromptTable:
    """The embeddings of the distinct prompts; row 0 answers to no prompt at all.

    text: (P, tokens, width). pooled: (P, width) of SDXL's second encoder, None for models without one.
    size_ids: (6,) SDXL's micro-conditioning (original size, crop, target size, in pixels).
    """

    text: Tensor
    rows: dict[str, int]
    pooled: Tensor | None = None
    size_ids: Tensor | None = None

    def conditioning(self, rows: Tensor) -> dict[str, Any]:
        """The UNet's keyword arguments for prompts by their rows (B,)."""
        if self.pooled is None or self.size_ids is None:
            return {"encoder_hidden_states": self.text[rows]}
        added = {"text_embeds": self.pooled[rows], "time_ids": self.size_ids.expand(len(rows), -1)}
        return {"encoder_hidden_states": self.text[rows], "added_cond_kwargs": added}


def encode_prompts(
    pipeline: Any,
    prompts: Sequence[str],
    device: torch.device,
    size_px: tuple[int, int] = (0, 0),
    cache: Path | None = None,
) -> PromptTable:
    """Every distinct prompt, and none, through the pipeline's text encoder or, for SDXL, both.

    No prompt is the empty one, or zeros where the pipeline samples with zeros in its place, as SDXL's does.
    size_px: height and width, which SDXL is told. With `cache` each prompt is encoded once ever: it is kept there
    under the hash of its text and the encoders' weights, as the encoders gave it.
    """
    distinct = list(dict.fromkeys(["", *prompts]))
    encoders = [encoder for encoder in (pipeline.text_encoder, getattr(pipeline, "text_encoder_2", None)) if encoder]
    files = _files(cache, encoders, distinct)
    missing = [text for text in distinct if text not in files or not files[text].is_file()]
    made = dict(zip(missing, _encode(pipeline, encoders, missing, device), strict=True))
    for text, parts in made.items():
        if text in files:
            write_array(files[text], *[part.float().numpy() for part in parts])
    arrays = [made[text] if text in made else _read(files[text]) for text in distinct]
    dtype = encoders[0].dtype
    stacked = [torch.stack(part).to(device, dtype) for part in zip(*arrays, strict=True)]
    rows = {prompt: row for row, prompt in enumerate(distinct)}
    if samples_with_zeros(pipeline):  # a prompt that is "" is still encoded
        stacked = [torch.cat([torch.zeros_like(part[:1]), part]) for part in stacked]
        rows = {prompt: row + 1 for prompt, row in rows.items()}
    embeddings, *pooled = stacked
    if not pooled:
        return PromptTable(embeddings, rows)
    return PromptTable(
        embeddings, rows, pooled[0], torch.tensor([*size_px, 0, 0, *size_px], device=device, dtype=dtype)
    )


def samples_with_zeros(pipeline: Any) -> bool:
    """Whether the pipeline has zeros in the place of no prompt at all, as SDXL was trained."""
    return bool(pipeline.config.get("force_zeros_for_empty_prompt", False))


@torch.no_grad()
def _encode(pipeline: Any, encoders: list[Any], texts: list[str], device: torch.device) -> list[tuple[Tensor, ...]]:
    """(embeddings,) or, for SDXL, (embeddings, pooled) of each text, on the CPU."""
    homes = [encoder.device for encoder in encoders]
    found: list[tuple[Tensor, ...]] = []
    try:
        for encoder in encoders if texts else ():
            encoder.to(device)
        for start in range(0, len(texts), TEXT_BATCH):
            encoded = pipeline.encode_prompt(
                prompt=texts[start : start + TEXT_BATCH],
                device=device,
                num_images_per_prompt=1,
                do_classifier_free_guidance=False,
            )
            parts = (encoded[0], encoded[2]) if len(encoders) > 1 else (encoded[0],)  # 1, 3: the negative prompt's
            found += zip(*(part.cpu() for part in parts), strict=True)
    finally:
        for encoder, home in zip(encoders, homes, strict=True):
            encoder.to(home)
    return found


def _files(cache: Path | None, encoders: list[Any], texts: list[str]) -> dict[str, Path]:
    if cache is None:
        return {}
    salt = "".join(hash_weights(encoder) for encoder in encoders)
    names = {text: hashlib.sha256((salt + text).encode()).hexdigest() for text in texts}
    return {text: cache / "text" / name[:2] / f"{name}.npz" for text, name in names.items()}


def _read(file: Path) -> tuple[Tensor, ...]:
    with np.load(file) as arrays:
        return tuple(torch.from_numpy(arrays[name]) for name in arrays.files)


def hash_weights(module: nn.Module) -> str:
    """sha256 over the names and values of the weights, whatever file they came from."""
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Network:
    """One UNet with a LoRA: with it the policy, without it the reference, so that no second UNet is needed."""

    def __init__(
        self,
        policy: nn.Module,
        unet: nn.Module,
        pipeline: Any,
        accelerator: Accelerator,
        aligned: Exchange | None = None,
        averaged: tuple[Sequence[Tensor], Sequence[Tensor] | None] = ((), None),
    ) -> None:
        """policy: `unet` as accelerate wrapped it, for forward passes whose gradients are shared. aligned: what makes
        the reference the aligned model, where it is not. averaged: the policy's weights and their moving averages."""
        self._policy, self._accelerator, self._aligned, self._averaged = policy, accelerator, aligned, averaged
        self._switch = ReferenceSwitch(unet)
        self.device, self.processes = accelerator.device, accelerator.num_processes
        self.schedule = NoiseSchedule(pipeline.scheduler.config, self.device)

    def policy(self, noisy: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
        """The prediction with the LoRA, float32 (B, [F,] C, H, W)."""
        return self._predict(noisy, timesteps, conditioning)

    def reference(self, noisy: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
        """The prediction without it and without gradients."""
        with self._switch.reference():
            return self._predict(noisy, timesteps, conditioning)

    def aligned(self, noisy: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
        """The aligned model's prediction, without gradients. Not between the policy's and its backward pass, which
        reads the weights once more."""
        with nullcontext() if self._aligned is None else self._aligned.made():
            return self.reference(noisy, timesteps, conditioning)

    def teacher(self, noisy: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
        """The prediction of the policy's moving average (of itself where none is kept), without gradients."""
        with torch.no_grad(), holding(*self._averaged):
            return self._predict(noisy, timesteps, conditioning)

    def _predict(self, noisy: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
        if noisy.ndim == 5:  # the UNet of clips wants (B, C, F, H, W), and the text once for every frame
            text = conditioning["encoder_hidden_states"].repeat_interleave(noisy.shape[1], dim=0)
            clips = noisy.transpose(1, 2)
            return self._call(clips, timesteps, {"encoder_hidden_states": text}).transpose(1, 2)
        return self._call(noisy, timesteps, conditioning)

    def _call(self, noisy: Tensor, timesteps: Tensor, conditioning: dict[str, Any]) -> Tensor:
        with self._accelerator.autocast():
            prediction: Tensor = self._policy(noisy, timesteps, return_dict=False, **conditioning)[0]
        return prediction.float()
