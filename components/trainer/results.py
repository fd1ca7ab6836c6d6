"""What training leaves: the trained model, its history, and how and where it was trained."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.artifacts import Model
from kerasline.components.models.summary import summarise
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.optimizers import plain_optimizer, recompile
from kerasline.components.trainer.precision import set_precision
from kerasline.components.trainer.preparation import Prepared
from kerasline.components.trainer.records import Records

FACTS = "training.json"
# Measuring the peak of a CPU takes half a second; short trainings go without that figure.
WORTH_MEASURING_SECONDS = 20.0


@dataclass(frozen=True)
class Outcome:
    """How training went.

    Attributes:
        steps: of all.
        step_seconds: of one, without what tracing and compiling took; None where it is not known.
        compiled: with XLA.
        per_call: steps in one call of TensorFlow.
        best_epoch: whose weights the model has; None for the last one's.
        resumed_at: the step after which it went on in this process; None from the first on.
    """

    records: Records
    steps: int
    step_seconds: float | None = None
    compiled: bool = False
    per_call: int = 1
    best_epoch: int | None = None
    resumed_at: int | None = None


def write_results(job: Job, prepared: Prepared, outcome: Outcome, seconds: float) -> dict[str, Any]:
    """Writes the job's outputs, where this process is the one that does.

    Args:
        seconds: from the beginning of the preparation to the last step.

    Returns:
        The figures worth showing.
    """
    facts = _facts(job, prepared, outcome, seconds)
    if prepared.replicas.chief:
        _write_model(prepared.model, job)
        job.trained.write_json(FACTS, facts)
        job.history.write_json("history.json", outcome.records.epochs)
        outcome.records.write(job.history.path)
        _take_logs(job)
    return _shown(outcome, facts)


def _write_model(model: keras.Model, job: Job) -> None:
    """As float32 and with the plain optimizer: how it was trained is no part of what it is."""
    set_precision(model, "float32")
    if plain_optimizer(model) is not model.optimizer:
        recompile(model, optimizer=plain_optimizer(model))
    model.save(job.trained.path / Model.FILE)
    # What it takes is what the untrained one takes.
    summary = job.model.summary or summarise(model)
    job.trained.write_json("summary.json", {**summary, "optimizer": type(model.optimizer).__name__})


def _facts(job: Job, prepared: Prepared, outcome: Outcome, seconds: float) -> dict[str, Any]:
    rows = sum(epoch["rows"] for epoch in outcome.records.epochs)
    rate = job.settings.batch_size / outcome.step_seconds if outcome.step_seconds else rows / seconds
    facts = {
        "device": prepared.placement.description,
        "devices": list(prepared.replicas.devices),
        "precision": prepared.precision,
        "distribution": job.settings.distribution,
        "replicas": prepared.replicas.count,
        "jit_compile": outcome.compiled,
        "steps_per_execution": outcome.per_call,
        "epochs": len(outcome.records.epochs),
        "best_epoch": outcome.best_epoch,
        "metrics": _figures(outcome),
        "steps": outcome.steps,
        "rows": rows,
        "seconds": round(seconds, 3),
        "step_seconds": outcome.step_seconds,
        "samples_per_second": rate,
        "resumed_at_step": outcome.resumed_at,
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
        from kerasline.components.trainer.planning import devices

        peak = devices.at_hand(job.settings.device).peak.get(prepared.precision)
        if peak:
            found["share_of_peak"] = flops * rate / (peak * prepared.replicas.count)
    return found


def _take_logs(job: Job) -> None:
    if job.log_dir.exists():
        shutil.copytree(job.log_dir, job.history.path / "tensorboard")


def _figures(outcome: Outcome) -> dict[str, float]:
    """The losses and metrics of the epoch whose weights the model has, by Keras's names: `loss`, `val_loss`, ..."""
    hidden = ("epoch", "rows", "steps", "learning_rate")
    kept = outcome.records.epochs[(outcome.best_epoch or 0) - 1]
    return {name: value for name, value in kept.items() if name not in hidden and isinstance(value, float)}


def _shown(outcome: Outcome, facts: dict[str, Any]) -> dict[str, Any]:
    shown = {
        "epochs": facts["epochs"],
        "steps": outcome.steps,
        **({"best_epoch": facts["best_epoch"]} if facts["best_epoch"] else {}),
        **facts["metrics"],
    }
    if facts["samples_per_second"]:
        shown["samples_per_second"] = round(facts["samples_per_second"])
    if "share_of_peak" in facts:
        shown["share_of_peak"] = f"{facts['share_of_peak']:.0%}"
    on = facts["device"] if facts["replicas"] == 1 else f"{facts['replicas']} × {facts['device']}"
    return {**shown, "device": f"{on}, {facts['precision']}{', XLA' if facts['jit_compile'] else ''}"}
