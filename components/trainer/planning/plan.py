"""The plan of a training: what it needs, how long it takes, and what each choice would change."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import tensorflow as tf

from kerasline.components.trainer.job import Job
from kerasline.components.trainer.planning.calibration import Calibration, calibrate
from kerasline.components.trainer.planning.devices import PRECISIONS, Device
from kerasline.components.trainer.planning.memory import Need, need
from kerasline.components.trainer.preparation import Prepared, prepare

# Of a device that is not here: the share of its peak that training reaches is unknown, and this is a guess
# between a small model's hundredth and the half that large transformers reach (Chowdhery et al., "PaLM",
# 2022, section 4.1, reports 0.46).
GUESSED_SHARE_OF_PEAK = 0.3
# However fast the device: the launches of a small step's kernels.
LAUNCH_SECONDS_A_STEP = 0.3e-3
REPLICAS = (2, 4, 8)
ACCUMULATED = 4


@dataclass(frozen=True)
class Choice:
    """One way to train, and what it takes of each device.

    Attributes:
        name: for people.
        memory_bytes: of one device.
        fits: whether that is there.
        largest_batch: the most rows a step, of one device.
        seconds: of the whole training; None where nobody knows.
        need: the parts of the memory.
    """

    name: str
    memory_bytes: int
    fits: bool
    largest_batch: int
    seconds: float | None
    need: Need


@dataclass(frozen=True)
class Plan:
    """What training will take.

    Attributes:
        parameters: of the model; trainable ones apart.
        precision: that the Trainer's settings choose.
        steps, epochs, rows: of the training; rows an epoch.
        flops: of the whole training.
        seconds: of the whole training, of which `first_seconds` go to tracing and compiling and
            `evaluation_seconds` to the other split.
        measured: whether on the device itself; else guessed from its peak.
        precisions: what the model takes in each.
        choices: other ways, the first one as the settings are.
    """

    model: str
    parameters: int
    trainable_parameters: int
    device: Device
    precision: str
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

    def as_json(self) -> dict[str, Any]:
        """As `plan --json` writes it."""
        return dataclasses.asdict(self)


def plan(job: Job, device: Device) -> Plan:
    """Makes the plan of a job.

    Args:
        job: nothing is trained: its model is calibrated on rows that are made up.
        device: at hand, or a well-known one.

    Raises:
        KeraslineError: as training would.
    """
    return _Planner(job, device).plan()


class _Planner:
    def __init__(self, job: Job, device: Device) -> None:
        settings = SimpleNamespace(**{**vars(job.settings), "distribution": "none", "accumulate_steps": 1})
        if not device.here:  # its steps are traced on the CPU
            settings.device, settings.gpu_memory_limit = "cpu", None
        self.job, self.device = dataclasses.replace(job, settings=settings), device
        self.batch_size, self.first_seconds = settings.batch_size, 0.0
        base = self._prepared(settings.precision)
        self.base, self.precision = base, base.precision
        if not device.here and settings.precision == "auto":
            self.precision = "mixed_bfloat16" if "mixed_bfloat16" in device.peak else "mixed_float16"
        supply = base.supply
        self.steps = settings.steps or supply.an_epoch * (settings.epochs or 1)
        self.epochs = self.steps / supply.an_epoch
        self.rows = job.examples.rows(settings.split)
        measured = settings.eval_split if settings.eval_split in job.examples.splits else None
        self.measured_rows = job.examples.rows(measured) if measured else 0

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
            measured=self.device.here,
            precisions=[choice for choice, _ in by_precision.values()],
            choices=[dataclasses.replace(chosen, name="as it is set"), *self._others(chosen)],
        )

    def _others(self, chosen: Choice) -> list[Choice]:
        again, _ = self._choice("rematerialized", self.precision, rematerialize=True)
        others = [again]
        if self.batch_size >= ACCUMULATED:
            part = self.batch_size // ACCUMULATED
            less, _ = self._choice(f"{ACCUMULATED} steps of {part} rows accumulated", self.precision, part)
            more = less.seconds * ACCUMULATED if less.seconds is not None else None
            others.append(dataclasses.replace(less, seconds=more))
        others += [self._shared(chosen, count) for count in REPLICAS if self.batch_size % count == 0]
        return others

    def _choice(
        self, name: str, precision: str, batch_size: int | None = None, *, rematerialize: Any = None
    ) -> tuple[Choice, Calibration | None]:
        rows = batch_size or self.batch_size
        prepared = self._prepared(precision, rows, rematerialize)
        needed = need(prepared.model, rows, self.device.kind, precision=precision)
        calibration = self._calibrated(prepared, rows) if self.device.here else None
        seconds = self._seconds(needed, precision, calibration)
        return self._told(name, needed, seconds), calibration

    def _shared(self, chosen: Choice, count: int) -> Choice:
        """So many replicas, each with its share of the rows; what they exchange is not counted."""
        needed = need(self.base.model, self.batch_size // count, self.device.kind, precision=self.precision)
        alone = self.device.kind == "cpu"  # they have the same cores
        seconds = chosen.seconds if alone or chosen.seconds is None else chosen.seconds / count
        return self._told(f"{count} replicas, {self.batch_size // count} rows each", needed, seconds)

    def _told(self, name: str, needed: Need, seconds: float | None) -> Choice:
        memory = self.device.memory_bytes
        largest = needed.largest_batch(memory)
        return Choice(name, needed.total_bytes, needed.total_bytes <= memory, largest, seconds, needed)

    def _prepared(self, precision: str, batch_size: int | None = None, rematerialize: Any = None) -> Prepared:
        changes = {"precision": precision, "batch_size": batch_size or self.batch_size}
        if rematerialize is not None:
            changes["rematerialize"] = rematerialize
        settings = SimpleNamespace(**{**vars(self.job.settings), **changes})
        return prepare(dataclasses.replace(self.job, settings=settings))

    def _calibrated(self, prepared: Prepared, rows: int) -> Calibration:
        jit = self.job.settings.jit_compile
        compiled = jit is True or (jit == "auto" and self.device.kind == "gpu")
        with prepared.scope():
            return calibrate(prepared.model, prepared.supply.element_spec, rows, compiled=compiled)

    def _seconds(self, needed: Need, precision: str, calibration: Calibration | None) -> float | None:
        if calibration is not None:
            # Compiling takes about as long for each choice: the first one's time stands for all.
            self.first_seconds = self.first_seconds or calibration.first_seconds
            steps = self.steps * calibration.step_seconds
            return self.first_seconds + steps + self._evaluation_seconds(calibration)
        peak, costs = self.device.peak.get(precision), needed.costs
        if peak is None:
            return None
        forward = costs.forward_flops * self.measured_rows * max(1, round(self.epochs))
        flops = costs.training_flops * self.rows * self.epochs + forward
        return max(flops / (peak * GUESSED_SHARE_OF_PEAK), self.steps * LAUNCH_SECONDS_A_STEP)

    def _evaluation_seconds(self, calibration: Calibration) -> float:
        a_row = calibration.forward_seconds / self.batch_size
        return a_row * self.measured_rows * max(1, round(self.epochs))
