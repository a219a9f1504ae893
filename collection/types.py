"""The plain frozen dataclasses that the Store takes and gives. No SQLAlchemy here, so that others can import them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from types import UnionType
from typing import Any, Literal, NamedTuple, Union, get_args, get_origin

import numpy as np

Choice = Literal["left", "right", "tie", "both_bad", "skip"]
Role = Literal["aligned", "negative"]
BallotKind = Literal["normal", "repeat", "check"]
ItemKind = Literal["training", "normal", "check"]
AssignmentKind = Literal["training", "normal", "repeat", "check"]
TallyDimension = Literal["participant", "comparison", "hour"]


@dataclass(frozen=True)
class Generation:
    """One picture or clip and everything needed to make it again.

    latents: float16, (C, H, W) for a picture, (F, C, H, W) for a clip, at UNet scale (before the VAE).
    """

    comparison_id: str
    prompt: str
    negative_prompt: str
    seed: int
    family: str
    modality: str
    variant: str
    aligned_id: str | None
    aligned_sha256: str | None
    negative_id: str | None
    negative_sha256: str | None
    alpha: float
    beta: float
    guidance_scale: float
    steps: int
    scheduler: str
    width_px: int
    height_px: int
    frames: int
    fps: float | None
    versions: dict[str, str]
    elapsed_s: float
    media: bytes | None  # given when stored; None when read back (see Store.media_path)
    media_type: str
    media_sha256: str
    latents: np.ndarray | None
    id: str | None = None
    created_at: datetime | None = None


@dataclass(frozen=True)
class AllBut:
    """All votes but those of these studies."""

    studies: tuple[str, ...]


WhichVotes = str | AllBut | None
"""Of which votes: of a study, of all but some studies, of all."""


@dataclass(frozen=True)
class NewBallot:
    """A question put to one person: which of these two? Stored before either is shown."""

    left_generation_id: str
    right_generation_id: str
    participant_id: str
    blind: bool = True
    kind: BallotKind = "normal"
    study: str | None = None
    comparison_id: str | None = None
    id: str | None = None  # a new one unless it was given out before
    created_at: datetime | None = None  # now, unless it was shown before


@dataclass(frozen=True)
class BallotView:
    """What may be shown before the vote: nothing here tells the variants apart."""

    ballot_id: str
    prompt: str
    modality: str
    left_generation_id: str
    right_generation_id: str


@dataclass(frozen=True)
class Reveal:
    """What a vote is answered with."""

    ballot_id: str
    choice: Choice
    left_variant: str
    right_variant: str


@dataclass(frozen=True)
class PreferenceRecord:
    """One decided vote, ready for training."""

    vote_id: str
    prompt: str
    preferred_latents: np.ndarray
    rejected_latents: np.ndarray
    preferred_variant: str
    rejected_variant: str
    participant_id: str
    preferred_id: str  # of the generation
    rejected_id: str


@dataclass(frozen=True)
class PreferencePairs:
    """Decided votes, and how many were left out for which reason."""

    pairs: list[PreferenceRecord]
    dropped: dict[str, int]


class VoteCount(NamedTuple):
    """Outcomes of all votes between two variants, whichever side each stood on. A tuple: results hold many of them."""

    variant_a: str
    variant_b: str
    wins_a: int
    wins_b: int
    ties: int
    both_bad: int

    @property
    def total(self) -> int:
        """All votes on this pair of variants."""
        return self.wins_a + self.wins_b + self.ties + self.both_bad


@dataclass(frozen=True)
class AdapterRecord:
    """A trained LoRA that the app can offer, for pictures (modality image) or for clips (video)."""

    family: str
    role: Role
    name: str
    path: str
    sha256: str
    training_run_id: str | None = None
    id: str | None = None
    created_at: datetime | None = None
    modality: str = "image"


@dataclass(frozen=True)
class Lineage:
    """Where an adapter comes from: its training, and the adapters behind the pictures that its votes were about."""

    adapter: AdapterRecord
    run: TrainingRun | None
    parents: tuple[str, ...]  # adapter ids, of this database or of the family's own files


@dataclass(frozen=True)
class TrainingRun:
    """What was trained, from which votes, and how it went."""

    family: str
    role: Role
    config: dict[str, Any]
    vote_ids: tuple[str, ...]
    status: str = "running"
    metrics: dict[str, Any] = field(default_factory=dict)
    id: str | None = None
    created_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True)
class Totals:
    """The counts on the Results page: votes that count, who cast them, on how many comparisons."""

    votes: int
    participants: int
    comparisons: int
    last_vote_at: datetime | None


RunStatus = Literal["running", "finished", "failed"]

CHOICES: tuple[Choice, ...] = get_args(Choice)
ROLES: tuple[Role, ...] = get_args(Role)
BALLOT_KINDS: tuple[BallotKind, ...] = get_args(BallotKind)
ITEM_KINDS: tuple[ItemKind, ...] = get_args(ItemKind)
ASSIGNMENT_KINDS: tuple[AssignmentKind, ...] = get_args(AssignmentKind)
TALLY_DIMENSIONS: tuple[TallyDimension, ...] = get_args(TallyDimension)
RUN_STATUSES: tuple[RunStatus, ...] = get_args(RunStatus)


@dataclass(frozen=True)
class StoredBallot:
    """A ballot as issued; `comparison_id` is the left generation's unless one was given."""

    id: str
    left_generation_id: str
    right_generation_id: str
    participant_id: str
    blind: bool
    kind: BallotKind
    study: str | None
    comparison_id: str
    created_at: datetime


