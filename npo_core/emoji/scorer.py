"""A small judge of emoji pictures: is it what the prompt asked for, and is it well made?

A convolutional net, trained by train/emoji/scorer.py on labelled views, that says which things are there, in what
colour and number each, in which style, before what, and whether anything spoils the picture. It stands where PickScore
or HPS stand for photographs.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from PIL import Image
from safetensors import safe_open
from torch import Tensor, nn
from torch.nn import functional

from npo_core.catalog.scenes import Words, read_scene
from npo_core.emoji import first_scorer

SIDE_PX = 128
MOST = 3  # of one thing in a picture


@dataclass(frozen=True)
class Labels:
    """The words behind each answer, in the order of the net's outputs; colours[0] stands for the art's own colours.
    backdrops are plain ones and then painted ones (`grounds`)."""

    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    backdrops: tuple[str, ...]
    grounds: tuple[str, ...]
    colours: tuple[str, ...]
    flaws: tuple[str, ...]

    @property
    def words(self) -> Words:
        """What prompts are read with."""
        return Words(self.concepts, self.styles, self.backgrounds, self.colours[1:], self.grounds)

    @property
    def backgrounds(self) -> tuple[str, ...]:
        """The backdrops of one colour."""
        return tuple(name for name in self.backdrops if name not in self.grounds)


@dataclass(frozen=True)
class Wanted:
    """What a prompt asks for, as indices into Labels; None where it does not say. number counts from 1.
    things: (concept, colour, number) each."""

    things: tuple[tuple[int, int | None, int], ...]
    style: int | None
    backdrop: int | None


def read_prompt(prompt: str, labels: Labels) -> Wanted:
    """Parse "two dogs next to a red car, 3d style, grass" into places in the labels."""
    scene = read_scene(prompt, labels.words)
    return Wanted(
        tuple(
            (
                labels.concepts.index(thing.concept),
                labels.colours.index(thing.colour) if thing.colour else None,
                min(thing.number, MOST),
            )
            for thing in scene.things
        ),
        labels.styles.index(scene.style) if scene.style else None,
        labels.backdrops.index(scene.backdrop) if scene.backdrop else None,
    )


@dataclass(frozen=True)
class Answers:
    """What the net says of B pictures, all logits. present: (B, concepts). colour: (B, concepts, colours) and number:
    (B, concepts, MOST) of each thing if it is there. style: (B, styles). backdrop: (B, backdrops). clean: (B,).
    flaws: (B, kinds)."""

    present: Tensor
    colour: Tensor
    number: Tensor
    style: Tensor
    backdrop: Tensor
    clean: Tensor
    flaws: Tensor


class ScorerNet(nn.Module):
    """Convolution blocks down to an 8x8 map. Each concept has a map of where it is; its colour and its number are read
    where that map is bright, so that they are this thing's and not its neighbour's."""

    def __init__(self, labels: Labels, widths: Sequence[int] = (32, 64, 128, 192, 256)) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, widths[0], 5, 2, 2), nn.BatchNorm2d(widths[0]), nn.ReLU()]
        for before, after in zip((widths[0], *widths[1:]), (*widths[1:], widths[-1]), strict=True):
            layers += [nn.Conv2d(before, after, 3, 1, 1), nn.BatchNorm2d(after), nn.ReLU()]
            if after != widths[-1]:
                layers.append(nn.MaxPool2d(2))
        self.body = nn.Sequential(*layers)
        concepts = len(labels.concepts)
        self.where = nn.Conv2d(widths[-1], concepts, 1)
        self.what = nn.Conv2d(widths[-1], len(labels.colours) + MOST, 1)
        self.bias = nn.Parameter(torch.full((concepts,), -10.0))
        self.counted = nn.Parameter(torch.zeros(MOST))
        self.sizes = [len(labels.styles), len(labels.backdrops), 1, len(labels.flaws)]
        self.head = nn.Linear(2 * widths[-1], sum(self.sizes))
        self.colours = len(labels.colours)

    def forward(self, pixels: Tensor) -> Answers:
        """(B, 3, 128, 128) in [-1, 1]."""
        features = self.body(pixels)  # (B, C, 8, 8)
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        style, backdrop, clean, flaws = self.head(pooled).split(self.sizes, 1)
        where = self.where(features).flatten(2).float()  # (B, concepts, 64)
        looking = where.softmax(2)
        seen = torch.einsum("bkp,bap->bka", looking, self.what(features).flatten(2).float())  # (B, concepts, answers)
        spread = torch.sigmoid(where).sum(2, keepdim=True) * self.counted  # much of it: many
        return Answers(
            where.logsumexp(2) + self.bias,
            seen[..., : self.colours],
            seen[..., self.colours :] + spread,
            style,
            backdrop,
            clean[:, 0],
            flaws,
        )


def to_pixels(images: Sequence[Image.Image]) -> Tensor:
    """PIL pictures of any size -> (B, 3, 128, 128) float32 in [-1, 1]."""
    small = [np.asarray(image.convert("RGB").resize((SIDE_PX, SIDE_PX), Image.Resampling.BOX)) for image in images]
    return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float() / 127.5 - 1


class Scorer:
    """Judges pictures against prompts. A prompt without any known thing counts as never recognised."""

    def __init__(self, net: ScorerNet, labels: Labels) -> None:
        self.net, self.labels = net.eval(), labels

    @torch.no_grad()
    def answers(self, images: Sequence[Image.Image]) -> Answers:
        """Of pictures of any size."""
        parts = [self.net(to_pixels(images[i : i + 64])) for i in range(0, len(images), 64)]
        return Answers(**{name: torch.cat([getattr(part, name) for part in parts]) for name in vars(parts[0])})

    def _wanted(self, answers: Answers, prompts: Sequence[str]) -> Tensor:
        """(B,) the log-probability of all that each prompt names, of no other thing, and of clean."""
        present, clean = functional.logsigmoid(answers.present), functional.logsigmoid(answers.clean)
        colour, number = answers.colour.log_softmax(2), answers.number.log_softmax(2)
        style, backdrop = answers.style.log_softmax(1), answers.backdrop.log_softmax(1)
        rows = []
        for row, prompt in enumerate(prompts):
            wanted = read_prompt(prompt, self.labels)
            score = clean[row] + backdrop[row, wanted.backdrop or 0]
            if wanted.style is not None:
                score = score + style[row, wanted.style]
            if wanted.things:
                named = torch.tensor([concept for concept, _, _ in wanted.things], device=present.device)
                others = answers.present[row].index_fill(0, named, -torch.inf)
                score = score + functional.logsigmoid(-others.max())
            for concept, hue, many in wanted.things:
                score = score + present[row, concept] + number[row, concept, many - 1]
                if hue is not None:
                    score = score + colour[row, concept, hue]
            rows.append(score)
        return torch.stack(rows)

    def top1(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """(B,) bool: are the likeliest concepts, as many as the prompt names, those that it names?"""
        present, right = self.answers(images).present, []
        for row, prompt in enumerate(prompts):
            named = {concept for concept, _, _ in read_prompt(prompt, self.labels).things}
            best = present[row].topk(min(len(named), present.shape[1])).indices.tolist()
            right.append(bool(named) and named == set(best))
        return np.array(right)

    def log_probability(self, images: Sequence[Image.Image], prompts: Sequence[str]) -> np.ndarray:
        """(B,) natural-log probability that the picture is clean and shows what its prompt names, nothing else."""
        return self._wanted(self.answers(images), prompts).numpy()

    @torch.no_grad()
    def clean_logit(self, pixels: Tensor) -> Tensor:
        """(B,) how sure it is that pixels (B, 3, H, W) in [-1, 1] are clean, whatever they show."""
        return self._answers_of_pixels(pixels).clean

    def log_probability_of_pixels(self, pixels: Tensor, prompts: Sequence[str]) -> Tensor:
        """The same from pixels (B, 3, H, W) in [-1, 1], with gradients to them; the net follows to their device."""
        return self._wanted(self._answers_of_pixels(pixels), prompts)

    def _answers_of_pixels(self, pixels: Tensor) -> Answers:
        small = functional.interpolate(pixels.float(), size=(SIDE_PX, SIDE_PX), mode="area")
        answers: Answers = self.net.to(pixels.device)(small)
        return answers


def header_of(labels: Labels) -> dict[str, str]:
    """The metadata of a scorer's file from which `load_scorer` builds the net."""
    return {"edition": "2", "labels": json.dumps(asdict(labels))}


def load_scorer(path: str | Path) -> Scorer:
    """Read a scorer that train/emoji/scorer.py wrote (safetensors; the labels are in its metadata)."""
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
        state = {name: file.get_tensor(name).float() for name in file.keys()}  # noqa: SIM118 - not a dict
    if metadata.get("edition") != "2":
        return cast(Scorer, first_scorer.load_scorer(path))  # asked in the same way
    labels = Labels(**{name: tuple(words) for name, words in json.loads(metadata["labels"]).items()})
    net = ScorerNet(labels)
    net.load_state_dict(state, strict=False)  # the count of batches in each normalisation is not kept
    return Scorer(net, labels)
