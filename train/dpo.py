"""Trains the aligned model, eta, from what people picked: Diffusion-DPO.

    python -m train.dpo --from-db                      # the picks in the database; the running app then offers it
    python -m train.dpo --dataset pairs.parquet        # a data set with Pick-a-Pic's columns, or a Hub id
    accelerate launch --num_processes 4 -m train.dpo --dataset ... --output-dir out     # on several GPUs

Diffusion-DPO, arXiv 2311.12908. Exit status 2 means that the input was wrong.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from train.commands.preference import run_command


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    return run_command("aligned", arguments)


if __name__ == "__main__":
    sys.exit(main())
