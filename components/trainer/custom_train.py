"""A user's own `train(context)`, where the steps of `training` do not suffice."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core import interruption
from kerasline.components.core.errors import UserCodeError
from kerasline.components.core.user_code import call, name_of
from kerasline.components.data.training_input import dataset
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.preparation import Prepared, prepare
from kerasline.components.trainer.records import Records
from kerasline.components.trainer.results import Outcome, write_results


@dataclass(frozen=True)
class TrainContext:
    """What `train(context)` gets.

    Attributes:
        model: compiled, in the precision asked for, on the device asked for; train it in place.
        data: batches of (features by name, label) in the seed's order, without end; shuffled anew in
            each epoch of `steps_per_epoch` batches.
        validation: batches of the split that is measured, in order; or None.
        epochs: as asked for.
        steps_per_epoch: batches that make an epoch.
        strategy: TensorFlow's; one device has one too.
        state_dir: a folder that outlasts a kill: keep checkpoints there, and look for them first.
        log_dir: TensorBoard finds what is written there.
        settings: the Trainer's parameters, by name.
        report: takes a line on how it goes on.
        stop_requested: whether to write a checkpoint now and return: SIGTERM came.
    """

    model: keras.Model
    data: tf.data.Dataset
    validation: tf.data.Dataset | None
    epochs: int
    steps_per_epoch: int
    strategy: tf.distribute.Strategy
    state_dir: Path
    log_dir: Path
    settings: SimpleNamespace
    report: Callable[[str], None]
    stop_requested: Callable[[], bool]


def train_by_function(job: Job, report: Callable[[str], None]) -> dict[str, Any]:
    """Calls the user's function, and writes what it leaves.

    The function returns nothing, what `model.fit` returns, or a list of dicts, one an epoch.

    Raises:
        UserCodeError: it raised, or returned something else.
    """
    began, function = time.perf_counter(), job.settings.function
    prepared = prepare(job)
    with interruption.deferred() as stop:
        with prepared.scope():
            returned = call(function, _context(job, prepared, report, stop.is_set))
        if stop.is_set():
            interruption.obey()
    epochs = _epochs(returned, function)
    records = Records()
    steps = int(keras.ops.convert_to_numpy(prepared.model.optimizer.iterations))
    records.epochs = [
        {"epoch": number + 1, "steps": steps // len(epochs), "rows": 0, **figures}
        for number, figures in enumerate(epochs)
    ]
    return write_results(job, prepared, Outcome(records, steps), time.perf_counter() - began)


def _context(job: Job, prepared: Prepared, report: Callable[[str], None], stop: Callable[[], bool]) -> TrainContext:
    settings = job.settings
    state_dir = job.state_dir or job.work_dir / "state"
    log_dir = job.log_dir
    for folder in (state_dir, log_dir):
        folder.mkdir(parents=True, exist_ok=True)
    measured = settings.eval_split if settings.eval_split in job.examples.splits else None
    rows = {"batch_size": settings.batch_size, "work_dir": job.work_dir}
    return TrainContext(
        model=prepared.model,
        data=dataset(job.examples, settings.split, job.preprocessing, **rows, seed=settings.seed, epochs=None),
        validation=dataset(job.examples, measured, job.preprocessing, **rows) if measured else None,
        epochs=settings.epochs or 1,
        steps_per_epoch=prepared.supply.an_epoch,
        strategy=prepared.replicas.strategy,
        state_dir=state_dir,
        log_dir=log_dir,
        settings=settings,
        report=report,
        stop_requested=stop,
    )


def _epochs(returned: Any, function: Callable[..., Any]) -> Sequence[Mapping[str, Any]]:
    history = getattr(returned, "history", returned)
    if isinstance(history, Mapping):
        values = zip(*history.values())
        history = [dict(zip(history, map(float, row))) for row in values]
    if history is None:
        history = []
    if not isinstance(history, list) or not all(isinstance(epoch, Mapping) for epoch in history):
        raise UserCodeError(
            f"{name_of(function)} must return nothing, what model.fit returns, or a list of a dict an epoch; "
            f"it returned {type(returned).__name__}"
        )
    return history or [{}]
