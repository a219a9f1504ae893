"""Make the emoji family's `aligned` and `negative` LoRAs: pairs sampled from the base, judged by the scorer.

    python -m train.emoji.adapters sample --out data/emoji/pairs                           # resumes
    python -m train.emoji.adapters sample --variant aligned_npo --seeds 16 --out data/emoji/on_policy
    python -m train.emoji.adapters train --pairs data/emoji/pairs --role aligned --out npo_core/emoji/aligned
    python -m train.emoji.adapters train --pairs data/emoji/pairs --role negative --out npo_core/emoji/negative

The training is train.dpo's and train.npo's own engine (train/engine/loop.py); the negative LoRA differs from the
aligned one in nothing but `reverse_pairs`.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from npo_core.catalog.families import get_family
from npo_core.generator import Comparison, GenerationRequest, Generator
from npo_core.media.files import open_image
from npo_core.variants import VARIANTS
from npo_core.weights import load_adapter, save_adapter
from train.emoji.language.prompts import draw_prompts, pair_concepts
from train.engine.config import TrainConfig, fastest_precision
from train.engine.loop import train_adapter
from train.judging.scorers import load_scorer
from train.network.models import sampling_precision
from train.objectives.losses import LOSSES
from train.pairs.pairs import PreferencePair, reverse_pairs
from train.pairs.ranking import best_against_worst

PICTURES_PER_FILE = 128
MARGIN = 0.5  # the least difference of log-probabilities that counts as a preference
KEPT_FILES = ("config.json", "metrics.json")  # beside the weights


@dataclass(frozen=True)
class Sampling:
    """`seeds` pictures by `variant` for each of `prompts` prompts, scored by `scorer`; this process makes every
    `shards`-th file."""

    out: Path
    prompts: int
    seeds: int
    variant: str
    guidance_scale: float
    scorer: str
    shard: int
    shards: int


def sample(options: Sampling) -> None:
    """Draw pictures and score them, some prompts in a file."""
    family = get_family("emoji")
    if options.variant == "base":
        family = replace(family, aligned=None, negative=None)  # they are what is about to be made
    generator, scorer = Generator(family), load_scorer(options.scorer, family)
    options.out.mkdir(parents=True, exist_ok=True)
    prompts, together = draw_prompts(pair_concepts(), options.prompts, seed=3), PICTURES_PER_FILE // options.seeds
    for start in range(options.shard * together, len(prompts), options.shards * together):
        file = options.out / f"{start:05d}.npz"
        if file.exists():
            continue
        requests = [
            GenerationRequest(
                prompt=prompt,
                seed=1_000_000 + 100 * (start + row) + extra,
                variants=(options.variant,),
                guidance_scale=options.guidance_scale,
            )
            for row, prompt in enumerate(prompts[start : start + together])
            for extra in range(options.seeds)
        ]
        with sampling_precision(fastest_precision(None)):
            made = generator.generate_batch(requests)
        images = [open_image(each.samples[0].media) for each in made]
        _save(file, made, scorer.score(images, [request.prompt for request in requests]))
        print(f"{start + together}/{len(prompts)} prompts", flush=True)


def _save(file: Path, made: list[Comparison], scores: np.ndarray) -> None:
    partial = file.with_suffix(".partial")
    with partial.open("wb") as opened:
        np.savez(
            opened,
            prompts=np.array([each.request.prompt for each in made]),
            latents=np.stack([each.samples[0].latents for each in made]),
            scores=scores,
        )
    partial.replace(file)


def read_pairs(folders: Sequence[Path], margin: float, per_prompt: int) -> list[PreferencePair]:
    """Best against worst, second best against second worst, and so on, where the scorer is sure enough."""
    pairs = []
    for file in sorted(file for folder in folders for file in folder.glob("*.npz")):
        with np.load(file) as arrays:
            prompts, latents, scores = arrays["prompts"], arrays["latents"], arrays["scores"]
        starts = np.flatnonzero(np.r_[True, prompts[1:] != prompts[:-1]])
        for start, end in zip(starts, (*starts[1:], len(prompts)), strict=True):
            ordered, _ = best_against_worst(scores[start:end].tolist(), margin, per_prompt)
            for better, worse in ((start + one, start + other) for one, other in ordered):
                source = f"{file.parent.name}/{file.stem}#{better}>{worse}"
                pairs.append(PreferencePair(str(prompts[better]), latents[better], latents[worse], source))
    return pairs


def train(options: argparse.Namespace) -> None:
    """Train one LoRA on the sampled pairs and put what ships into `options.out`."""
    pairs = read_pairs(options.pairs, options.margin, options.pairs_per_prompt)
    print(f"{len(pairs)} pairs with a margin above {options.margin}")
    config = TrainConfig(
        family="emoji",
        output_dir=options.run or options.pairs[0].parent / f"run-{options.role}",
        role=options.role,
        max_train_steps=options.steps,
        batch_size=options.batch_size,
        learning_rate=options.learning_rate,
        lr_schedule="cosine",
        warmup_steps=10,
        rank=options.rank,
        targets=options.targets,
        beta_dpo=options.beta_dpo,
        caption_dropout=options.caption_dropout,
        loss=options.loss,
        mixed_precision=fastest_precision(None),
        resume=True,
    )
    result = train_adapter(config, reverse_pairs(pairs) if options.role == "negative" else pairs)
    save_adapter(load_adapter(result.adapter_path).to(dtype=torch.float16), options.out)
    for name in KEPT_FILES:
        shutil.copy(config.output_dir / name, options.out / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    sampling = commands.add_parser("sample", help="draw pictures and score them")
    sampling.add_argument("--out", type=Path, default=Path("data/emoji/pairs"))
    sampling.add_argument("--prompts", type=int, default=5000)
    sampling.add_argument("--seeds", type=int, default=4, help="pictures of each prompt (4)")
    sampling.add_argument("--variant", default="base", choices=VARIANTS, help="what draws them (base)")
    sampling.add_argument("--guidance-scale", type=float, default=2.5, help="low: the flaws show (2.5)")
    sampling.add_argument("--scorer", default="emoji", choices=("emoji", "jury"), help="who orders them (emoji)")
    sampling.add_argument("--shard", type=int, default=0, help="of --shards; run one process for each")
    sampling.add_argument("--shards", type=int, default=1)
    sampling.set_defaults(
        command=lambda options: sample(Sampling(**{name: getattr(options, name) for name in Sampling.__annotations__}))
    )
    training = commands.add_parser("train", help="train a LoRA on the scored pictures")
    training.add_argument("--pairs", type=Path, nargs="+", default=[Path("data/emoji/pairs")])
    training.add_argument("--pairs-per-prompt", type=int, default=2)
    training.add_argument("--role", choices=("aligned", "negative"), required=True)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--run-dir", dest="run", type=Path, help="checkpoints (next to the pairs)")
    training.add_argument("--steps", type=int, default=300)
    training.add_argument("--batch-size", type=int, default=256)
    training.add_argument("--learning-rate", type=float, default=2e-4)
    training.add_argument("--rank", type=int, default=32)
    training.add_argument("--targets", default="attention")
    training.add_argument("--beta-dpo", type=float, default=500.0)
    training.add_argument("--caption-dropout", type=float, default=0.1)
    training.add_argument("--loss", choices=LOSSES, default="sigmoid")
    training.add_argument("--margin", type=float, default=MARGIN)
    training.set_defaults(command=train)
    options = parser.parse_args()
    options.command(options)


if __name__ == "__main__":
    main()
