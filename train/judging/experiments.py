"""What `python -m train.evaluate` measures: tables of variants, alpha crossed with beta, a model trained longer."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from npo_core.catalog.adapter_files import AdapterFile
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.layout import draw_grid
from train.judging.scorers import Scorer
from train.judging.scoring import Scored, Values, compare, score_requests, summarise

BATCH_SIZE = 8
GRID_ROWS = 12  # prompts on the grid: more cannot be looked at
LONGER = "aligned_longer"
NPO = "aligned_npo"


def evaluate(
    generator: Generator,
    scorers: Mapping[str, Scorer],
    requests: Sequence[GenerationRequest],
    batch_size: int = BATCH_SIZE,
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
    batch_size: int = BATCH_SIZE,
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


def compare_longer(
    generator: Generator,
    scorers: Mapping[str, Scorer],
    requests: Sequence[GenerationRequest],
    longer: AdapterFile,
    batch_size: int = BATCH_SIZE,
) -> list[dict[str, Any]]:
    """aligned_npo, aligned, and `longer`, an aligned model trained for longer: each against the others, on the same
    noise. The generator has `longer` in use afterwards."""

    def scored(variant: str) -> Values:
        alone = [replace(request, variants=(variant,)) for request in requests]
        return score_requests(generator, scorers, alone, batch_size).values[variant]

    values = {name: scored(name) for name in ("aligned", NPO)}
    generator.use_adapter(longer)
    values[LONGER] = scored("aligned")
    pairs = ((NPO, LONGER), (LONGER, "aligned"), (NPO, "aligned"))
    return [compare(a, b, values, scorer) for scorer in scorers for a, b in pairs]
