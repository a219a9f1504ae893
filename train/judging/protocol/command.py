"""`python -m train.evaluate --protocol`: from flags to a protocol, and from its numbers to files."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from npo_core.catalog.adapter_files import AdapterFile, Role, adapter_file
from npo_core.catalog.families import ModelFamily
from npo_core.catalog.hub import require
from npo_core.console import hush_libraries
from npo_core.errors import InputError
from npo_core.requests import MIX_RANGE, GenerationRequest, parse_numbers, resolve_request
from train.commands.flags import read_prompts
from train.engine.files import replacing, write_json, write_text
from train.judging.protocol.contenders import (
    CONTENDERS,
    GUIDANCE_SCALES,
    NPO,
    Contender,
    as_shipped,
    choose,
    given_alone,
    given_negative,
)

WEIGHTS, CLEAN_ART = (Path(__file__).parents[1] / name for name in ("jury.safetensors", "clean_art.npz"))
GRID_PROMPTS = 8
FIRST_CHOICE_SEED = 500_000  # far from those of the held-out prompts


def add_protocol_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that only --protocol reads; it also reads most of the others."""
    add = parser.add_argument_group(
        "the protocol: every contender tuned, then all measured once at their best"
    ).add_argument
    add("--protocol", action="store_true", help="tune and measure all contenders instead of one table of variants")
    add("--choice-prompts", type=Path, metavar="FILE", help="prompts to tune on; none of them may be in --prompts")
    add("--contenders", help=f"from {', '.join(CONTENDERS)} (all)")
    add(
        "--rival", action="append", default=[], metavar="NAME=PATH", help="a LoRA that answers both prompts; repeatable"
    )
    add(
        "--rival-negative",
        action="append",
        default=[],
        metavar="NAME=PATH[@ALPHAS/BETAS]",
        help="a negative for the aligned model, with a grid of its own, such as bounded=out/npo@1/0.2,0.4; repeatable",
    )
    add("--rescales", help="comma-separated guidance_rescale to try (0,0.5)")
    add("--jury", type=Path, default=WEIGHTS, metavar="FILE", help="as train.emoji.jury wrote it (%(default)s)")
    add(
        "--clean-art",
        type=Path,
        default=CLEAN_ART,
        metavar="FILE",
        help="as train.emoji.drawing.clean_art wrote it (%(default)s)",
    )
    add("--no-features", action="store_true", help="without KID and diversity, which need two more packages")
    add("--device", help="of torch (the GPU where there is one)")
    add("--dry-run", action="store_true", help="say how many pictures the protocol would make and stop")


def contenders_of(options: argparse.Namespace, family: ModelFamily) -> list[Contender]:
    """Everybody who takes part; raises InputError."""
    extra = [given_alone(text) for text in options.rival]
    if options.longer_aligned:
        extra.append(given_alone(f"aligned_longer={options.longer_aligned}"))
    extra += [given_negative(text) for text in options.rival_negative]
    if family.negative is not None and not options.contenders:
        extra.append(as_shipped(family))
    chosen = choose(options.contenders, extra)
    rescales = parse_numbers(options.rescales, "The list of rescales") if options.rescales else None
    alphas = parse_numbers(options.alphas, "The list of alphas") if options.alphas else CONTENDERS[NPO].alphas
    betas = parse_numbers(options.betas, "The list of betas") if options.betas else CONTENDERS[NPO].betas
    chosen = [replace(each, alphas=alphas, betas=betas) if each.name == NPO else each for each in chosen]
    if rescales:
        usual = CONTENDERS["base"].rescales
        chosen = [replace(each, rescales=rescales) if each.rescales == usual else each for each in chosen]
    for each in chosen:
        _check_grid(each)
    return chosen


def _check_grid(contender: Contender) -> None:
    low, high = MIX_RANGE
    for name, values, ends in (
        ("alpha", contender.alphas, (low, high)),
        ("beta", contender.betas, (low, high)),
        ("guidance rescale", contender.rescales, (0.0, 1.0)),
    ):
        for value in values:
            if not ends[0] <= value <= ends[1]:
                raise InputError(
                    f"The {name} {value:g} of {contender.name} is out of range; give {ends[0]:g} to {ends[1]:g}."
                )


def run_protocol(options: argparse.Namespace, family: ModelFamily) -> None:
    """Tunes, measures, prints and writes; or says what that would cost. Raises InputError."""
    contenders = contenders_of(options, family)
    held_out = read_prompts(options.prompts, options.limit)
    choice = _choice_prompts(options, held_out)
    scales = parse_numbers(options.guidance_sweep, "The guidance sweep") if options.guidance_sweep else GUIDANCE_SCALES
    for scale in scales:
        if scale <= 1:
            raise InputError(f"The guidance scale {scale:g} asks no negative branch; give scales above 1.")
        resolve_request(GenerationRequest(held_out[0], guidance_scale=scale, steps=options.steps), family)
    hush_libraries()
    import torch

    from train.judging.protocol.measuring import items_of
    from train.judging.protocol.run import Protocol

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    protocol = Protocol(
        contenders,
        items_of(choice, 1, FIRST_CHOICE_SEED),
        items_of(held_out, options.seeds_per_prompt, options.first_seed),
        _own_adapters(options, family, contenders),
        options.batch_size or (512 if device.startswith("cuda") else 16),
        scales,
    )
    cost, steps = protocol.cost(), options.steps or family.steps
    print(
        f"{len(contenders)} contenders: {cost['tuning']} pictures of {len(choice)} choice prompts to tune them, "
        f"{cost['measuring']} of {len(held_out)} held-out prompts to measure them; {steps} steps, "
        f"{cost['rows a step'] * steps} rows through the UNet.",
        flush=True,
    )
    if not options.dry_run:
        _run(options, family, protocol, device)


