"""Make the emoji family from its art, every stage as soon as what it needs is there; goes on where it was stopped.

    python -m train.emoji.recipe --art data/emoji/art.npz --jury-art data/emoji/art_jury.npz --export npo_core/emoji

On one H200 (PyTorch 2.11): autoencoder 7 minutes, latents 2, base 11, the rest about 10. Each stage is a command of its
own that resumes (see `stages`), with its output in WORK/logs; a mark in WORK/done says that it need not be run again.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

BANK_SHARDS, SAMPLING_SHARDS = 4, 5


@dataclass(frozen=True)
class Stage:
    """One command, `python -m ...`, and the stages that must be done before it."""

    name: str
    command: Sequence[str]
    needs: Sequence[str] = field(default=())


def stages(art: Path, jury_art: Path, work: Path, export: Path) -> list[Stage]:
    """The whole recipe. Paths are those of `main`'s options."""
    drawn, made = ["--art", str(art), "--work", str(work)], ["--export", str(export)]
    vae = ["--vae", str(export / "vae")]

    def sharded(name: str, command: Sequence[str], shards: int, needs: Sequence[str]) -> list[Stage]:
        return [
            Stage(f"{name}-{shard}", [*command, "--shard", str(shard), "--shards", str(shards)], needs)
            for shard in range(shards)
        ]

    def adapters(name: str, pairs: Sequence[str], needs: Sequence[str]) -> list[Stage]:
        folders = [str(work / folder) for folder in pairs]
        return [
            Stage(
                f"{role}-{name}",
                ["train.emoji.adapters", "train", "--pairs", *folders, "--role", role, "--out", str(export / role),
                 "--run-dir", str(work / f"{role}-{name}")],
                needs,
            )
            for role in ("aligned", "negative")
        ]  # fmt: skip

    bank = sharded("bank", ["train.emoji.bank", *drawn, *vae], BANK_SHARDS, ["vae"])
    sampling = ["train.emoji.adapters", "sample", "--out"]
    first = sharded("pairs", [*sampling, str(work / "pairs")], SAMPLING_SHARDS, ["base", "scorer"])
    second = sharded(
        "on-policy",
        [*sampling, str(work / "on-policy"), "--variant", "aligned_npo", "--seeds", "16", "--prompts", "1500"],
        SAMPLING_SHARDS,
        ["aligned-first", "negative-first"],
    )
    return [
        Stage("vae", ["train.emoji.vae", *drawn, *made, "--compile"]),
        Stage("tokens", ["train.emoji.bank", "--work", str(work)]),
        *bank,
        Stage("base", ["train.emoji.base", *drawn, *vae, *made, "--compile"], ["tokens", *_names(bank)]),
        Stage("scorer", ["train.emoji.scorer", *drawn, *vae, *made], ["vae"]),
        Stage("jury", ["train.emoji.jury", *drawn, *vae, "--more-art", str(jury_art), "--export", "train/judging"],
              ["vae"]),
        Stage("clean-art", ["train.emoji.drawing.clean_art", "--art", str(art)]),
        *first,
        *adapters("first", ["pairs"], _names(first)),
        *second,
        *adapters("second", ["pairs", "on-policy"], _names(second)),
        Stage("motion", ["train.emoji.motion", *drawn, "--base", str(export), *made, "--compile"], ["base"]),
    ]  # fmt: skip


def _names(group: Sequence[Stage]) -> list[str]:
    return [stage.name for stage in group]


def run(recipe: Sequence[Stage], work: Path, pause_s: float = 1.0) -> list[str]:
    """Runs what is not done yet, side by side where nothing forbids it; returns the names of the stages that failed.

    What needs a failed stage is not started; everything else still is.
    """
    (work / "done").mkdir(parents=True, exist_ok=True)
    (work / "logs").mkdir(exist_ok=True)
    done = {stage.name for stage in recipe if (work / "done" / stage.name).exists()}
    waiting = [stage for stage in recipe if stage.name not in done]
    failed: list[str] = []
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        while True:
            for stage in [each for each in waiting if done.issuperset(each.needs)]:
                waiting.remove(stage)
                with (work / "logs" / f"{stage.name}.log").open("ab") as log:
                    running[stage.name] = subprocess.Popen(
                        [sys.executable, "-u", "-m", *stage.command], stdout=log, stderr=subprocess.STDOUT
                    )
                print(f"{time.strftime('%H:%M:%S')} {stage.name} started", flush=True)
            if not running:
                return failed
            time.sleep(pause_s)
            for name in [name for name, process in running.items() if process.poll() is not None]:
                code = running.pop(name).returncode
                print(f"{time.strftime('%H:%M:%S')} {name} {'done' if code == 0 else f'failed ({code})'}", flush=True)
                if code == 0:
                    (work / "done" / name).touch()
                    done.add(name)
                else:
                    failed.append(name)
    finally:
        for process in running.values():
            process.terminate()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--art", type=Path, default=Path("data/emoji/art.npz"))
    parser.add_argument("--jury-art", type=Path, default=Path("data/emoji/art_jury.npz"))
    parser.add_argument("--work", type=Path, default=Path("data/emoji"))
    parser.add_argument("--export", type=Path, default=Path("npo_core/emoji"))
    options = parser.parse_args()
    failed = run(stages(options.art, options.jury_art, options.work, options.export), options.work)
    for name in failed:
        print(f"{name} failed; see {options.work / 'logs' / name}.log. The same command goes on from there.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
