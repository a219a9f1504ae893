"""Generates one prompt with every variant, from the same noise, and writes the pictures or clips to a folder.

    python -m npo_core.generate "a red apple, 3d style" --family emoji --seed 7 --out apple
    python -m npo_core.generate "a red apple, 3d style" --grid-alpha 0,0.5,1 --grid-beta 0,0.5,1,1.5 --out grid
    python -m npo_core.generate "a rocket in the sky" --family sd15 --modality video --also gif --out rocket

writes base.png, aligned.png, aligned_npo.png, side_by_side.png, request.json (everything needed to make them again)
and latents.safetensors (the final latents by variant, float16); for clips .mp4 in place of .png, and poster.png. A grid
is one batch of aligned_npo at every alpha and beta: grid.png, labelled, its cells one by one, and grid.json.
Exit status 2 means that the input was wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from npo_core.catalog.adapter_files import adapter_file
from npo_core.catalog.custom_families import add_families
from npo_core.catalog.families import FAMILIES, MODALITIES, SCHEDULERS, get_family
from npo_core.console import exit_status, hush_libraries
from npo_core.errors import InputError
from npo_core.generator import Comparison, GenerationRequest, Generator, Sample
from npo_core.grid import Grid, grid_requests, make_grid
from npo_core.media.files import (
    CLIP_EXPORTS,
    SUFFIXES,
    mp4_bytes,
    open_clip,
    open_image,
    png_bytes,
)
from npo_core.media.layout import clips_side_by_side, side_by_side
from npo_core.progress import StepProgress
from npo_core.requests import ResolvedRequest, parse_numbers, resolve_request
from npo_core.routing.execution import ROUTINGS
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
    parser.add_argument("--modality", default="image", help=f"one of {', '.join(MODALITIES)} (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="the noise to start from (default: %(default)s)")
    parser.add_argument("--negative-prompt", default="", help="what the picture should not show")
    parser.add_argument("--steps", type=int, help="denoising steps")
    parser.add_argument(
        "--guidance-scale", type=float, help="how strongly to contrast the two branches; 1 is not at all"
    )
    parser.add_argument("--alpha", type=float, help="share of eta = aligned - base in the negative branch")
    parser.add_argument("--beta", type=float, help="share of the NPO offset delta in the negative branch")
    parser.add_argument(
        "--grid-alpha", metavar="NUMBERS", help="a grid of aligned_npo instead: these alphas down, such as 0,0.5,1"
    )
    parser.add_argument("--grid-beta", metavar="NUMBERS", help="and these betas across, such as 0,0.5,1,1.5")
    parser.add_argument("--scheduler", help=f"one of {', '.join(SCHEDULERS)}")
    parser.add_argument("--frames", type=int, help="length of a clip")
    parser.add_argument("--fps", type=float, help="frames a second of a clip")
    parser.add_argument("--also", metavar="FORMATS", help=f"clips in other formats too: {', '.join(CLIP_EXPORTS)}")
    parser.add_argument(
        "--variants",
        default=",".join(DEFAULT_VARIANTS),
        help=f"comma-separated, from {', '.join(VARIANTS)} (default: %(default)s)",
    )
    parser.add_argument(
        "--aligned", metavar="PATH", help="LoRA or whole UNet to use as the aligned model: a path or a Hub id"
    )
    parser.add_argument("--negative", metavar="PATH", help="LoRA or whole UNet to use as the NPO offset")
    parser.add_argument(
        "--routing", help=f"how the rows are run, one of {', '.join(ROUTINGS)} (default: what the weights allow)"
    )
    parser.add_argument(
        "--no-safety-checker",
        action="store_true",
        help="for research: also keep what the family's safety checker flags (only some families have one)",
    )
    parser.add_argument("--out", type=Path, default=Path("generated"), help="folder to write (default: %(default)s)")
    return parser


def run(options: argparse.Namespace) -> None:
    """Generates and writes what `options` ask for; raises InputError."""
    add_families(os.environ.get("NPO_FAMILIES"))
    family = get_family(options.family)
    request = GenerationRequest(
        prompt=options.prompt,
        negative_prompt=options.negative_prompt,
        seed=options.seed,
        variants=_names(options.variants),
        modality=options.modality,
        steps=options.steps,
        guidance_scale=options.guidance_scale,
        alpha=options.alpha,
        beta=options.beta,
        scheduler=options.scheduler,
        frames=options.frames,
        fps=options.fps,
    )
    formats = _formats(options.also, options.modality)
    resolve_request(request, family)  # before anything is read
    generator = Generator(
        family,
        aligned=adapter_file(options.aligned, "aligned") if options.aligned else None,
        negative=adapter_file(options.negative, "negative") if options.negative else None,
        routing=options.routing,
        safety=not options.no_safety_checker,
    )
    resolved = resolve_request(request, family.at_shares(generator.shares(request.modality)))
    shares = _grid_shares(options.grid_alpha, options.grid_beta, resolved)
    for cell in grid_requests(request, *shares) if shares else ():
        resolve_request(cell, family)
    _make_folder(options.out)
    hush_libraries()
    on_step = _show_progress if sys.stderr.isatty() else None
    if shares is None:
        written = write_comparison(generator.generate(request, on_step), options.out, formats)
    else:
        written = write_grid(make_grid(generator, request, *shares, on_step), options.out)
    for path in written:
        print(path)


def _grid_shares(
    alphas: str | None, betas: str | None, request: ResolvedRequest
) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The alphas and betas of a grid, the request's own for the one left out; None when no grid is asked for."""
    if alphas is None and betas is None:
        return None
    return (
        (request.alpha,) if alphas is None else parse_numbers(alphas, "--grid-alpha"),
        (request.beta,) if betas is None else parse_numbers(betas, "--grid-beta"),
    )


