"""The emoji family's jury: a network that trained no adapter and played no person says what is shown and what is wrong.

It is another architecture than the rater (npo_core/emoji/scorer.py), with other seeds and augmentation, and has also
seen art that no picture was trained on. train/emoji/jury.py trains it; its weights lie beside this file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from npo_core.catalog.scenes import Words, read_scene
from npo_core.errors import InputError

WEIGHTS = Path(__file__).parent / "jury.safetensors"
SIDE_PX = 256
WIDTHS = (32, 64, 112, 192, 160)  # at 64x64, 32x32, ... 4x4
AT_ONCE = 128
WORDS = ("concepts", "styles", "backgrounds", "colours", "grounds")  # that prompts are read with


@dataclass(frozen=True)
class Findings:
    """What the jury says of B pictures, as logits. concepts: (B, K), each on its own; clean: (B,); flaws: (B, F)."""

    concepts: Tensor
    clean: Tensor
    flaws: Tensor

    def cpu(self) -> Findings:
        """The same on the CPU."""
        return Findings(self.concepts.cpu(), self.clean.cpu(), self.flaws.cpu())


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, the channels weighed by what the whole picture shows (squeeze and
    excitation, arXiv 1709.01507)."""

    def __init__(self, before: int, width: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(before, width, 3, stride, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.SiLU(),
            nn.Conv2d(width, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
        )
        self.weigh = nn.Sequential(nn.Linear(width, width // 4), nn.SiLU(), nn.Linear(width // 4, width), nn.Sigmoid())
        self.shortcut = nn.Sequential(nn.AvgPool2d(stride), nn.Conv2d(before, width, 1, bias=False))

    def forward(self, features: Tensor) -> Tensor:
        """(B, before, H, W) -> (B, width, H / stride, W / stride)."""
        inside = self.body(features)
        inside = inside * self.weigh(inside.mean((2, 3)))[:, :, None, None]
        return functional.silu(self.shortcut(features) + inside)


class JuryNet(nn.Module):
    """A residual network on 256 px; 1.4 M parameters."""

    def __init__(self, answers: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [
            nn.Conv2d(3, WIDTHS[0], 7, 4, 3, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.SiLU(),
        ]  # fmt: skip
        layers += [
            Block(before, width, 2 if place else 1)
            for place, (before, width) in enumerate(zip((WIDTHS[0], *WIDTHS), WIDTHS, strict=False))
        ]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(2 * WIDTHS[-1], answers)

    def forward(self, pixels: Tensor) -> Tensor:
        """(B, 3, 256, 256) in [-1, 1] -> (B, answers) logits: concepts, clean, flaws."""
        features = self.body(pixels)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        logits: Tensor = self.head(pooled)
        return logits


def to_side(pixels: Tensor) -> Tensor:
    """(B, 3, H, W) in [0, 1] -> (B, 3, 256, 256) in [-1, 1]."""
    if pixels.shape[-2:] != (SIDE_PX, SIDE_PX):
        pixels = functional.interpolate(pixels, (SIDE_PX, SIDE_PX), mode="bilinear", antialias=True)
    return 2 * pixels.float() - 1


class Jury:
    """Looks at pictures. `words.concepts` and `flaws` are the words behind its answers, in their order."""

    def __init__(self, net: JuryNet, words: Words, flaws: Sequence[str]) -> None:
        self.net, self.words, self.flaws = net.eval().requires_grad_(False), words, tuple(flaws)

    def named(self, prompt: str) -> list[int]:
        """The places in the answers of the different things that a prompt names, in its order."""
        names = dict.fromkeys(thing.concept for thing in read_scene(prompt, self.words).things)
        return [self.words.concepts.index(name) for name in names]

    @torch.no_grad()
    def look(self, pixels: Tensor) -> Findings:
        """What is in pixels (B, 3, H, W) in [0, 1] of any size, on the jury's device."""
        parts = []
        for part in pixels.split(AT_ONCE):
            with torch.autocast(part.device.type, torch.float16, enabled=part.device.type == "cuda"):
                parts.append(self.net(to_side(part)).float())
        concepts, clean, flaws = torch.cat(parts).split([len(self.words.concepts), 1, len(self.flaws)], 1)
        return Findings(concepts, clean[:, 0], flaws)


class JuryScorer:
    """The jury in the rater's place, to see whether contenders come out in the same order when it teaches: the
    log-probability that the picture is clean and shows each thing that the prompt names."""

    def __init__(self, jury: Jury) -> None:
        self._jury = jury

    def score(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """(B,) float; things that it does not know count as not named."""
        findings = self._jury.look(to_pixels(images))
        things, clean = functional.logsigmoid(findings.concepts), functional.logsigmoid(findings.clean)
        named = [things[row, self._jury.named(prompt)].sum() for row, prompt in enumerate(prompts)]
        return (clean + torch.stack(named)).numpy()

    def score_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """The same of pixels (B, 3, H, W) in [-1, 1], with gradients to them; the jury goes where they are."""
        logs = functional.logsigmoid(self._jury.net.to(pixels.device)(to_side(pixels / 2 + 0.5)))
        named = [logs[row, self._jury.named(prompt)].sum() for row, prompt in enumerate(prompts)]
        return logs[:, len(self._jury.words.concepts)] + torch.stack(named)


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """(B, 3, H, W) in [0, 1] of pictures of one size."""
    return torch.from_numpy(np.stack([np.asarray(image.convert("RGB")) for image in images])).permute(0, 3, 1, 2) / 255


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
    own = {name: value.shape for name, value in net.state_dict().items() if value.is_floating_point()}
    if own != {name: value.shape for name, value in state.items() if value.ndim}:  # a count has no dimension
        raise InputError(f"The jury at {path} is of another architecture than today's; train it again.")
    net.load_state_dict(state, strict=False)  # the counters of batches are not kept
    words = Words(**{name: tuple(labels[name]) for name in WORDS})
    return Jury(net.to(device), words, labels["flaws"])
