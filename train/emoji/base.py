"""Train the emoji family's UNet from nothing, on cached latents and the frozen text encoder that text.py made.

    python -m train.emoji.base --data data/emoji --work data/emoji/base --steps 3000      # resumes where it stopped
    OMP_NUM_THREADS=1 torchrun --nproc-per-node 2 -m train.emoji.base ...                 # two CPU cores

CPU or one GPU. Several processes share the batch and average their weights every few steps (local SGD, Stich 2019):
on CPUs this beats threads, which wait for each other at every layer. Learning rate: warm-up, constant, then a cosine to
zero over the last quarter; stop at any time and go on with another --steps. v-prediction (Salimans & Ho 2022) on a
cosine schedule with zero terminal SNR (Lin et al. 2024).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import time
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.distributed as dist
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from train.emoji.clean import clean_index, clean_latents
from train.emoji.concepts import BACKGROUNDS, COLOURS, CONCEPT_SETS, SHIPPED_SET, STYLES, concepts
from train.emoji.data import View, caption, load_views
from train.emoji.latents import CHANNELS, encode_folder

MAX_TOKENS = 32
REGION_TOKENS = 16  # the last positions, which sketch the picture region by region (text.py)
TEXT_WIDTH = 256
CAPTION_DROPOUT = 0.1
WARMUP_STEPS = 200
EMA_DECAY = 0.995
AVERAGE_EVERY = 8  # steps between averaging the processes' weights
SKETCH_WEIGHT = 0.5
NOISY_SHARE = 0.5  # exponent on the uniform draw of a timestep; 1 would be uniform
START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer whose byte-pair merges are learned from the family's own words; saved to `folder`."""
    words = [
        *concepts(),
        *STYLES,
        *BACKGROUNDS,
        *COLOURS,
        "style",
        "background",
        "a",
        "an",
        "on",
        "the",
        "of",
        "with",
        ",",
    ]
    learned = Tokenizer(models.BPE(end_of_word_suffix="</w>", unk_token=END))
    learned.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=[START, END],
        end_of_word_suffix="</w>",
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learned.train_from_iterator([" ".join(words)] * 50, trainer)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary: dict[str, int] = learned.get_vocab()
    for letter in pre_tokenizers.ByteLevel.alphabet():  # unseen words must still be spelt out
        vocabulary.setdefault(f"{letter}</w>", len(vocabulary))
    merges: Any = [tuple(pair) for pair in json.loads(learned.to_str())["model"]["merges"]]
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=MAX_TOKENS)
    tokenizer.save_pretrained(folder)
    return tokenizer


def build_scheduler() -> DDIMScheduler:
    """Cosine betas rescaled to zero terminal SNR, v-prediction, trailing steps."""
    return DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        rescale_betas_zero_snr=True,
        timestep_spacing="trailing",
        clip_sample=False,
        set_alpha_to_one=True,
    )


