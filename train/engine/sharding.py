"""Several processes that each keep a share of the frozen base (torch's FSDP2) and the whole LoRA.

Only the LoRA is trained, so there is nothing to shard but the base: optimizer states and gradients are a few MB.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

BLOCKS = ("BasicTransformerBlock", "ResnetBlock2D")  # what is gathered, used and given back at a time


def shard_frozen(unet: nn.Module, kept: Sequence[nn.Parameter], device: torch.device, processes: int) -> None:
    """Leaves each of `processes` with its share of every parameter of `unet` but `kept`, which stay whole.

    For good: only a process that ends with the run does this.
    """
    mesh, whole = init_device_mesh(device.type, (processes,)), set(kept)
    for parameter in unet.parameters():
        parameter.data = parameter.data.contiguous()  # FSDP takes no channels_last
    blocks = [module for module in unet.modules() if type(module).__name__ in BLOCKS]
    for module in (*blocks, unet):
        fully_shard(module, mesh=mesh, ignored_params=whole)


def average_gradients(weights: Sequence[nn.Parameter], processes: int) -> None:
    """The mean over all processes of the gradients of `weights`, in one message."""
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    parts = (together / processes).split([gradient.numel() for gradient in gradients])
    for gradient, part in zip(gradients, parts, strict=True):
        gradient.copy_(part.view_as(gradient))
