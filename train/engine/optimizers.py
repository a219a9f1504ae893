"""The optimizers to choose from."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from npo_core.errors import InputError
from train.engine.config import TrainConfig


def make_optimizer(
    config: TrainConfig, weights: Sequence[torch.nn.Parameter], device: torch.device
) -> torch.optim.Optimizer:
    """AdamW, or AdamW with 8-bit states (arXiv 2110.02861) where bitsandbytes is installed; else InputError."""
    if config.optimizer == "adamw":
        return torch.optim.AdamW(
            weights,
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            fused=device.type in ("cpu", "cuda"),
        )
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError:
        raise InputError(
            "The optimizer adamw8bit needs the package bitsandbytes; run pip install bitsandbytes, or use adamw."
        ) from None
    optimizer: torch.optim.Optimizer = AdamW8bit(weights, lr=config.learning_rate, weight_decay=config.weight_decay)
    return optimizer
