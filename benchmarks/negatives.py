"""Which negative model is best, and does the loop close? Every experiment behind docs/results.md, on the emoji family.

    python -m benchmarks.negatives run --out out/negatives      # one GPU, 16 minutes; goes on where it stopped
    python -m benchmarks.negatives write --out out/negatives    # docs/results.md and its plots from results.json

People are played by the family's scorer, wrong in 15% of their picks. Votes go through a real Store, training through
the engine of train.npo, pictures through the Generator of the app. Training prompts never name a held-out concept and
every number is measured on prompts that name nothing else. Seeds of training and measuring do not overlap.
"""

from __future__ import annotations

import argparse
import json
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.negative_settings import SELF_NPO_PROMPTS, reward_batch, reward_steps, self_npo_steps
from collection.store import Store
from collection.types import NewBallot
from npo_core.catalog.adapter_files import AdapterFile, Role, adapter_file
from npo_core.catalog.families import ModelFamily, get_family
from npo_core.console import hush_libraries
from npo_core.generator import GenerationRequest, Generator
from npo_core.media.files import open_image
from npo_core.weights import load_adapter
from service.arena.compare import generation_record
from train.commands.flags import read_prompts
from train.emoji.prompts import draw_prompts, pair_concepts
from train.engine.config import TrainConfig, fastest_precision
from train.engine.files import write_json
from train.engine.loop import train_adapter
from train.judging.experiments import cross_shares
from train.judging.grids import draw_grid
from train.judging.scorers import load_scorer
from train.judging.scoring import Values, compare, score_requests, summarise
from train.objectives.reward import train_on_reward
from train.pairs.pairs import from_store, reverse_pairs, sources_of
from train.self_npo import Truncation, train_on_truncated

HELD_OUT_PROMPTS = Path("train/emoji/prompt_lists/held_out_1005.txt")
NOISE = 0.15  # the share of picks that are the wrong way round
STORED_PAIRS = 1000
ROUNDS = 3
FIRST_TEST_SEED = 10_000_000  # training seeds stay far below
FIRST_CHOICE_SEED = 20_000_000
GUIDANCE_SCALES = (2.0, 3.0, 4.0, 6.0, 8.0)
ALPHAS, BETAS = (0.0, 0.5, 1.0), (0.5, 1.0, 1.5)
SMALL_BETAS = (0.1, 0.2, 0.4)
GRID_ROWS = 8


@dataclass(frozen=True)
class Size:
    """How much of everything: for a GPU, or for a try on a CPU."""

    test_prompts: int
    sweep_prompts: int
    choice_prompts: int
    stored_pairs: int
    round_prompts: int
    steps: int
    train_batch: int
    batch: int  # requests in one pipeline call
    sampling_steps: int | None  # None for the family's


FULL = Size(400, 250, 120, STORED_PAIRS, 350, 200, 64, 32, None)
TOY = Size(6, 4, 3, 12, 6, 4, 4, 3, 3)


