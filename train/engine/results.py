"""What a finished run leaves: the adapter in two layouts, its numbers, curves, and a model card that states them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from npo_core.catalog.adapter_files import ADAPTER_FILE_NAME
from npo_core.weights import LowRankWeights, save_adapter
from train.engine.config import OF_PAIRS, TrainConfig
from train.engine.files import in_one_sentence, replacing, write_json, write_text
from train.engine.records import Sources, write_records

COMFYUI_FILE_NAME = "comfyui_lora.safetensors"
CURVES_FILE_NAME = "curves.png"
CARD_FILE_NAME = "README.md"


@dataclass(frozen=True)
class About:
    """What a model card says of how the adapter came about. trained_on: on what, and after which paper; examples: what
    a step sees so many of, "pairs" where there are any."""

    method: str
    trained_on: str
    examples: str = "examples"


def write_results(
    config: TrainConfig,
    about: About,
    facts: dict[str, Any],
    sources: Sources,
    weights: LowRankWeights,
    metrics: dict[str, Any],
    rows: Sequence[dict[str, float]],
) -> Path:
    """All files of a finished run into `config.output_dir`; returns the adapter's. Raises InputError on a full disk."""
    folder = config.output_dir
    with in_one_sentence(folder / ADAPTER_FILE_NAME):
        path = save_adapter(weights, folder)
    save_comfyui(weights, folder)
    write_json(folder / "metrics.json", metrics)
    draw_curves(rows, folder / CURVES_FILE_NAME)
    provenance = write_records(config, facts, sources, path)
    write_text(folder / CARD_FILE_NAME, model_card(config, about, provenance, metrics))
    return path


def save_comfyui(weights: LowRankWeights, folder: Path) -> Path:
    """The same LoRA under the keys that ComfyUI, A1111 and kohya's trainer use: lora_unet_LAYER.lora_down.weight with
    dots turned into underscores, lora_up, and alpha = scale * rank."""
    tensors: dict[str, torch.Tensor] = {}
    for name, layer in weights.layers.items():
        key = f"lora_unet_{name.replace('.', '_')}"
        tensors[f"{key}.lora_down.weight"] = layer.a.detach().cpu().contiguous()
        tensors[f"{key}.lora_up.weight"] = layer.b.detach().cpu().contiguous()
        tensors[f"{key}.alpha"] = torch.tensor(layer.scale * layer.rank)
    file = folder / COMFYUI_FILE_NAME
    with replacing(file) as opened:
        opened.write(save(tensors))  # safetensors' own writing turns a full disk into an error of its own
    return file


def draw_curves(rows: Sequence[dict[str, float]], file: Path) -> None:
    """One panel for each kind of number in metrics.csv, over the steps."""
    names = [name for name in dict.fromkeys(key for row in rows for key in row) if name not in ("step", "pairs_per_s")]
    panels: dict[str, list[str]] = {}
    for name in names:
        panels.setdefault(name.removeprefix("held_out_"), []).append(name)
    if not panels or find_spec("matplotlib") is None:  # a GPU machine may do without; metrics.csv has the numbers
        return
    from matplotlib.figure import Figure  # here: it takes a second to import, and only a finished run draws

    columns = min(3, len(panels))
    figure = Figure(figsize=(4 * columns, 2.6 * -(-len(panels) // columns)), layout="constrained")
    for number, (title, lines) in enumerate(panels.items(), 1):
        axes = figure.add_subplot(-(-len(panels) // columns), columns, number)
        for name in lines:
            points = [(row["step"], row[name]) for row in rows if name in row]
            axes.plot(*zip(*points, strict=True), marker="." if len(points) < 30 else None, label=name)
        axes.set_title(title.replace("_", " "), fontsize=10)
        axes.set_xlabel("step", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(alpha=0.3)
        if len(lines) > 1:
            axes.legend(fontsize=8)
    with replacing(file) as opened:
        figure.savefig(opened, format="png", dpi=110)


def model_card(config: TrainConfig, about: About, provenance: dict[str, Any], metrics: dict[str, Any]) -> str:
    """A model card in the Hub's layout; every number in it is from this run."""
    kind = "negative" if config.role == "negative" else "preference-aligned"
    known = {name: value for name, value in metrics.items() if name != "history" and value is not None}
    numbers = {name.replace("pairs", about.examples): value for name, value in known.items()}
    silent = () if about.examples == "pairs" else OF_PAIRS
    settings = {name: value for name, value in config.as_json().items() if value is not None and name not in silent}
    use = (
        "It answers the negative prompt in classifier-free guidance, in the place of the model itself; it is not meant "
        "to answer a prompt.\n\n"
        "```python\n"
        "pipeline.load_lora_weights(folder)  # on the model that answers the negative prompt\n"
        "```"
        if config.role == "negative"
        else "```python\npipeline.load_lora_weights(folder)\n```"
    )
    return "\n".join(
        [
            "---",
            f"base_model: {provenance['base']}",
            "library_name: diffusers",
            "tags: [lora, diffusion-npo]",
            "---",
            "",
            f"# {about.method} adapter for {config.family}",
            "",
            f"A {kind} LoRA of rank {config.rank}, trained on {about.trained_on}.",
            "",
            use,
            "",
            f"`{COMFYUI_FILE_NAME}` is the same LoRA under the key names of ComfyUI. `provenance.json` lists "
            "what it was trained on, one by one.",
            "",
            "## Numbers of this run",
            "",
            *_rows(numbers, ("metric", "value")),
            "",
            "What is called final is a mean over the last tenth of training; it says whether the adapter learned its "
            f"{about.examples}, not whether pictures are better. `python -m train.evaluate` measures that.",
            "",
            "## Settings",
            "",
            *_rows(settings, ("setting", "value")),
            "",
            *_unit_of_beta(about, provenance),
            f"Base UNet sha256 `{provenance['base_unet_sha256']}`, adapter sha256 `{provenance['adapter_sha256']}`.",
            "",
        ]
    )


def _unit_of_beta(about: About, provenance: dict[str, Any]) -> list[str]:
    """Betas of bases that predict different things cannot be compared (see docs/training.md)."""
    predicts = {"epsilon": "the noise", "v_prediction": "v", "sample": "the picture"}[provenance["prediction_type"]]
    told = f"beta_dpo multiplies errors of {predicts}, which this base predicts; for another kind of base find it anew."
    return [told, ""] if about.examples == "pairs" else []


def _rows(values: dict[str, Any], head: tuple[str, str]) -> list[str]:
    shown = {name: f"{value:.5g}" if isinstance(value, float) else value for name, value in values.items()}
    return [f"| {head[0]} | {head[1]} |", "|---|---|", *(f"| {name} | {value} |" for name, value in shown.items())]
