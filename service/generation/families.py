"""Which families an app can offer: those on this machine, and what the others lack."""

from __future__ import annotations

from dataclasses import dataclass

from npo_core.catalog import hub
from npo_core.catalog.families import FAMILIES, ModelFamily

SHIPPED = "emoji"
"""The family that is always there."""


@dataclass(frozen=True)
class FamilyOffer:
    """One line of the menu. `missing` says what is not on this machine; the family can be chosen when it is empty."""

    family: ModelFamily
    missing: tuple[str, ...]

    @property
    def command(self) -> str:
        """What fetches the rest."""
        return f"python -m npo_core.weights fetch --family {self.family.name}"


def family_offers() -> tuple[FamilyOffer, ...]:
    """Every family, in the order of FAMILIES."""
    return tuple(
        FamilyOffer(family, tuple(f"{need.what} {need.reference}" for need in hub.missing(family)))
        for family in FAMILIES.values()
    )
