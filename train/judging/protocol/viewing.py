"""Variants at a family's defaults, looked at by everybody: what the bars are measured on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from tqdm import tqdm

from npo_core.catalog.adapter_files import Role, adapter_file
from npo_core.catalog.families import ModelFamily
from npo_core.variants import get_variant
from train.judging.plain import rms_difference
from train.judging.protocol.contenders import Setting
from train.judging.protocol.judges import Columns, Judges, joined
from train.judging.protocol.measuring import items_of
from train.judging.protocol.painting import Painter, requests_for


@dataclass(frozen=True)
class Seen:
    """columns: variant -> what was said of its pictures. differences: (one, other) -> (N,) rms difference of theirs, of
    255. prompts: of each picture."""

    columns: dict[str, Columns]
    differences: dict[tuple[str, str], np.ndarray]
    prompts: list[str]


class Viewer:
    """Draws `batch_size` prompts at once, every variant from the same noise, and asks the judges."""

    def __init__(self, family: ModelFamily, painter: Painter, judges: Judges, batch_size: int) -> None:
        self._family, self._painter, self._judges, self.batch_size = family, painter, judges, batch_size

    def look(self, prompts: Sequence[str], variants: Sequence[str], seeds_per_prompt: int, first_seed: int) -> Seen:
        """Every variant of every prompt and seed, at the family's defaults."""
        family, items = self._family, items_of(prompts, seeds_per_prompt, first_seed)
        pairs = [get_variant(name).mixes(family.alpha, family.beta) for name in variants]
        own: tuple[tuple[Role, str | None], ...] = (("aligned", family.aligned), ("negative", family.negative))
        self._painter.wear({role: adapter_file(path, role) for role, path in own if path is not None})
        said: dict[str, list[Columns]] = {name: [] for name in variants}
        apart: dict[tuple[str, str], list[np.ndarray]] = {pair: [] for pair in combinations(variants, 2)}
        for start in tqdm(range(0, len(items), self.batch_size), unit="batch", leave=False):
            some = items[start : start + self.batch_size]
            texts = [item.prompt for item in some]
            requests = requests_for(family, texts, [item.seed for item in some], Setting(family.guidance_scale))
            pictures = dict(zip(variants, self._painter.paint(requests, pairs), strict=True))
            for name, pixels in pictures.items():
                said[name].append(self._judges.ask(pixels, texts))
            for one, other in apart:
                apart[one, other].append(rms_difference(pictures[one], pictures[other]).cpu().numpy())
        return Seen(
            {name: joined(parts) for name, parts in said.items()},
            {pair: np.concatenate(parts) for pair, parts in apart.items()},
            [item.prompt for item in items],
        )
