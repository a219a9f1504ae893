"""What the protocol found, as numbers: means with their tails, and differences with intervals that resample prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import Any

import numpy as np

from train.judging.features import mean_distance, resampled_kid, vendi_score
from train.judging.intervals import Side, mean_interval, resampled_prompts, side_of
from train.judging.protocol.judges import FLAW, JURY, RATER, THINGS, Columns

COMPARED = (RATER, "rater_all", JURY, THINGS, "diversity")
JURORS = (JURY, THINGS, "kid", "diversity")  # in what the jury may contradict the rater
KID_ROUNDS = 500  # each costs a product with all pairs of pictures


def numbers(
    found: Mapping[str, Columns], prompts: Sequence[str], reference: np.ndarray | None = None, seed: int = 0
) -> dict[str, Any]:
    """{"contenders": ..., "comparisons": ...} of what was said of each contender's pictures, of the same `prompts` and
    seeds in the same order. reference: (M, 1280) features of clean art, for KID."""
    counts = resampled_prompts(prompts, seed=seed)
    columns = {name: _with_diversity(each, prompts) for name, each in found.items()}
    kids = {name: _kids(each, reference, counts[:KID_ROUNDS], prompts) for name, each in columns.items()}
    summaries = {name: summarise(each, counts) for name, each in columns.items()}
    for name, (value, resampled) in kids.items():
        if value is not None:
            summaries[name]["kid"] = {"mean": value, "mean_95": np.quantile(resampled, (0.025, 0.975)).tolist()}
    comparisons = []
    for name, against in permutations(columns, 2):
        row = {measure: compare(columns[name][measure], columns[against][measure], counts)
               for measure in COMPARED if measure in columns[name]}  # fmt: skip
        if kids[name][0] is not None:
            row["kid"] = _kid_gain(kids[name], kids[against])
        comparisons.append({"contender": name, "against": against, **row, "says": who_says_what(row)})
    return {"contenders": summaries, "comparisons": comparisons}


def summarise(columns: Columns, counts: np.ndarray) -> dict[str, dict[str, Any]]:
    """Measure -> mean with its interval, median and 5% quantile; of what not every prompt has, over those that do."""
    found = {}
    for name, values in columns.items():
        if name == "features":
            continue
        told = ~np.isnan(values)
        if not told.any():
            continue
        ours = values[told].astype(np.float64)
        found[name] = {
            "mean": float(ours.mean()),
            "mean_95": list(mean_interval(ours, counts[:, told])),
            "median": float(np.median(ours)),
            "low_5": float(np.quantile(ours, 0.05)),
        }
    return found


def compare(ours: np.ndarray, theirs: np.ndarray, counts: np.ndarray) -> dict[str, Any]:
    """The paired difference, picture for picture from the same noise, and the win rate, a tie counting half."""
    told = ~(np.isnan(ours) | np.isnan(theirs))
    difference = ours[told].astype(np.float64) - theirs[told]
    interval = mean_interval(difference, counts[:, told])
    return {
        "difference": float(difference.mean()),
        "difference_95": list(interval),
        "median_difference": float(np.median(difference)),
        "win_rate": float((difference > 0).mean() + (difference == 0).mean() / 2),
        "side": side_of(interval, 0),
    }


def who_says_what(row: Mapping[str, Any]) -> str:
    """The rater and the jury side by side, of one comparison: whether they agree, in one word or two."""
    rater: Side = row[RATER]["side"]
    jury = {measure: row[measure]["side"] for measure in JURORS if measure in row}
    opposed = [measure for measure, side in jury.items() if {side, rater} == {"above", "below"}]
    if opposed:
        return f"disagree: the rater says {rater}, the jury's {', '.join(opposed)} the opposite"
    if rater == "unclear":
        seen = [f"{measure} {side}" for measure, side in jury.items() if side != "unclear"]
        return f"the jury alone sees a difference: {', '.join(seen)}" if seen else "nobody can tell them apart"
    return "agree" if rater in jury.values() else "the rater alone sees a difference"


def _with_diversity(columns: Columns, prompts: Sequence[str]) -> Columns:
    """With the Vendi score and the mean distance of each prompt's pictures, told at each of them; NaN of one alone."""
    if "features" not in columns:
        return columns
    prompts_of, features = np.asarray(prompts), columns["features"].astype(np.float64)
    vendi, distance = np.full(len(prompts), np.nan), np.full(len(prompts), np.nan)
    for prompt in dict.fromkeys(prompts):
        rows = np.flatnonzero(prompts_of == prompt)
        if len(rows) > 1:
            vendi[rows], distance[rows] = vendi_score(features[rows]), mean_distance(features[rows])
    return {**columns, "diversity": vendi, "distance": distance}


def _kids(
    columns: Columns, reference: np.ndarray | None, counts: np.ndarray, prompts: Sequence[str]
) -> tuple[float | None, np.ndarray]:
    if reference is None or "features" not in columns:
        return None, np.empty(0)
    features = columns["features"].astype(np.float64)
    groups = np.unique(np.asarray(prompts), return_inverse=True)[1]
    once = np.ones((1, len(features)))
    resampled = resampled_kid(features, reference, np.concatenate([once, counts]), groups)
    return float(resampled[0]), resampled[1:]


def _kid_gain(ours: tuple[float | None, np.ndarray], theirs: tuple[float | None, np.ndarray]) -> dict[str, Any]:
    """By how much ours is nearer to clean art: above 0 is better, as of all other measures."""
    interval = np.quantile(theirs[1] - ours[1], (0.025, 0.975)).tolist()
    return {
        "difference": float((theirs[0] or 0) - (ours[0] or 0)),
        "difference_95": interval,
        "side": side_of(interval, 0),
    }


def flaw_shares(columns: Columns, counts: np.ndarray) -> dict[str, dict[str, Any]]:
    """Flaw -> the share of pictures in which the jury sees it, with its interval."""
    shares = {
        name.removeprefix(FLAW): (values > 0.5).astype(float)
        for name, values in columns.items()
        if name.startswith(FLAW)
    }
    return {name: {"mean": float(s.mean()), "mean_95": list(mean_interval(s, counts))} for name, s in shares.items()}
