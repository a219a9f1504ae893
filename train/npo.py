"""Trains the negative model, delta, from what people picked: preference optimisation on reversed pairs.

    python -m train.npo --from-db                      # the picks in the database; the running app then offers it
    python -m train.npo --dataset pairs.parquet        # a data set with Pick-a-Pic's columns, or a Hub id
    accelerate launch --num_processes 4 -m train.npo --dataset ... --output-dir out     # on several GPUs

Diffusion-NPO, arXiv 2505.11245. Exit status 2 means that the input was wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from train.commands.preference import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return run_command("negative", arguments)


if __name__ == "__main__":
    sys.exit(main())
