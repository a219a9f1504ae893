"""The paper's table: generates prompts with several variants from the same noise, scores them, compares them.

    python -m train.evaluate --family emoji --prompts prompts.txt --variants base,aligned,aligned_npo --json out.json

PROMPTS has one prompt a line. Every prompt is drawn with --seeds-per-prompt seeds; picture for picture the variants
start from the same noise, so a win rate counts same-seed pairs. The judges are --scorers, by default the family's own:
the log-probability that the picture is clean and shows what the prompt names.

Ablations: --guidance-sweep makes the whole table at each guidance scale, to tell a better negative model from what more
guidance alone would do; --alphas and --betas cross the two shares of the negative branch; --longer-aligned compares
aligned_npo with an aligned model that was simply trained for longer; the variant aligned_vs_base has the original model
as the negative. Exit status 2 means that the input was wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path
from typing import Any

from npo_core.catalog.adapter_files import adapter_file
from npo_core.catalog.families import FAMILIES, ModelFamily
from npo_core.console import exit_status, hush_libraries
from npo_core.errors import InputError
from npo_core.generator import GenerationRequest, Generator
from npo_core.requests import parse_numbers, resolve_request
from npo_core.variants import DEFAULT_VARIANTS, VARIANTS
from train.commands.flags import read_family, read_prompts
from train.engine.files import replacing, write_json, write_text
from train.judging.grids import draw_grid
from train.judging.protocol.command import add_protocol_flags, run_protocol
from train.judging.scorers import SCORERS, Scorer, load_scorer
from train.judging.scoring import Scored, compare, score_requests, summarise

BATCH_SIZE = 8
GRID_ROWS = 12  # prompts on the grid: more cannot be looked at
LONGER = "aligned_longer"
NPO = "aligned_npo"


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
    options.batch_size = options.batch_size or BATCH_SIZE
    requests = build_requests(options, family)
    sweep: Sequence[float] = [resolve_request(requests[0], family).guidance_scale]
    if options.guidance_sweep:
        sweep = parse_numbers(options.guidance_sweep, "The guidance sweep")
    shares = _shares(options, family)
    for scale in sweep:
        resolve_request(replace(requests[0], guidance_scale=scale), family)  # before the slow imports
    for alpha, beta in shares:
        resolve_request(replace(requests[0], alpha=alpha, beta=beta), family)
    longer = adapter_file(options.longer_aligned, "aligned") if options.longer_aligned else None
    hush_libraries()
    from train.network.models import sampling_precision

    scorers = {name.strip(): load_scorer(name.strip(), family) for name in options.scorers.split(",")}
    generator = Generator(
        family,
        aligned=adapter_file(options.aligned, "aligned") if options.aligned else None,
        negative=adapter_file(options.negative, "negative") if options.negative else None,
    )
    adapters = {role: {"id": each.id, "sha256": each.sha256} for role, each in generator.adapters().items()}
    report: dict[str, Any] = {"family": family.name, "adapters": adapters, "tables": []}
    with sampling_precision(options.mixed_precision):
        for scale in sweep:
            at_scale = [replace(request, guidance_scale=scale) for request in requests]
            grid = options.grid if scale == sweep[0] else None
            report["tables"].append(evaluate(generator, scorers, at_scale, options.batch_size, grid, options.keep))
            print(as_text(report["tables"][-1]), flush=True)
        if shares:
            report["shares"] = cross_shares(generator, scorers, requests, shares, options.batch_size, options.keep)
            print(as_markdown_shares(report["shares"]), flush=True)
        if longer is not None:
            names = (("aligned",), (NPO,))
            before = [
                score_requests(generator, scorers, [replace(r, variants=v) for r in requests], options.batch_size)
                for v in names
            ]
            generator.use_adapter(longer)
            after = score_requests(
                generator, scorers, [replace(r, variants=("aligned",)) for r in requests], options.batch_size
            )
            values = {**before[0].values, **before[1].values, LONGER: after.values["aligned"]}
            pairs = ((NPO, LONGER), (LONGER, "aligned"), (NPO, "aligned"))
            report["longer"] = [compare(a, b, values, scorer) for scorer in scorers for a, b in pairs]
            print("\n".join(map(_win_rate, report["longer"])), flush=True)
    _write(options, report)


def _write(options: argparse.Namespace, report: dict[str, Any]) -> None:
    if options.json:
        write_json(options.json, report)
    if options.markdown:
        write_text(options.markdown, as_markdown(report))
    if options.plot:
        draw_win_rates(report, options.plot)


def build_requests(options: argparse.Namespace, family: ModelFamily) -> list[GenerationRequest]:
    """One request for each prompt and seed, checked; raises InputError."""
    prompts = read_prompts(options.prompts, options.limit)
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


def evaluate(
    generator: Generator,
    scorers: Mapping[str, Scorer],
    requests: Sequence[GenerationRequest],
    batch_size: int = 8,
    grid: Path | None = None,
    keep: Path | None = None,
) -> dict[str, Any]:
    """The table of `requests` (which agree in all but prompt and seed) as JSON values.

    variants: each one's mean by every scorer, with 95% intervals. win_rates: for each pair of variants and each scorer
    how often the first scored above the second on the same noise, a tie counting half.
    """
    settings = generator.validate_request(requests[0])
    started_s = time.perf_counter()
    scored = score_requests(generator, scorers, requests, batch_size, GRID_ROWS if grid else 0, keep)
    if grid is not None:
        grid.parent.mkdir(parents=True, exist_ok=True)
        draw_grid(scored.rows).save(grid)
    shared = ("steps", "guidance_scale", "alpha", "beta", "scheduler", "width_px", "height_px")
    return {
        "settings": {name: getattr(settings, name) for name in shared},
        "prompts": len({request.prompt for request in requests}),
        "pictures": len(requests),
        "elapsed_s": round(time.perf_counter() - started_s, 1),
        "variants": {name: summarise(values) for name, values in scored.values.items()},
        "win_rates": _win_rates(scored, list(scorers)),
    }


def _win_rates(scored: Scored, scorers: Sequence[str]) -> list[dict[str, Any]]:
    later_first = list(combinations(reversed(scored.values), 2))
    return [compare(a, b, scored.values, scorer) for scorer in scorers for a, b in later_first]


def cross_shares(
    generator: Generator,
    scorers: Mapping[str, Scorer],
    requests: Sequence[GenerationRequest],
    shares: Sequence[tuple[float, float]],
    batch_size: int = 8,
    keep: Path | None = None,
    against: str = "aligned",
) -> list[dict[str, Any]]:
    """aligned_npo against another variant at every (alpha, beta), on the same noise: one row each, and scorer."""
    alone = [replace(request, variants=(against,)) for request in requests]
    plain = score_requests(generator, scorers, alone, batch_size, keep=keep)
    rows = []
    for alpha, beta in shares:
        mixed = [replace(request, variants=(NPO,), alpha=alpha, beta=beta) for request in requests]
        values = {**plain.values, **score_requests(generator, scorers, mixed, batch_size, keep=keep).values}
        rows += [{"alpha": alpha, "beta": beta, **compare(NPO, against, values, scorer)} for scorer in scorers]
    return rows


def as_text(table: dict[str, Any]) -> str:
    """The table for a person."""
    settings = ", ".join(f"{name} {value}" for name, value in table["settings"].items())
    columns = list(next(iter(table["variants"].values())))
    lines = [f"{table['pictures']} pictures a variant of {table['prompts']} prompts; {settings}"]
    lines.append(f"{'variant':<18}" + "".join(f"{column:>12}" for column in columns))
    for name, row in table["variants"].items():
        lines.append(f"{name:<18}" + "".join(f"{row[column]['mean']:>12.3f}" for column in columns))
    return "\n".join([*lines, *map(_win_rate, table["win_rates"])])


def _win_rate(row: dict[str, Any]) -> str:
    low, high = row["win_rate_95"]
    return (
        f"{row['variant']} against {row['against']}, {row['scorer']}: {row['win_rate']:.3f}   {low:.3f} to {high:.3f}"
    )


def as_markdown(report: dict[str, Any]) -> str:
    """All tables of a report."""
    parts = [as_markdown_table(table) for table in report["tables"]]
    if "shares" in report:
        parts.append("aligned_npo against aligned by alpha and beta\n\n" + as_markdown_shares(report["shares"]))
    if "longer" in report:
        parts.append("\n".join(_win_rate_rows(report["longer"])))
    return "\n\n".join(parts) + "\n"


def as_markdown_table(table: dict[str, Any]) -> str:
    """Means and win rates, each with its 95% interval."""
    columns = list(next(iter(table["variants"].values())))
    lines = [
        f"{table['pictures']} pictures a variant of {table['prompts']} prompts, {table['settings']['steps']} "
        f"{table['settings']['scheduler']} steps, guidance {table['settings']['guidance_scale']:g}, alpha "
        f"{table['settings']['alpha']:g}, beta {table['settings']['beta']:g}.",
        "",
        f"| variant | {' | '.join(columns)} |",
        "|---|" + "---|" * len(columns),
    ]
    for name, row in table["variants"].items():
        cells = [_with_interval(row[column]["mean"], row[column]["mean_95"]) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_win_rate_rows(table["win_rates"])])


def _win_rate_rows(rows: Sequence[dict[str, Any]]) -> list[str]:
    shown = [f"| {row['variant']} | {row['against']} | {row['scorer']} | {_rate(row)} |" for row in rows]
    return ["| variant | against | scorer | win rate |", "|---|---|---|---|", *shown]


def as_markdown_shares(rows: Sequence[dict[str, Any]]) -> str:
    """Alpha down, beta across; one table a scorer."""
    tables = []
    for scorer in dict.fromkeys(row["scorer"] for row in rows):
        ours = {(row["alpha"], row["beta"]): row for row in rows if row["scorer"] == scorer}
        alphas, betas = (list(dict.fromkeys(key[place] for key in ours)) for place in (0, 1))
        head = [f"| {scorer}: alpha \\ beta | {' | '.join(f'{b:g}' for b in betas)} |", "|---|" + "---|" * len(betas)]
        body = [
            f"| {a:g} | "
            + " | ".join(_with_interval(ours[a, b]["win_rate"], ours[a, b]["win_rate_95"]) for b in betas)
            + " |"
            for a in alphas
        ]
        tables.append("\n".join([*head, *body]))
    return "\n\n".join(tables)


def _rate(row: dict[str, Any]) -> str:
    return _with_interval(row["win_rate"], row["win_rate_95"])


def _with_interval(value: float, interval: Sequence[float]) -> str:
    return f"{value:.3f} ({interval[0]:.3f} to {interval[1]:.3f})"


def draw_win_rates(report: dict[str, Any], file: Path) -> None:
    """Every win rate of the report as a dot with its interval, one line each."""
    from matplotlib.figure import Figure

    lines = [
        (f"{row['variant']} against {row['against']}, guidance {table['settings']['guidance_scale']:g}", row)
        for table in report["tables"]
        for row in table["win_rates"]
    ]
    lines += [(f"aligned_npo, alpha {row['alpha']:g}, beta {row['beta']:g}", row) for row in report.get("shares", [])]
    lines += [(f"{row['variant']} against {row['against']}", row) for row in report.get("longer", [])]
    figure = Figure(figsize=(8, 1 + 0.28 * len(lines)), layout="constrained")
    axes = figure.add_subplot()
    axes.axvline(0.5, color="0.7", linewidth=1)
    for place, (_, row) in enumerate(lines):
        axes.plot(row["win_rate_95"], [place, place], color="tab:blue", linewidth=2)
        axes.plot(row["win_rate"], place, "o", color="tab:blue")
    axes.set_yticks(range(len(lines)), [f"{label} ({row['scorer']})" for label, row in lines], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel("win rate, 95% interval")
    axes.set_xlim(0, 1)
    with replacing(file) as opened:
        figure.savefig(opened, format="png", dpi=110)


def _shares(options: argparse.Namespace, family: ModelFamily) -> list[tuple[float, float]]:
    """The (alpha, beta) to cross; none unless one of them was given."""
    if not options.alphas and not options.betas:
        return []
    alphas = parse_numbers(options.alphas, "The list of alphas") if options.alphas else (family.alpha,)
    betas = parse_numbers(options.betas, "The list of betas") if options.betas else (family.beta,)
    return list(product(alphas, betas))


if __name__ == "__main__":
    sys.exit(main())
