"""The judge of the family's first edition (128 px, one thing a picture), read until its weights are replaced.

A convolutional net with five answers (concept, style, background, colour, clean or spoiled).
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn
from torch.nn import functional

SIDE_PX = 64


@dataclass(frozen=True)
class Labels:
    """The words behind each answer, in the order of the net's outputs; colours[0] stands for the art's own colours."""

    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    backgrounds: tuple[str, ...]
    colours: tuple[str, ...]


@dataclass(frozen=True)
class Wanted:
    """What a prompt asks for, as indices into Labels; None where it does not say."""

    concept: int | None
    style: int | None
    background: int | None
    colour: int | None


def read_prompt(prompt: str, labels: Labels) -> Wanted:
    """Parse "a red cat, 3d style, blue background". The last concept of the first part is the noun ("orange cat")."""
    text = prompt.lower()
    background = _first(rf"\b({'|'.join(labels.backgrounds)}) background", text, labels.backgrounds)
    style = _first(rf"\b({'|'.join(labels.styles)}) style", text, labels.styles)
    subject = re.split(r",| on an? ", text)[0]
    found = [
        (match.end(), len(name), index, match.start())
        for index, name in enumerate(labels.concepts)
        for match in re.finditer(rf"(?<![\w-]){re.escape(name)}(?![\w-])", subject)
    ]
    if not found:
        return Wanted(None, style, background, None)
    _, _, concept, start = max(found)
    colour = _first(rf"\b({'|'.join(labels.colours[1:])})\b", subject[:start], labels.colours)
    return Wanted(concept, style, background, colour)


def _first(pattern: str, text: str, names: tuple[str, ...]) -> int | None:
    match = re.search(pattern, text)
    return names.index(match.group(1)) if match else None


class ScorerNet(nn.Module):
    """Five stride-2 convolution blocks and one linear layer for all answers."""

    def __init__(self, answers: int, widths: Sequence[int] = (32, 64, 128, 192)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 5, 2, 2), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in zip((widths[0], *widths), (*widths, widths[-1]), strict=True):
            layers += [nn.Conv2d(before, after, 3, 1, 1), nn.BatchNorm2d(after), nn.ReLU()]
            if after != before:
                layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * widths[-1], answers)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B, 3, 64, 64) in [-1, 1] -> (B, answers) logits, all answers side by side."""
        features = self.body(pixels)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        logits: torch.Tensor = self.head(pooled)
        return logits


def to_pixels(images: Sequence[Image.Image]) -> torch.Tensor:
    """PIL pictures of any size -> (B, 3, 64, 64) float32 in [-1, 1]."""
    small = [np.asarray(image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)) for image in images]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 127.5 - 1


class Scorer:
    """Judges pictures against prompts. Unknown concepts count as never recognised."""

    def __init__(self, net: ScorerNet, labels: Labels) -> None:
        self.net, self.labels = net.eval(), labels

    @torch.no_grad()
    def _answers(self, images: Sequence[Image.Image]) -> list[torch.Tensor]:
        """The answers to pictures of any size; see `_split`."""
        return self._split(torch.cat([self.net(to_pixels(images[i : i + 64])) for i in range(0, len(images), 64)]))

    def _split(self, logits: torch.Tensor) -> list[torch.Tensor]:
        """Log-probabilities per answer: [(B, concepts), (B, styles), (B, backgrounds), (B, colours), (B,) clean]."""
        words = (self.labels.concepts, self.labels.styles, self.labels.backgrounds, self.labels.colours)
        parts = logits.float().split([*map(len, words), 1], 1)
        return [*(functional.log_softmax(part, 1) for part in parts[:-1]), functional.logsigmoid(parts[-1][:, 0])]

    def _wanted(self, answers: list[torch.Tensor], prompts: Sequence[str]) -> torch.Tensor:
        """(B,) the log-probability of all that each prompt names, and of clean."""
        *named, clean = answers
        rows = []
        for row, prompt in enumerate(prompts):
            wanted = read_prompt(prompt, self.labels)
            indices = (wanted.concept, wanted.style, wanted.background or 0, wanted.colour)
            parts = [answer[row, index] for answer, index in zip(named, indices, strict=True) if index is not None]
            rows.append(sum(parts, clean[row]))
        return torch.stack(rows)

    def top1(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """(B,) bool: is the likeliest concept the one that the prompt names?"""
        best = self._answers(images)[0].argmax(1).tolist()
        wanted = [read_prompt(prompt, self.labels).concept for prompt in prompts]
        return np.array([got == want for got, want in zip(best, wanted, strict=True)])

    def log_probability(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """(B,) natural-log probability that the picture is clean and shows all that its prompt names."""
        return self._wanted(self._answers(images), prompts).numpy()

    @torch.no_grad()
    def clean_logit(self, pixels: torch.Tensor) -> torch.Tensor:
        """(B,) how sure it is that pixels (B, 3, H, W) in [-1, 1] are clean, whatever they show; see `ScorerNet`."""
        small = functional.interpolate(pixels.float(), size=(SIDE_PX, SIDE_PX), mode="area")
        logits: torch.Tensor = self.net.to(pixels.device)(small)
        return logits[:, -1]

    def log_probability_of_pixels(self, pixels: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        """The same from pixels (B, 3, H, W) in [-1, 1], with gradients to them; the net follows to their device."""
        small = functional.interpolate(pixels.float(), size=(SIDE_PX, SIDE_PX), mode="area")
        return self._wanted(self._split(self.net.to(pixels.device)(small)), prompts)


def load_scorer(path: str | Path) -> Scorer:
    """Read a scorer that train/emoji/scorer.py wrote (safetensors; the labels are in its metadata)."""
    with safe_open(path, "pt") as file:
        labels = Labels(**{name: tuple(words) for name, words in json.loads(file.metadata()["labels"]).items()})
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
    net = ScorerNet(state["head.bias"].numel())
    net.load_state_dict(state, strict=False)
    return Scorer(net, labels)
