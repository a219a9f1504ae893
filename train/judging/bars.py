"""The bars of the emoji family's second edition, from what was seen to pass or fail. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from train.judging.features import mean_distance, vendi_score
from train.judging.intervals import mean_interval, resampled_prompts
from train.judging.protocol.judges import FLAW, JURY
from train.judging.protocol.viewing import Seen

STEPS = ("base", "aligned", "aligned_npo")


@dataclass(frozen=True)
class Bar:
    """What was asked for, what was measured, and whether that is enough; None where it was not measured."""

    what: str
    asked: str
    measured: str
    passed: bool | None


@dataclass(frozen=True)
class Share:
    """A mean with its 95% interval over prompts."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3f} ({self.low:.3f} to {self.high:.3f})"


def shares(seen: Seen, values: Mapping[str, np.ndarray]) -> dict[str, Share]:
    """Variant -> the mean of its values (N,); of pictures that cannot be asked (NaN), of the others."""
    counts = resampled_prompts(seen.prompts)
    found = {}
    for name, each in values.items():
        told = ~np.isnan(each)
        found[name] = Share(float(each[told].mean()), *mean_interval(each[told].astype(float), counts[:, told]))
    return found


def _column(seen: Seen, name: str) -> dict[str, np.ndarray]:
    return {variant: np.asarray(columns[name]) for variant, columns in seen.columns.items()}


def judge_bars(found: Mapping[str, Any]) -> list[Bar]:
    """Every bar; `found` as train.emoji.bars collects it."""
    singles: Seen = found["singles"]
    return [
        *_visible(singles),
        *_clean(singles),
        _top1(singles),
        _flaws(singles),
        _scenes(found["scenes"]),
        _diversity(found.get("diversity")),
        _sharpness(singles, found["clean_art"]),
        _time(found["times_s"]),
        *_clips(found["clips"]),
        *_no_worse(found.get("first edition"), found.get("second edition")),
    ]


def _visible(seen: Seen) -> list[Bar]:
    bars = []
    for pair, least in ((("base", "aligned_npo"), 15), (("aligned", "aligned_npo"), 8)):
        median = float(np.median(seen.differences[pair]))
        what = f"median rms difference, {' to '.join(pair)}"
        bars.append(Bar(what, f">= {least}", f"{median:.1f}", median >= least))
    return bars


def _clean(seen: Seen) -> list[Bar]:
    found = shares(seen, {name: (each > 0).astype(float) for name, each in _column(seen, JURY).items()})
    bars = [Bar("clean by the jury, base", "<= .75", str(found["base"]), found["base"].mean <= 0.75)]
    for before, after in pairwise(STEPS):
        one, other = found[before], found[after]
        passed = other.mean - one.mean >= 0.07 and other.low > one.high
        bars.append(Bar(f"clean by the jury, {after}", f">= {before} + .07, intervals apart", str(other), passed))
    return bars


def _top1(seen: Seen) -> Bar:
    found = shares(seen, _column(seen, "jury_top1"))
    falls = [found[before].mean - found[after].mean for before, after in pairwise(STEPS)]
    passed = found["aligned_npo"].mean >= 0.95 and max(falls) <= 0.01
    told = ", ".join(f"{found[name].mean:.3f}" for name in STEPS)
    return Bar("jury's top-1, singles", "aligned_npo >= .95, no step more than .01 down", told, passed)


def flaw_table(seen: Seen) -> dict[str, dict[str, Share]]:
    """Kind of flaw -> variant -> the share of its pictures in which the jury sees it."""
    kinds = [name for name in seen.columns["base"] if name.startswith(FLAW)]
    return {
        kind.removeprefix(FLAW): shares(
            seen, {name: (each > 0.5).astype(float) for name, each in _column(seen, kind).items()}
        )
        for kind in kinds
    }


