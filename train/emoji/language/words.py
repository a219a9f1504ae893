"""The words of the motions inside the frozen text encoder, and how the base comes to hear them.

A motion adapter hears of the caption only through the features of the frozen UNet, and still pictures give nobody a
reason to tell "sliding left" from "sliding right": the base's text encoder gives them nearly the same states. So before
the adapter is trained, the embeddings of the ten words are moved (textual inversion, arXiv 2208.01618) until the UNet's
own features name the motion, while its prediction stays close to what it was.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from train.emoji.bank import encode_views, token_ids
from train.emoji.drawing.motions import PHRASES
from train.emoji.drawing.views import MOTION_NAMES, captions, draw_views
from train.emoji.training import diffuse

START_APART = 2.0  # how far the words are put apart at first, in standard deviations of all embeddings
LEARNING_RATE = 1e-2
NOISY_FROM = 0.5  # of the schedule: where a course is settled
HELD = 2.0  # weight of the relative change of the prediction against the cross-entropy of naming the motion


class MotionWords:
    """The embeddings of the words of the motions inside a frozen text encoder, to be learned."""

    def __init__(self, text_encoder: Any, tokenizer: Any) -> None:
        self._table = text_encoder.get_input_embeddings()
        self.ids = sorted({token for phrase in PHRASES.values() for token in tokenizer(phrase).input_ids[1:-1]})
        weight = self._table.weight.detach()
        apart = torch.randn(len(self.ids), weight.shape[1], generator=torch.Generator().manual_seed(0))
        self.rows = torch.nn.Parameter(weight[self.ids] + START_APART * weight.std() * apart.to(weight))  # (K, width)
        self._place = torch.full((len(weight),), -1, device=weight.device)  # (V,) token -> row, -1 for other words
        self._place[self.ids] = torch.arange(len(self.ids), device=weight.device)
        self._said = True
        self._hook = self._table.register_forward_hook(lambda _, inputs, output: self._replaced(inputs[0], output))

    def _replaced(self, tokens: Tensor, embedded: Tensor) -> Tensor:
        place = self._place[tokens]
        return torch.where((self._said & (place >= 0))[..., None], self.rows[place.clamp(min=0)], embedded)

    @contextmanager
    def as_they_were(self) -> Iterator[None]:
        """Within this context the encoder reads the words as it did before."""
        self._said = False
        try:
            yield
        finally:
            self._said = True

    def write_back(self) -> None:
        """Makes them part of the text encoder."""
        self._hook.remove()
        with torch.no_grad():
            self._table.weight[self.ids] = self.rows


class _NamedMotions:
    """Linear heads that name the motion at every position of every attention block's output; thrown away after."""

    def __init__(self, unet: Any) -> None:
        blocks = [block for name, block in unet.named_modules() if name.split(".")[-2:-1] == ["attentions"]]
        self._features: dict[int, Tensor] = {}  # by the place in `blocks`: a UNet runs them in another order
        self._hooks = [
            block.register_forward_hook(lambda _, __, output, place=place: self._features.update({place: output[0]}))
            for place, block in enumerate(blocks)
        ]
        self.heads = nn.ModuleList(nn.Conv2d(block.norm.num_channels, len(MOTION_NAMES), 1) for block in blocks)
        self.heads.to(unet.device)

    def told(self) -> list[Tensor]:
        """(N, motions, h, w) of each block, for the UNet's last forward pass."""
        return [head(functional.group_norm(self._features[place], 1)) for place, head in enumerate(self.heads)]

    def remove(self) -> None:
        """Leaves the UNet as it was."""
        for hook in self._hooks:
            hook.remove()


def teach_words(pipeline: Any, words: MotionWords, art: Tensor, steps: int, batch_size: int) -> float:
    """Moves the words until the features of the UNet, at noisy timesteps, name the motion of a caption.

    The pictures are still ones and have nothing to do with the motion, which is drawn for the caption alone: whatever
    names it came from the words. Returns the share named rightly, by all heads together, over the last quarter.
    """
    unet, text, device = pipeline.unet.requires_grad_(False), pipeline.text_encoder, art.device
    rng, chance = np.random.default_rng(21), torch.Generator(device).manual_seed(21)
    alphas, names = pipeline.scheduler.alphas_cumprod.to(device), _NamedMotions(unet)
    optimizer = torch.optim.Adam([words.rows, *names.heads.parameters()], LEARNING_RATE)
    right: list[float] = []
    for step in range(steps):
        views = draw_views(rng.integers(len(art), size=batch_size), rng, scene_share=0)
        motion = rng.integers(len(MOTION_NAMES), size=batch_size)
        tokens = token_ids(pipeline.tokenizer, captions(replace(views, motion=motion), rng)).to(device)
        drawn = NOISY_FROM + (1 - NOISY_FROM) * torch.rand(batch_size, device=device, generator=chance)
        timesteps = (drawn * len(alphas)).long().clamp(max=len(alphas) - 1)
        clean = encode_views(art, pipeline.vae, views).float()
        noisy, _ = diffuse(clean, torch.randn(clean.shape, device=device, generator=chance), alphas[timesteps])
        with torch.no_grad(), words.as_they_were():
            expected = unet(noisy, timesteps, text(tokens)[0]).sample
        change = (unet(noisy, timesteps, text(tokens)[0]).sample - expected).square().mean() / expected.square().mean()
        told, named = names.told(), torch.from_numpy(motion).to(device)
        missed = [functional.cross_entropy(one, named[:, None, None].expand(-1, *one.shape[2:])) for one in told]
        loss = torch.stack(missed).mean() + HELD * change
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        guessed = torch.stack([one.log_softmax(1).mean((2, 3)) for one in told]).mean(0).argmax(1)
        right.append(float((guessed == named).float().mean()))
        if (step + 1) % 20 == 0:
            print(
                f"words {step + 1}/{steps} named {np.mean(right[-20:]):.2f} changed {float(change.detach()):.3f}",
                flush=True,
            )
    names.remove()
    return float(np.mean(right[-max(1, steps // 4) :]))