def build_unet() -> UNet2DConditionModel:
    """A plain conditional UNet over 8x8 latents that UNetMotionModel.from_unet2d accepts; 25 M parameters."""
    return UNet2DConditionModel(
        sample_size=8,
        in_channels=CHANNELS,
        out_channels=CHANNELS,
        block_out_channels=(192, 288),
        layers_per_block=1,
        cross_attention_dim=TEXT_WIDTH,
        attention_head_dim=(4, 6),  # diffusers' name for the NUMBER of heads here
        down_block_types=("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        norm_num_groups=32,
    )


def build_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    """Four transformer layers of width 256."""
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=TEXT_WIDTH,
            intermediate_size=4 * TEXT_WIDTH,
            projection_dim=TEXT_WIDTH,
            num_hidden_layers=4,
            num_attention_heads=4,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Warm-up, constant, cosine to zero over the last quarter."""
    tail = max(1, steps // 4)
    fall = 0.5 * (1 + math.cos(math.pi * min(1.0, max(0.0, (step - steps + tail) / tail))))
    return peak * min(1.0, (step + 1) / WARMUP_STEPS) * fall


class SketchHead(torch.nn.Module):
    """Reads a sketch of the clean picture out of a block inside the UNet, while it trains; not part of the model.

    The gradient reaches the block's cross-attention directly, which so learns early where its words belong.
    """

    def __init__(self, block: torch.nn.Module, width: int, factor: int) -> None:
        """`factor`: how many latent cells a side one position of the block's output stands for."""
        super().__init__()
        self.read = torch.nn.Conv2d(width, CHANNELS * factor**2, 1)
        self.factor = factor
        block.register_forward_hook(lambda module, inputs, output: self._keep(output))

    def _keep(self, output: torch.Tensor) -> None:
        self.seen = output

    def loss(self, clean: torch.Tensor, told: torch.Tensor) -> torch.Tensor:
        """Mean squared error against `clean` (B, 32, 8, 8), over the samples that had a caption (`told`, (B,) bool)."""
        wanted = torch.nn.functional.pixel_unshuffle(clean, self.factor)
        error = (self.read(self.seen).float() - wanted).square().mean((1, 2, 3))
        return error[told].mean()


class BaseTrainer:
    """The networks, their moving average and the optimizer; `step(n)` is a pure function of n and the state."""

    def __init__(
        self, data: Path, run: Path, concept_set: str, batch_size: int, peak_rate: float, steps: int, device: str
    ) -> None:
        self.rank, self.processes = (dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else (0, 1)
        self.run, self.peak_rate, self.steps, self.device = run, peak_rate, steps, device
        self.batch_size = batch_size // self.processes
        basis, latents = encode_folder(data)
        self.latents, self.views = torch.from_numpy(latents).to(device), load_views(data)
        names, wanted = list(concepts()), set(CONCEPT_SETS[concept_set]())
        self.rows = np.array([row for row, view in enumerate(self.views) if names[view.concept] in wanted])
        self.tokenizer = build_tokenizer(run / "tokenizer")
        torch.manual_seed(0)
        self.unet = cast(Any, build_unet())
        self.text = cast(Any, build_text_encoder(self.tokenizer)).to(device).eval().requires_grad_(False)
        self.text.load_state_dict(torch.load(run / "text.pt", map_location=device, weights_only=True)["text"])
        self.unet.to(device, memory_format=torch.channels_last)
        self.clean = torch.from_numpy(clean_latents(data, basis, concept_set)).to(device)
        self.clean_rows = clean_index(self.views, concept_set)
        self.middle = SketchHead(self.unet.mid_block, 288, 2).to(device)
        self.upper = SketchHead(self.unet.up_blocks[0], 288, 1).to(device)
        self.parameters: list[torch.Tensor] = [
            *self.unet.parameters(),
            *self.middle.parameters(),
            *self.upper.parameters(),
        ]
        self.average = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer = torch.optim.AdamW(
            self.parameters, lr=peak_rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
        )
        self.alphas = build_scheduler().alphas_cumprod.to(device)
        self.done = 0

    def checkpoint(self) -> None:
        """Write the whole state to a temporary name first, so that a kill never leaves half a file."""
        state = {
            "parameters": self.parameters,
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "done": self.done,
        }
        torch.save(state, self.run / "state.tmp")
        (self.run / "state.tmp").replace(self.run / "state.pt")

    def resume(self) -> None:
        if not (self.run / "state.pt").exists():
            return
        state = torch.load(self.run / "state.pt", map_location=self.device, weights_only=True)
        with torch.no_grad():
            for mine, kept in zip(self.parameters + self.average, state["parameters"] + state["average"], strict=True):
                mine.copy_(kept)
        self.optimizer.load_state_dict(state["optimizer"])
        self.done = state["done"]

    def loss(self, step: int) -> torch.Tensor:
        """Mean squared error of the predicted v over one batch."""
        rng = np.random.default_rng((7, step, self.rank))
        rows = self.rows[rng.integers(len(self.rows), size=self.batch_size)]
        words = [self._words(self.views[row], rng) for row in rows]
        tokens = self.tokenizer(
            words, padding="max_length", max_length=MAX_TOKENS, truncation=True, return_tensors="pt"
        )
        clean = self.latents[torch.from_numpy(rows)].float()  # (B, 32, 8, 8)
        # evenly spread timesteps, one from each B-th of the range, so that batches are alike; more of the noisy ones,
        # where the shape is decided, than of the clean ones, where little is left to learn
        spread = (np.arange(self.batch_size) + rng.random(self.batch_size)) / self.batch_size
        timesteps = torch.from_numpy((spread**NOISY_SHARE * 1000).astype(np.int64)).to(self.device)
        noise = torch.from_numpy(rng.standard_normal(clean.shape, np.float32)).to(self.device)
        signal = self.alphas[timesteps].sqrt().view(-1, 1, 1, 1)
        sigma = (1 - self.alphas[timesteps]).sqrt().view(-1, 1, 1, 1)
        noisy, target = signal * clean + sigma * noise, signal * noise - sigma * clean
        with torch.autocast(self.device, torch.bfloat16), _attention(self.device):
            with torch.no_grad():
                states = self.text(tokens.input_ids.to(self.device))[0]
            noisy = noisy.contiguous(memory_format=torch.channels_last)
            predicted = self.unet(noisy, timesteps, states, return_dict=False)[0]
            clean_target = self.clean[torch.from_numpy(self.clean_rows[rows])].float()
            told = torch.tensor([bool(word) for word in words], device=self.device)
            sketches = self.middle.loss(clean_target, told) + self.upper.loss(clean_target, told)
        return (predicted.float() - target).square().mean() + SKETCH_WEIGHT * sketches

    def _words(self, view: View, rng: np.random.Generator) -> str:
        return "" if rng.random() < CAPTION_DROPOUT else caption(view, rng)

    def step(self) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.done, self.steps, self.peak_rate)
        loss = self.loss(self.done)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1
        if self.processes > 1 and self.done % AVERAGE_EVERY == 0:
            self._meet()
        decay = min(EMA_DECAY, (1 + self.done) / (10 + self.done))
        with torch.no_grad():
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        return float(loss.detach())

    def _meet(self) -> None:
        """Average the processes' weights. Adam's moments stay each process's own."""
        with torch.no_grad():
            flat = torch.cat([parameter.reshape(-1) for parameter in self.parameters]) / self.processes
            dist.all_reduce(flat)
            parts = flat.split([parameter.numel() for parameter in self.parameters])
            for parameter, part in zip(self.parameters, parts, strict=True):
                parameter.copy_(part.view_as(parameter))

    def export(self, folder: Path) -> None:
        """Write the averaged UNet and text encoder, the tokenizer and the scheduler in diffusers layout, float16."""
        with torch.no_grad():
            for mine, kept in zip(self.parameters, self.average, strict=True):
                mine.copy_(kept)
        self.unet.half().save_pretrained(folder / "unet")
        self.text.half().save_pretrained(folder / "text_encoder")
        self.tokenizer.save_pretrained(folder / "tokenizer")
        build_scheduler().save_pretrained(folder / "scheduler")


def _attention(device: str) -> contextlib.AbstractContextManager[Any]:
    """On a CPU plain attention is a fifth faster than the flash kernels at 64 tokens, mostly in the backward pass."""
    return sdpa_kernel(SDPBackend.MATH) if device == "cpu" else contextlib.nullcontext()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("data/emoji"))
    parser.add_argument("--work", dest="run", type=Path, default=Path("data/emoji/base"))
    parser.add_argument("--concepts", choices=CONCEPT_SETS, default=SHIPPED_SET)
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--learning-rate", type=float, default=8e-4)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--export", type=Path, help="write the averaged weights here (diffusers layout, float16)")
    arguments = parser.parse_args()
    if "WORLD_SIZE" in os.environ:
        dist.init_process_group("gloo")
    trainer = BaseTrainer(
        arguments.data,
        arguments.run,
        arguments.concepts,
        arguments.batch_size,
        arguments.learning_rate,
        arguments.steps,
        arguments.device,
    )
    trainer.resume()
    started, shown = time.perf_counter(), trainer.done
    while trainer.done < arguments.steps:
        loss = trainer.step()
        if trainer.done % 50 == 0 and trainer.rank == 0:
            rate = (trainer.done - shown) * arguments.batch_size / (time.perf_counter() - started)
            print(f"step {trainer.done}/{arguments.steps} loss {loss:.4f} {rate:.0f} pictures/s", flush=True)
            started, shown = time.perf_counter(), trainer.done
        if (trainer.done % 248 == 0 or trainer.done == arguments.steps) and trainer.rank == 0:  # a multiple of 8
            trainer.checkpoint()
    if arguments.export and trainer.rank == 0:
        trainer.export(arguments.export)


if __name__ == "__main__":
    main()
