"""What a step minimises. An objective turns positions (see draws.py) into a loss; the loop knows nothing else of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar, Protocol

from torch import Tensor

from train.network.policy import Network


class Objective(Protocol):
    """A differentiable loss over positions."""

    metrics: ClassVar[tuple[str, ...]]
    """What `losses` reports beside the loss; the first is "loss" itself."""

    def losses(self, first: int, last: int) -> tuple[Tensor, Tensor]:
        """The mean loss over positions first .. last-1, with gradients, and their mean `metrics`, (M,), without."""


MakeObjective = Callable[[Network], Objective]
