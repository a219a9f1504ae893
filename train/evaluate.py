"""The paper's table: generates prompts with several variants from the same noise, scores them, compares them.

    python -m train.evaluate --family emoji --prompts prompts.txt --variants base,aligned,aligned_npo --json out.json

PROMPTS has one prompt a line. Every prompt is drawn with --seeds-per-prompt seeds; picture for picture the variants
start from the same noise, so a win rate counts same-seed pairs. The judge is the family's scorer: the log-probability
that the picture shows what the prompt names. With --guidance-sweep the whole table is made at each guidance scale, to
tell a better negative model from what more guidance alone would do. Exit status 2 means that the input was wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image
from tqdm import tqdm

from collection.statistics import Z_95, wilson_interval
from npo_core.adapters import adapter_file
from npo_core.console import exit_status, hush_libraries
from npo_core.errors import InputError
from npo_core.families import FAMILIES, ModelFamily, get_family
from npo_core.generator import GenerationRequest, Generator
from npo_core.media import open_image
from npo_core.requests import resolve_request
from npo_core.variants import DEFAULT_VARIANTS, VARIANTS
from train.files import write_json
from train.grids import draw_grid

GRID_ROWS = 12  # prompts on the grid: more cannot be looked at


class Scorer(Protocol):
    """Judges pictures by the prompts they were made from."""

    def log_probability(self, images: list[Image.Image], prompts: list[str]) -> np.ndarray:
        """(B,) log-probability of what each prompt names, higher is better."""

    def top1(self, images: list[Image.Image], prompts: list[str]) -> np.ndarray:
        """(B,) bool: whether what the prompt names is the scorer's first guess."""


@dataclass(frozen=True)
class Scores:
    """What the scorer said of one variant's pictures, all (N,), in the order of the requests."""

    log_probability: np.ndarray
    top1: np.ndarray


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = build_parser().parse_args(arguments)
    return exit_status(lambda: run(options))


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.evaluate", description="Score variants side by side.")
    add = parser.add_argument
    add("--family", default="emoji", help=f"one of {', '.join(FAMILIES)} (%(default)s)")
    add("--prompts", type=Path, required=True, help="a text file with one prompt a line")
    add("--variants", default=",".join(DEFAULT_VARIANTS), help=f"from {', '.join(VARIANTS)} (%(default)s)")
    add("--aligned", metavar="PATH", help="LoRA to use as the aligned model (the family's)")
    add("--negative", metavar="PATH", help="LoRA to use as the NPO offset (the family's)")
    add("--seeds-per-prompt", type=int, default=1, help="pictures of each prompt and variant (%(default)s)")
    add("--first-seed", type=int, default=0, help="(%(default)s)")
    add("--limit", type=int, help="only the first so many prompts")
    add("--batch-size", type=int, default=8, help="requests in one pipeline call (%(default)s)")
    for name, kind in (("steps", int), ("guidance-scale", float), ("alpha", float), ("beta", float)):
        add(f"--{name}", type=kind, help="(the family's)")
    add("--scheduler", help="(the family's)")
    add("--guidance-sweep", help="comma-separated guidance scales, such as 2,4,6: one table for each")
    add(
        "--mixed-precision",
        choices=("no", "bf16"),
        default="no",
        help="bf16: faster on CPUs that have it (%(default)s)",
    )
    add("--json", type=Path, help="file for all numbers")
    add("--grid", type=Path, help=f"PNG of the first {GRID_ROWS} prompts, one column a variant")
    return parser


def run(options: argparse.Namespace) -> None:
    """Generates, scores, prints and writes what `options` ask for; raises InputError."""
    family = get_family(options.family)
    requests = build_requests(options, family)
    sweep = _guidance_scales(options.guidance_sweep) or [resolve_request(requests[0], family).guidance_scale]
    for scale in sweep:
        resolve_request(replace(requests[0], guidance_scale=scale), family)  # before the slow imports
    hush_libraries()
    from train.model import sampling_precision

    scorer = load_scorer(family)
    generator = Generator(
        family,
        aligned=adapter_file(options.aligned, "aligned") if options.aligned else None,
        negative=adapter_file(options.negative, "negative") if options.negative else None,
    )
    tables = []
    for scale in sweep:
        at_scale = [replace(request, guidance_scale=scale) for request in requests]
        grid = options.grid if scale == sweep[0] else None
        with sampling_precision(options.mixed_precision):
            tables.append(evaluate(generator, scorer, at_scale, options.batch_size, grid))
        print(as_text(tables[-1]), flush=True)
    if options.json:
        adapters = {role: {"id": each.id, "sha256": each.sha256} for role, each in generator.adapters().items()}
        write_json(options.json, {"family": family.name, "adapters": adapters, "tables": tables})


def build_requests(options: argparse.Namespace, family: ModelFamily) -> list[GenerationRequest]:
    """One request for each prompt and seed, checked; raises InputError."""
    try:
        lines = options.prompts.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The prompts {options.prompts} cannot be read ({error}); give a UTF-8 text file.") from None
    prompts = [line.strip() for line in lines if line.strip()][: options.limit]
    if not prompts:
        raise InputError(f"{options.prompts} has no prompt; write one a line.")
    for what, value in (("seeds per prompt", options.seeds_per_prompt), ("requests in a batch", options.batch_size)):
        if value < 1:
            raise InputError(f"The number of {what} is {value}; give 1 or more.")
    common = GenerationRequest(
        prompt=prompts[0],
        seed=options.first_seed,
        variants=tuple(name.strip() for name in options.variants.split(",") if name.strip()),
        steps=options.steps,
        guidance_scale=options.guidance_scale,
        alpha=options.alpha,
        beta=options.beta,
        scheduler=options.scheduler,
    )
    resolve_request(common, family)
    # Every request has a seed of its own: one seed for all prompts would make one unlucky noise count many times.
    return [
        replace(common, prompt=prompt, seed=options.first_seed + number * options.seeds_per_prompt + extra)
        for number, prompt in enumerate(prompts)
        for extra in range(options.seeds_per_prompt)
    ]


