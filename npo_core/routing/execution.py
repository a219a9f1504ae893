"""How the rows of a batch are run: choices that change time and memory, never the picture. Pure; no torch."""

from __future__ import annotations

from dataclasses import dataclass

from npo_core.errors import InputError

LOW_RANK, WEIGHT_SETS, STREAMED_SETS = "low_rank", "weight_sets", "streamed_sets"

ROUTINGS: dict[str, str] = {
    LOW_RANK: "one set of weights; eta and delta are added to each row as low-rank updates",
    WEIGHT_SETS: "the base and the full fine-tuned weights side by side; every layer runs each row through its own set",
    STREAMED_SETS: "as weight_sets, but fine-tuned weights stay in host memory and are copied layer by layer: slow, "
    "and half the memory",
}

ACTIVATION_RESERVE_BYTES = 2 << 30  # left free beside the weights


@dataclass(frozen=True)
class Routing:
    """One of ROUTINGS and why it was taken."""

    name: str
    reason: str


def check_routing(name: str | None) -> None:
    """Raises InputError unless `name` is one of ROUTINGS or None, which leaves the choice to `choose_routing`."""
    if name is not None and name not in ROUTINGS:
        raise InputError(f"Unknown routing {name!r}; choose from {', '.join(ROUTINGS)}, or leave it out.")


def choose_routing(full_bytes: int, free_bytes: int | None, forced: str | None = None) -> Routing:
    """How to run weights of which `full_bytes` are full fine-tuned layers (0: everything is low-rank).

    free_bytes: what the device has left for them; None where there is nothing to stream from (a CPU).
    Raises InputError when `forced` is impossible for these weights.
    """
    check_routing(forced)
    if forced == LOW_RANK and full_bytes:
        raise InputError(
            f"The routing {LOW_RANK} was asked for and an adapter is a full set of weights; "
            f"leave the routing out, or give a LoRA."
        )
    if forced:
        return Routing(forced, "asked for")
    if not full_bytes:
        return Routing(LOW_RANK, "eta and delta are low-rank")
    size = f"the fine-tuned weights are a full set of {full_bytes / 1e9:.2f} GB"
    if free_bytes is None or full_bytes + ACTIVATION_RESERVE_BYTES <= free_bytes:
        return Routing(WEIGHT_SETS, size)
    return Routing(STREAMED_SETS, f"{size} and {free_bytes / 1e9:.2f} GB are free")