def _names(text: str | None) -> tuple[str, ...]:
    return tuple(name.strip() for name in (text or "").split(",") if name.strip())


def _formats(text: str | None, modality: str) -> tuple[str, ...]:
    """The names in --also; raises InputError for one that there is not, and for pictures."""
    names = _names(text)
    for name in names:
        if name not in CLIP_EXPORTS:
            raise InputError(f"Unknown clip format {name!r}; choose from {', '.join(CLIP_EXPORTS)}.")
    if names and modality != "video":
        raise InputError(f"--also {text} is for clips; leave it out, or ask for --modality video.")
    return names


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be made ({error.strerror}); give another --out.") from None


def _show_progress(progress: StepProgress) -> None:
    end = "\n" if progress.step == progress.total_steps else ""
    print(f"\rstep {progress.step} of {progress.total_steps}", end=end, file=sys.stderr, flush=True)


def write_comparison(comparison: Comparison, folder: Path, formats: Sequence[str] = ()) -> list[Path]:
    """Writes the samples, the labelled strip, request.json and latents.safetensors to `folder`; returns the paths.

    Clips are also written in `formats`, of CLIP_EXPORTS. Raises InputError when they cannot be written.
    """
    from safetensors.numpy import save

    contents = {file_name(sample): sample.media for sample in comparison.samples}
    contents |= _clip_files(comparison, formats) if comparison.request.fps else _picture_files(comparison)
    contents["request.json"] = (json.dumps(record(comparison), indent=2) + "\n").encode()
    contents["latents.safetensors"] = save(
        {sample.variant: np.ascontiguousarray(sample.latents) for sample in comparison.samples}
    )
    return _write(contents, folder)


def write_grid(grid: Grid, folder: Path) -> list[Path]:
    """Writes grid.png, every cell (alpha_0.5_beta_1.png) and grid.json to `folder`; returns the paths.

    Raises InputError when they cannot be written.
    """
    cells = {f"alpha_{cell.request.alpha:g}_beta_{cell.request.beta:g}.png": cell for row in grid.rows for cell in row}
    records = [{"file": name, **record(cell)} for name, cell in cells.items()]
    contents = {name: cell.samples[0].media for name, cell in cells.items()}
    contents["grid.png"] = png_bytes(grid.picture())
    contents["grid.json"] = (json.dumps(records, indent=2) + "\n").encode()
    return _write(contents, folder)


def _write(contents: Mapping[str, bytes], folder: Path) -> list[Path]:
    try:
        for name, content in contents.items():
            (folder / name).write_bytes(content)
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}); give another folder.") from None
    return [folder / name for name in contents]


def file_name(sample: Sample) -> str:
    """ "aligned.png", "aligned.mp4"."""
    return sample.variant + SUFFIXES[sample.media_type]


def _labels(comparison: Comparison) -> list[str]:
    return [get_variant(sample.variant).label for sample in comparison.samples]


def _picture_files(comparison: Comparison) -> dict[str, bytes]:
    images = [open_image(sample.media) for sample in comparison.samples]
    return {"side_by_side.png": png_bytes(side_by_side(images, _labels(comparison)))}


def _clip_files(comparison: Comparison, formats: Sequence[str]) -> dict[str, bytes]:
    """The strip as a clip, its first frame as the poster, and everything once more in each of `formats`."""
    fps = comparison.request.fps
    assert fps is not None
    clips = {sample.variant: open_clip(sample.media) for sample in comparison.samples}
    strip = clips_side_by_side(list(clips.values()), _labels(comparison))
    files = {"side_by_side.mp4": mp4_bytes(strip, fps), "poster.png": png_bytes(strip[0])}
    for name in formats:
        _, write = CLIP_EXPORTS[name]
        files |= {f"{stem}.{name}": write(frames, fps) for stem, frames in {**clips, "side_by_side": strip}.items()}
    return files


def record(comparison: Comparison) -> dict[str, Any]:
    """Everything that a generation remembers except its latents, as plain JSON values."""
    return {
        "family": comparison.family,
        **asdict(comparison.request),
        "adapters": {
            role: {"id": adapter.id, "sha256": adapter.sha256} for role, adapter in comparison.adapters.items()
        },
        "versions": comparison.versions,
        "execution": comparison.execution,
        "elapsed_s": round(comparison.elapsed_s, 3),
        "samples": [
            {
                "variant": sample.variant,
                "file": file_name(sample),
                "media_type": sample.media_type,
                "media_sha256": sample.media_sha256,
            }
            for sample in comparison.samples
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
