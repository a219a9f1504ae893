"""Who takes part: one entry each in CONTENDERS, and whatever LoRAs are given on top; what each may be tuned over.

A contender is a pair of Mixes (see npo_core/variants.py) with settings of its own: every one is tried at each guidance
scale with everything in its grid, and takes part with what the rater liked best.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

from npo_core.catalog.adapter_files import AdapterFile, Role, adapter_file
from npo_core.catalog.families import ModelFamily
from npo_core.errors import InputError
from npo_core.variants import ALIGNED, BASE, Mix, get_variant

GUIDANCE_SCALES = (1.5, 2.0, 3.0, 4.0, 6.0)
RESCALES = (0.0, 0.5)
WHOLE = (0.0, 1.0)

Mixes = Callable[[float, float], tuple[Mix, Mix]]
"""(alpha, beta) -> the (conditional, unconditional) weights."""


@dataclass(frozen=True)
class Setting:
    """One point of a grid. rescale: guidance_rescale (arXiv 2305.08891); interval: the share of the steps, from 0 to 1,
    in which there is guidance (arXiv 2404.07724); gate: the share of the noise, 1 the noisiest, in which delta is."""

    guidance_scale: float
    alpha: float = 1.0
    beta: float = 0.0
    rescale: float = 0.0
    interval: tuple[float, float] = WHOLE
    gate: tuple[float, float] = WHOLE


@dataclass(frozen=True)
class Contender:
    """A way to sample and the grid it is tuned over. adapters: LoRAs in place of the family's own. guidance_scales:
    where given, instead of those of all."""

    name: str
    label: str
    mixes: Mixes
    alphas: tuple[float, ...] = (1.0,)
    betas: tuple[float, ...] = (0.0,)
    rescales: tuple[float, ...] = RESCALES
    intervals: tuple[tuple[float, float], ...] = (WHOLE,)
    gates: tuple[tuple[float, float], ...] = (WHOLE,)
    adapters: Mapping[Role, AdapterFile] = field(default_factory=dict)
    guidance_scales: tuple[float, ...] = ()

    def settings(self, guidance_scales: Sequence[float]) -> list[Setting]:
        """The whole grid."""
        axes = (guidance_scales, self.alphas, self.betas, self.rescales, self.intervals, self.gates)
        return [Setting(*point) for point in product(*axes)]

    def uses(self) -> list[str]:
        """Which of alpha and beta make a difference to it."""
        changed = {"alpha": self.mixes(2, 1), "beta": self.mixes(1, 2)}
        return [name for name, mixes in changed.items() if mixes != self.mixes(1, 1)]

    def roles(self) -> set[Role]:
        """The adapters that it needs."""
        mixes = self.mixes(self.alphas[-1], self.betas[-1])
        roles: tuple[Role, ...] = ("aligned", "negative")
        return {role for role in roles if any(getattr(mix, role) for mix in mixes)}


def _negative(alpha: float, beta: float) -> tuple[Mix, Mix]:
    return get_variant("aligned_npo").mixes(alpha, beta)


def _contrast(alpha: float, beta: float) -> tuple[Mix, Mix]:
    """theta + w ((theta + eta) - (theta + delta)) on both branches: PGD (arXiv 2602.18799) as one set of weights, which
    is its guidance to first order."""
    return Mix(alpha, -alpha), Mix(alpha, -alpha)


NEGATIVE_ALPHAS, NEGATIVE_BETAS = (0.5, 1.0), (0.2, 0.4, 0.7, 1.0)
GATED_BETAS = (0.4, 0.7, 1.0, 1.5)
NPO = "aligned_npo"

CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender("base", "base", lambda alpha, beta: (BASE, BASE)),
        Contender("aligned", "aligned", lambda alpha, beta: (ALIGNED, ALIGNED)),
        Contender(
            "scaled",
            "eta scaled, on both branches",
            lambda alpha, beta: (Mix(alpha), Mix(alpha)),
            alphas=(1.25, 1.5, 2.0),
        ),
        Contender("vs_base", "the base as negative", lambda alpha, beta: (ALIGNED, BASE)),
        Contender(
            "extrapolated",
            "alpha below 0, no negative trained",
            lambda alpha, beta: (ALIGNED, Mix(alpha)),
            alphas=(-0.25, -0.5, -1.0),
        ),
        Contender(
            "rescaled", "aligned, guidance rescaled", lambda alpha, beta: (ALIGNED, ALIGNED), rescales=(0.3, 0.7, 1.0)
        ),
        Contender(
            "interval",
            "aligned, guidance in an interval",
            lambda alpha, beta: (ALIGNED, ALIGNED),
            intervals=((0.0, 0.7), (0.1, 0.9), (0.2, 0.8), (0.2, 1.0)),
        ),
        Contender(NPO, "aligned + NPO", _negative, alphas=NEGATIVE_ALPHAS, betas=NEGATIVE_BETAS),
        *(
            Contender(
                f"{NPO}_{half}",
                f"aligned + NPO, beta at t {where} 500 alone",
                _negative,
                betas=GATED_BETAS,
                rescales=(0.0,),
                gates=(gate,),
            )
            for half, where, gate in (("early", "over", (0.5, 1.0)), ("late", "under", (0.0, 0.5)))
        ),
        Contender(
            "pgd",
            "positive minus negative, added to the base (PGD)",
            _contrast,
            alphas=(0.3, 0.5, 0.75, 1.0),
        ),
    )
}


def as_shipped(family: ModelFamily) -> Contender:
    """aligned_npo with the family's own settings, whatever would be best for it."""
    return replace(
        CONTENDERS[NPO],
        name="shipped",
        label="aligned + NPO, as shipped",
        alphas=(family.alpha,),
        betas=(family.beta,),
        rescales=(0.0,),
        guidance_scales=(family.guidance_scale,),
    )