def _choice_prompts(options: argparse.Namespace, held_out: Sequence[str]) -> list[str]:
    if options.choice_prompts is None:
        raise InputError("The protocol tunes on prompts of its own; give them with --choice-prompts FILE.")
    choice = read_prompts(options.choice_prompts, None)
    both = sorted(set(choice) & set(held_out))
    if both:
        raise InputError(
            f"{len(both)} prompts, such as {both[0]!r}, are in {options.choice_prompts} and in {options.prompts}; "
            "tune on prompts that nothing is measured on."
        )
    return choice


def _own_adapters(
    options: argparse.Namespace, family: ModelFamily, contenders: Sequence[Contender]
) -> dict[Role, AdapterFile]:
    """The family's, or those given in their place, as far as anybody needs them; raises InputError."""
    require(family, kinds=("pipeline", "component"))
    given: dict[Role, str | None] = {
        "aligned": options.aligned or family.aligned,
        "negative": options.negative or family.negative,
    }
    own = {role: adapter_file(path, role) for role, path in given.items() if path is not None}
    for each in contenders:
        for role in sorted(each.roles()):
            if role not in own and role not in each.adapters:
                raise InputError(
                    f"The contender {each.name} needs an adapter of role {role!r}; give one with --{role}."
                )
    return own


def _run(options: argparse.Namespace, family: ModelFamily, protocol: Any, device: str) -> None:
    from train.judging.protocol.judges import Judges
    from train.judging.protocol.measuring import Measurer
    from train.judging.protocol.painting import Painter
    from train.judging.protocol.run import measure, tune
    from train.judging.protocol.tables import as_markdown
    from train.network.models import sampling_precision

    judges = Judges(family, device, not options.no_features, options.jury)
    painter = Painter(family, device)
    keep = options.keep or Path("data") / "protocol"
    with sampling_precision(options.mixed_precision):
        rating = Measurer(family, painter, judges.rate, keep / "tuning", options.steps, judges.rater_identity)
        best, means = tune(protocol, rating)
        asking = Measurer(
            family, painter, judges.ask, keep / "measured", options.steps, [judges.rater_identity, judges.identity]
        )
        found = measure(protocol, asking, best)
    report = _report(options, family, protocol, best, means, found)
    if options.grid:
        _draw(options, family, protocol, best, painter)
    text = as_markdown(report)
    print(text, flush=True)
    if options.json:
        write_json(options.json, report)
    if options.markdown:
        write_text(options.markdown, text)


def _draw(options: argparse.Namespace, family: ModelFamily, protocol: Any, best: Any, painter: Any) -> None:
    """A grid of random held-out prompts, not chosen ones, and every contender at its best."""
    from npo_core.media.layout import draw_grid
    from train.judging.protocol.painting import requests_for, to_images

    places = np.random.default_rng(options.first_seed).permutation(len(protocol.held_out))[:GRID_PROMPTS]
    items = [protocol.held_out[place] for place in places]
    columns = []
    for each in protocol.contenders:
        setting = best[each.name]
        painter.wear({**protocol.own, **each.adapters})
        requests = requests_for(
            family, [item.prompt for item in items], [item.seed for item in items], setting, options.steps
        )
        pair = each.mixes(setting.alpha, setting.beta)
        columns.append(to_images(painter.paint(requests, [pair], setting.rescale, setting.interval, setting.gate)[0]))
    with replacing(options.grid) as opened:
        draw_grid(list(zip(*columns, strict=True)), column_labels=[each.name for each in protocol.contenders]).save(
            opened, format="png"
        )


def _report(
    options: argparse.Namespace, family: ModelFamily, protocol: Any, best: Any, means: Any, found: Any
) -> dict[str, Any]:
    """Everything, as JSON values."""
    from train.judging.protocol.report import numbers
    from train.judging.protocol.run import at_the_edge

    reference, clean_art = read_clean_art(options.clean_art)
    scales = protocol.guidance_scales
    report: dict[str, Any] = {
        "family": family.name,
        "adapters": {role: adapter.sha256 for role, adapter in protocol.own.items()},
        "prompts": len({item.prompt for item in protocol.held_out}),
        "seeds_per_prompt": options.seeds_per_prompt,
        "choice_prompts": len(protocol.choice),
        "steps": options.steps or family.steps,
        "guidance_scales": list(scales),
        "tuned": {
            each.name: {
                "label": each.label,
                "negative": "negative" in each.roles(),
                "uses": each.uses(),
                "setting": _as_json(best[each.name]),
                "mean": means[each.name].get(best[each.name]),
                "at_the_edge": at_the_edge(each, scales, best[each.name]),
                "grid": [{**_as_json(setting), "mean": mean} for setting, mean in means[each.name].items()],
            }
            for each in protocol.contenders
        },
        **numbers(found, [item.prompt for item in protocol.held_out], reference),
    }
    return {**report, "clean_art": clean_art} if clean_art else report


def _as_json(setting: Any) -> dict[str, Any]:
    return {**asdict(setting), "interval": list(setting.interval)}


def read_clean_art(file: Path) -> tuple[np.ndarray | None, dict[str, float]]:
    """((M, 1280) features of clean art, the plain measures' means over it) of train.emoji.drawing.clean_art."""
    if not file.is_file():
        return None, {}
    with np.load(file) as arrays:
        return arrays["features"].astype(np.float64), {
            name: float(arrays[name].mean()) for name in arrays.files if name != "features"
        }