@dataclass(frozen=True)
class StoredVote:
    """A vote that stands. `first_choice` differs from `choice` when the person changed it after the reveal."""

    id: str
    ballot_id: str
    participant_id: str
    choice: Choice
    first_choice: Choice
    response_time_s: float | None
    flag: str | None
    created_at: datetime
    changed_at: datetime


@dataclass(frozen=True)
class ExportedVote:
    """A vote with everything it is about."""

    vote: StoredVote
    ballot: StoredBallot
    left: Generation
    right: Generation


@dataclass(frozen=True)
class StudyItem:
    """A prompt and seed of a study that still needs its pictures."""

    id: str
    study: str
    number: int
    kind: ItemKind
    prompt: str
    seed: int


@dataclass(frozen=True)
class StudyProgress:
    """How far a study is. `pairs_done` have all their votes."""

    name: str
    items: int
    items_filled: int
    pairs: int
    pairs_done: int
    votes: int
    participants: int
    finished: int
    withdrawn: int
    flagged: int
    faults: int
    deadline: datetime | None
    closed_at: datetime | None
    created_at: datetime


@dataclass(frozen=True)
class Referral:
    """Who sent a person: a platform and keyed hashes of its ids, never the ids themselves."""

    platform: str
    worker_hash: str
    task_hash: str | None = None
    session_hash: str | None = None


@dataclass(frozen=True)
class Enrolment:
    """A person's part in a study. `code` is theirs, to withdraw with."""

    study: str
    participant_id: str
    number: int
    code: str
    consent_version: str
    consented_at: datetime
    answered: int
    total: int
    finished_at: datetime | None
    withdrawn_at: datetime | None


@dataclass(frozen=True)
class StudyBallot:
    """What may be shown of a study's ballot: nothing here tells the variants, a check or a repeat apart."""

    ballot_id: str
    prompt: str
    modality: str
    left_generation_id: str
    right_generation_id: str
    left_media_sha256: str
    right_media_sha256: str
    media_type: str  # of both
    fps: float | None  # of both, None for pictures
    number: int  # from 1, training not counted; 0 during training
    total: int
    training: bool
    rest_first: bool  # whether a rest is offered before it


@dataclass(frozen=True)
class StudyAnswer:
    """What a vote in a study is answered with: no names, for more ballots follow. `right` is told in training only."""

    ballot_id: str
    choice: Choice
    right: bool | None


@dataclass(frozen=True)
class ErasureReport:
    """What was deleted with a participant, and how many of their pictures stay because others judged them too."""

    votes: int
    ballots: int
    generations: int
    generations_kept: int


def fits_type(value: Any, hint: Any) -> bool:
    """Whether `value`, which came from outside, has the type that a field of these dataclasses declares."""
    origin = get_origin(hint)
    if origin in (Union, UnionType):
        return any(fits_type(value, option) for option in get_args(hint))
    if origin is Literal:
        return value in get_args(hint)
    if hint is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if hint is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, origin or hint)
