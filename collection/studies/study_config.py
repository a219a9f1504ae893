"""A study as its author writes it: study.toml -> StudyPlan, checked before anything is stored or drawn.

name = "emoji-npo"                      # the rest has defaults, see StudyPlan
variants = ["base", "aligned", "aligned_npo"]
prompts = "emoji"                       # a bundled list, or a file (see collection.studies.prompts)
votes_per_pair = 5

[quality]                               # when a person's votes are left out, see QualityRule
min_check_pass = 0.75
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any, Final, get_type_hints
from urllib.parse import urlsplit

from collection.errors import InputError
from collection.texts import read_toml
from collection.types import fits_type
from collection.votes.ballots import POOL_STUDY

NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
MODALITIES: Final = ("image", "video")
GENERATION_SETTINGS: Final = ("steps", "guidance_scale", "alpha", "beta", "scheduler", "negative_prompt")
DEFAULT_INSTRUCTIONS: Final = (
    "You will see two pictures made for the same text. Choose the one you prefer: how well it fits the text, and how "
    "good it looks. There is no right answer; your first impression counts."
)
DEFAULT_CONSENT: Final = (
    "Taking part is voluntary and you may stop at any time. We keep your answers, how long each took, and a random "
    "number in your browser that tells your answers from other people's; no name, no address. You get a code with "
    "which you can have all of it erased."
)


@dataclass(frozen=True)
class QualityRule:
    """When a person's votes in a study are flagged and left out of every count: as soon as one of these holds.

    Each looks only at people with enough answers to judge by; the numbers are part of the published methodology.
    """

    min_check_pass: float = 0.75  # share of checks with a known answer that were right
    min_checks: int = 2
    min_median_response_s: float = 0.6  # faster than a person can look at two pictures
    min_consistency: float = 0.0  # share of repeats answered as the first time; 0: told but not held against anyone,
    min_repeats: int = 3  # for careful people waver too where two variants are about as good
    max_one_side: float = 0.9  # share of decided votes for the same side
    min_votes: int = 10


@dataclass(frozen=True)
class StudyPlan:
    """Everything that was decided about a study before its first vote. Shares are in [0, 1]."""

    name: str
    variants: tuple[str, ...]
    prompts: str
    title: str = "Which one is better?"
    family: str = "emoji"
    modality: str = "image"
    max_prompts: int | None = None  # of the list, drawn with the seed; None: all
    seeds_per_prompt: int = 1
    votes_per_pair: int = 5
    ballots_per_participant: int = 30  # repeats and checks included, the two training ballots not
    repeat_share: float = 0.1
    check_share: float = 0.1
    random_share: float = 0.1  # of ballots not given to the least-voted pair, so that all pairs stay connected
    break_every: int = 20  # ballots between two offers to rest; 0: never
    training: bool = True
    tie: bool = True
    both_bad: bool = True
    min_view_s: float = 0.5  # how long the buttons stay locked once both are on screen
    instructions: str = DEFAULT_INSTRUCTIONS
    consent: str = DEFAULT_CONSENT
    consent_version: str = "1"
    max_participants: int | None = None
    deadline: datetime | None = None
    completion_code: str | None = None
    completion_url: str | None = None
    seed: int = 0
    generation: Mapping[str, Any] = field(default_factory=dict)  # of GENERATION_SETTINGS; the family's where absent
    quality: QualityRule = field(default_factory=QualityRule)

    @property
    def choices(self) -> tuple[str, ...]:
        """What may be answered, in the order of the buttons."""
        return ("left", "right", *(["tie"] if self.tie else []), *(["both_bad"] if self.both_bad else []), "skip")


def read_plan(path: Path) -> StudyPlan:
    """The plan in a TOML file; a `prompts` file is looked for beside it. InputError when anything is amiss."""
    given = read_toml(path)
    plan = plan_of(given)
    beside = path.parent / plan.prompts
    return plan_of({**given, "prompts": str(beside)}) if beside.is_file() else plan


def plan_of(given: Mapping[str, Any]) -> StudyPlan:
    """The plan that `given`, the content of a study.toml or what `plan_as_json` made, describes."""
    values = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    quality = values.get("quality", {})
    if not isinstance(quality, Mapping):
        raise InputError(f"The study's quality is {quality!r}; write it as a table, [quality].")
    values["quality"] = _filled(QualityRule, quality, "quality.")
    if "deadline" in values:
        values["deadline"] = _moment(values["deadline"])
    plan: StudyPlan = _filled(StudyPlan, values, "")
    _check(plan)
    return plan


def plan_as_json(plan: StudyPlan) -> dict[str, Any]:
    """Plain values from which `plan_of` makes the same plan again."""
    values = asdict(plan)
    values["variants"] = list(plan.variants)
    values["deadline"] = plan.deadline.isoformat() if plan.deadline else None
    return values


def _filled(kind: type, given: Mapping[str, Any], prefix: str) -> Any:
    """A `kind` from `given`: no unknown, missing or wrongly typed entry."""
    hints = _hints(kind)
    unknown = [name for name in given if name not in hints]
    if unknown:
        raise InputError(f"The study has {prefix}{unknown[0]}, which is unknown; use {', '.join(hints)}.")
    required = [entry.name for entry in fields(kind) if entry.default is entry.default_factory]  # both MISSING
    missing = [name for name in required if name not in given]
    if missing:
        raise InputError(f"The study has no {prefix}{missing[0]}; it needs {', '.join(required)}.")
    for name, value in given.items():
        if not fits_type(value, hints[name]):
            wanted = getattr(hints[name], "__name__", str(hints[name])).replace(f" | {NoneType.__name__}", "")
            raise InputError(f"The study's {prefix}{name} is {value!r}; give a value of type {wanted}.")
    return kind(**given)


@cache
def _hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _moment(value: Any) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if isinstance(moment, date) and not isinstance(moment, datetime):
        moment = datetime(moment.year, moment.month, moment.day, 23, 59, 59)
    if not isinstance(moment, datetime):
        raise InputError(f"The study's deadline is {value!r}; give a date such as 2026-12-31 or 2026-12-31T18:00:00Z.")
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)


def _check(plan: StudyPlan) -> None:
    if not NAME.fullmatch(plan.name) or plan.name == POOL_STUDY:
        raise InputError(
            f"The study's name is {plan.name!r}; use up to 63 of a-z, 0-9, - and _, but not {POOL_STUDY!r}."
        )
    if len(plan.variants) < 2 or len(set(plan.variants)) < len(plan.variants):
        raise InputError(
            f"The study compares {', '.join(plan.variants) or 'nothing'}; name at least two variants, once."
        )
    if not all(isinstance(variant, str) for variant in plan.variants):
        raise InputError(f"The study compares {plan.variants!r}; give the variants' names as text.")
    if plan.modality not in MODALITIES:
        raise InputError(f"The study's modality is {plan.modality!r}; choose from {', '.join(MODALITIES)}.")
    for name in ("seeds_per_prompt", "votes_per_pair", "ballots_per_participant", "max_prompts", "max_participants"):
        value = getattr(plan, name)
        if value is not None and value < 1:
            raise InputError(f"The study's {name} is {value}; give at least 1.")
    for name in ("repeat_share", "check_share", "random_share"):
        if not 0 <= getattr(plan, name) <= 0.5:
            raise InputError(f"The study's {name} is {getattr(plan, name)}; give a share from 0 to 0.5.")
    for name in ("break_every", "min_view_s", "seed"):
        if getattr(plan, name) < 0:
            raise InputError(f"The study's {name} is {getattr(plan, name)}; give 0 or more.")
    if plan.completion_url is not None and urlsplit(plan.completion_url).scheme != "https":
        raise InputError(f"The study's completion_url is {plan.completion_url!r}; give an https:// address.")
    unknown = [name for name in plan.generation if name not in GENERATION_SETTINGS]
    if unknown:
        raise InputError(f"The study sets generation.{unknown[0]}; choose from {', '.join(GENERATION_SETTINGS)}.")