def _flaws(seen: Seen) -> Bar:
    table = flaw_table(seen)
    falling = [kind for kind, row in table.items() if all(row[a].mean > row[b].mean for a, b in pairwise(STEPS))]
    least = -(-3 * len(table) // 4)  # six of eight
    return Bar(
        "kinds of flaw that fall at each step",
        f"at least {least} of {len(table)}",
        f"{len(falling)}: {', '.join(falling)}" if falling else "none",
        len(falling) >= least,
    )


def _scenes(seen: Seen) -> Bar:
    found = shares(seen, _column(seen, "jury_found"))
    base, npo = found["base"].mean, found["aligned_npo"].mean
    told = ", ".join(f"{found[name].mean:.3f}" for name in STEPS)
    passed = base >= 0.45 and npo >= base + 0.1
    return Bar("scenes of two, both found", "base >= .45, aligned_npo >= base + .10", told, passed)


def diversity(seen: Seen) -> dict[str, tuple[float, float]]:
    """Variant -> (Vendi score, mean distance) of each prompt's pictures, averaged over prompts."""
    prompts = np.asarray(seen.prompts)
    rows = [np.flatnonzero(prompts == prompt) for prompt in dict.fromkeys(seen.prompts)]
    found = {}
    for name, columns in seen.columns.items():
        features = columns["features"].astype(np.float64)
        found[name] = (
            float(np.mean([vendi_score(features[each]) for each in rows])),
            float(np.mean([mean_distance(features[each]) for each in rows])),
        )
    return found


def _diversity(seen: Seen | None) -> Bar:
    what, asked = "diversity over seeds, aligned_npo to base", ">= .85 (Vendi score; mean distance told beside it)"
    if seen is None:
        return Bar(what, asked, "not measured", None)
    found = diversity(seen)
    vendi, distance = (found["aligned_npo"][place] / found["base"][place] for place in range(2))
    return Bar(what, asked, f"{vendi:.3f}; {distance:.3f}", vendi >= 0.85)


def _sharpness(seen: Seen, clean_art: Mapping[str, float]) -> Bar:
    what, asked = "sharpness of aligned_npo to the art's", ".8 to 1.15 (steepness of edges told beside it)"
    if not clean_art:
        return Bar(what, asked, "not measured", None)
    ours = seen.columns["aligned_npo"]
    ratio, steep = (float(ours[name].mean()) / clean_art[name] for name in ("sharpness", "steepness"))
    return Bar(what, asked, f"{ratio:.3f}; {steep:.3f}", 0.8 <= ratio <= 1.15)


def _time(times_s: Mapping[str, float] | None) -> Bar:
    what, asked = "three pictures, against the commit before", "<= 1.3 times"
    if times_s is None:
        return Bar(what, asked, "not measured", None)
    ratio = times_s["now"] / times_s["before"]
    return Bar(what, asked, f"{ratio:.2f} ({times_s['now']:.1f} s, {times_s['before']:.1f} s)", ratio <= 1.3)


def _clips(evaluation: Mapping[str, Any] | None) -> list[Bar]:
    asked = (("agreement", 0.93), ("identity", 0.9))
    if evaluation is None:
        return [Bar(f"clips: {name}", f">= {least:g}, none under .7", "not measured", None) for name, least in asked]
    variant = evaluation["variants"]["aligned_npo"]
    bars = []
    for name, least in asked:
        worst = min(variant["motions"], key=lambda motion: variant["motions"][motion][name])
        low, mean = variant["motions"][worst][name], variant["all"][name]
        passed = mean >= least and low >= 0.7
        told = f"{mean:.3f}, least {low:.3f} ({worst})"
        bars.append(Bar(f"clips: {name}", f">= {least:g}, none under .7", told, passed))
    return bars


def _no_worse(first: Seen | None, second: Seen | None) -> list[Bar]:
    """aligned_npo of today against that of the first edition, by the same jury on the same prompts and seeds."""
    if first is None or second is None:
        return [Bar("no worse than the first edition", "clean and top-1", "not measured", None)]
    bars = []
    for what, name, least in (("clean", JURY, 0.0), ("top-1", "jury_top1", 0.5)):
        was, now = (float((_column(seen, name)["aligned_npo"] > least).mean()) for seen in (first, second))
        bars.append(Bar(f"{what} of aligned_npo, first edition's", f">= {was:.3f}", f"{now:.3f}", now >= was))
    return bars


def as_json(found: Mapping[str, Any]) -> dict[str, Any]:
    """Every bar, and the shares of flaws by kind and variant, as JSON values."""
    flaws = flaw_table(found["singles"])
    return {
        "bars": [asdict(bar) for bar in judge_bars(found)],
        "flaws": {kind: {name: asdict(share) for name, share in row.items()} for kind, row in flaws.items()},
    }


def as_markdown(content: Mapping[str, Any]) -> str:
    """The table of bars, and that of flaws by kind, of what `as_json` gave."""
    words = {True: "pass", False: "FAIL", None: ""}
    lines = ["| what | bar | measured | |", "|---|---|---|---|"]
    lines += [f"| {b['what']} | {b['asked']} | {b['measured']} | {words[b['passed']]} |" for b in content["bars"]]
    lines += ["", f"| flaw, share of pictures in which the jury sees it | {' | '.join(STEPS)} |", "|---" * 4 + "|"]
    for kind, row in content["flaws"].items():
        lines.append(f"| {kind} | {' | '.join(str(Share(**row[name])) for name in STEPS)} |")
    return "\n".join(lines) + "\n"
