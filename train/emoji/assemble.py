"""Put the trained parts together as a pipeline that StableDiffusionPipeline.from_pretrained loads.

    python -m train.emoji.base --work data/emoji/base --steps 3000 --export npo_core/emoji
    python -m train.emoji.vae --work data/emoji/vae --steps 1000 --export npo_core/emoji
    python -m train.emoji.assemble --out npo_core/emoji

Stock diffusers finds the autoencoder's class by the module named in model_index.json, so npo_core must be importable.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import diffusers

MODEL_INDEX = {
    "_class_name": "StableDiffusionPipeline",
    "_diffusers_version": diffusers.__version__,
    "feature_extractor": [None, None],
    "image_encoder": [None, None],
    "requires_safety_checker": False,
    "safety_checker": [None, None],
    "scheduler": ["diffusers", "DDIMScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "unet": ["diffusers", "UNet2DConditionModel"],
    "vae": ["npo_core.emoji.autoencoder", "PatchAutoencoder"],
}


def assemble(folder: Path) -> None:
    """Write model_index.json and load the whole once, so that a part that is missing is noticed here."""
    (folder / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")
    diffusers.StableDiffusionPipeline.from_pretrained(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("npo_core/emoji"))
    assemble(parser.parse_args().out)


if __name__ == "__main__":
    main()
