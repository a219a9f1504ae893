"""The engine behind every trainer here: an objective in, a LoRA out.

    result = train_adapter(TrainConfig(family="emoji", output_dir=Path("out")), pairs)

Runs on the CPU, on one GPU, or on N with `accelerate launch -m train.npo ...`. The reference is the same UNet with its
LoRA switched off; latents are used as they were stored, so no VAE is needed; every distinct prompt is encoded once.
What a step sees depends on the seed and its number only (see draws.py), so an interrupted run that is resumed ends with
the very bytes of an uninterrupted one (on the CPU; GPU kernels are not bitwise repeatable).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch

from npo_core.catalog.families import ModelFamily, get_family
from npo_core.errors import InputError
from npo_core.sampling.pipelines import build_clip_pipeline, is_of_clips, load_pipeline
from npo_core.weights import AdapterWeights
from train.engine.accelerator import make_accelerator, set_checkpointing
from train.engine.config import METHODS, TrainConfig, check_config, check_early_stop
from train.engine.records import Sources, prepare_folder
from train.engine.results import About
from train.engine.run import Run
from train.engine.task import OnStep, Task, TrainResult
from train.engine.validation import HeldOut, Validator, on_its_branch
from train.network.models import Exchange, base_name, borrowed_weights, fast_attention, trainable_lora
from train.network.policy import Network, PromptTable, encode_prompts, hash_weights, samples_with_zeros
from train.objectives.objective import Objective
from train.objectives.preference import GuidedObjective, PreferenceObjective
from train.objectives.reference import ReferenceErrors, reference_key
from train.pairs.pairs import PreferencePair, hash_pairs, sources_of


def train_adapter(
    config: TrainConfig,
    pairs: Sequence[PreferencePair],
    pipeline: Any = None,
    on_step: OnStep | None = None,
    *,
    held_out: Sequence[PreferencePair] = (),
    validators: Sequence[Validator] = (),
    aligned: AdapterWeights | None = None,
    more_facts: Mapping[str, str] = MappingProxyType({}),
) -> TrainResult:
    """Trains a LoRA that makes each pair's preferred picture likelier and its rejected one less likely.

    For a negative model give `reverse_pairs(pairs)`; with `config.through_guidance` the pairs as given, and `aligned`.
    `pipeline` is a loaded base (left as it was), or a family whose base to load; None stands for the family that
    `config` names. `held_out` pairs, in the same order, and `validators` are asked every `config.validate_every` steps.
    `more_facts` join the records: what `aligned` is, say.
    Writes pytorch_lora_weights.safetensors, comfyui_lora.safetensors, config.json, metrics.json, metrics.csv,
    provenance.json, curves.png and a model card README.md into `config.output_dir`, and checkpoint.pt while it runs.
    Raises InputError for settings out of range, pairs that do not fit the model and a checkpoint of another run, and
    when the loss is no longer a number.
    """
    check_config(config)
    check_early_stop(config, len(held_out))
    if config.through_guidance is not None and aligned is None:
        raise InputError("Training through guidance needs the aligned model; choose a family that has one.")
    loaded = _loaded(config, pipeline)
    check_pairs([*pairs, *held_out], loaded)
    size_px = _size_px(pairs[0].preferred.shape, loaded)

    def prepare(device: torch.device) -> PromptTable:
        texts = [pair.prompt for pair in (*pairs, *held_out)]
        return encode_prompts(loaded, texts, device, size_px, config.cache_dir)

    kind = PreferenceObjective if config.through_guidance is None else GuidedObjective
    facts = {"pairs_sha256": hash_pairs(pairs), **more_facts}
    run_facts = base_facts(loaded)
    watched: list[Validator] = list(validators)

    def make(network: Network) -> Objective:
        table = prepare(network.device)
        shared = _shared_errors(config, run_facts, pairs, network)
        if held_out and config.validate_every:
            watched.append(HeldOut(kind(on_its_branch(config), held_out, table, network), len(held_out)))
        return kind(config, pairs, table, network, shared)

    sources = Sources(sources_of(pairs), sources_of(held_out))
    task = Task(make, len(pairs), sources, {**run_facts, **facts}, _about(config, pairs))
    return _train(config, task, loaded, watched, on_step, aligned)


def train_objective(
    config: TrainConfig,
    task: Task,
    pipeline: Any = None,
    on_step: OnStep | None = None,
    *,
    validators: Sequence[Validator] = (),
    aligned: AdapterWeights | None = None,
) -> TrainResult:
    """Trains a LoRA by an objective of its own; otherwise as `train_adapter`."""
    check_config(config)
    if config.early_stop is not None:
        raise InputError("An early stop goes by held-out pairs and this training has no pairs; leave it out.")
    loaded = _loaded(config, pipeline)
    task = replace(task, facts={**base_facts(loaded), **task.facts})
    return _train(config, task, loaded, list(validators), on_step, aligned)


def base_facts(pipeline: Any) -> dict[str, Any]:
    """What the records say of the base. empty_prompt is there for SDXL alone, whose runs once encoded it."""
    predicts = pipeline.scheduler.config.get("prediction_type", "epsilon")
    facts = {"base": base_name(pipeline), "base_unet_sha256": hash_weights(pipeline.unet), "prediction_type": predicts}
    return {**facts, "empty_prompt": "zeros"} if samples_with_zeros(pipeline) else facts


def _loaded(config: TrainConfig, pipeline: Any) -> Any:
    if pipeline is None:
        pipeline = get_family(config.family)
    if not isinstance(pipeline, ModelFamily):
        return pipeline
    loaded = load_pipeline(pipeline)
    return loaded if config.modality == "image" else build_clip_pipeline(loaded, pipeline)


def _about(config: TrainConfig, pairs: Sequence[PreferencePair]) -> About:
    """Several votes may stand behind a pair, and none behind one from a data set or a scorer."""
    votes = sum(len(pair.votes) for pair in pairs)
    spoken = f" from {votes} {'vote' if votes == 1 else 'votes'}" if votes else ""
    counted = f"{len(pairs)} preference {'pair' if len(pairs) == 1 else 'pairs'}"
    if config.both_signs:
        return About("Diff-SNPO", f"{counted}{spoken}, exchanged without the prompt (Diff-SNPO, ICLR 2026)", "pairs")
    paper = "Diffusion-NPO, arXiv 2505.11245" if config.role == "negative" else "Diffusion-DPO, arXiv 2311.12908"
    return About(METHODS[config.role], f"{counted}{spoken} ({paper})", "pairs")


def _size_px(shape: tuple[int, ...], pipeline: Any) -> tuple[int, int]:
    """Height and width of the pictures behind latents (..., H, W)."""
    scale = 2 ** (len(pipeline.vae.config.block_out_channels) - 1)
    return shape[-2] * scale, shape[-1] * scale


def _shared_errors(
    config: TrainConfig, facts: dict[str, Any], pairs: Sequence[PreferencePair], network: Network
) -> ReferenceErrors | None:
    if not config.share_reference or config.through_guidance is not None or config.cache_dir is None:
        return None
    key = reference_key(config, facts, pairs, network.processes)
    file = config.cache_dir / "reference" / f"{key}.f32"
    return ReferenceErrors(file, pairs, config.max_train_steps * config.batch_size)


def _train(
    config: TrainConfig,
    task: Task,
    pipeline: Any,
    validators: list[Validator],
    on_step: OnStep | None,
    aligned: AdapterWeights | None,
) -> TrainResult:
    """Through guidance the base is theta + alpha*eta, of `aligned`, and the LoRA runs at the strength beta."""
    prepare_folder(config.output_dir)
    accelerator = make_accelerator(config)
    unet, checkpointing = pipeline.unet, pipeline.unet.is_gradient_checkpointing
    alpha = config.rank if config.lora_alpha is None else config.lora_alpha
    try:
        with ExitStack() as stack:
            conditional = None
            if config.through_guidance is not None and aligned is not None:
                conditional = None if config.alpha == 1 else Exchange(unet, aligned)
                stack.enter_context(Exchange(unet, aligned, config.alpha).made())
            stack.enter_context(borrowed_weights(unet, accelerator.device, config.mixed_precision))
            weights = stack.enter_context(
                trainable_lora(unet, config.rank, alpha * config.strength, config.targets, config.seed)
            )
            stack.enter_context(fast_attention(accelerator.device, config.mixed_precision))
            return Run(config, task, pipeline, accelerator, weights, validators, conditional).to_the_end(on_step)
    finally:
        set_checkpointing(unet, checkpointing)
        unet._compiled_call_impl = None


def check_pairs(pairs: Sequence[PreferencePair], pipeline: Any) -> None:
    """Raises InputError unless there are pairs, all of one size and with the channels of the base."""
    if not pairs:
        raise InputError("There are no preference pairs to train on; collect some picks first.")
    channels = pipeline.unet.config.in_channels
    shape = pairs[0].preferred.shape
    wanted = ("frames", channels, "height", "width") if is_of_clips(pipeline) else (channels, "height", "width")
    if len(shape) != len(wanted) or shape[-3] != channels:
        wants = ", ".join(map(str, wanted))
        raise InputError(f"The latents of {pairs[0].source} are {shape}; this base wants ({wants}).")
    for pair in pairs:
        if pair.preferred.shape != shape or pair.rejected.shape != shape:
            raise InputError(
                f"The latents of {pair.source} are {pair.preferred.shape} and {pair.rejected.shape}, those of "
                f"{pairs[0].source} {shape}; give pairs of one size."
            )