class Lab:
    """The family, its judge, the test prompts, and what is known so far (results.json)."""

    def __init__(self, out: Path, size: Size) -> None:
        self.out, self.size = out, size
        self.family: ModelFamily = get_family("emoji")
        self.scorer = load_scorer("emoji", self.family)
        self.generator = Generator(self.family)
        self.file = out / "results.json"
        self.results: dict[str, Any] = json.loads(self.file.read_text()) if self.file.is_file() else {}
        prompts = read_prompts(HELD_OUT_PROMPTS, size.test_prompts)
        self.tests = [
            GenerationRequest(prompt, seed=FIRST_TEST_SEED + number, steps=size.sampling_steps)
            for number, prompt in enumerate(prompts)
        ]
        self._plain: dict[str, Values] = {}

    def once(self, name: str, experiment: Callable[[], Any]) -> None:
        """Runs an experiment unless its result is there, and keeps it at once."""
        if name in self.results:
            return
        started_s = time.perf_counter()
        result = experiment()
        self.results[name] = {"result": result, "elapsed_s": round(time.perf_counter() - started_s, 1)}
        write_json(self.file, self.results)
        print(f"{name}: {self.results[name]['elapsed_s']} s {_short(result)}", flush=True)

    def plain(self, variant: str) -> Values:
        """The scores of a variant that has no negative adapter in it."""
        if variant not in self._plain:
            requests = [replace(request, variants=(variant,)) for request in self.tests]
            self._plain |= self.score(requests)
        return self._plain[variant]

    def score(self, requests: Sequence[GenerationRequest]) -> dict[str, Values]:
        """Variant -> its scores, kept batch by batch, so that a killed run loses little."""
        judges = {"emoji": self.scorer}
        return score_requests(self.generator, judges, requests, self.size.batch, keep=self.out / "scores").values

    def cross(
        self, requests: Sequence[GenerationRequest], shares: Sequence[tuple[float, float]], against: str
    ) -> list[dict[str, Any]]:
        """aligned_npo at every (alpha, beta) against another variant; scores kept as in `score`."""
        judges, keep = {"emoji": self.scorer}, self.out / "scores"
        return cross_shares(self.generator, judges, requests, shares, self.size.batch, keep, against)

    def judge(self, folder: Path, role: Role = "negative", variant: str = "aligned_npo") -> Values:
        """The scores of `variant` with the adapter in `folder` in its role; the family's own is put back."""
        own = self.generator.adapters()[role]
        self.generator.use_adapter(adapter_file(folder, role))
        try:
            requests = [replace(request, variants=(variant,)) for request in self.tests]
            return self.score(requests)[variant]
        finally:
            self.generator.use_adapter(own)

    def against(self, ours: Values, *others: str) -> dict[str, Any]:
        """Mean and win rates of `ours` against plain variants on the same noise."""
        values = {"ours": ours, **{name: self.plain(name) for name in others}}
        rates = [compare("ours", name, values, "emoji") for name in others]
        return {"summary": summarise(ours), "win_rates": rates}

    def config(self, name: str, role: Role = "negative", **changes: Any) -> TrainConfig:
        """The settings of every training here, but for `changes`."""
        settings: dict[str, Any] = {
            "max_train_steps": self.size.steps,
            "batch_size": self.size.train_batch,
            "learning_rate": 2e-4,
            "lr_schedule": "cosine",
            "warmup_steps": 10,
            "rank": 16,
            "mixed_precision": fastest_precision(None),
            "compile": "off",
            "gradient_checkpointing": "off",
            "log_every": 10**6,  # no curves: they want matplotlib, which a GPU machine may lack
            "checkpoint_every": 10**6,
            "progress": False,
        }
        return TrainConfig(family="emoji", output_dir=self.out / "runs" / name, role=role, **(settings | changes))


def vote_on(
    store: Store,
    lab: Lab,
    prompts: Sequence[str],
    variants: tuple[str, ...],
    seeds: Sequence[Sequence[int]],
    rng: np.random.Generator,
) -> float:
    """Pictures of each prompt by every variant and seed, stored; every pair of them judged, NOISE of them wrongly.

    seeds: for each prompt those to draw it with. Returns the share of votes that agree with the scorer.
    """
    requests = [
        GenerationRequest(prompt, seed=seed, variants=variants, steps=lab.size.sampling_steps)
        for prompt, ours in zip(prompts, seeds, strict=True)
        for seed in ours
    ]
    per_prompt = len(seeds[0])
    made = []
    for start in range(0, len(requests), lab.size.batch):
        made += lab.generator.generate_batch(requests[start : start + lab.size.batch])
    person, right = store.create_participant(), []
    for start in range(0, len(made), per_prompt):
        comparisons, comparison_id = made[start : start + per_prompt], uuid.uuid4().hex
        records = [generation_record(c, n, comparison_id) for c in comparisons for n in range(len(c.samples))]
        images = [open_image(sample.media) for c in comparisons for sample in c.samples]
        scores = lab.scorer.score(images, [comparisons[0].request.prompt] * len(images))
        ids = store.add_generations(records)
        pairs = list(combinations(range(len(ids)), 2)) if len(variants) > 1 else [(0, 1)]
        sides = [pair if rng.random() < 0.5 else pair[::-1] for pair in pairs]
        ballots = store.create_ballots([NewBallot(ids[left], ids[right], person) for left, right in sides])
        wrong = rng.random(len(sides)) < NOISE
        choices = [
            "left" if (scores[left] > scores[right]) != flip else "right"
            for (left, right), flip in zip(sides, wrong, strict=True)
        ]
        store.votes(list(zip(ballots, choices, strict=True)), person)
        right += list(~wrong)
    return float(np.mean(right))


