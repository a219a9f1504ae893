"""RoutedUNet's counterpart for diffusion transformers (SD3, Qwen-Image, Wan, FLUX): one network, a Mix for every row.

diffusers asks a transformer for both sides of guidance in one of two ways. SD3 sends one batch, [negative of every
sample, positive of every sample], as UNets get it: `rows(guided_rows(pairs, scale))`. Qwen-Image, Wan and FLUX with
true guidance call it twice, and say which side they ask for by `cache_context("cond")` and `cache_context("uncond")`:
`branches(pairs)`. Rows are never put into another order, so that arguments without rows (rotary positions, shapes)
mean what they meant.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from torch import Tensor, nn

from npo_core.errors import InputError
from npo_core.routing.batch import RoutedBatch
from npo_core.routing.network import RoutedUNet
from npo_core.variants import Mix

CONDITIONAL, UNCONDITIONAL = "cond", "uncond"


class RoutedTransformer(RoutedUNet):
    """A transformer whose rows each run through their own Mix. Put it in place of `pipeline.transformer`.

    Raises InputError for one that was distilled to do without guidance: it has no negative side to answer.
    """

    def __init__(self, transformer: nn.Module, routing: str | None = None) -> None:
        if getattr(transformer.config, "guidance_embeds", False):
            raise InputError(
                f"This {type(transformer).__name__} is guidance-distilled: it is told the guidance scale and never "
                "asked what to avoid, so there is no negative side to answer; take a model that was not distilled."
            )
        super().__init__(transformer, routing)
        self._branches: dict[str, RoutedBatch] = {}

    def _batch_for(self, mixes: Sequence[Mix]) -> RoutedBatch:
        return RoutedBatch(self.unet, self._adapters, mixes, as_given=True)

    @contextmanager
    def branches(self, pairs: Sequence[tuple[Mix, Mix]]) -> Iterator[None]:
        """Within this context sample i is answered by pairs[i], (conditional, unconditional), in two calls.

        Raises InputError when a Mix needs an adapter that was not set.
        """
        if self._batch is not None or self._branches:
            raise RuntimeError("rows and branches cannot be nested")
        conditional, unconditional = zip(*pairs, strict=True)
        try:
            self._branches = {
                CONDITIONAL: self._batch_for(conditional),
                UNCONDITIONAL: self._batch_for(unconditional),
            }
            yield
        finally:
            self._branches = {}

    @contextmanager
    def cache_context(self, name: str, **more: Any) -> Iterator[None]:
        """What diffusers calls around each side of guidance; within `branches` it puts that side's weights on.

        more: what else the pipeline tells caches, such as the number of the step.
        """
        with ExitStack() as entered:
            transformer: Any = self.unet
            entered.enter_context(transformer.cache_context(name, **more))
            if self._branches:
                if name not in self._branches:
                    raise InputError(
                        f"The pipeline asks for a prediction it calls {name!r}; weights can be routed for "
                        f"{CONDITIONAL!r} and {UNCONDITIONAL!r}."
                    )
                entered.enter_context(self._branches[name].installed())
                self._batch = self._branches[name]
                entered.callback(setattr, self, "_batch", None)
            yield

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """The wrapped transformer's forward; its first argument, `hidden_states`, has one row for every Mix."""
        states = arguments[0] if arguments else named["hidden_states"]
        if self._batch is None and self._branches:
            raise InputError(
                "The pipeline does not say which side of guidance it asks for, so its calls cannot be told apart; take "
                "one that uses cache_context, or one that sends both sides in one batch."
            )
        if self._batch is not None and (not isinstance(states, Tensor) or states.shape[0] != self._batch.rows):
            raise ValueError(
                f"the transformer was not called with one row for each of {self._batch.rows} mixes; give one mix for "
                "every row that the pipeline sends"
            )
        return self.unet(*arguments, **named)
