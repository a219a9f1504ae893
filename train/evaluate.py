"""The paper's table: generates prompts with several variants from the same noise, scores them, compares them.

    python -m train.evaluate --family emoji --prompts prompts.txt --variants base,aligned,aligned_npo --json out.json

PROMPTS has one prompt a line. Every prompt is drawn with --seeds-per-prompt seeds; picture for picture the variants
start from the same noise, so a win rate counts same-seed pairs. The judges are --scorers, by default the family's own:
the log-probability that the picture is clean and shows what the prompt names.

Ablations: --guidance-sweep makes the whole table at each guidance scale, to tell a better negative model from what more
guidance alone would do; --alphas and --betas cross the two shares of the negative branch; --longer-aligned compares
aligned_npo with an aligned model that was simply trained for longer; the variant aligned_vs_base has the original model
as the negative.

--protocol compares everybody at their best instead: each contender is tuned on --choice-prompts, then all are measured
once, by the rater and by a jury that taught nobody (docs/training.md, "Measuring").
Exit status 2 means that the input was wrong.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from npo_core.catalog.adapter_files import AdapterFile, adapter_file
from npo_core.catalog.families import FAMILIES, ModelFamily
from npo_core.console import exit_status, hush_libraries
from npo_core.errors import InputError
from npo_core.generator import GenerationRequest, Generator
from npo_core.requests import parse_numbers, resolve_request
from npo_core.variants import DEFAULT_VARIANTS, VARIANTS
from train.commands.flags import read_family, read_prompts
from train.engine.files import write_json, write_text
from train.judging.experiments import BATCH_SIZE, GRID_ROWS, compare_longer, cross_shares, evaluate
from train.judging.plots import draw_win_rates
from train.judging.protocol.command import add_protocol_flags, run_protocol
from train.judging.scorers import SCORERS, Scorer, load_scorer
from train.judging.tables import as_markdown, as_markdown_shares, as_text, win_rate_line


@dataclass(frozen=True)
class Plan:
    """What a run measures, checked. shares: the (alpha, beta) to cross; longer: an aligned model trained for longer."""

    requests: list[GenerationRequest]
    guidance_scales: tuple[float, ...]
    shares: list[tuple[float, float]]
    longer: AdapterFile | None
    batch_size: int


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
    add("--scorers", default="emoji", help=f"from {', '.join(SCORERS)} (%(default)s)")
    add("--aligned", metavar="PATH", help="LoRA to use as the aligned model (the family's)")
    add("--negative", metavar="PATH", help="LoRA to use as the NPO offset (the family's)")
    add("--seeds-per-prompt", type=int, default=1, help="pictures of each prompt and variant (%(default)s)")
    add("--first-seed", type=int, default=0, help="(%(default)s)")
    add("--limit", type=int, help="only the first so many prompts")
    add("--batch-size", type=int, help="requests in one pipeline call (8; in the protocol pictures, 512 on a GPU)")
    for name, kind in (("steps", int), ("guidance-scale", float), ("alpha", float), ("beta", float)):
        add(f"--{name}", type=kind, help="(the family's)")
    add("--scheduler", help="(the family's)")
    add("--guidance-sweep", help="comma-separated guidance scales, such as 2,4,6: one table for each")
    add("--alphas", help="comma-separated, crossed with --betas (the family's)")
    add("--betas", help="comma-separated, crossed with --alphas (the family's)")
    add("--longer-aligned", metavar="PATH", help="LoRA of an aligned model trained longer, to compare aligned_npo with")
    add(
        "--mixed-precision",
        choices=("no", "bf16"),
        default="no",
        help="bf16: faster on CPUs that have it (%(default)s)",
    )
    add("--keep", type=Path, help="folder for scores: a killed run goes on, several processes share the work")
    add("--json", type=Path, help="file for all numbers")
    add("--markdown", type=Path, help="file for the tables as Markdown")
    add("--plot", type=Path, help="PNG of the win rates of every table and ablation")
    add("--grid", type=Path, help=f"PNG of the first {GRID_ROWS} prompts, one column a variant")
    add_protocol_flags(parser)
    return parser


def run(options: argparse.Namespace) -> None:
    """Generates, scores, prints and writes what `options` ask for; raises InputError."""
    family = read_family(options)
    if options.protocol:
        run_protocol(options, family)
        return
    plan = make_plan(options, family)  # before the slow imports
    hush_libraries()
    scorers = {name.strip(): load_scorer(name.strip(), family) for name in options.scorers.split(",")}
    generator = Generator(
        family,
        aligned=adapter_file(options.aligned, "aligned") if options.aligned else None,
        negative=adapter_file(options.negative, "negative") if options.negative else None,
    )
    from train.network.models import sampling_precision

    with sampling_precision(options.mixed_precision):
        report = measure(plan, generator, scorers, options.grid, options.keep)
    if options.json:
        write_json(options.json, report)
    if options.markdown:
        write_text(options.markdown, as_markdown(report))
    if options.plot:
        draw_win_rates(report, options.plot)


def make_plan(options: argparse.Namespace, family: ModelFamily) -> Plan:
    """What `options` ask for; raises InputError for anything that cannot be made."""
    requests = build_requests(options, family)
    own_scale = resolve_request(requests[0], family).guidance_scale
    scales = parse_numbers(options.guidance_sweep, "The guidance sweep") if options.guidance_sweep else (own_scale,)
    shares = []
    if options.alphas or options.betas:
        alphas = parse_numbers(options.alphas, "The list of alphas") if options.alphas else (family.alpha,)
        betas = parse_numbers(options.betas, "The list of betas") if options.betas else (family.beta,)
        shares = list(product(alphas, betas))
    for scale in scales:
        resolve_request(replace(requests[0], guidance_scale=scale), family)
    for alpha, beta in shares:
        resolve_request(replace(requests[0], alpha=alpha, beta=beta), family)
    longer = adapter_file(options.longer_aligned, "aligned") if options.longer_aligned else None
    return Plan(requests, scales, shares, longer, BATCH_SIZE if options.batch_size is None else options.batch_size)


def measure(
    plan: Plan, generator: Generator, scorers: Mapping[str, Scorer], grid: Path | None = None, keep: Path | None = None
) -> dict[str, Any]:
    """Everything in `plan`, printed as it comes, as JSON values. grid: file for the first table's pictures."""
    adapters = {role: {"id": each.id, "sha256": each.sha256} for role, each in generator.adapters().items()}
    report: dict[str, Any] = {"family": generator.family.name, "adapters": adapters, "tables": []}
    for scale in plan.guidance_scales:
        at_scale = [replace(request, guidance_scale=scale) for request in plan.requests]
        shown = grid if scale == plan.guidance_scales[0] else None
        report["tables"].append(evaluate(generator, scorers, at_scale, plan.batch_size, shown, keep))
        print(as_text(report["tables"][-1]), flush=True)
    if plan.shares:
        report["shares"] = cross_shares(generator, scorers, plan.requests, plan.shares, plan.batch_size, keep)
        print(as_markdown_shares(report["shares"]), flush=True)
    if plan.longer is not None:
        report["longer"] = compare_longer(generator, scorers, plan.requests, plan.longer, plan.batch_size)
        print("\n".join(map(win_rate_line, report["longer"])), flush=True)
    return report


def build_requests(options: argparse.Namespace, family: ModelFamily) -> list[GenerationRequest]:
    """One request for each prompt and seed, checked; raises InputError."""
    prompts = read_prompts(options.prompts, options.limit)
    for what, value in (("seeds per prompt", options.seeds_per_prompt), ("requests in a batch", options.batch_size)):
        if value is not None and value < 1:
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


if __name__ == "__main__":
    sys.exit(main())
