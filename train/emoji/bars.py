"""Measure what the second edition has to reach: one command, a table with pass or fail, and a sheet to look at blindly.

    python -m train.emoji.bars --json data/emoji/bars.json --markdown data/emoji/bars.md
    python -m train.emoji.bars --sheet data/emoji/blind            # sheet.png, and key.json for afterwards

Base, aligned and aligned_npo at the family's defaults, on random held-out prompts. The jury (train/judging/jury.py) and
measures that nobody trained say what is there; the rater, who taught the adapters, is not asked.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from npo_core.catalog.families import EMOJI_FOLDER, ModelFamily, get_family
from npo_core.console import exit_status, hush_libraries
from npo_core.errors import InputError
from train.commands.flags import read_prompts
from train.engine.files import replacing, write_json, write_text
from train.judging.bars import as_json, as_markdown
from train.judging.protocol.command import CLEAN_ART, WEIGHTS, read_clean_art

LISTS = Path(__file__).parent / "prompt_lists"
VARIANTS = ("base", "aligned", "aligned_npo")
FIRST_EDITION = {"width_px": 128, "height_px": 128, "guidance_scale": 4.0, "alpha": 1.0, "beta": 0.4}
FIRST_SEED, DIVERSITY_SEED, SHEET_SEED = 700_000, 800_000, 900_000
TIMED_RUNS = 3
TIMED = ("-m", "npo_core.generate", "a red apple, 3d style", "--seed", "7", "--out")
SHEET_ROWS = 12


def draw_sample(prompts: Sequence[str], count: int, seed: int) -> list[str]:
    """`count` of the prompts at random, not chosen; all where there are fewer."""
    rng = np.random.default_rng(seed)
    return [prompts[place] for place in rng.permutation(len(prompts))[:count]]


def measure(options: argparse.Namespace) -> None:
    """Draws, asks the jury, prints the table and writes it; raises InputError."""
    family = get_family("emoji")
    family = replace(family, steps=options.steps or family.steps)
    held_out, scenes = read_prompts(options.prompts), read_prompts(options.scenes)
    hush_libraries()
    import torch

    from train.judging.protocol.judges import Judges
    from train.judging.protocol.painting import Painter
    from train.judging.protocol.viewing import Viewer

    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    judges = Judges(family, device, not options.no_features, options.jury)
    viewer = Viewer(family, Painter(family, device), judges, options.batch_size or (128 if device != "cpu" else 4))
    singles = draw_sample([text for text in held_out if len(judges.jury.named(text)) == 1], options.count, seed=1)
    found: dict[str, Any] = {
        "singles": viewer.look(singles, VARIANTS, 1, FIRST_SEED),
        "scenes": viewer.look(draw_sample(scenes, options.count, seed=2), VARIANTS, 1, FIRST_SEED),
    }
    if not options.no_features:
        few = draw_sample(held_out, options.diversity_prompts, seed=3)
        found["diversity"] = viewer.look(few, VARIANTS, options.diversity_seeds, DIVERSITY_SEED)
    if options.first_edition:
        first = first_edition(family, options.first_edition)
        earlier = Viewer(first, Painter(first, device), judges, viewer.batch_size)
        words = judges.jury.words
        plain = [text for text in singles if not any(text.endswith(ground) for ground in words.grounds)]
        found["first edition"] = earlier.look(plain, VARIANTS[-1:], 1, FIRST_SEED)
        found["second edition"] = viewer.look(plain, VARIANTS[-1:], 1, FIRST_SEED)
    found["clips"] = _read_json(EMOJI_FOLDER / "motion" / "evaluation.json")
    found["times_s"] = time_pictures(options.before) if options.before else None
    _, found["clean_art"] = read_clean_art(options.clean_art)
    content = {**as_json(found), "prompts": singles}
    text = as_markdown(content)
    print(text)
    if options.markdown:
        write_text(options.markdown, text)
    if options.json:
        write_json(options.json, content)


def first_edition(family: ModelFamily, folder: Path) -> ModelFamily:
    """The family as it was at 128 px, from npo_core/emoji of a commit of then; raises InputError when it is not one."""
    if not (folder / "unet").is_dir():
        raise InputError(f"{folder} holds no family; give npo_core/emoji of a checkout of the first edition.")
    places = {"base": folder, "aligned": folder / "aligned", "negative": folder / "negative"}
    return replace(family, **{name: str(path) for name, path in places.items()}, **FIRST_EDITION)  # type: ignore[arg-type]


def time_pictures(before: Path, run: Callable[..., Any] = subprocess.run) -> dict[str, float]:
    """Median seconds of the command that makes three pictures, here and in a checkout of another commit, in turns;
    raises InputError when it fails."""
    if not (before / "npo_core").is_dir():
        raise InputError(f"{before} is no checkout of this project; give one of the commit to compare with.")
    times: dict[str, list[float]] = {"now": [], "before": []}
    with TemporaryDirectory() as out:
        for _ in range(TIMED_RUNS):
            for name, folder in (("now", Path(__file__).parents[2]), ("before", before)):
                started_s = time.perf_counter()
                done = run([sys.executable, *TIMED, out], cwd=folder, capture_output=True, text=True)
                if done.returncode:
                    raise InputError(f"Making pictures in {folder} failed ({done.stderr.strip()[-200:]}).")
                times[name].append(time.perf_counter() - started_s)
    return {name: statistics.median(seconds) for name, seconds in times.items()}


def draw_sheet(options: argparse.Namespace) -> None:
    """Writes SHEET_ROWS random held-out prompts, three pictures each in random order, and apart from it the key."""
    from npo_core.generator import GenerationRequest, Generator
    from npo_core.media.files import open_image
    from npo_core.media.layout import draw_grid

    prompts = draw_sample(read_prompts(options.prompts), SHEET_ROWS, options.sheet_seed)
    hush_libraries()
    family = get_family("emoji")
    generator, rng = (
        Generator(replace(family, steps=options.steps or family.steps)),
        np.random.default_rng(options.sheet_seed),
    )
    rows, key = [], []
    for number, prompt in enumerate(prompts):
        request = GenerationRequest(prompt, seed=SHEET_SEED + number, variants=VARIANTS)
        made = generator.generate(request).samples
        order = [int(place) for place in rng.permutation(len(made))]
        rows.append([open_image(made[place].media) for place in order])
        key.append({"row": number + 1, "prompt": prompt, "columns": [made[place].variant for place in order]})
    with replacing(options.sheet / "sheet.png") as opened:
        draw_grid(rows, [str(entry["row"]) for entry in key]).save(opened, format="png")
    write_json(options.sheet / "key.json", key)
    print(f"{options.sheet / 'sheet.png'}: say of each row which is base and which aligned_npo, then open key.json.")


def _read_json(file: Path) -> Any:
    return json.loads(file.read_text()) if file.is_file() else None


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.emoji.bars", description=__doc__.split("\n")[0])
    add = parser.add_argument
    add("--prompts", type=Path, default=LISTS / "held_out_1005.txt", help="(%(default)s)")
    add("--scenes", type=Path, default=LISTS / "scenes_two_200.txt", help="prompts of two things (%(default)s)")
    add("--count", type=int, default=400, help="singles, and scenes, drawn at random (%(default)s)")
    add("--diversity-prompts", type=int, default=60, help="(%(default)s)")
    add("--diversity-seeds", type=int, default=8, help="(%(default)s)")
    add("--first-edition", type=Path, help="npo_core/emoji of the first edition, to stand beside")
    add("--before", type=Path, help="a checkout of the commit before, to time against")
    add("--jury", type=Path, default=WEIGHTS, help="as train.emoji.jury wrote it (%(default)s)")
    add("--clean-art", type=Path, default=CLEAN_ART, help="as train.emoji.drawing.clean_art wrote it (%(default)s)")
    add("--no-features", action="store_true", help="without diversity, which needs two more packages")
    add("--batch-size", type=int, help="prompts drawn at once")
    add("--steps", type=int, help="(the family's)")
    add("--device", help="of torch (the GPU where there is one)")
    add("--json", type=Path)
    add("--markdown", type=Path)
    add("--sheet", type=Path, metavar="DIR", help="measure nothing, draw the blind sheet and its key there")
    add("--sheet-seed", type=int, default=0, help="which prompts are on the sheet, and their order (%(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    options = build_parser().parse_args(arguments)
    return exit_status(lambda: draw_sheet(options) if options.sheet else measure(options))


if __name__ == "__main__":
    sys.exit(main())
