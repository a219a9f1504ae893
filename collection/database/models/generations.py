"""Pictures and clips, and what was made together."""

from __future__ import annotations

from datetime import datetime
from typing import Final

import numpy as np
from sqlalchemy import (
    BigInteger,
    Index,
    LargeBinary,
    Text,
    false,
)
from sqlalchemy.orm import Mapped, mapped_column

from collection.database.models.base import Base, new_id, now
from collection.types import (
    Generation,
)
from collection.votes.contenders import contender_id, traits_of

LATENTS_DTYPE: Final = np.dtype("<f2")  # little-endian float16, whatever machine reads it back


class GenerationRow(Base):
    """One picture or clip and everything needed to make it again; the media file lies beside the database."""

    __tablename__ = "generations"
    __table_args__ = (Index(None, "comparison_id"), Index(None, "media_sha256"), Index(None, "contender", "created_at"))

    id: Mapped[str] = mapped_column(primary_key=True, default=new_id)
    comparison_id: Mapped[str]
    prompt: Mapped[str] = mapped_column(Text)
    negative_prompt: Mapped[str] = mapped_column(Text)
    seed: Mapped[int] = mapped_column(BigInteger)
    family: Mapped[str]
    modality: Mapped[str]
    variant: Mapped[str]
    # No foreign keys to adapters: the ones that ship with a family are files, not rows.
    aligned_id: Mapped[str | None] = mapped_column(Text)
    aligned_sha256: Mapped[str | None]
    negative_id: Mapped[str | None] = mapped_column(Text)
    negative_sha256: Mapped[str | None]
    alpha: Mapped[float]
    beta: Mapped[float]
    guidance_scale: Mapped[float]
    steps: Mapped[int]
    scheduler: Mapped[str]
    width_px: Mapped[int]
    height_px: Mapped[int]
    frames: Mapped[int]
    fps: Mapped[float | None]
    versions: Mapped[dict[str, str]]
    elapsed_s: Mapped[float]
    media_type: Mapped[str]
    media_sha256: Mapped[str]
    latents: Mapped[bytes | None] = mapped_column(LargeBinary, deferred=True)
    latents_shape: Mapped[str | None]  # "8x16x16"
    created_at: Mapped[datetime] = mapped_column(default=now)
    contender: Mapped[str] = mapped_column(server_default="")  # see contenders.py

    @classmethod
    def from_record(cls, record: Generation) -> GenerationRow:
        """The row for `record`; its media bytes go to a file instead."""
        values = {name: value for name, value in vars(record).items() if name not in ("media", "latents")}
        return cls(
            **values
            | {
                "id": record.id or new_id(),
                "created_at": record.created_at or now(),
                "contender": contender_id(traits_of(values)),
                "latents": None if record.latents is None else pack_latents(record.latents),
                "latents_shape": None if record.latents is None else "x".join(map(str, record.latents.shape)),
            }
        )

    def to_record(self, with_latents: bool = True) -> Generation:
        """The plain record, without media bytes."""
        fields = {name: getattr(self, name) for name in Generation.__dataclass_fields__ if name in _GENERATION_COLUMNS}
        latents = unpack_latents(self.latents, self.latents_shape) if with_latents else None
        return Generation(**fields, media=None, latents=latents)


_GENERATION_COLUMNS = frozenset(GenerationRow.__table__.columns.keys()) - {"latents", "contender"}


class ComparisonRow(Base):
    """Generations made together, as `next_ballot` chooses among them; see comparisons.py."""

    __tablename__ = "comparisons"
    __table_args__ = (Index(None, "judgeable", "family", "ballots", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    family: Mapped[str]
    modality: Mapped[str]
    judgeable: Mapped[bool]  # whether people can be asked about it, see comparisons.py
    workbench: Mapped[bool] = mapped_column(server_default=false())  # made with a seed or settings of somebody's own
    ballots: Mapped[int]  # issued on it, answered or not


def pack_latents(latents: np.ndarray) -> bytes:
    """The bytes of float16 `latents`, row by row, little-endian."""
    return np.ascontiguousarray(latents, dtype=LATENTS_DTYPE).tobytes()


def unpack_latents(packed: bytes | None, shape: str | None) -> np.ndarray | None:
    """The float16 array that `pack_latents` packed; a copy, so that torch may write to it."""
    if packed is None or shape is None:
        return None
    return np.frombuffer(packed, dtype=LATENTS_DTYPE).reshape([int(size) for size in shape.split("x")]).copy()