def stored_pairs(lab: Lab) -> Store:
    """A store with the votes on pairs of the base's own pictures: two seeds of each prompt, made once."""
    store = Store(f"sqlite:///{lab.out / 'pairs.db'}", lab.out / "pairs")
    if not store.preference_pairs("emoji").pairs:
        prompts = draw_prompts(pair_concepts(), lab.size.stored_pairs, seed=11)
        seeds = [(2 * number, 2 * number + 1) for number in range(len(prompts))]
        vote_on(store, lab, prompts, ("base",), seeds, np.random.default_rng(0))
    return store


def trained(lab: Lab, name: str, pairs: Sequence[Any], **changes: Any) -> Path:
    """The folder of an adapter trained on `pairs` as they are given; made once."""
    config = lab.config(name, **changes)
    if not (config.output_dir / "pytorch_lora_weights.safetensors").is_file():
        aligned = load_adapter(str(lab.family.aligned)) if config.through_guidance else None
        train_adapter(config, pairs, lab.family, aligned=aligned)
    return config.output_dir


def baseline(lab: Lab) -> dict[str, Any]:
    """The family as it ships, and with the original model as the negative."""
    shipped = lab.judge(Path(str(lab.family.negative)))
    names = ("base", "aligned", "aligned_vs_base")
    return {
        **{name: lab.against(lab.plain(name), *(n for n in names if n != name)) for name in names},
        "aligned_npo": lab.against(shipped, *names),
    }


def by_negative(lab: Lab) -> dict[str, Any]:
    """Ways to make a negative, each judged in its role beside the aligned model."""
    store = stored_pairs(lab)
    given = from_store(store, "emoji").pairs
    prompts = sorted({pair.prompt for pair in given})
    others = ("base", "aligned", "aligned_vs_base")
    found: dict[str, Any] = {"pairs": len(given), "votes": len(sources_of(given)), "noise": NOISE}

    def note(name: str, folder: Path) -> None:
        found[name] = lab.against(lab.judge(folder), *others)
        print(f"  {name}: {_short(found[name])}", flush=True)

    note("reversed pairs", trained(lab, "npo", reverse_pairs(given)))
    note("reversed pairs, bounded loss", trained(lab, "npo-bounded", reverse_pairs(given), loss="bounded"))
    scale = lab.family.guidance_scale
    note(f"through guidance {scale:g}", trained(lab, "guided", given, through_guidance=scale))
    truncated = lab.config("self", max_train_steps=self_npo_steps(lab.size.steps))
    train_on_truncated(truncated, lab.family, prompts[:SELF_NPO_PROMPTS], Truncation())
    note("self-NPO, no votes", truncated.output_dir)
    reward = lab.config(
        "reward", max_train_steps=reward_steps(lab.size.steps), batch_size=reward_batch(lab.size.train_batch)
    )
    aligned = load_adapter(str(lab.family.aligned))
    train_on_reward(replace(reward, through_guidance=scale), lab.family, prompts, lab.scorer, aligned)
    note(f"reward gradient through guidance {scale:g}", reward.output_dir)
    return found


