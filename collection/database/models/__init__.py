"""The tables. Rows turn into the plain records of types.py here, and nowhere else.

Types are portable between SQLite and PostgreSQL: text ids made by us, UTC times, JSON, binary large objects.
"""

from collection.database.models.base import Base, UtcDateTime, new_id, now
from collection.database.models.generations import (
    LATENTS_DTYPE,
    ComparisonRow,
    GenerationRow,
    pack_latents,
    unpack_latents,
)
from collection.database.models.studies import (
    AssignmentRow,
    EnrolmentRow,
    FaultRow,
    StudyItemRow,
    StudyPairRow,
    StudyRow,
)
from collection.database.models.training import AdapterRow, PromotionRow, TrainingRunRow
from collection.database.models.votes import (
    BallotRow,
    ParticipantRow,
    PersonKeyRow,
    TallyRow,
    TombstoneRow,
    VoteRow,
    require_participant,
)

__all__ = [
    "LATENTS_DTYPE",
    "AdapterRow",
    "AssignmentRow",
    "BallotRow",
    "Base",
    "ComparisonRow",
    "EnrolmentRow",
    "FaultRow",
    "GenerationRow",
    "ParticipantRow",
    "PersonKeyRow",
    "PromotionRow",
    "StudyItemRow",
    "StudyPairRow",
    "StudyRow",
    "TallyRow",
    "TombstoneRow",
    "TrainingRunRow",
    "UtcDateTime",
    "VoteRow",
    "new_id",
    "now",
    "pack_latents",
    "require_participant",
    "unpack_latents",
]
