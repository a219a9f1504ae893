"""Measure the emoji family's clips: do they move, as the caption says, and does the object stay itself?

    python -m train.emoji.motion_measure --out npo_core/emoji/motion/evaluation.json           # 5 minutes on a GPU

Every motion is measured on `--clips` clips of as many concepts, for each variant:
energy      mean difference of neighbouring frames, over that of clips whose prompt names no motion
agreement   share of clips in which the object's course, read off the pixels, is the one that the caption names
identity    share of frames in which the scorer recognises the concept, over that of still pictures of these concepts
win rates   by the scorer's log-probability of the prompt per frame, against each earlier variant on the same noise:
            whether the LoRAs that were trained on pictures carry over to clips
With `--art`, agreement and identity of the drawn clips that the adapter learned from are there to compare with: nobody
recognises a thing that hangs upside down.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch.nn import functional

from npo_core.catalog.adapter_files import AdapterFile, Role, adapter_file
from npo_core.catalog.families import ModelFamily, VideoSettings, get_family
from npo_core.console import exit_status, hush_libraries
from npo_core.emoji.scorer import Scorer, load_scorer
from npo_core.media.files import sha256_file
from npo_core.requests import GenerationRequest, resolve_request
from npo_core.sampling.clips import ClipSampler
from npo_core.sampling.pipelines import load_model
from npo_core.sampling.sampler import Sampler
from npo_core.variants import DEFAULT_VARIANTS
from train.emoji.drawing.art import load_art
from train.emoji.drawing.concepts import BACKGROUNDS, STYLES, concepts
from train.emoji.drawing.motions import FRAMES, MOTIONS, with_motion
from train.emoji.drawing.render import render, to_bytes
from train.emoji.drawing.views import MOTION_NAMES, OWN_COLOUR, captions, plain_views
from train.emoji.motion import frames_of
from train.judging.scoring import Values, compare

MADE_AT_ONCE = 8
BORDER_PX = 4
TURNS = 24  # angles tried around the circle


@dataclass(frozen=True)
class Course:
    """What the object of a clip does, frame by frame, all (F,): its middle in widths of the frame, its side over that
    of the first frame, how much of it is left of the background's cover (1 at its clearest), its turn in degrees."""

    x: NDArray[np.float64]
    y: NDArray[np.float64]
    side: NDArray[np.float64]
    strength: NDArray[np.float64]
    angle: NDArray[np.float64]


def read_course(frames: Sequence[Image.Image]) -> Course:
    """The course of the object in `frames`, from where the pixels differ from the border's colour."""
    pixels = np.stack([np.asarray(frame.convert("RGB"), np.float64) for frame in frames]) / 255  # (F, H, W, 3)
    edge = np.concatenate([pixels[:, :BORDER_PX].reshape(-1, 3), pixels[:, -BORDER_PX:].reshape(-1, 3)])
    contrast = np.abs(pixels - np.median(edge, axis=0)).max(-1)  # (F, H, W)
    peaks = np.quantile(contrast, 0.98, axis=(1, 2))  # of each frame: a faded object is as large as a clear one
    mask = (contrast > np.maximum(0.35 * peaks, 0.04)[:, None, None]).astype(np.float64)
    area = mask.sum((1, 2)).clip(1)
    grid = (np.arange(pixels.shape[1]) + 0.5) / pixels.shape[1]
    side = np.sqrt(area)
    return Course(
        x=(mask.sum(1) * grid).sum(1) / area,
        y=(mask.sum(2) * grid).sum(1) / area,
        side=side / side[0],
        strength=peaks / peaks.max(),
        angle=_angles(pixels),
    )


