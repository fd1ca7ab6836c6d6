"""Writes the results of a training: the trained model, its history, and how and where it was trained."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.artifacts import Model
from kerasline.components.models.compiling import recompile
from kerasline.components.models.freezing import is_partly_frozen, save_trained
from kerasline.components.models.precision import set_precision
from kerasline.components.models.summary import summarize
from kerasline.components.trainer.history import History
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.optimizers import plain_optimizer
from kerasline.components.trainer.preparation import PreparedTraining

FACTS, CALIBRATION = "training.json", "calibration.json"
# Measuring the peak of a CPU takes half a second. Shorter trainings do without `share_of_peak`.
MIN_SECONDS_FOR_CPU_PEAK = 20.0


@dataclass(frozen=True)
class Outcome:
    """The outcome of the training loop.

    Attributes:
        history: losses and metrics.
        steps: total number of steps.
        step_seconds: seconds per step without tracing and compilation, or None if unknown.
        is_compiled: whether steps were compiled with XLA.
        steps_per_call: number of steps per call of TensorFlow.
        best_epoch: the epoch whose weights the model has, or None for the last one.
        resumed_at: the step after which this process resumed, or None if it started from the beginning.
        phases: the phases, if there are several: see `Phases.facts`.
        calibration: see `TemperatureScaling.apply`, or None if the model was not calibrated.
    """

    history: History
    steps: int
    step_seconds: float | None = None
    is_compiled: bool = False
    steps_per_call: int = 1
    best_epoch: int | None = None
    resumed_at: int | None = None
    phases: list[dict[str, Any]] | None = None
    calibration: dict[str, Any] | None = None


def write_results(job: Job, prepared: PreparedTraining, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """Write the outputs of a job, if this process is the chief.

    Args:
        job: the training.
        prepared: has the trained model.
        outcome: the outcome of the training loop.
        seconds: duration from the start of the preparation to the last step.

    Returns:
        The metrics to display.
    """
    facts = _facts(job, prepared, outcome, seconds)
    if prepared.replicas.is_chief:
        _write_model(prepared.model, job, outcome)
        job.trained.write_json(FACTS, facts)
        if outcome.calibration is not None:
            job.trained.write_json(CALIBRATION, outcome.calibration)
        job.history.write_json("history.json", outcome.history.epochs)
        outcome.history.write(job.history.path)
        if job.log_dir.exists():
            shutil.copytree(job.log_dir, job.history.path / "tensorboard")
    displayed, trained = _displayed_metrics(outcome, facts), job.trained.path / Model.TRAINED
    return displayed | ({"trained_megabytes": round(trained.stat().st_size / 1e6, 2)} if trained.exists() else {})


def _write_model(model: keras.Model, job: Job, outcome: Outcome) -> None:
    """Save the model in float32 and without loss scaling, which are properties of the training, not of the model."""
    set_precision(model, "float32")
    if plain_optimizer(model) is not model.optimizer:
        recompile(model, optimizer=plain_optimizer(model))
    # Phases and calibration also change weights that are frozen at the end.
    if not outcome.phases and outcome.calibration is None and is_partly_frozen(model):
        save_trained(model, job.trained.path / Model.TRAINED)
    job.trained.save(model)
    # Training does not change the size and the costs of a model.
    summary = job.model.summary or summarize(model)
    job.trained.write_json("summary.json", {**summary, "optimizer": type(model.optimizer).__name__})


def _facts(job: Job, prepared: PreparedTraining, outcome: Outcome, seconds: float) -> dict[str, Any]:
    rows = sum(epoch["rows"] for epoch in outcome.history.epochs)
    step_rows = job.settings.batch_size if prepared.data.padding is None else rows / outcome.steps
    rate = step_rows / outcome.step_seconds if outcome.step_seconds else rows / seconds
    facts = {
        "device": prepared.placement.description,
        "devices": list(prepared.replicas.devices),
        "precision": prepared.precision,
        "distribution": job.settings.distribution,
        "replicas": prepared.replicas.count,
        "jit_compile": outcome.is_compiled,
        "steps_per_execution": outcome.steps_per_call,
        "epochs": len(outcome.history.epochs),
        "best_epoch": outcome.best_epoch,
        **({"phases": outcome.phases} if outcome.phases else {}),
        "metrics": _final_metrics(outcome),
        "steps": outcome.steps,
        "rows": rows,
        "seconds": round(seconds, 3),
        "step_seconds": outcome.step_seconds,
        "samples_per_second": rate,
        "padding": prepared.data.padding,
        "resumed_at_step": outcome.resumed_at,
        "deterministic": job.settings.deterministic,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    return facts | _throughput(job, prepared, rate, seconds)


def _throughput(job: Job, prepared: PreparedTraining, rate: float, seconds: float) -> dict[str, Any]:
    """Return the floating-point operations per second and their share of the device's peak, if known."""
    flops = (job.model.summary.get("flops") or {}).get("training")
    if not flops:
        return {}
    found = {"flops_per_second": flops * rate}
    if prepared.placement.kind == "GPU" or seconds > MIN_SECONDS_FOR_CPU_PEAK:
        from kerasline.components.trainer.planning import hardware

        peak = hardware.local_device(job.settings.device).peak.get(prepared.precision)
        if peak:
            found["share_of_peak"] = flops * rate / (peak * prepared.replicas.count)
    return found


def _final_metrics(outcome: Outcome) -> dict[str, float]:
    """Return the metrics of the epoch whose weights the model has, by Keras's names: `loss`, `val_loss`, ..."""
    excluded = ("epoch", "rows", "steps", "learning_rate")
    epoch = outcome.history.epochs[(outcome.best_epoch or 0) - 1]
    return {name: value for name, value in epoch.items() if name not in excluded and isinstance(value, float)}


def _displayed_metrics(outcome: Outcome, facts: dict[str, Any]) -> dict[str, Any]:
    displayed = {
        "epochs": facts["epochs"],
        "steps": outcome.steps,
        **({"best_epoch": facts["best_epoch"]} if facts["best_epoch"] else {}),
        **facts["metrics"],
    }
    if (found := outcome.calibration) is not None:
        displayed["temperature"] = found["temperature"] or 1.0
        displayed["calibration_error_before"] = found["before"]["calibration_error"]
        displayed["calibration_error"] = found["after"]["calibration_error"]
    if facts["samples_per_second"]:
        displayed["samples_per_second"] = round(facts["samples_per_second"])
    if facts["padding"] is not None:
        displayed["padding"] = f"{facts['padding']:.0%}"
    if "share_of_peak" in facts:
        displayed["share_of_peak"] = f"{facts['share_of_peak']:.0%}"
    device = facts["device"] if facts["replicas"] == 1 else f"{facts['replicas']} × {facts['device']}"
    return {**displayed, "device": f"{device}, {facts['precision']}{', XLA' if facts['jit_compile'] else ''}"}
