"""One training run of an objective: its steps on accelerate, checkpoints, validations and the files of its result."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import Tensor
from tqdm import tqdm

from npo_core.catalog.adapter_files import ADAPTER_FILE_NAME
from npo_core.errors import InputError
from npo_core.media.files import sha256_file
from npo_core.weights import LowRankWeights, peft_adapter
from train.engine.accelerator import set_checkpointing
from train.engine.config import TrainConfig
from train.engine.files import write_text
from train.engine.optimizers import make_optimizer
from train.engine.records import (
    METRICS_FILE_NAME,
    Best,
    Checkpoint,
    load_checkpoint,
    save_checkpoint,
    summarise,
    table,
    write_records,
)
from train.engine.results import write_results
from train.engine.sharding import average_gradients, shard_frozen
from train.engine.speed import plan_speed
from train.engine.task import OnStep, StepMetrics, Task, TrainResult
from train.engine.validation import Validator
from train.network.models import Exchange, holding
from train.network.policy import Network

logger = logging.getLogger(__name__)


class Run:
    """One training run: what stays the same from step to step, and the state that a checkpoint holds."""

    def __init__(
        self,
        config: TrainConfig,
        task: Task,
        pipeline: Any,
        accelerator: Accelerator,
        weights: list[torch.nn.Parameter],
        validators: list[Validator],
        aligned: Exchange | None = None,
    ) -> None:
        """aligned: what makes the network answer prompts as the aligned model, where its base does not."""
        self.config, self.task, self.accelerator, self.weights = config, task, accelerator, weights
        self.unet, self.validators = pipeline.unet, validators
        optimizer = make_optimizer(config, weights, accelerator.device)
        self.optimizer = accelerator.prepare(optimizer)
        # Alone, the UNet runs as it is: accelerate would leave its own wrapper around `forward` behind.
        as_it_is = accelerator.distributed_type == DistributedType.NO or config.shard_base
        self.policy = self.unet if as_it_is else accelerator.prepare(self.unet)
        if config.shard_base:
            shard_frozen(self.unet, weights, accelerator.device, accelerator.num_processes)
        self.ema = None if config.ema_decay is None else [weight.detach().clone() for weight in weights]
        network = Network(self.policy, self.unet, pipeline, accelerator, aligned, (weights, self.ema))
        self.objective = task.make(network)
        self.names = self.objective.metrics
        self.step = 0
        self.history: list[Tensor] = []  # one (metrics,) tensor a step, on the device: reading it would wait for it
        self.rows: list[dict[str, float]] = []  # of metrics.csv
        self.best: Best | None = None
        self.checked = 0  # steps whose losses were seen to be numbers

    def to_the_end(self, on_step: OnStep | None) -> TrainResult:
        """All remaining steps, with checkpoints, then the files."""
        config, main = self.config, self.accelerator.is_main_process
        self._restore()
        self._choose_speed()
        if main:
            write_records(config, self.task.facts, self.task.sources)
        if config.track_with:
            self.accelerator.init_trackers("npo", {k: str(v) for k, v in config.as_json().items()})
        first, started = self.step, time.perf_counter()
        bar = tqdm(total=config.max_train_steps, initial=first, unit="step", disable=not (config.progress and main))
        with bar:
            while self.step < config.max_train_steps and not self._stalled():
                self.history.append(self._train_step())
                self.step += 1
                speed = (self.step - first) * config.batch_size / (time.perf_counter() - started)
                bar.update()
                if on_step is not None:
                    values = dict(zip(self.names, self.history[-1].tolist(), strict=True))
                    on_step(StepMetrics(self.step, config.max_train_steps, values, speed))
                if self._due(config.log_every) or self.step == config.max_train_steps:
                    self._log(speed, bar)
                if self._due(config.validate_every):
                    self._validate(self.validators)
                if self._due(config.checkpoint_every):
                    self._save_checkpoint()
        return self._finish(time.perf_counter() - started, (self.step - first) * config.batch_size)

    def _due(self, every: int | None) -> bool:
        return every is not None and self.step % every == 0

    def _train_step(self) -> Tensor:
        """One update of the weights; returns the step's metrics, (M,)."""
        config, processes = self.config, self.accelerator.num_processes
        parts_count = config.gradient_accumulation_steps
        size = config.batch_size // (processes * parts_count)  # examples in one forward pass
        start = self.step * config.batch_size + self.accelerator.process_index * (config.batch_size // processes)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate_at(config, self.step)
        parts = []
        for part in range(parts_count):
            with self._gradients_shared(part == parts_count - 1):
                loss, metrics = self.objective.losses(start + part * size, start + (part + 1) * size)
                self.accelerator.backward(loss / parts_count)
            parts.append(metrics.detach())
        if config.shard_base:
            average_gradients(self.weights, processes)
        if config.max_grad_norm is not None:
            self.accelerator.clip_grad_norm_(self.weights, config.max_grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad()
        if self.ema is not None and config.ema_decay is not None:
            decay = ema_decay_at(config.ema_decay, self.step)
            torch._foreach_lerp_(self.ema, [weight.detach() for weight in self.weights], 1 - decay)
        metrics = torch.stack(parts).mean(0)
        return self.accelerator.reduce(metrics, "mean") if processes > 1 else metrics

    def _gradients_shared(self, last: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients once a step, after the last part (or `average_gradients` does it)."""
        return nullcontext() if last or self.config.shard_base else self.accelerator.no_sync(self.policy)

    def _choose_speed(self) -> None:
        config = replace(self.config, compile="off") if self.config.shard_base else self.config
        size = config.batch_size // (self.accelerator.num_processes * config.gradient_accumulation_steps)

        def probe(examples: int) -> None:
            loss, _ = self.objective.losses(0, examples)
            self.accelerator.backward(loss)
            self.optimizer.zero_grad()

        checkpoint = partial(set_checkpointing, self.unet)
        left = config.max_train_steps - self.step
        plan = plan_speed(config, self.accelerator.device, left, size, probe, checkpoint)
        checkpoint(plan.checkpointing)
        if plan.compile:
            self.unet.compile()
        if self.accelerator.is_main_process:
            logger.info("Speed: %s.", plan.reason)

    def _check_finite(self) -> None:
        """Raises InputError when a loss or a weight is no longer a number; what was saved stays."""
        losses = torch.stack([values[0] for values in self.history[self.checked :]] or [torch.zeros(())])
        good = bool(torch.isfinite(losses).all()) and all(bool(torch.isfinite(w).all()) for w in self.weights)
        if good:
            self.checked = self.step
            return
        folder, kept = self.config.output_dir, self.step - self.step % self.config.checkpoint_every
        kept = min(kept, self.checked)
        raise InputError(
            f"The loss was no longer a number between steps {self.checked} and {self.step}; the last good checkpoint "
            f"({'none yet' if kept == 0 else f'step {kept}'}) stays in {folder}. Lower the learning rate of "
            f"{self.config.learning_rate:g} or use --mixed-precision no, in another --output-dir."
        )

    def _log(self, speed: float, bar: Any) -> None:
        self._check_finite()
        since = (self.step - 1) // self.config.log_every * self.config.log_every
        recent = torch.stack(self.history[since:]).mean(0).tolist()
        values = dict(zip(self.names, recent, strict=True))
        values |= {"learning_rate": learning_rate_at(self.config, self.step - 1), "pairs_per_s": round(speed, 2)}
        shown = {name: f"{values[name]:.4g}" for name in ("loss", "accuracy", "pairs_per_s") if name in values}
        bar.set_postfix(shown)
        self._note(values)

    def _note(self, values: dict[str, float]) -> None:
        """Adds to this step's row of metrics.csv and to the trackers."""
        if not self.rows or self.rows[-1]["step"] != self.step:
            self.rows.append({"step": self.step})
        self.rows[-1] |= values
        if self.accelerator.is_main_process:
            write_text(self.config.output_dir / METRICS_FILE_NAME, table(self.rows))
        if self.config.track_with:
            self.accelerator.log(values, step=self.step)

    def _measure_the_end(self) -> None:
        """Held-out pairs once more where the last step was not one to validate at, so that what is said of the result
        is measured on it. After the last checkpoint: a run that is given more steps goes on as if it had not been."""
        measured = bool(self.rows) and self.rows[-1]["step"] == self.step and "held_out_accuracy" in self.rows[-1]
        if self.config.validate_every is not None and not measured:
            self._validate([validator for validator in self.validators if validator.everywhere])

    def _validate(self, validators: Sequence[Validator]) -> None:
        """Asks `validators` about the weights that would be kept now."""
        self._check_finite()
        values: dict[str, float] = {}
        with self._result_weights():
            for validator in validators:
                # a sharded base runs in all processes together or not at all
                if validator.everywhere or (self.accelerator.is_main_process and not self.config.shard_base):
                    values |= validator.measure(self.step, self._adapter, self.config.output_dir)
            if "held_out_accuracy" in values:
                self._keep_if_best(values["held_out_accuracy"], values["held_out_loss"])
        self.accelerator.wait_for_everyone()
        if values:
            self._note(values)

    def _keep_if_best(self, accuracy: float, loss: float) -> None:
        """Of equal accuracies the lower loss is the better one."""
        if self.best is None or (accuracy, -loss) > (self.best.accuracy, -self.best.loss):
            self.best = Best(accuracy, loss, self.step, [weight.detach().clone() for weight in self.weights])

    def _adapter(self) -> LowRankWeights:
        """The LoRA as it is now, at the strength 1 where it was trained at another."""
        found = peft_adapter(self.unet)
        layers = {n: replace(layer, scale=layer.scale / self.config.strength) for n, layer in found.layers.items()}
        return replace(found, layers=layers, trained_for=self.config.trained_for)

    def _stalled(self) -> bool:
        """Whether the held-out accuracy has not risen for `early_stop` validations."""
        config = self.config
        if config.early_stop is None or config.validate_every is None or self.best is None:
            return False
        return self.step - self.best.step >= config.early_stop * config.validate_every

    def _result_weights(self) -> AbstractContextManager[None]:
        """Within it the LoRA has the weights that would be kept now: the moving average where there is one."""
        return holding(self.weights, self.ema)

    def _restore(self) -> None:
        if not self.config.resume:
            return
        found = load_checkpoint(self.config, self.task.facts)
        if found is None:
            if self.accelerator.is_main_process:
                logger.info("No checkpoint in %s: starting from the first step.", self.config.output_dir)
            return
        if len(found.weights) != len(self.weights):
            raise InputError(f"The checkpoint in {self.config.output_dir} is of another model; start without --resume.")
        device = self.accelerator.device
        with torch.no_grad():
            for weight, saved in zip(self.weights, found.weights, strict=True):
                weight.copy_(saved)
            for average, saved in zip(self.ema or [], found.ema, strict=True):
                average.copy_(saved)
        self.optimizer.load_state_dict(found.optimizer)
        if self.accelerator.scaler is not None and found.scaler:
            self.accelerator.scaler.load_state_dict(found.scaler)
        self.step = self.checked = found.step
        self.history = list(found.history.to(device))
        self.rows = found.rows
        measured = any(validator.everywhere for validator in self.validators)
        if found.best is not None and not measured and self.accelerator.is_main_process:
            logger.info("Which pairs were held out was not written down: from here on nothing is measured on them.")
        if found.best is not None and measured:
            self.best = replace(found.best, weights=[weight.to(device) for weight in found.best.weights])

    def _save_checkpoint(self) -> None:
        self._check_finite()
        if not self.accelerator.is_main_process:
            return
        scaler = self.accelerator.scaler
        state = Checkpoint(
            step=self.step,
            weights=[weight.detach().cpu() for weight in self.weights],
            optimizer=self.optimizer.state_dict(),
            history=torch.stack(self.history).cpu(),
            ema=[average.cpu() for average in self.ema or []],
            scaler=scaler.state_dict() if scaler is not None else {},
            rows=self.rows,
            best=self.best and replace(self.best, weights=[weight.cpu() for weight in self.best.weights]),
        )
        save_checkpoint(self.config, self.task.facts, state)

    def _finish(self, elapsed_s: float, examples_seen: int) -> TrainResult:
        config = self.config
        self._save_checkpoint()
        self._measure_the_end()
        history = torch.stack(self.history).cpu()
        metrics = {
            "steps": self.step,
            "pairs": self.task.examples,
            "pairs_seen": self.step * config.batch_size,
            "elapsed_s": round(elapsed_s, 3),
            "pairs_per_s": round(examples_seen / elapsed_s, 2) if examples_seen else None,
            **summarise(self.names, history, config.log_every),
        }
        if self.best is not None:
            metrics |= {"held_out_accuracy": self.best.accuracy, "best_step": self.best.step}
        kept = self.ema if self.best is None else self.best.weights
        if self.accelerator.is_main_process:
            with holding(self.weights, kept):
                weights = self._adapter()
                write_results(config, self.task.about, self.task.facts, self.task.sources, weights, metrics, self.rows)
        self.accelerator.wait_for_everyone()
        if config.track_with:
            self.accelerator.end_training()
        path = config.output_dir / ADAPTER_FILE_NAME
        return TrainResult(path, sha256_file(path), metrics)


def learning_rate_at(config: TrainConfig, step: int) -> float:
    """The learning rate of update `step` (from 0): a linear warm-up, then constant, or falling to zero at the end."""
    warm = min(1.0, (step + 1) / (config.warmup_steps + 1))
    done = step / config.max_train_steps
    fallen = {"constant": 1.0, "linear": 1 - done, "cosine": 0.5 * (1 + math.cos(math.pi * done))}
    return config.learning_rate * warm * fallen[config.lr_schedule]


def ema_decay_at(decay: float, step: int) -> float:
    """The decay at update `step` (from 0), rising to `decay`: an average that began with the LoRA's zeros would still
    be mostly zeros at the end of a short run. (2 + n)/(11 + n) as in most trainers of diffusion models."""
    return min(decay, (2 + step) / (11 + step))