def longer_dpo(lab: Lab) -> dict[str, Any]:
    """An aligned model with a negative one, against an aligned model that trained as long as both together."""
    given = from_store(stored_pairs(lab), "emoji").pairs
    steps = lab.size.steps
    half, whole = (
        lab.judge(trained(lab, f"dpo-{count}", given, role="aligned", max_train_steps=count), "aligned", "aligned")
        for count in (steps, 2 * steps)
    )
    own = lab.generator.adapters()["aligned"]
    lab.generator.use_adapter(adapter_file(lab.out / "runs" / f"dpo-{steps}", "aligned"))
    both = lab.judge(trained(lab, "npo", reverse_pairs(given)))
    lab.generator.use_adapter(own)
    values = {"dpo": half, "dpo, twice as long": whole, "dpo + npo": both, "base": lab.plain("base")}
    pairs = (("dpo + npo", "dpo, twice as long"), ("dpo + npo", "dpo"), ("dpo, twice as long", "dpo"), ("dpo", "base"))
    return {
        "summary": {name: summarise(value) for name, value in values.items()},
        "win_rates": [compare(a, b, values, "emoji") for a, b in pairs],
    }


def closed_loop(lab: Lab) -> list[dict[str, Any]]:
    """ROUNDS times: pictures, noisy picks, train.npo's training on all picks so far, and the next pictures use it."""
    store = Store(f"sqlite:///{lab.out / 'loop.db'}", lab.out / "loop")
    rng, prompts = np.random.default_rng(1), draw_prompts(pair_concepts(), ROUNDS * lab.size.round_prompts, seed=12)
    rows = [{"round": 0, "picks": 0, **lab.against(lab.plain("aligned"), "base", "aligned")}]
    own = lab.generator.adapters()["negative"]
    folder: Path | None = None
    for turn in range(1, ROUNDS + 1):
        first = (turn - 1) * lab.size.round_prompts
        ours = prompts[first : first + lab.size.round_prompts]
        variants = ("base", "aligned") if folder is None else ("base", "aligned", "aligned_npo")
        if folder is not None:
            lab.generator.use_adapter(adapter_file(folder, "negative"))
        agreed = vote_on(store, lab, ours, variants, [(1_000_000 + first + n,) for n in range(len(ours))], rng)
        lab.generator.use_adapter(own)
        pairs = from_store(store, "emoji").pairs
        folder = trained(lab, f"round-{turn}", reverse_pairs(pairs))
        row = {"round": turn, "picks": len(pairs), "right_picks": agreed}
        rows.append({**row, **lab.against(lab.judge(folder), "base", "aligned")})
        print(f"  round {turn}: {_short(rows[-1])}", flush=True)
    return rows


def guidance_sweep(lab: Lab) -> list[dict[str, Any]]:
    """Every variant at every guidance scale: more guidance alone also changes pictures."""
    variants = ("base", "aligned", "aligned_npo")
    rows = []
    lab.generator.use_adapter(adapter_file(lab.out / "runs" / "npo", "negative"))
    for scale in GUIDANCE_SCALES:
        requests = [replace(r, guidance_scale=scale, variants=variants) for r in lab.tests[: lab.size.sweep_prompts]]
        scored = lab.score(requests)
        rows.append(
            {
                "guidance_scale": scale,
                "summary": {name: summarise(values) for name, values in scored.items()},
                "win_rates": [compare("aligned_npo", other, scored, "emoji") for other in ("aligned", "base")],
            }
        )
    return rows


def shares(lab: Lab) -> list[dict[str, Any]]:
    """aligned_npo against aligned, alpha by beta."""
    lab.generator.use_adapter(adapter_file(lab.out / "runs" / "npo", "negative"))
    crossed = [(alpha, beta) for alpha in ALPHAS for beta in BETAS]
    return lab.cross(lab.tests[: lab.size.sweep_prompts], crossed, "aligned")


def over_the_base(lab: Lab) -> dict[str, Any]:
    """The negative from reversed pairs on top of the base as the negative (alpha 0), against the base alone.

    beta is chosen on prompts of the pairs' own concepts; what it comes to is measured on the test prompts.
    """
    lab.generator.use_adapter(adapter_file(lab.out / "runs" / "npo", "negative"))
    choosing = [
        replace(lab.tests[0], prompt=prompt, seed=FIRST_CHOICE_SEED + number)
        for number, prompt in enumerate(draw_prompts(pair_concepts(), lab.size.choice_prompts, seed=13))
    ]
    crossed = [(0.0, beta) for beta in SMALL_BETAS]
    chosen = lab.cross(choosing, crossed, "aligned_vs_base")
    beta = max(chosen, key=lambda row: row["win_rate"])["beta"]
    requests = [replace(request, variants=("aligned_npo",), alpha=0.0, beta=beta) for request in lab.tests]
    ours = lab.score(requests)["aligned_npo"]
    return {"chosen": chosen, "beta": beta, **lab.against(ours, "aligned_vs_base", "aligned")}


