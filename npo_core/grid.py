"""Alpha and beta at a glance: one prompt and noise, the negative branch at every pair of them, all in one batch.

Neither number is in any weight: a row of the batch has its own shares of eta and delta (see `batch`), so a grid costs
what as many pictures cost, and nothing is loaded or merged for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image

from npo_core.errors import InputError
from npo_core.generator import Comparison, GenerationRequest, Generator
from npo_core.media.files import open_image
from npo_core.media.layout import draw_grid
from npo_core.progress import OnStep

VARIANT = "aligned_npo"  # the one that both numbers have a say in
MAX_CELLS = 48


@dataclass(frozen=True)
class Grid:
    """One comparison of the single variant for every cell: a row for each alpha, a column for each beta."""

    alphas: tuple[float, ...]
    betas: tuple[float, ...]
    rows: tuple[tuple[Comparison, ...], ...]

    def picture(self) -> Image.Image:
        """All cells with their alphas on the left and their betas on top."""
        images = [[open_image(cell.samples[0].media) for cell in row] for row in self.rows]
        return draw_grid(
            images, [f"alpha {alpha:g}" for alpha in self.alphas], [f"beta {beta:g}" for beta in self.betas]
        )


def grid_requests(
    request: GenerationRequest, alphas: Sequence[float], betas: Sequence[float]
) -> list[GenerationRequest]:
    """`request` at every alpha and beta, row by row; raises InputError for clips and for too many cells."""
    if request.modality != "image":
        raise InputError(f"A grid was asked for with modality {request.modality!r}; grids are of pictures.")
    cells = len(alphas) * len(betas)
    if not 1 <= cells <= MAX_CELLS:
        raise InputError(
            f"A grid of {len(alphas)} alphas and {len(betas)} betas has {cells} pictures; ask for 1 to {MAX_CELLS}."
        )
    return [replace(request, variants=(VARIANT,), alpha=alpha, beta=beta) for alpha in alphas for beta in betas]


def make_grid(
    generator: Generator,
    request: GenerationRequest,
    alphas: Sequence[float],
    betas: Sequence[float],
    on_step: OnStep | None = None,
) -> Grid:
    """Every cell in one call of the pipeline. Raises InputError for what cannot be made."""
    made = generator.generate_batch(grid_requests(request, alphas, betas), on_step)
    across = len(betas)
    rows = tuple(tuple(made[start : start + across]) for start in range(0, len(made), across))
    return Grid(tuple(alphas), tuple(betas), rows)
