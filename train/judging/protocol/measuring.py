"""Contenders with their settings, drawn and judged; what was said is kept, so that a killed run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from torch import Tensor
from tqdm import tqdm

from npo_core.catalog.adapter_files import AdapterFile, Role
from npo_core.catalog.families import ModelFamily
from npo_core.catalog.references import locate
from npo_core.media.files import sha256_file
from npo_core.requests import ResolvedRequest
from train.engine.files import replacing
from train.judging.protocol.contenders import WHOLE, Contender, Setting
from train.judging.protocol.judges import Columns, joined
from train.judging.protocol.painting import Painter, requests_for

Asked = Callable[[Tensor, Sequence[str]], Columns]
"""(pixels (B, 3, H, W) in [0, 1], their prompts) -> what is said of them."""


Key = tuple[str, Setting]


@dataclass(frozen=True)
class Entry:
    """A contender with one setting."""

    contender: Contender
    setting: Setting

    @property
    def key(self) -> Key:
        """What its answers are filed under."""
        return self.contender.name, self.setting


@dataclass(frozen=True)
class Item:
    """One picture to make with every entry."""

    prompt: str
    seed: int


@dataclass(frozen=True)
class Call:
    """What goes through the pipeline at once: every entry with every item. All entries share `shared`, which are their
    guidance scale, rescale, interval and gate, and the adapters that are worn."""

    entries: tuple[Entry, ...]
    items: tuple[Item, ...]
    adapters: tuple[tuple[Role, AdapterFile], ...]

    @property
    def pictures(self) -> int:
        """How many it makes."""
        return len(self.entries) * len(self.items)


def items_of(prompts: Sequence[str], seeds_per_prompt: int, first_seed: int = 0) -> list[Item]:
    """Every picture has a seed of its own: with one seed for all, one unlucky noise would count many times."""
    return [
        Item(prompt, first_seed + number * seeds_per_prompt + extra)
        for number, prompt in enumerate(prompts)
        for extra in range(seeds_per_prompt)
    ]


def plan(
    entries: Sequence[Entry], items: Sequence[Item], batch_size: int, own: Mapping[Role, AdapterFile]
) -> list[Call]:
    """The calls that make all of it, at most `batch_size` pictures each; a function of its arguments alone, so that a
    run that goes on makes the very calls of one that was never stopped. own: the family's adapters."""
    groups: dict[Any, list[Entry]] = {}
    for entry in entries:
        ours, setting = entry.contender.adapters, entry.setting
        # contenders without a negative wear the family's aligned LoRA whether or not they need it, and go together
        extra = tuple(
            (role, ours.get(role) or own[role])
            for role in sorted(entry.contender.roles())
            if role in ours or role == "negative"
        )
        shared = (setting.guidance_scale, setting.rescale, setting.interval, setting.gate)
        groups.setdefault((extra, *shared), []).append(entry)
    calls = []
    for (extra, *_), members in groups.items():
        worn = {**({"aligned": own["aligned"]} if "aligned" in own else {}), **dict(extra)}
        entries_at_once = max(1, batch_size // len(items))
        items_at_once = max(1, batch_size // min(entries_at_once, len(members)))
        for first in range(0, len(members), entries_at_once):
            for start in range(0, len(items), items_at_once):
                calls.append(
                    Call(
                        tuple(members[first : first + entries_at_once]),
                        tuple(items[start : start + items_at_once]),
                        tuple(worn.items()),
                    )
                )
    return calls


class Measurer:
    """Makes calls with `painter`, has `asked` about the pictures, and keeps the answers in the folder `keep`."""

    def __init__(
        self, family: ModelFamily, painter: Painter, asked: Asked, keep: Path, steps: int | None, identity: object
    ) -> None:
        """identity: of those who are asked, as JSON: other judges have other answers."""
        self._family, self._painter, self._asked, self._keep, self._steps = family, painter, asked, keep, steps
        self._identity = [identity, base_identity(family), str(painter.device.type)]

    def run(self, calls: Sequence[Call]) -> dict[Key, Columns]:
        """What is said of every entry's pictures, in the order of the items."""
        found: dict[Key, list[Columns]] = {}
        with tqdm(total=sum(call.pictures for call in calls), unit="picture", leave=False) as bar:
            for call in calls:
                answers = self._call(call)
                for row, entry in enumerate(call.entries):
                    found.setdefault(entry.key, []).append({name: values[row] for name, values in answers.items()})
                bar.update(call.pictures)
        return {key: joined(parts) for key, parts in found.items()}

    def _call(self, call: Call) -> Columns:
        """Measure -> (entries, items, ...)."""
        setting = call.entries[0].setting
        requests = requests_for(
            self._family, [item.prompt for item in call.items], [item.seed for item in call.items], setting, self._steps
        )
        pairs = [entry.contender.mixes(entry.setting.alpha, entry.setting.beta) for entry in call.entries]
        file = self._keep / f"{self._fingerprint(call, requests, pairs)}.npz"
        if file.exists():
            with np.load(file) as arrays:
                return {name: arrays[name] for name in arrays.files}
        self._painter.wear(dict(call.adapters))
        pixels = self._painter.paint(requests, pairs, setting.rescale, setting.interval, setting.gate)
        prompts = [request.prompt for request in requests] * len(pairs)
        shape = (len(pairs), len(requests))
        answers = {
            name: values.reshape(*shape, *values.shape[1:])
            for name, values in self._asked(pixels.flatten(0, 1), prompts).items()
        }
        with replacing(file) as opened:
            np.savez(opened, **cast(Any, answers))
        return answers

    def _fingerprint(self, call: Call, requests: Sequence[ResolvedRequest], pairs: Sequence[Any]) -> str:
        """Of everything that the answers depend on."""
        setting = call.entries[0].setting
        parts = [
            self._identity,
            [[asdict(mix) for mix in pair] for pair in pairs],
            [setting.rescale, setting.interval, *([] if setting.gate == WHOLE else [setting.gate])],
            [adapter.sha256 for _, adapter in call.adapters],
            [asdict(request) for request in requests],
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def base_identity(family: ModelFamily) -> list[str]:
    """The hashes of the base's files: a base that was trained further draws other pictures."""
    parts = ("unet", "vae", "text_encoder")
    return [sha256_file(file) for part in parts for file in sorted((locate(family.base) / part).glob("*.safetensors"))]