def given_alone(text: str) -> Contender:
    """NAME=PATH: a LoRA that answers both prompts, such as an aligned model trained for longer. Raises InputError."""
    name, path, _ = _parted(text)
    return replace(CONTENDERS["aligned"], name=name, label=name, adapters={"aligned": adapter_file(path, "aligned")})


def given_negative(text: str) -> Contender:
    """NAME=PATH or NAME=PATH@ALPHAS/BETAS ("bounded=out/npo@1/0.2,0.4"): a negative for the family's aligned model."""
    name, path, grid = _parted(text)
    found = replace(CONTENDERS[NPO], name=name, label=name, adapters={"negative": adapter_file(path, "negative")})
    if not grid:
        return found
    try:
        alphas, betas = (tuple(float(number) for number in part.split(",")) for part in grid.split("/"))
    except ValueError:
        raise InputError(
            f"The grid {grid!r} of the negative {name} is not ALPHAS/BETAS; give numbers such as 1/0.2,0.4."
        ) from None
    return replace(found, alphas=alphas, betas=betas)


def _parted(text: str) -> tuple[str, str, str]:
    name, equals, rest = text.partition("=")
    if not equals or not name or not rest:
        raise InputError(f"{text!r} is not NAME=PATH; name the LoRA and say where it is, such as bounded=out/npo.")
    path, _, grid = rest.partition("@")
    return name, path, grid


def choose(names: str | None, extra: Sequence[Contender] = ()) -> list[Contender]:
    """The contenders with these comma-separated names (all of CONTENDERS where there are none), and `extra`; raises
    InputError for an unknown name or one given twice."""
    wanted = [name.strip() for name in names.split(",")] if names else list(CONTENDERS)
    for name in wanted:
        if name not in CONTENDERS:
            raise InputError(f"Unknown contender {name!r}; choose from {', '.join(CONTENDERS)}.")
    chosen = [*(CONTENDERS[name] for name in wanted), *extra]
    counted = [contender.name for contender in chosen]
    for name in counted:
        if counted.count(name) > 1:
            raise InputError(f"Two contenders are called {name!r}; give each a name of its own.")
    return chosen
