"""docs/results.md and its plots, every number taken from results.json (see benchmarks/negatives.py)."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.negative_settings import SELF_NPO_PROMPTS, reward_batch, reward_steps, self_npo_steps
from npo_core.catalog.families import EMOJI_FOLDER, get_family
from train.engine.files import replacing, write_text
from train.judging.tables import as_markdown, as_markdown_shares

GREY, BLUE, ORANGE = "0.6", "tab:blue", "tab:orange"
LABELS = {
    "base": "base",
    "aligned": "aligned",
    "aligned_vs_base": "the base as negative",
    "aligned_npo": "aligned + NPO",
}


def write_page(out: Path, docs: Path) -> None:
    """Writes docs/results.md, docs/results.json and docs/results/*.png from OUT/results.json (and OUT/grid.png)."""
    results = {name: entry["result"] for name, entry in json.loads((out / "results.json").read_text()).items()}
    plots = docs / "results"
    plots.mkdir(parents=True, exist_ok=True)
    if (out / "grid.png").is_file():
        shutil.copy(out / "grid.png", plots / "grid.png")
    draw_loop(results["closed_loop"], plots / "closed_loop.png")
    draw_sweep(results["guidance_sweep"], plots / "guidance.png")
    draw_negatives(results["by_negative"], plots / "negatives.png")
    write_text(docs / "results.md", page(results))
    shutil.copy(out / "results.json", docs / "results.json")


def page(results: dict[str, Any]) -> str:
    """The whole page."""
    setting, negatives, loop = results["setting"], results["by_negative"], results["closed_loop"]
    size, training = setting["size"], setting["training"]
    family = get_family("emoji")  # whose defaults were used, and were not noted at first
    alpha, beta = setting.get("alpha", family.alpha), setting.get("beta", family.beta)
    return "\n".join(
        [
            "# Results on the emoji family",
            "",
            "Made by `python -m benchmarks.negatives` (every number on this page is filled in from "
            "[results.json](results.json) and the reports beside the weights by its second step). People are played by "
            f"the family's scorer, wrong in {negatives['noise']:.0%} of their picks; the scorer is also the judge "
            "here, without noise. So this page tells whether the machinery learns what its raters say, not what people "
            "would say.",
            "",
            f"{setting['device']}, torch {setting['torch']}; {size['test_prompts']} held-out prompts (concepts that no "
            f"training pair shows), one seed each, the same noise for all contenders; {setting['steps']} DDIM steps, "
            f"guidance {setting['guidance_scale']:g}, and where nothing else is said the negative branch at the "
            f"family's alpha {alpha:g} and beta {beta:g}. Win rates count ties as halves; brackets are 95% intervals "
            "(Wilson for shares, normal for means).",
            "",
            *_trainings(training),
            "",
            *_by_evaluate(),
            "",
            "## The family as it ships",
            "",
            *_contenders(results["baseline"], ("base", "aligned", "aligned_vs_base")),
            "",
            "## Which negative is best",
            "",
            f"One set of {negatives['pairs']:,} pairs of the base's own pictures, stored and voted on. Each row is "
            "the shipped aligned model with another model answering the negative prompt.",
            "",
            *_contenders(
                {name: entry for name, entry in negatives.items() if isinstance(entry, dict)},
                ("aligned", "aligned_vs_base", "base"),
            ),
            "",
            "![Win rates of every negative](results/negatives.png)",
            "",
            "The reward gradient optimises the very judge of this page, without the noise of the picks: its row says "
            "what that allows, not what votes teach. Self-NPO sees no judgement at all.",
            "",
            *verdict_on_negatives(negatives),
            "",
            "## The loop, closed three times",
            "",
            "Each round draws new prompts with what is in use, collects noisy picks, retrains the negative model on "
            "all picks so far, and uses it. Round 0 has no negative model: it is the aligned model, so it ties with "
            "aligned by definition, and its win rate against base is the aligned model's own.",
            "",
            "| round | picks so far | against aligned | against base | top-1 |",
            "|---|---|---|---|---|",
            *(
                f"| {row['round']} | {row['picks']:,} | {_rate(row, 'aligned')} | {_rate(row, 'base')} | "
                f"{_mean(row['summary'], 'top1')} |"
                for row in loop
            ),
            "",
            "![Win rate of aligned + NPO after each round](results/closed_loop.png)",
            "",
            *verdict_on_loop(loop),
            "",
            "## A negative model, or simply more DPO?",
            "",
            f"On the same pairs: DPO for {training['max_train_steps']} steps, for twice as many, and DPO and NPO for "
            f"{training['max_train_steps']} each.",
            "",
            "| contender | against | win rate |",
            "|---|---|---|",
            *(f"| {r['variant']} | {r['against']} | {_interval(r)} |" for r in results["longer_dpo"]["win_rates"]),
            "",
            "## More guidance, or a better negative?",
            "",
            "More guidance alone also sharpens. Each variant at each scale, with the negative from reversed pairs:",
            "",
            "| guidance | base, top-1 | aligned, top-1 | aligned + NPO, top-1 | aligned + NPO against aligned |",
            "|---|---|---|---|---|",
            *(
                f"| {row['guidance_scale']:g} | "
                + " | ".join(_mean(row["summary"][name], "top1") for name in ("base", "aligned", "aligned_npo"))
                + f" | {_rate(row, 'aligned')} |"
                for row in results["guidance_sweep"]
            ),
            "",
            "![Mean score by guidance scale](results/guidance.png)",
            "",
            *verdict_on_sweep(results["guidance_sweep"]),
            "",
            "## alpha and beta",
            "",
            "The negative branch is theta + alpha eta + beta delta. Win rate against aligned:",
            "",
            as_markdown_shares(results["shares"]),
            "",
            *_over_the_base(results["over_the_base"]),
            "",
            *_grid(results.get("grid")),
        ]
    )


def _trainings(training: dict[str, Any]) -> list[str]:
    """How the adapters were trained; two of the rows below differ from the others."""
    steps, batch = training["max_train_steps"], training["batch_size"]
    return [
        f"Trainings on pairs: {steps} steps of {batch} pairs, DPO's beta {training['beta_dpo']:g}, {training['loss']} "
        f"loss unless the row says another. Self-NPO: {self_npo_steps(steps)} steps of {batch} pictures, the ordinary "
        f"diffusion loss, samples of {SELF_NPO_PROMPTS} of the pairs' prompts. Reward gradient: {reward_steps(steps)} "
        f"steps of {reward_batch(batch)} pictures, minus the reward. All: rank {training['rank']} on "
        f"{training['targets']}, learning rate {training['learning_rate']:g}."
    ]


def _by_evaluate() -> list[str]:
    """What `python -m train.evaluate` measured of the shipped family; its reports lie beside the weights."""
    reports = {
        name: json.loads((EMOJI_FOLDER / f"{name}.json").read_text()) for name in ("evaluation", "evaluation_ablations")
    }
    return [
        "## The paper's table",
        "",
        "Made apart from the rest, by `python -m train.evaluate` (commands and guidance sweep: "
        "[the model card](../npo_core/emoji/README.md#measured)), with the LoRAs that ship, on "
        "all held-out prompts and, for every variant, on 40 of them.",
        "",
        *(line for report in reports.values() for line in (*as_markdown(report).rstrip().splitlines(), "")),
    ][:-1]


def verdict_on_negatives(negatives: dict[str, Any]) -> list[str]:
    """What the table says of the bar: the reversed negative above one half, with its interval."""
    reversed_pairs = negatives["reversed pairs"]
    row = _against(reversed_pairs, "aligned")
    said = _verdict(
        row,
        "beats the aligned model as its own negative: the interval lies above one half",
        "loses to the aligned model as its own negative: the interval lies below one half",
        "cannot be told from the aligned model as its own negative: the interval contains one half",
    )
    guided = next(entry for name, entry in negatives.items() if name.startswith("through guidance"))
    other = _against(guided, "aligned")
    relation = (
        "above" if other["win_rate"] > row["win_rate"] else "below" if other["win_rate"] < row["win_rate"] else "at"
    )
    return [
        f"The negative from reversed pairs {said} ({_interval(row)}). Trained through guidance on the same pairs in "
        f"their given order it stands at {_interval(other)}, {relation} reversal; whether the two differ is in "
        "the intervals.",
        "",
        *verdict_on_the_base(negatives),
    ]


def verdict_on_the_base(negatives: dict[str, Any]) -> list[str]:
    """Whether any negative beats the plainest one, which needs no training: the base itself."""
    rows = {name: _against(entry, "aligned_vs_base") for name, entry in negatives.items() if isinstance(entry, dict)}
    best = max(rows, key=lambda name: rows[name]["win_rate"])
    said = _verdict(
        rows[best],
        "is better than that",
        "does not reach it at alpha 1 (below it is put on top of it)",
        "cannot be told from that",
    )
    return [
        "The plainest other negative needs no training: the base itself, which differs from the aligned model by minus "
        f"eta. The best of these against it, {best}, {said}: {_interval(rows[best])}."
    ]


def _over_the_base(found: dict[str, Any]) -> list[str]:
    """The section on a trained negative on top of the base as the negative."""
    row = _against(found, "aligned_vs_base")
    said = _verdict(row, "beats", "loses to", "cannot be told from")
    pairs = found["chosen"][0]["pairs"]
    return [
        "## On top of the base as the negative",
        "",
        "With alpha 0 the negative branch is theta + beta delta: the base as the negative, moved by what the reversed "
        f"pairs taught. beta chosen on {pairs} prompts of the pairs' own concepts, by the win rate against the base as "
        "the negative (beta 0):",
        "",
        "| beta | against the base as the negative |",
        "|---|---|",
        *(f"| {row['beta']:g} | {_interval(row)} |" for row in found["chosen"]),
        "",
        f"On the {row['pairs']} held-out prompts, with beta {found['beta']:g}, the negative from reversed pairs {said} "
        f"the base as the negative: {_interval(row)}, and stands at {_rate(found, 'aligned')} against aligned.",
    ]


def _verdict(row: dict[str, Any], above: str, below: str, unclear: str) -> str:
    """What to say of a win rate whose interval lies above one half, below it, or on both sides."""
    low, high = row["win_rate_95"]
    return above if low > 0.5 else below if high < 0.5 else unclear


def verdict_on_loop(loop: Sequence[dict[str, Any]]) -> list[str]:
    """Whether each round raised or held the win rates, and beat having no negative model."""
    start, *rounds = [_against(row, "base")["win_rate"] for row in loop]
    worse = [str(row["round"]) for row, rate in zip(loop[1:], rounds, strict=True) if rate <= start]
    said = [_course(loop, "aligned"), _course(loop, "base")]
    if worse:
        said.append(
            f"So after round {' and '.join(worse)} pictures won no more often against base than those of the aligned "
            "model without a negative one."
        )
    return [" ".join(said)]


def _course(loop: Sequence[dict[str, Any]], other: str) -> str:
    """How the win rate against `other` went from round to round, and whether chance could have done that."""
    rates = [_against(row, other)["win_rate"] for row in loop]
    course = ", ".join(f"{rate:.3f}" for rate in rates)
    lower = [
        (earlier, later)
        for earlier, later in pairwise(loop)
        if _against(later, other)["win_rate"] < _against(earlier, other)["win_rate"]
    ]
    if not lower:
        return f"The win rate against {other} rose or held in every round: {course}."
    falls = ", ".join(
        f"in round {later['round']} (from {_against(earlier, other)['win_rate']:.3f} to "
        f"{_against(later, other)['win_rate']:.3f}, {_size_of_fall(earlier, later, other)})"
        for earlier, later in lower
    )
    return f"The win rate against {other} went {course}. It fell {falls}."


def _size_of_fall(earlier: dict[str, Any], later: dict[str, Any], other: str) -> str:
    clear = _against(later, other)["win_rate_95"][1] < _against(earlier, other)["win_rate_95"][0]
    return "more than the intervals allow by chance" if clear else "no more than the intervals allow by chance"


def verdict_on_sweep(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Each variant at its own best scale."""
    best = {}
    for name in ("base", "aligned", "aligned_npo"):
        row = max(rows, key=lambda row: row["summary"][name]["emoji"]["mean"])
        best[name] = (row["guidance_scale"], row["summary"][name])
    told = "; ".join(
        f"{LABELS.get(name, name)} at {scale:g} ({_mean(summary, 'emoji')})" for name, (scale, summary) in best.items()
    )
    return [f"Each at the scale where its mean score is highest: {told}."]


def _contenders(entries: dict[str, Any], against: Sequence[str]) -> list[str]:
    heads = [f"against {LABELS.get(name, name)}" for name in against]
    lines = [f"| contender | mean log-probability | top-1 | {' | '.join(heads)} |", "|---" * (3 + len(heads)) + "|"]
    for name, entry in entries.items():
        rates = [_rate(entry, other) for other in against]
        cells = [_mean(entry["summary"], "emoji"), _mean(entry["summary"], "top1"), *rates]
        lines.append(f"| {LABELS.get(name, name)} | {' | '.join(cells)} |")
    return lines


def _against(entry: dict[str, Any], other: str) -> Any:
    return next((row for row in entry["win_rates"] if row["against"] == other), None)


def _rate(entry: dict[str, Any], other: str) -> str:
    row = _against(entry, other)
    return "" if row is None else _interval(row)


def _interval(row: dict[str, Any]) -> str:
    low, high = row["win_rate_95"]
    return f"{row['win_rate']:.3f} ({low:.3f} to {high:.3f})"


def _mean(summary: dict[str, Any], scorer: str) -> str:
    low, high = summary[scorer]["mean_95"]
    return f"{summary[scorer]['mean']:.3f} ({low:.3f} to {high:.3f})"


def _grid(grid: dict[str, Any] | None) -> list[str]:
    if grid is None:
        return []
    told = f"Columns: {', '.join(grid['columns'])}. Rows: {'; '.join(grid['prompts'])}."
    return ["## Pictures", "", told, "", "![Grid](results/grid.png)", ""]


def draw_loop(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Win rate of aligned + NPO after each round, with intervals."""
    figure, axes = _axes()
    rounds = [row["round"] for row in rows]
    for other, colour in (("aligned", BLUE), ("base", ORANGE)):
        found = [_against(row, other) for row in rows]
        rates = [row["win_rate"] for row in found]
        lower = [row["win_rate"] - row["win_rate_95"][0] for row in found]
        upper = [row["win_rate_95"][1] - row["win_rate"] for row in found]
        axes.errorbar(rounds, rates, [lower, upper], marker="o", capsize=4, color=colour, label=f"against {other}")
    axes.axhline(0.5, color=GREY, linewidth=1)
    axes.set_xticks(rounds)
    axes.set_xlabel("round of picks and retraining")
    axes.set_ylabel("win rate of aligned + NPO")
    axes.legend()
    _save(figure, file)


def draw_sweep(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """Mean score of each variant by guidance scale."""
    figure, axes = _axes()
    for name in rows[0]["summary"]:
        means = [row["summary"][name]["emoji"]["mean"] for row in rows]
        axes.plot([row["guidance_scale"] for row in rows], means, marker="o", label=LABELS.get(name, name))
    axes.set_xlabel("guidance scale")
    axes.set_ylabel("mean log-probability")
    axes.legend()
    _save(figure, file)


def draw_negatives(entries: dict[str, Any], file: Path) -> None:
    """Every negative's win rate against aligned."""
    figure, axes = _axes(height=3.2)
    names = [name for name, entry in entries.items() if isinstance(entry, dict)]
    for place, name in enumerate(names):
        row = _against(entries[name], "aligned")
        axes.plot(row["win_rate_95"], [place, place], color=BLUE, linewidth=2)
        axes.plot(row["win_rate"], place, "o", color=BLUE)
    axes.axvline(0.5, color=GREY, linewidth=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("win rate against aligned, 95% interval")
    _save(figure, file)


def _axes(height: float = 3.6) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, height), layout="constrained")
    axes = figure.add_subplot()
    axes.grid(alpha=0.3)
    return figure, axes


def _save(figure: Any, file: Path) -> None:
    with replacing(file) as opened:
        figure.savefig(opened, format="png", dpi=110)