def _angles(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """(F,) by how much the first frame must be turned, clockwise around the middle, to look most like each frame."""
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float()  # (F, 3, H, W)
    turns = torch.arange(TURNS) * (2 * torch.pi / TURNS)
    cos, sin, none = torch.cos(turns), torch.sin(turns), torch.zeros(TURNS)
    # where to look for the pixel that a clockwise turn (y points down) brings here
    affine = torch.stack([cos, sin, none, -sin, cos, none], 1).view(-1, 2, 3)
    grid = functional.affine_grid(affine, [TURNS, *images.shape[1:]], align_corners=False)
    turned = functional.grid_sample(
        images[:1].expand(TURNS, -1, -1, -1), grid, padding_mode="border", align_corners=False
    )
    inside = (
        torch.linspace(-1, 1, images.shape[-1]).square()[:, None] + torch.linspace(-1, 1, images.shape[-1]).square()
    ) < 1
    difference = ((turned[:, None] - images[None]) * inside).square().mean((2, 3, 4))  # (TURNS, F)
    return np.rad2deg(turns[difference.argmin(0)].double().numpy())


def name_motion(course: Course) -> str | None:
    """Which of MOTIONS the course is; None when nothing clear happens. Thresholds are about half of what is trained."""
    dx, dy = course.x[-1] - course.x[0], np.ptp(course.y)
    growth, fall = np.log(course.side[-1] / course.side[0]), course.strength[0] - course.strength[-1]
    steps = np.abs(np.diff(np.unwrap(course.angle, period=360)))
    steady = np.corrcoef(np.arange(len(course.x)), course.x)[0, 1] if np.ptp(course.x) > 1e-6 else 0.0
    crossings = int((np.diff(np.sign(course.x - course.x.mean())) != 0).sum())
    if abs(dx) > 0.2 and abs(steady) > 0.8:
        return "slide_left" if dx < 0 else "slide_right"
    if fall > 0.5 and abs(growth) < 0.4:
        return "fade"
    if abs(growth) > 0.3:
        return "zoom_in" if growth > 0 else "zoom_out"
    if dy > 0.1 and dy > 1.5 * np.ptp(course.x):
        return "bounce"
    if np.ptp(course.x) > max(0.05, 1.5 * dy) and crossings >= 4:  # the middle of a lopsided thing that spins circles
        return "shake"
    if len(np.unique(course.angle)) >= 6 and np.median(steps) >= 10:
        return "spin"
    return None


def energy(frames: Sequence[Image.Image]) -> float:
    """The mean absolute difference of neighbouring frames, of a range of 1."""
    pixels = np.stack([np.asarray(frame.convert("RGB"), np.float64) for frame in frames]) / 255
    return float(np.abs(np.diff(pixels, axis=0)).mean())


def draw_prompts(count: int, seed: int) -> list[str]:
    """`count` prompts of as many concepts (as far as there are), without a motion; half of them name a background."""
    rng = np.random.default_rng(seed)
    names = [str(name) for name in rng.permutation(list(concepts()))]
    prompts = []
    for number in range(count):
        thing = names[number % len(names)]
        behind = f", {rng.choice(list(BACKGROUNDS)[1:])} background" if rng.random() < 0.5 else ""
        prompts.append(f"{'an' if thing[0] in 'aeiou' else 'a'} {thing}, {rng.choice(STYLES)} style{behind}")
    return prompts


def own_adapters(family: ModelFamily) -> dict[Role, AdapterFile]:
    """The family's LoRAs, which were trained on pictures."""
    paths: dict[Role, str | None] = {"aligned": family.aligned, "negative": family.negative}
    return {role: adapter_file(path, role) for role, path in paths.items() if path is not None}


def load_samplers(family: ModelFamily, device: str | None = None) -> tuple[Sampler, ClipSampler]:
    """The family's samplers of pictures and of clips, both with its own LoRAs."""
    pictures = Sampler(load_model(family, device))
    clips = ClipSampler(pictures)
    for sampler in (pictures, clips):
        for role, adapter in own_adapters(family).items():
            sampler.set_adapter(role, sampler.read_adapter(adapter))
    return pictures, clips


def make(
    sampler: Sampler, modality: str, prompts: Sequence[str], variants: tuple[str, ...]
) -> dict[str, list[list[Image.Image]]]:
    """The frames of every prompt's picture or clip, by variant; prompt n from seed n."""
    made: dict[str, list[list[Image.Image]]] = {name: [] for name in variants}
    requests = [
        resolve_request(GenerationRequest(prompt, seed=seed, variants=variants, modality=modality), sampler.family)
        for seed, prompt in enumerate(prompts)
    ]
    for start in range(0, len(requests), MADE_AT_ONCE):
        sampled = sampler.sample(requests[start : start + MADE_AT_ONCE])
        for number, (frames, _) in enumerate(sampled):
            made[variants[number % len(variants)]].append(frames)
    return made


def judge(scorer: Scorer, clips: Sequence[Sequence[Image.Image]], prompts: Sequence[str]) -> dict[str, np.ndarray]:
    """(clips,) each: the share of frames that are recognised, and the mean log-probability over the frames."""
    frames = [frame for clip in clips for frame in clip]
    told = [prompt for clip, prompt in zip(clips, prompts, strict=True) for _ in clip]
    shape = (len(clips), -1)
    return {
        "recognised": scorer.top1(frames, told).reshape(shape).mean(1),
        "log_probability": scorer.log_probability(frames, told).reshape(shape).mean(1),
    }


def measure(
    pictures: Sampler, clips: ClipSampler, scorer: Scorer, count: int, variants: tuple[str, ...]
) -> dict[str, Any]:
    """The whole table for `count` clips of each motion; base is the first of `variants`."""
    prompts = draw_prompts(count, seed=1)
    stills = [picture for (picture,) in make(pictures, "image", prompts, ("base",))["base"]]
    still = float(scorer.top1(stills, prompts).mean())
    standing = make(clips, "video", prompts, ("base",))["base"]
    standing_energy = float(np.mean([energy(clip) for clip in standing]))
    table: dict[str, Any] = {
        "clips_per_motion": count,
        "still_top1": round(still, 4),
        "still_clips": {
            "energy": round(standing_energy, 5),
            "named_no_motion": round(float(np.mean([name_motion(read_course(clip)) is None for clip in standing])), 3),
            "identity": _share(judge(scorer, standing, prompts)["recognised"], still),
        },
        "variants": {},
    }
    told = {motion: [with_motion(prompt, motion) for prompt in prompts] for motion in MOTIONS}
    made = {motion: make(clips, "video", told[motion], variants) for motion in MOTIONS}
    judged = {
        name: {motion: judge(scorer, made[motion][name], told[motion]) for motion in MOTIONS} for name in variants
    }
    scored: dict[str, Values] = {
        name: {"emoji": np.concatenate([one["log_probability"] for one in by_motion.values()])}
        for name, by_motion in judged.items()
    }
    for number, variant in enumerate(variants):
        rows = {}
        for motion in MOTIONS:
            ours = made[motion][variant]
            named = [name_motion(read_course(clip)) for clip in ours]
            rows[motion] = {
                "energy": round(float(np.mean([energy(clip) for clip in ours])) / standing_energy, 2),
                "agreement": round(float(np.mean([name == motion for name in named])), 3),
                "identity": _share(judged[variant][motion]["recognised"], still),
            }
        table["variants"][variant] = {
            "all": {name: round(float(np.mean([row[name] for row in rows.values()])), 3) for name in rows["bounce"]},
            "win_rates": [compare(variant, other, scored, "emoji") for other in variants[:number]],
            "motions": rows,
        }
        print(
            variant, json.dumps(table["variants"][variant]["all"]), table["variants"][variant]["win_rates"], flush=True
        )
    return table


def measure_drawn(art: torch.Tensor, scorer: Scorer, count: int) -> dict[str, dict[str, float]]:
    """Motion -> agreement and identity of `count` clean clips as they were drawn, before any model."""
    rng = np.random.default_rng(5)
    picture, background = rng.integers(len(art), size=count), rng.integers(len(BACKGROUNDS), size=count)
    still = plain_views(picture, background, np.full(count, OWN_COLOUR))
    table = {}
    for number, motion in enumerate(MOTION_NAMES):
        views = replace(still, motion=np.full(count, number))
        frames = [Image.fromarray(frame) for frame in to_bytes(render(art, frames_of(views)))]
        clips = [frames[start : start + FRAMES] for start in range(0, len(frames), FRAMES)]
        named = [name_motion(read_course(clip)) for clip in clips]
        table[motion] = {
            "agreement": round(float(np.mean([name == motion for name in named])), 3),
            "identity": round(float(judge(scorer, clips, captions(views, rng))["recognised"].mean()), 3),
        }
    return table


def _share(recognised: np.ndarray, still: float) -> float:
    """How often frames are recognised, over how often still pictures are."""
    return round(float(recognised.mean()) / max(still, 1e-9), 3)


def contact_sheet(clips: Sequence[Sequence[Image.Image]], every: int = 2) -> Image.Image:
    """One row for each clip with every second frame, to look at."""
    rows = [list(clip)[::every] for clip in clips]
    width_px, height_px = rows[0][0].size
    sheet = Image.new("RGB", (width_px * len(rows[0]), height_px * len(rows)))
    for row, frames in enumerate(rows):
        for column, frame in enumerate(frames):
            sheet.paste(frame, (column * width_px, row * height_px))
    return sheet


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--motion", type=Path, default=Path("npo_core/emoji/motion"), help="(%(default)s)")
    parser.add_argument("--clips", type=int, default=40, help="of each motion (%(default)s)")
    parser.add_argument("--steps", type=int, default=12, help="denoising steps (%(default)s)")
    parser.add_argument("--guidance-scale", type=float, default=4.0, help="(%(default)s)")
    parser.add_argument("--variants", default=",".join(DEFAULT_VARIANTS), help="base first (%(default)s)")
    parser.add_argument("--out", type=Path, required=True, help="the table as JSON")
    parser.add_argument("--art", type=Path, help="of train.emoji.drawing.art: also measure clips as they were drawn")
    parser.add_argument("--sheet", type=Path, help="also write a PNG with a clip of each motion")
    arguments = parser.parse_args()

    def command() -> None:
        hush_libraries()
        settings = VideoSettings(
            str(arguments.motion.resolve()), arguments.steps, arguments.guidance_scale, scheduler="ddim"
        )
        family = replace(get_family("emoji"), video=settings)
        pictures, clips = load_samplers(family)
        if arguments.sheet:
            prompts = [
                with_motion(prompt, motion) for motion, prompt in zip(MOTIONS, draw_prompts(8, seed=3), strict=True)
            ]
            contact_sheet(make(clips, "video", prompts, ("base",))["base"]).save(arguments.sheet)
        scorer = load_scorer(family.scorer or "")
        table = measure(pictures, clips, scorer, arguments.clips, tuple(arguments.variants.split(",")))
        if arguments.art:
            table["drawn"] = measure_drawn(load_art(arguments.art), scorer, arguments.clips)
        weights: dict[str, Path] = {
            "motion": arguments.motion / "diffusion_pytorch_model.safetensors",
            "text_encoder": Path(family.base) / "text_encoder" / "model.safetensors",
            **{str(role): adapter.path for role, adapter in own_adapters(family).items()},
        }
        table = {
            "steps": arguments.steps,
            "guidance_scale": arguments.guidance_scale,
            "sha256": {name: sha256_file(path) for name, path in weights.items()},
            **table,
        }
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        arguments.out.write_text(json.dumps(table, indent=1) + "\n")

    return exit_status(command)


if __name__ == "__main__":
    sys.exit(main())
