"""What training leaves: the trained model, its history, and how and where it was trained."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import keras
import tensorflow as tf

from components.artifacts import Model
from components.building.summary import summarise
from components.training.job import Job
from components.training.optimizers import plain_optimizer
from components.training.precision import set_precision
from components.training.preparation import Prepared

if TYPE_CHECKING:
    from components.training.training import Training

FACTS = "training.json"
# Measuring the peak of a CPU takes half a second; short trainings go without that figure.
WORTH_MEASURING_SECONDS = 20.0


def write_results(job: Job, prepared: Prepared, training: Training, seconds: float) -> dict[str, Any]:
    """Writes the job's outputs, where this process is the one that does.

    Args:
        seconds: from the beginning of the preparation to the last step.

    Returns:
        The figures worth showing.
    """
    model = prepared.model
    best = training.stopping.restore(model) if training.stopping else None
    if best is None:
        model.optimizer.finalize_variable_values(model.trainable_variables)
    facts = _facts(job, prepared, training, seconds)
    if prepared.replicas.chief:
        _write_model(model, job.trained)
        job.trained.write_json(FACTS, facts)
        epochs = training.records.epochs
        job.history.write_json("history.json", epochs)
        training.records.write(job.history.path)
        _take_logs(job)
    return _shown(training, facts, best)


def _write_model(model: keras.Model, artifact: Model) -> None:
    """As float32 and with the plain optimizer: how it was trained is no part of what it is."""
    set_precision(model, "float32")
    model.optimizer = plain_optimizer(model)
    model.save(artifact.path / Model.FILE)
    artifact.write_json("summary.json", summarise(model))


def _facts(job: Job, prepared: Prepared, training: Training, seconds: float) -> dict[str, Any]:
    step_seconds = training.pace.step_seconds
    rows = sum(epoch["rows"] for epoch in training.records.epochs)
    rate = job.settings.batch_size / step_seconds if step_seconds else rows / seconds
    facts = {
        "device": prepared.placement.description,
        "devices": list(prepared.replicas.devices),
        "precision": prepared.precision,
        "distribution": job.settings.distribution,
        "replicas": prepared.replicas.count,
        "jit_compile": training.pace.compiled,
        "steps_per_execution": training.pace.count(training.supply.at_once),
        "steps": training.step,
        "rows": rows,
        "seconds": round(seconds, 3),
        "step_seconds": step_seconds,
        "samples_per_second": rate,
        "resumed_at_step": training.resumed_at,
        "deterministic": job.settings.deterministic,
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
    }
    return facts | _arithmetic(job, prepared, rate, seconds)


def _arithmetic(job: Job, prepared: Prepared, rate: float, seconds: float) -> dict[str, Any]:
    """Floating-point operations a second, and their share of what the device can do, where known."""
    flops = (job.model.summary.get("flops") or {}).get("training")
    if not flops:
        return {}
    found = {"flops_per_second": flops * rate}
    if prepared.placement.kind == "GPU" or seconds > WORTH_MEASURING_SECONDS:
        from components.planning import devices

        peak = devices.at_hand(job.settings.device).peak.get(prepared.precision)
        if peak:
            found["share_of_peak"] = flops * rate / (peak * prepared.replicas.count)
    return found


def _take_logs(job: Job) -> None:
    if job.state_dir and (job.state_dir / "tensorboard").exists():
        shutil.copytree(job.state_dir / "tensorboard", job.history.path / "tensorboard")


def _shown(training: Training, facts: dict[str, Any], best: int | None) -> dict[str, Any]:
    epochs = training.records.epochs
    last = epochs[best - 1 if best else -1]
    hidden = ("epoch", "rows", "steps", "learning_rate")
    figures = {name: value for name, value in last.items() if name not in hidden and isinstance(value, float)}
    shown = {
        "epochs": len(epochs),
        "steps": training.step,
        **({"best_epoch": best} if best else {}),
        **figures,
    }
    shown["samples_per_second"] = round(facts["samples_per_second"])
    if "share_of_peak" in facts:
        shown["share_of_peak"] = f"{facts['share_of_peak']:.0%}"
    on = facts["device"] if facts["replicas"] == 1 else f"{facts['replicas']} × {facts['device']}"
    return {**shown, "device": f"{on}, {facts['precision']}{', XLA' if facts['jit_compile'] else ''}"}
