"""The plan of a training: its memory, its duration, and how alternatives would change them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import tensorflow as tf

from kerasline.components.models.costs import AnswerCosts
from kerasline.components.models.precision import Precision
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.planning.calibration import Calibration, calibrate
from kerasline.components.trainer.planning.hardware import PRECISIONS, Device
from kerasline.components.trainer.planning.memory import MemoryNeed, memory_need
from kerasline.components.trainer.preparation import PreparedTraining, prepare

# The share of a device's peak that training reaches is unknown for a device of another machine. This is a guess between
# the 0.01 of small models and the 0.46 of large transformers (Chowdhery et al., "PaLM", 2022, section 4.1).
GUESSED_SHARE_OF_PEAK = 0.3
# Lower bound from the kernel launches of a small step, however fast the device.
LAUNCH_SECONDS_PER_STEP = 0.3e-3
REPLICAS = (2, 4, 8)
ACCUMULATED_STEPS = 4


@dataclass(frozen=True)
class Choice:
    """One way to train, and what it needs.

    Attributes:
        name: description for people.
        memory_bytes: memory of one device.
        fits: whether the device has that much memory.
        largest_batch: largest number of rows per step on one device.
        seconds: duration of the whole training, or None if unknown.
        need: the parts of the memory.
    """

    name: str
    memory_bytes: int
    fits: bool
    largest_batch: int
    seconds: float | None
    need: MemoryNeed


@dataclass(frozen=True)
class Plan:
    """What a training needs.

    Attributes:
        model: name of the model.
        parameters: number of parameters.
        trainable_parameters: number of trainable parameters.
        device: the device.
        precision: the precision that the settings choose.
        batch_size: number of rows per step.
        steps: total number of steps.
        epochs: number of epochs.
        rows: number of rows per epoch.
        flops: floating-point operations of the whole training.
        seconds: duration of the whole training, or None if unknown.
        first_seconds: the part of it for tracing and compilation.
        evaluation_seconds: the part of it for evaluation.
        measured: whether durations were measured on the device. Otherwise they are guessed from its peak.
        precisions: what the training needs in each precision.
        choices: alternatives. The first one has the settings as they are.
        answers: the costs of an answer by signature, where the served model answers by a function of its own; None if
            they are unknown.
    """

    model: str
    parameters: int
    trainable_parameters: int
    device: Device
    precision: Precision
    batch_size: int
    steps: int
    epochs: float
    rows: int
    flops: float
    seconds: float | None
    first_seconds: float
    evaluation_seconds: float
    measured: bool
    precisions: list[Choice]
    choices: list[Choice]
    answers: dict[str, AnswerCosts | None] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the content of the file that `plan --json` writes."""
        return dataclasses.asdict(self)


def plan(job: Job, device: Device) -> Plan:
    """Plan a job without training its model. A copy of the model is calibrated on synthetic rows.

    Args:
        job: the training.
        device: a device of this machine, or a well-known one.

    Raises:
        KeraslineError: the same error that training would raise.
    """
    return _Planner(job, device).plan()


