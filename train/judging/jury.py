"""The emoji family's jury: a network that trained no adapter and played no person says what is shown and what is wrong.

It is another architecture than the rater (npo_core/emoji/scorer.py), with other seeds and augmentation, and has also
seen art that no picture was trained on. train/emoji/jury.py trains it; its weights lie beside this file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from npo_core.catalog.nouns import singulars
from npo_core.errors import InputError

WEIGHTS = Path(__file__).parent / "jury.safetensors"
SIDE_PX = 256
WIDTHS, DEPTHS = (40, 80, 144, 200), (2, 2, 4, 1)
AT_ONCE = 128
MAX_WORDS = 4  # of a concept's name
COLOUR_CONCEPTS = ("orange",)  # colours that are things as well


@dataclass(frozen=True)
class Findings:
    """What the jury says of B pictures, as logits. concepts: (B, K), each on its own; clean: (B,); flaws: (B, F)."""

    concepts: Tensor
    clean: Tensor
    flaws: Tensor


def named_concepts(prompt: str, concepts: Sequence[str]) -> list[int]:
    """The places in `concepts` of the different things that a prompt names, in its order: the longest name at each
    word, singular or plural. A colour before a thing is no thing ("an orange cat" names the cat alone)."""
    words = re.findall(r"[\w'-]+", prompt.lower())
    places = {name: place for place, name in enumerate(concepts)}
    found: list[tuple[int, int, str]] = []  # first word, one after the last, name
    first = 0
    while first < len(words):
        for last in range(min(len(words), first + MAX_WORDS), first, -1):
            *before, noun = words[first:last]
            names = [name for form in singulars(noun) if (name := " ".join([*before, form])) in places]
            exact = " ".join(words[first:last])
            if names:
                found.append((first, last, exact if exact in places else names[0]))
                first = last - 1
                break
        first += 1
    starts = {start for start, _, _ in found}
    named = [name for _, end, name in found if not (name in COLOUR_CONCEPTS and end in starts)]
    return [places[name] for name in dict.fromkeys(named)]


class Block(nn.Module):
    """ConvNeXt's (arXiv 2201.03545): a depthwise 7x7 convolution, then two layers at every position."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, features: Tensor) -> Tensor:
        """(B, width, H, W) -> the same."""
        inside = self.norm(self.spread(features).permute(0, 2, 3, 1))
        inside = self.scale * self.narrow(functional.gelu(self.wide(inside)))
        return features + inside.permute(0, 3, 1, 2)


class JuryNet(nn.Module):
    """Patches of 4x4, four stages, and one linear layer for all answers; 1.4 M parameters."""

    def __init__(self, answers: int, widths: Sequence[int] = WIDTHS, depths: Sequence[int] = DEPTHS) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width, depth in zip((3, *widths), widths, depths, strict=False):
            side = 4 if before == 3 else 2
            layers += [nn.Conv2d(before, width, side, side), nn.GroupNorm(1, width)]
            layers += [Block(width) for _ in range(depth)]
        self.body = nn.Sequential(*layers)
        self.norm = nn.LayerNorm(2 * widths[-1])
        self.head = nn.Linear(2 * widths[-1], answers)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, 256, 256) in [-1, 1] -> (B, answers) logits: concepts, clean, flaws."""
        features = self.body(pixels)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        logits: Tensor = self.head(self.norm(pooled))
        return logits


def to_side(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 3, 256, 256) in [-1, 1]."""
    if pixels.shape[-2:] != (SIDE_PX, SIDE_PX):
        pixels = functional.interpolate(pixels, (SIDE_PX, SIDE_PX), mode="bilinear", antialias=True)
    return 2 * pixels.float() - 1


class Jury:
    """Looks at pictures. `concepts` and `flaws` are the words behind its answers, in their order."""

    def __init__(self, net: JuryNet, concepts: Sequence[str], flaws: Sequence[str]) -> None:
        self.net, self.concepts, self.flaws = net.eval().requires_grad_(False), tuple(concepts), tuple(flaws)

    @torch.no_grad()
    def look(self, pixels: Tensor) -> Findings:
        """What is in pixels (B, 3, H, W) in [0, 1] of any size, on the jury's device."""
        parts = []
        for part in pixels.split(AT_ONCE):
            with torch.autocast(part.device.type, torch.float16, enabled=part.device.type == "cuda"):
                parts.append(self.net(to_side(part)).float())
        concepts, clean, flaws = torch.cat(parts).split([len(self.concepts), 1, len(self.flaws)], 1)
        return Findings(concepts, clean[:, 0], flaws)


def load_jury(path: Path = WEIGHTS, device: torch.device | str = "cpu") -> Jury:
    """The jury that train.emoji.jury wrote to `path`; raises InputError when there is none."""
    if not path.is_file():
        raise InputError(
            f"There is no jury at {path}; train one with `python -m train.emoji.jury --export {path.parent}`."
        )
    with safe_open(path, "pt") as file:
        labels = json.loads(file.metadata()["labels"])
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
    net = JuryNet(len(state["head.bias"]))
    net.load_state_dict(state)
    return Jury(net.to(device), labels["concepts"], labels["flaws"])
