"""A training loop of the user's own, `train(context)`, as a replacement for the built-in one."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core import interruption
from kerasline.components.core.errors import UserCodeError
from kerasline.components.core.user_code import call, name_of
from kerasline.components.data.training_input import dataset
from kerasline.components.models.targets import taken_features, training_target, weight_ranks
from kerasline.components.trainer.history import History
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.preparation import PreparedTraining, prepare
from kerasline.components.trainer.results import Outcome, write_results
from kerasline.components.trainer.settings import TrainerSettings


@dataclass(frozen=True)
class TrainContext:
    """The argument of `train(context)`.

    Attributes:
        model: the compiled model, in the precision and on the device of the settings. Train it in place.
        data: batches of (features by name, label), or of features alone if there is no label, repeated without end.
            Rows are shuffled anew in each epoch of `steps_per_epoch` batches.
        validation: batches of the evaluation split in order, or None.
        epochs: number of epochs.
        steps_per_epoch: number of batches in an epoch.
        strategy: TensorFlow's distribution strategy.
        state_dir: folder that survives a kill. Save checkpoints there, and look for them first.
        log_dir: folder for TensorBoard's logs.
        settings: the parameters of the Trainer.
        report: called with progress messages.
        stop_requested: returns whether SIGTERM was received. If so, save a checkpoint and return.
    """

    model: keras.Model
    data: tf.data.Dataset
    validation: tf.data.Dataset | None
    epochs: int
    steps_per_epoch: int
    strategy: tf.distribute.Strategy
    state_dir: Path
    log_dir: Path
    settings: TrainerSettings
    report: Callable[[str], None]
    stop_requested: Callable[[], bool]


def train_by_function(job: Job, report: Callable[[str], None]) -> dict[str, Any]:
    """Call the user's function and write the results.

    The function returns None, the result of `model.fit`, or a list with a dict of metrics for each epoch.

    Args:
        job: the training.
        report: called with progress messages.

    Returns:
        The metrics to display.

    Raises:
        UserCodeError: the function raised an exception or returned something else.
    """
    start, function = time.perf_counter(), job.settings.function
    assert function is not None
    prepared = prepare(job)
    with interruption.deferred() as stop:
        with prepared.scope():
            returned = call(function, _context(job, prepared, report, stop.is_set))
        if stop.is_set():
            interruption.obey()
    epochs = _epochs(returned, function)
    history = History()
    steps = int(keras.ops.convert_to_numpy(prepared.model.optimizer.iterations))
    history.epochs = [
        {"epoch": number + 1, "steps": steps // len(epochs), "rows": 0, **metrics}
        for number, metrics in enumerate(epochs)
    ]
    return write_results(job, prepared, Outcome(history, steps), time.perf_counter() - start)


def _context(
    job: Job, prepared: PreparedTraining, report: Callable[[str], None], stop: Callable[[], bool]
) -> TrainContext:
    settings = job.settings
    state_dir = job.state_dir or job.work_dir / "state"
    for folder in (state_dir, job.log_dir):
        folder.mkdir(parents=True, exist_ok=True)

    def batches(split: str, **options: Any) -> tf.data.Dataset:
        return dataset(
            job.examples,
            split,
            job.preprocessing,
            batch_size=settings.batch_size,
            work_dir=job.work_dir,
            features=taken_features(prepared.model),
            target=training_target(prepared.model, job.preprocessing),
            weight_ranks=weight_ranks(prepared.model, job.preprocessing),
            bucketing=settings.bucketing,
            **options,
        )

    return TrainContext(
        model=prepared.model,
        data=batches(settings.split, seed=settings.seed, epochs=None),
        validation=batches(job.eval_split) if job.eval_split else None,
        epochs=settings.epochs or 1,
        steps_per_epoch=prepared.data.steps_per_epoch,
        strategy=prepared.replicas.strategy,
        state_dir=state_dir,
        log_dir=job.log_dir,
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
            f"{name_of(function)} must return None, the result of model.fit, or a list with a dict for each epoch; "
            f"it returned {type(returned).__name__}"
        )
    return history or [{}]
