"""Generates one prompt with every variant, from the same noise, and writes the pictures to a folder.

    python -m npo_core.generate "a red apple, 3d style" --family emoji --seed 7 --out apple

writes base.png, aligned.png, aligned_npo.png, side_by_side.png, request.json (everything needed to make them again)
and latents.safetensors (the final latents by variant, float16). Exit status 2 means that the input was wrong.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from npo_core.adapters import adapter_file
from npo_core.console import exit_status, hush_libraries
from npo_core.errors import InputError
from npo_core.families import FAMILIES, SCHEDULERS, get_family
from npo_core.generator import Comparison, GenerationRequest, Generator, StepProgress
from npo_core.media import open_image, png_bytes, side_by_side
from npo_core.requests import resolve_request
from npo_core.variants import DEFAULT_VARIANTS, VARIANTS, get_variant


def main(arguments: Sequence[str] | None = None) -> int:
    options = build_parser().parse_args(arguments)
    return exit_status(lambda: run(options))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m npo_core.generate",
        description="Generate one prompt with every variant, from the same noise.",
        epilog="Settings left out are the family's own.",
    )
    parser.add_argument("prompt", help="what the picture should show")
    parser.add_argument("--family", default="emoji", help=f"one of {', '.join(FAMILIES)} (default: %(default)s)")
    parser.add_argument("--modality", default="image", help="image (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the noise to start from (default: %(default)s)")
    parser.add_argument("--negative-prompt", default="", help="what the picture should not show")
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument(
        "--guidance-scale", type=float, help="how strongly to contrast the two branches; 1 is not at all"
    )
    parser.add_argument("--alpha", type=float, help="share of eta = aligned - base in the negative branch")
    parser.add_argument("--beta", type=float, help="share of the NPO offset delta in the negative branch")
    parser.add_argument("--scheduler", help=f"one of {', '.join(SCHEDULERS)}")
    parser.add_argument(
        "--variants",
        default=",".join(DEFAULT_VARIANTS),
        help=f"comma-separated, from {', '.join(VARIANTS)} (default: %(default)s)",
    )
    parser.add_argument("--aligned", metavar="PATH", help="LoRA to use as the aligned model")
    parser.add_argument("--negative", metavar="PATH", help="LoRA to use as the NPO offset")
    parser.add_argument("--out", type=Path, default=Path("generated"), help="folder to write (default: %(default)s)")
    return parser


def run(options: argparse.Namespace) -> None:
    """Generates and writes what `options` ask for; raises InputError."""
    family = get_family(options.family)
    request = GenerationRequest(
        prompt=options.prompt,
        negative_prompt=options.negative_prompt,
        seed=options.seed,
        variants=tuple(name.strip() for name in options.variants.split(",") if name.strip()),
        modality=options.modality,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
        alpha=options.alpha,
        beta=options.beta,
        scheduler=options.scheduler,
    )
    resolve_request(request, family)  # before the slow imports
    generator = Generator(
        family,
        aligned=adapter_file(options.aligned, "aligned") if options.aligned else None,
        negative=adapter_file(options.negative, "negative") if options.negative else None,
    )
    _make_folder(options.out)
    hush_libraries()
    comparison = generator.generate(request, on_step=_show_progress if sys.stderr.isatty() else None)
    for path in write_comparison(comparison, options.out):
        print(path)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made ({error.strerror}); give another --out.") from None


def _show_progress(progress: StepProgress) -> None:
    end = "\n" if progress.step == progress.total_steps else ""
    print(f"\rstep {progress.step} of {progress.total_steps}", end=end, file=sys.stderr, flush=True)


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Writes the pictures, the labelled strip, request.json and latents.safetensors to `folder`; returns the paths.

    Raises InputError when they cannot be written.
    """
    from safetensors.numpy import save

    samples = comparison.samples
    strip = side_by_side(
        [open_image(sample.media) for sample in samples], [get_variant(sample.variant).label for sample in samples]
    )
    contents = {f"{sample.variant}.png": sample.media for sample in samples}
    contents["side_by_side.png"] = png_bytes(strip)
    contents["request.json"] = (json.dumps(record(comparison), indent=2) + "\n").encode()
    contents["latents.safetensors"] = save({sample.variant: sample.latents for sample in samples})
    try:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}); give another folder.") from None
    return [folder / name for name in contents]


def record(comparison: Comparison) -> dict[str, Any]:
    """Everything that a generation remembers except its latents, as plain JSON values."""
    return {
        "family": comparison.family,
        **asdict(comparison.request),
        "frames": 1,
        "fps": None,
        "adapters": {
            role: {"id": adapter.id, "sha256": adapter.sha256} for role, adapter in comparison.adapters.items()
        },
        "versions": comparison.versions,
        "elapsed_s": round(comparison.elapsed_s, 3),
        "samples": [
            {
                "variant": sample.variant,
                "file": f"{sample.variant}.png",
                "media_type": sample.media_type,
                "media_sha256": sample.media_sha256,
            }
            for sample in comparison.samples
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