class _Planner:
    def __init__(self, job: Job, device: Device) -> None:
        settings = dataclasses.replace(job.settings, distribution="none", accumulate_steps=1)
        if not device.is_local:  # its steps are traced on the CPU
            settings = dataclasses.replace(settings, device="cpu", gpu_memory_limit=None)
        self.job, self.device = dataclasses.replace(job, settings=settings), device
        self.batch_size, self.first_seconds = settings.batch_size, 0.0
        self.base = self._prepare()
        self.precision = self.base.precision
        if not device.is_local and settings.precision == "auto":
            self.precision = "mixed_bfloat16" if "mixed_bfloat16" in device.peak else "mixed_float16"
        steps_per_epoch = self.base.data.steps_per_epoch
        self.steps = settings.steps or steps_per_epoch * (settings.epochs or 1)
        self.epochs = self.steps / steps_per_epoch
        self.rows = job.examples.rows(settings.split)
        self.evaluated_rows = job.examples.rows(job.eval_split) if job.eval_split else 0

    def plan(self) -> Plan:
        model = self.base.model
        by_precision = {precision: self._choice(precision, precision) for precision in PRECISIONS}
        chosen, calibration = by_precision[self.precision]
        costs = chosen.need.costs
        return Plan(
            model=model.name,
            parameters=model.count_params(),
            trainable_parameters=sum(int(tf.size(weight)) for weight in model.trainable_weights),
            device=self.device,
            precision=self.precision,
            batch_size=self.batch_size,
            steps=self.steps,
            epochs=self.epochs,
            rows=self.rows,
            flops=float(costs.training_flops * self.rows * self.epochs + costs.update_flops * self.steps),
            seconds=chosen.seconds,
            first_seconds=self.first_seconds,
            evaluation_seconds=self._evaluation_seconds(calibration) if calibration else 0.0,
            measured=self.device.is_local,
            precisions=[choice for choice, _ in by_precision.values()],
            choices=[dataclasses.replace(chosen, name="current settings"), *self._alternatives(chosen)],
        )

    def _alternatives(self, chosen: Choice) -> list[Choice]:
        alternatives = [self._choice("rematerialized", self.precision, rematerialize=True)[0]]
        if self.batch_size >= ACCUMULATED_STEPS:
            rows = self.batch_size // ACCUMULATED_STEPS
            name = f"{ACCUMULATED_STEPS} steps of {rows} rows accumulated"
            accumulated, _ = self._choice(name, self.precision, batch_size=rows)
            seconds = accumulated.seconds * ACCUMULATED_STEPS if accumulated.seconds is not None else None
            alternatives.append(dataclasses.replace(accumulated, seconds=seconds))
        return alternatives + [self._replicated(chosen, count) for count in REPLICAS if self.batch_size % count == 0]

    def _choice(self, name: str, precision: Precision, **changes: Any) -> tuple[Choice, Calibration | None]:
        prepared = self._prepare(precision=precision, **changes)
        rows = changes.get("batch_size", self.batch_size)
        need = memory_need(prepared.model, rows, self.device.kind, precision=precision)
        calibration = self._calibrate(prepared, rows) if self.device.is_local else None
        return self._as_choice(name, need, self._seconds(need, precision, calibration)), calibration

    def _replicated(self, chosen: Choice, count: int) -> Choice:
        """Return the choice of several replicas that share the rows, without the time to exchange gradients."""
        rows = self.batch_size // count
        need = memory_need(self.base.model, rows, self.device.kind, precision=self.precision)
        shares_cores = self.device.kind == "cpu"
        seconds = chosen.seconds if shares_cores or chosen.seconds is None else chosen.seconds / count
        return self._as_choice(f"{count} replicas, {rows} rows each", need, seconds)

    def _as_choice(self, name: str, need: MemoryNeed, seconds: float | None) -> Choice:
        memory = self.device.memory_bytes
        return Choice(name, need.total_bytes, need.total_bytes <= memory, need.largest_batch(memory), seconds, need)

    def _prepare(self, **changes: Any) -> PreparedTraining:
        return prepare(dataclasses.replace(self.job, settings=dataclasses.replace(self.job.settings, **changes)))

    def _calibrate(self, prepared: PreparedTraining, rows: int) -> Calibration:
        setting = self.job.settings.jit_compile
        jit_compile = setting is True or (setting == "auto" and self.device.kind == "gpu")
        with prepared.scope():
            return calibrate(prepared.model, prepared.data.element_spec, rows, jit_compile=jit_compile)

    def _seconds(self, need: MemoryNeed, precision: Precision, calibration: Calibration | None) -> float | None:
        if calibration is not None:
            # Compilation takes about as long for each choice, so the duration of the first one stands for all.
            self.first_seconds = self.first_seconds or calibration.first_seconds
            steps = self.steps * calibration.step_seconds
            return self.first_seconds + steps + self._evaluation_seconds(calibration)
        peak, costs = self.device.peak.get(precision), need.costs
        if peak is None:
            return None
        forward = costs.forward_flops * self.evaluated_rows * max(1, round(self.epochs))
        flops = costs.training_flops * self.rows * self.epochs + forward
        return max(flops / (peak * GUESSED_SHARE_OF_PEAK), self.steps * LAUNCH_SECONDS_PER_STEP)

    def _evaluation_seconds(self, calibration: Calibration) -> float:
        seconds_per_row = calibration.forward_seconds / self.batch_size
        return seconds_per_row * self.evaluated_rows * max(1, round(self.epochs))