def load_scorer(family: ModelFamily) -> Scorer:
    """The scorer that ships with `family`; raises InputError for a family without one."""
    if family.scorer is None:
        raise InputError(f"{family.label} has no scorer; choose a family that has one, such as emoji.")
    from npo_core.emoji.scorer import load_scorer as load

    return load(family.scorer)


def evaluate(
    generator: Generator,
    scorer: Scorer,
    requests: Sequence[GenerationRequest],
    batch_size: int = 8,
    grid: Path | None = None,
) -> dict[str, Any]:
    """The table of `requests` (which agree in all but prompt and seed) as JSON values.

    variants: each one's mean log-probability with its 95% interval and top-1 share. win_rates: for each pair of
    variants how often the first scored above the second on the same noise, a tie counting half.
    """
    settings = generator.validate_request(requests[0])
    started_s = time.perf_counter()
    rows: list[tuple[Image.Image, ...]] = []
    logs: dict[str, list[np.ndarray]] = {name: [] for name in settings.variants}
    hits: dict[str, list[np.ndarray]] = {name: [] for name in settings.variants}
    for batch, images in _generate(generator, requests, batch_size):
        prompts = [request.prompt for request in batch]
        for name, pictures in images.items():
            logs[name].append(np.asarray(scorer.log_probability(pictures, prompts)))
            hits[name].append(np.asarray(scorer.top1(pictures, prompts)))
        rows += list(zip(*images.values(), strict=True))[: GRID_ROWS - len(rows)]
    scores = {name: Scores(np.concatenate(logs[name]), np.concatenate(hits[name])) for name in settings.variants}
    if grid is not None:
        grid.parent.mkdir(parents=True, exist_ok=True)
        draw_grid(rows).save(grid)
    shared = ("steps", "guidance_scale", "alpha", "beta", "scheduler", "width_px", "height_px")
    return {
        "settings": {name: getattr(settings, name) for name in shared},
        "prompts": len({request.prompt for request in requests}),
        "pictures": len(requests),
        "elapsed_s": round(time.perf_counter() - started_s, 1),
        "variants": {name: summarise(each) for name, each in scores.items()},
        "win_rates": [compare(a, b, scores) for a, b in combinations(reversed(settings.variants), 2)],
    }


def _generate(
    generator: Generator, requests: Sequence[GenerationRequest], batch_size: int
) -> Iterator[tuple[Sequence[GenerationRequest], dict[str, list[Image.Image]]]]:
    """Batches of requests with their pictures by variant."""
    with tqdm(total=len(requests), unit="prompt", leave=False) as bar:
        for start in range(0, len(requests), batch_size):
            batch = requests[start : start + batch_size]
            comparisons = generator.generate_batch(batch)
            images: dict[str, list[Image.Image]] = {name: [] for name in batch[0].variants}
            for comparison in comparisons:
                for sample in comparison.samples:
                    images[sample.variant].append(open_image(sample.media))
            yield batch, images
            bar.update(len(batch))


def summarise(scores: Scores) -> dict[str, Any]:
    """Mean log-probability with a normal 95% interval, top-1 share with Wilson's."""
    count, mean = len(scores.log_probability), float(scores.log_probability.mean())
    spread = float(scores.log_probability.std(ddof=1)) if count > 1 else 0.0
    reach = Z_95 * spread / count**0.5
    hits = int(scores.top1.sum())
    return {
        "mean_log_probability": mean,
        "mean_log_probability_95": [mean - reach, mean + reach],
        "top1": hits / count,
        "top1_95": list(wilson_interval(hits, count)),
    }


def compare(name: str, against: str, scores: dict[str, Scores]) -> dict[str, Any]:
    """How often `name` scored above `against` on the same prompt and noise, with Wilson's 95% interval."""
    difference = scores[name].log_probability - scores[against].log_probability
    wins = float((difference > 0).sum() + (difference == 0).sum() / 2)
    low, high = wilson_interval(wins, len(difference))
    return {
        "variant": name,
        "against": against,
        "win_rate": wins / len(difference),
        "win_rate_95": [low, high],
        "pairs": len(difference),
        "mean_difference": float(difference.mean()),
    }


def as_text(table: dict[str, Any]) -> str:
    """The table for a person."""
    settings = ", ".join(f"{name} {value}" for name, value in table["settings"].items())
    lines = [f"{table['pictures']} pictures a variant of {table['prompts']} prompts; {settings}"]
    lines.append(f"{'variant':<18}{'log-prob':>10}{'top-1':>8}   95% interval")
    for name, row in table["variants"].items():
        low, high = row["top1_95"]
        lines.append(f"{name:<18}{row['mean_log_probability']:>10.3f}{row['top1']:>8.3f}   {low:.3f} to {high:.3f}")
    for row in table["win_rates"]:
        low, high = row["win_rate_95"]
        lines.append(f"{row['variant']} against {row['against']}: {row['win_rate']:.3f}   {low:.3f} to {high:.3f}")
    return "\n".join(lines)


def _guidance_scales(text: str | None) -> list[float]:
    if not text:
        return []
    try:
        return [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"The guidance sweep is {text!r}; give numbers between commas, such as 2,4,6.") from None


if __name__ == "__main__":
    sys.exit(main())