def grid(lab: Lab) -> dict[str, Any]:
    """The first few test prompts: base, aligned, and aligned with each negative."""
    requests = [replace(request, variants=("base", "aligned")) for request in lab.tests[:GRID_ROWS]]
    rows = [[open_image(s.media) for s in made.samples] for made in lab.generator.generate_batch(requests)]
    columns = ["base", "aligned"]
    runs = {"reversed": "npo", "through guidance": "guided", "self-NPO": "self", "three rounds": f"round-{ROUNDS}"}
    for label, run in runs.items():
        lab.generator.use_adapter(adapter_file(lab.out / "runs" / run, "negative"))
        with_it = [replace(request, variants=("aligned_npo",)) for request in requests]
        for row, made in zip(rows, lab.generator.generate_batch(with_it), strict=True):
            row.append(open_image(made.samples[0].media))
        columns.append(label)
    draw_grid(rows).save(lab.out / "grid.png")
    return {"columns": columns, "prompts": [request.prompt for request in requests]}


EXPERIMENTS: dict[str, Callable[[Lab], Any]] = {
    "baseline": baseline,
    "by_negative": by_negative,
    "closed_loop": closed_loop,
    "longer_dpo": longer_dpo,
    "guidance_sweep": guidance_sweep,
    "shares": shares,
    "over_the_base": over_the_base,
    "grid": grid,
}


def run(out: Path, size: Size) -> None:
    """Every experiment that results.json does not have yet."""
    out.mkdir(parents=True, exist_ok=True)
    hush_libraries()
    lab = Lab(out, size)
    lab.once("setting", lambda: setting(lab))
    for name, experiment in EXPERIMENTS.items():
        shipped: dict[str, AdapterFile] = dict(lab.generator.adapters())
        lab.once(name, lambda experiment=experiment: experiment(lab))  # type: ignore[misc]
        for adapter in shipped.values():
            lab.generator.use_adapter(adapter)


def setting(lab: Lab) -> dict[str, Any]:
    """Where and with what the numbers were made."""
    config = lab.config("any").as_json()
    kept = ("max_train_steps", "batch_size", "learning_rate", "rank", "beta_dpo", "loss", "mixed_precision", "targets")
    return {
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU",
        "torch": torch.__version__,
        "adapters": {role: each.sha256 for role, each in lab.generator.adapters().items()},
        "size": vars(lab.size),
        "training": {name: config[name] for name in kept},
        "guidance_scale": lab.family.guidance_scale,
        "alpha": lab.family.alpha,
        "beta": lab.family.beta,
        "steps": lab.size.sampling_steps or lab.family.steps,
    }


def _short(result: Any) -> str:
    """The win rates in a result, for the log."""
    rows = result.get("win_rates", []) if isinstance(result, dict) else []
    return ", ".join(f"{row['variant']} against {row['against']} {row['win_rate']:.3f}" for row in rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(required=True)
    running = commands.add_parser("run", help="make the numbers")
    running.add_argument("--out", type=Path, default=Path("out/negatives"))
    running.add_argument("--toy", action="store_true", help="a few pictures and steps, to try the script")
    running.set_defaults(command=lambda options: run(options.out, TOY if options.toy else FULL))
    writing = commands.add_parser("write", help="docs/results.md and its plots from results.json")
    writing.add_argument("--out", type=Path, default=Path("out/negatives"))
    writing.add_argument("--docs", type=Path, default=Path("docs"))
    writing.set_defaults(command=write)
    options = parser.parse_args()
    options.command(options)


def write(options: argparse.Namespace) -> None:
    """Turns results.json into docs/results.md."""
    from benchmarks.results_page import write_page

    write_page(options.out, options.docs)


if __name__ == "__main__":
    main()
