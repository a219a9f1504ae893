"""Train the judge of emoji pictures on labelled views.

    python -m train.emoji.scorer --steps 3000 --export npo_core/emoji          # resumes where it stopped

A share of each batch has gone through the autoencoder and back, with a little noise on its latents, so that the judge
does not mind what an autoencoder does to a picture.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from npo_core.emoji.scorer import MOST, SIDE_PX, Answers, Labels, ScorerNet, header_of
from train.emoji.drawing.art import load_art
from train.emoji.drawing.concepts import BACKDROPS, COLOURS, GROUNDS, STYLES, concepts
from train.emoji.drawing.flaws import FLAW_NAMES
from train.emoji.drawing.render import SIZE_PX, render
from train.emoji.drawing.views import CLEAN, SLOTS, Views, draw_views
from train.emoji.training import native_precision, write_whole
from train.emoji.vae import encode

LABELS = Labels(
    concepts=tuple(concepts()),
    styles=STYLES,
    backdrops=BACKDROPS,
    grounds=tuple(GROUNDS),
    colours=("own", *COLOURS),
    flaws=FLAW_NAMES,
)
PRESENCE_WEIGHT = 100.0  # of the mean over all concepts, of which one or two are there
VAE_SHARE = 4  # every so many-th picture
LATENT_NOISE = 0.15
PEAK_RATE = 3e-3
SAVED_EVERY = 500
MEASURED_VIEWS = 2048


@dataclass(frozen=True)
class Truth:
    """What N views show. present: (N, concepts) float. thing, colour, number: (N, SLOTS), of each kind once, thing -1
    where there is none. style, backdrop: (N,). clean: (N,) float. flaws: (N, kinds) float."""

    present: Tensor
    thing: Tensor
    colour: Tensor
    number: Tensor
    style: Tensor
    backdrop: Tensor
    clean: Tensor
    flaws: Tensor


def truth_of(views: Views, device: torch.device) -> Truth:
    """The labels of the views."""
    concept = views.concept
    present = np.zeros((len(views), len(LABELS.concepts)), np.float32)
    for slot in range(SLOTS):
        rows = concept[:, slot] >= 0
        present[rows, concept[rows, slot]] = 1
    number = (concept[:, :, None] == concept[:, None, :]).sum(2)  # (N, SLOTS)
    again = np.column_stack([(concept[:, :slot] == concept[:, slot : slot + 1]).any(1) for slot in range(SLOTS)])
    flaws = views.flaw[:, None] == np.arange(len(FLAW_NAMES))
    columns: list[np.ndarray] = [present, np.where(again, -1, concept), views.colour + 1, number.clip(1, MOST) - 1]
    columns += [views.style, views.background, (views.flaw == CLEAN).astype(np.float32), flaws.astype(np.float32)]
    return Truth(*(torch.from_numpy(np.ascontiguousarray(values)).to(device) for values in columns))


@torch.no_grad()
def draw_batch(art: Tensor, vae: Any, views: Views, rng: np.random.Generator) -> Tensor:
    """(N, 3, 128, 128) in [-1, 1]; every VAE_SHARE-th picture has been through the autoencoder."""
    images = 2 * render(art, views) - 1
    with native_precision(art.device):
        latents = encode(vae, images[::VAE_SHARE]).float()
        noise = torch.from_numpy(rng.standard_normal(latents.shape, np.float32)).to(art.device)
        latents += LATENT_NOISE * rng.random() * noise / vae.config.scaling_factor
        images[::VAE_SHARE] = vae.decode(latents).sample.float().clamp(-1, 1)
    return functional.avg_pool2d(images, SIZE_PX // SIDE_PX)


def _of_things(answers: Tensor, truth: Truth) -> tuple[Tensor, Tensor, Tensor]:
    """(logits (M, choices), rows (M,), slots (M,)) of all things that are there."""
    rows, slots = torch.nonzero(truth.thing >= 0, as_tuple=True)
    return answers[rows, truth.thing[rows, slots]], rows, slots


def loss_of(answers: Answers, truth: Truth) -> Tensor:
    """Cross entropies of all answers."""
    loss = PRESENCE_WEIGHT * functional.binary_cross_entropy_with_logits(answers.present.float(), truth.present)
    for told, right in ((answers.colour, truth.colour), (answers.number, truth.number)):
        logits, rows, slots = _of_things(told, truth)
        loss = loss + functional.cross_entropy(logits.float(), right[rows, slots])
    loss = loss + functional.cross_entropy(answers.style.float(), truth.style)
    loss = loss + functional.cross_entropy(answers.backdrop.float(), truth.backdrop)
    loss = loss + functional.binary_cross_entropy_with_logits(answers.clean.float(), truth.clean)
    return loss + len(FLAW_NAMES) * functional.binary_cross_entropy_with_logits(answers.flaws.float(), truth.flaws) / 2


def measure(answers: Answers, truth: Truth) -> dict[str, float]:
    """Accuracies: of what is shown on clean views, of the things on spoiled ones, of clean itself, by kind of flaw."""
    count = truth.present.sum(1)
    ranked = answers.present.argsort(1, descending=True)
    hits = truth.present.gather(1, ranked[:, :2])
    right = torch.where(count == 1, hits[:, 0] == 1, hits.sum(1) == 2)
    clean = truth.clean == 1
    shares = {
        "single things, clean views": right[clean & (count == 1)],
        "both things, clean views": right[clean & (count == 2)],
        "single things, spoiled views": right[~clean & (count == 1)],
        "both things, spoiled views": right[~clean & (count == 2)],
        "styles, clean views": (answers.style.argmax(1) == truth.style)[clean],
        "backdrops, clean views": (answers.backdrop.argmax(1) == truth.backdrop)[clean],
        "clean": (answers.clean > 0) == clean,
    }
    for name, told, truths in (("colours", answers.colour, truth.colour), ("numbers", answers.number, truth.number)):
        logits, rows, slots = _of_things(told, truth)
        shares[f"{name}, clean views"] = (logits.argmax(1) == truths[rows, slots])[clean[rows]]
    for kind, name in enumerate(FLAW_NAMES):
        shares[f"{name} seen"] = (answers.clean < 0)[truth.flaws[:, kind] == 1]
        shares[f"{name} named"] = (answers.flaws.argmax(1) == kind)[truth.flaws[:, kind] == 1]
    return {name: round(float(each.float().mean()), 4) for name, each in shares.items() if len(each)}


class ScorerTrainer:
    """The net and how to train it one step further; one file on disk."""

    def __init__(self, art: Tensor, vae: Any, file: Path, steps: int, batch_size: int) -> None:
        self.art, self.vae, self.file, self.steps, self.batch_size = art, vae, file, steps, batch_size
        torch.manual_seed(0)
        self.net = ScorerNet(LABELS).to(art.device)
        self.optimizer = torch.optim.AdamW(self.net.parameters(), lr=PEAK_RATE, weight_decay=0.02)
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(self.optimizer, PEAK_RATE, total_steps=steps)
        self.done = 0

    def step(self) -> float:
        """One step of AdamW on the batch of this step's number; the loss."""
        rng = np.random.default_rng((13, self.done))
        views = draw_views(rng.integers(len(self.art), size=self.batch_size), rng)
        pixels = draw_batch(self.art, self.vae, views, rng)
        with native_precision(self.art.device):
            answers = self.net(pixels)
        loss = loss_of(answers, truth_of(views, self.art.device))
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.net.parameters(), 5.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.schedule.step()
        self.done += 1
        return float(loss.detach())

    def to_the_end(self) -> dict[str, float]:
        """All steps that are left, saved now and then; then what fresh views say of the net."""
        while self.done < self.steps:
            loss = self.step()
            if self.done % 100 == 0:
                print(f"step {self.done}/{self.steps} loss {loss:.3f}", flush=True)
            if self.done % SAVED_EVERY == 0 or self.done == self.steps:
                self.save()
        return measure_net(self.net.eval(), self.art, self.vae, MEASURED_VIEWS)

    def save(self) -> None:
        """Keeps everything that `resume` needs."""
        state = {
            "net": self.net.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "done": self.done,
        }
        write_whole(self.file, state)

    def resume(self) -> None:
        """Goes on where the file stopped, if there is one."""
        if not self.file.exists():
            return
        state: dict[str, Any] = torch.load(self.file, map_location=self.art.device, weights_only=True)
        self.net.load_state_dict(state["net"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.done = state["done"]


@torch.no_grad()
def measure_net(net: ScorerNet, art: Tensor, vae: Any, measured_views: int) -> dict[str, float]:
    """`measure` on views that no training step drew."""
    rng, answers, truths = np.random.default_rng(1), [], []
    for part in np.array_split(rng.integers(len(art), size=measured_views), -(-measured_views // 128)):
        views = draw_views(part, rng)
        answers.append(net(draw_batch(art, vae, views, rng)))
        truths.append(truth_of(views, art.device))
    together = ({name: torch.cat([getattr(one, name) for one in each]) for name in vars(each[0])}
                for each in (answers, truths))  # fmt: skip
    return measure(Answers(**next(together)), Truth(**next(together)))


def save(net: ScorerNet, metrics: dict[str, float], file: Path) -> None:
    """Float16 weights with the labels and the measured accuracies in the header, as `load_scorer` reads them."""
    state = {name: value.half().contiguous() for name, value in net.state_dict().items() if value.is_floating_point()}
    file.parent.mkdir(parents=True, exist_ok=True)
    save_file(state, file, {**header_of(LABELS), "metrics": json.dumps(metrics)})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--art", type=Path, default=Path("data/emoji/art.npz"))
    parser.add_argument("--vae", type=Path, default=Path("npo_core/emoji/vae"))
    parser.add_argument("--work", type=Path, default=Path("data/emoji"))
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--batch-size", type=int, default=192)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--export", type=Path, help="write scorer.safetensors here")
    arguments = parser.parse_args()
    art = load_art(arguments.art, arguments.device)
    vae: Any = AutoencoderKL.from_pretrained(arguments.vae).to(arguments.device)
    trainer = ScorerTrainer(art, vae, arguments.work / "scorer.pt", arguments.steps, arguments.batch_size)
    trainer.resume()
    metrics = trainer.to_the_end()
    print(json.dumps(metrics, indent=1))
    if arguments.export:
        save(trainer.net, metrics, arguments.export / "scorer.safetensors")


if __name__ == "__main__":
    main()
