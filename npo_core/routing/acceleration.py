"""What makes a forward pass cheaper and leaves its result alone: things computed once, and CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

CAPTURE_WARM_UPS = 3  # calls before a capture: libraries choose their kernels and allocate their workspaces in them


class Once:
    """A function of a tensor that is computed again only when it is called with another one.

    A pipeline hands the same text embeddings to the UNet at every step. Kept is the last tensor, not a copy, so that
    "the same" is a matter of identity and of not having been written to since.
    """

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        self.function = function
        self.source: Tensor | None = None
        self._version: int | None = None
        self._result: Tensor | None = None

    def __call__(self, x: Tensor) -> Tensor:
        version = None if x.is_inference() else x._version
        if self._result is None or x is not self.source or version != self._version:
            self.source, self._version, self._result = x, version, self.function(x)
        return self._result

    def forget(self) -> None:
        """Computes anew at the next call, for what the function reads besides its argument has changed."""
        self.source = self._result = None


class Stored:
    """Stands for a layer whose output was computed beforehand and lies in `output`."""

    def __init__(self, output: Tensor) -> None:
        self.output = output

    def __call__(self, _: Tensor) -> Tensor:
        return self.output


def cross_attention_projections(unet: nn.Module) -> list[nn.Module]:
    """The layers that make keys and values from the text alone."""
    attentions: list[Any] = [module for module in unet.modules() if getattr(module, "is_cross_attention", False)]
    return [layer for attention in attentions for layer in (attention.to_k, attention.to_v) if layer is not None]


class CapturedForward:
    """A function recorded as a CUDA graph, for arguments of the shapes it was recorded with.

    A step of a UNet is some thousand short kernels, and launching them one by one takes longer than running them; a
    graph launches all of them at once. Everything that the function reads besides its arguments must stay where it is.
    """

    def __init__(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
        """Calls the function a few times and records it. Its tensor arguments are copied, others become part of it."""
        leaves, self._spec = pytree.tree_flatten((args, kwargs))
        self._arguments = [leaf.clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        own_args, own_kwargs = pytree.tree_unflatten(self._arguments, self._spec)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(CAPTURE_WARM_UPS):
                function(*own_args, **own_kwargs)
        torch.cuda.current_stream().wait_stream(stream)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph):
            self._result = function(*own_args, **own_kwargs)

    def fits(self, *args: Any, **kwargs: Any) -> bool:
        """Whether the recording is of a call like this one."""
        leaves, spec = pytree.tree_flatten((args, kwargs))
        return spec == self._spec and all(map(_alike, self._arguments, leaves))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The function's result for arguments that fit."""
        for own, leaf in zip(self._arguments, pytree.tree_leaves((args, kwargs)), strict=True):
            if isinstance(own, Tensor):
                own.copy_(leaf, non_blocking=True)
        self._graph.replay()
        return pytree.tree_map_only(Tensor, Tensor.clone, self._result)


def _alike(own: Any, leaf: Any) -> bool:
    if isinstance(own, Tensor):
        return isinstance(leaf, Tensor) and (own.shape, own.dtype) == (leaf.shape, leaf.dtype)
    return type(own) is type(leaf) and own == leaf
