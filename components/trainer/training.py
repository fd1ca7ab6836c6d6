"""Training itself: from a job to a trained model, epoch by epoch, chunk by chunk."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core import interruption
from kerasline.components.core.errors import DataError
from kerasline.components.data.training_input import dataset
from kerasline.components.trainer import non_finite
from kerasline.components.trainer.autotune import Pace
from kerasline.components.trainer.checkpoints import Checkpoints, all_variables
from kerasline.components.trainer.class_weights import class_weights
from kerasline.components.trainer.early_stopping import EarlyStopping
from kerasline.components.trainer.gradients import WholeGradients
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.loop import Chunk, Evaluation, Loop
from kerasline.components.trainer.optimizers import LearningRate, averaged
from kerasline.components.trainer.preparation import Prepared, prepare
from kerasline.components.trainer.progress import Progress
from kerasline.components.trainer.records import Records
from kerasline.components.trainer.results import Outcome, write_results
from kerasline.components.trainer.tensorboard import TensorBoardLogs

LOG = logging.getLogger("kerasline")
# After so many setbacks, a lower learning rate is not what is missing.
MOST_ROLL_BACKS = 5

OnEpoch = Callable[[int, Mapping[str, Any]], bool]


def train(job: Job, report: Callable[[str], None], on_epoch: OnEpoch = lambda epoch, figures: False) -> dict[str, Any]:
    """Trains, and writes the trained model and its history into the job's folders.

    Args:
        report: takes a line on how it goes on.
        on_epoch: called with the number of an epoch that has ended, from 1, and its figures; true ends
            training there.

    Returns:
        The figures worth showing.

    Raises:
        DataError: the loss is no longer a finite number; the step and the layer are named.
        ParameterError: a setting cannot be met here.
    """
    began = time.perf_counter()
    prepared = prepare(job)
    with interruption.deferred() as stop, prepared.scope():
        training = Training(job, prepared, report, on_epoch, stop.is_set)
        outcome = _guarded(training, job, prepared)
    # Outside: whatever makes a variable inside wants all workers to do so.
    return write_results(job, prepared, outcome, time.perf_counter() - began)


def _guarded(training: Training, job: Job, prepared: Prepared) -> Outcome:
    """Runs; what runs out of memory is told as `plan` would have told it."""
    try:
        return training.run()
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        from kerasline.components.trainer.planning.memory import would_have_said

        settings = job.settings
        told = would_have_said(job.model.load(), settings.batch_size, prepared.precision, settings.device)
        raise DataError(f"memory ran out: {told}") from error


class _NonFinite(Exception):
    """The loss of a step, counted from 0, is not a finite number."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(step, loss)
        self.step, self.loss = step, loss


class Training:
    """The loop over steps, and what goes with it."""

    def __init__(
        self,
        job: Job,
        prepared: Prepared,
        report: Callable[[str], None],
        on_epoch: OnEpoch,
        stop: Callable[[], bool],
    ) -> None:
        self.job, self.settings, self.model = job, job.settings, prepared.model
        self._replicas, self.supply = prepared.replicas, prepared.supply
        self._on_epoch, self._stop = on_epoch, stop
        self.total = self.settings.steps or self.supply.an_epoch * (self.settings.epochs or 1)
        self.epochs = -(-self.total // self.supply.an_epoch)
        self.progress = Progress(report, self.epochs, self.total)
        self.records = Records()
        self.pace = Pace(
            self.settings.steps_per_execution, _jit(self.settings, prepared), prepared.placement.kind == "GPU"
        )
        self._class_weights = class_weights(job, self.settings.class_weight)
        self._gradients = WholeGradients(self.model.optimizer) if self._replicas.count > 1 else None
        self._loop = self._new_loop()
        self._evaluation = self._measuring()
        self.stopping = EarlyStopping(self.settings.early_stopping) if self.settings.early_stopping else None
        self._logs = TensorBoardLogs(self._log_folder(), self.settings.profile_steps)
        folder = (job.state_dir or job.work_dir) / "checkpoints"
        self._checkpoints = Checkpoints(folder, self.settings.keep_checkpoints, writes=prepared.replicas.chief)
        self._variables = all_variables(self.model)
        self._rate = LearningRate(self.model)
        self._saved = time.monotonic()
        self.step = 0  # of all, so many are done
        self.resumed_at: int | None = None
        self.ended = False  # before the last step
        self._roll_backs, self._slowed = 0, 1.0
        self._rolled_back_to: int | None = None

    def run(self) -> Outcome:
        """Trains to the end, from the newest checkpoint where there is one."""
        if self._restore():
            self.resumed_at = self.step
            self.progress.say(f"goes on after step {self.step:,} of {self.total:,}")
        else:
            self._save()
        while True:
            try:
                self._steps()
                break
            except _NonFinite as found:
                self._set_back(found)
        self._logs.close()
        best = self.stopping.restore(self.model) if self.stopping else None
        if best is None:
            self.model.optimizer.finalize_variable_values(self.model.trainable_variables)
        return Outcome(
            self.records,
            self.step,
            self.pace.step_seconds,
            self.pace.compiled,
            self.pace.count(self.supply.at_once),
            best,
            self.resumed_at,
        )

    # The loop

    def _steps(self) -> None:
        supply = self.supply.starting(self.step)
        while self.step < self.total and not self.ended:
            self._chunk(*next(supply))
            if self.step % self.supply.an_epoch == 0 or self.step == self.total:
                self._end_epoch()
                self._pause(epoch_ended=True)

    def _chunk(self, whole: int, batches: Chunk | None, last: Chunk | None) -> None:
        done, wanted = 0, min(whole, self.total - self.step)
        while done < wanted:
            count = self._next_count(wanted - done)
            losses = self._called(batches, done, count)
            self._took(losses)
            done += count
        if last is not None and self.step < self.total:
            self._took(np.array([self._loop.last_step(last)], np.float32))

    def _called(self, batches: Chunk, first: int, count: int) -> np.ndarray:
        """The losses of some steps, in one call of TensorFlow."""
        began = time.perf_counter()
        if self.supply.varies:
            losses = self._loop.last_step(batches)[None]
        else:
            losses = self._compiled_call(batches, first, count)
        losses = losses.numpy()[:count]
        self._logs.graph(lambda: self._loop.graph)
        self.pace.took(count, time.perf_counter() - began, self.total - self.step - count)
        return losses

    def _compiled_call(self, batches: Chunk, first: int, count: int) -> tf.Tensor:
        try:
            return self._loop.steps(batches, first, count, compiled=self.pace.compiled)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not self.pace.compiled or self.settings.jit_compile is True:
                raise
            LOG.info("XLA cannot compile the step: %s", error)
            self.progress.say("XLA cannot compile this model; it trains without")
            self.pace.give_up_compiling()
            return self._loop.steps(batches, first, count, compiled=False)

    def _next_count(self, most: int) -> int:
        """Steps for a call: none goes past one at which something is due."""
        every = self.settings.checkpoint_steps
        edges = [(self.step // every + 1) * every] if every else []
        edges += [edge for edge in [self._logs.boundary(self.step)] if edge is not None]
        self._logs.profile(self.step)
        count = self.pace.count(min([most, *(edge - self.step for edge in edges)]))
        return round(self._replicas.chiefs([count])[0])

    def _took(self, losses: np.ndarray) -> None:
        """What follows after some steps of one epoch."""
        finite = np.isfinite(losses)
        if not finite.all():
            first = int(np.argmin(finite))
            raise _NonFinite(self.step + first, float(losses[first]))
        self.records.add(losses, self.supply.rows_of(self.step))
        self.step += len(losses)
        if self.step % self.supply.an_epoch and self.step < self.total:
            self._logs.scalars(self.step, {"loss": float(losses.mean())})
            epoch = self.step // self.supply.an_epoch + 1
            self.progress.within(epoch, self.step, self.records.loss, self.pace.step_seconds)
            self._pause(epoch_ended=False)

    def _end_epoch(self) -> None:
        """Takes the figures of an epoch, and decides whether it is the last."""
        within = self.step % self.supply.an_epoch or self.supply.an_epoch
        figures = {"loss": self.records.loss, **_figures(self.model)}
        rate = self._rate.now()
        with averaged(self.model):
            self.model.reset_metrics()
            if self._evaluation is not None:
                figures |= {f"val_{name}": value for name, value in self._evaluation.figures().items()}
            epoch = len(self.records.epochs) + 1
            stops = self.stopping is not None and self.stopping.stops(epoch, figures, self.model)
        self.records.end_epoch(epoch, within, {**figures, "learning_rate": rate})
        self.progress.epoch_ended(epoch, figures)
        self._logs.epoch(epoch, {**figures, "learning_rate": rate})
        if stops and self.step < self.total:
            watched = self.settings.early_stopping.monitor
            self.progress.say(f"stopped after epoch {epoch}: {watched} got no better")
        self.ended = bool(self._replicas.chiefs([float(self._on_epoch(epoch, figures) or stops)])[0])

    # Checkpoints

    def _pause(self, epoch_ended: bool) -> None:
        """Between two calls: writes a checkpoint where one is due, and obeys a wish to stop."""
        stops, due = self._replicas.sums([float(self._stop()), float(self._is_due(epoch_ended))])
        if stops or due:
            self._save()
        if stops:
            self._replicas.sums([0.0])  # all wait until it is written
            self._logs.flush()
            LOG.info("told to stop; checkpoint written after step %s", self.step)
            interruption.obey()

    def _is_due(self, epoch_ended: bool) -> bool:
        asked = self.settings
        if asked.checkpoint_steps and self.step % asked.checkpoint_steps == 0:
            return True
        if epoch_ended and asked.checkpoint_epochs:
            return len(self.records.epochs) % asked.checkpoint_epochs == 0
        return bool(asked.checkpoint_seconds) and time.monotonic() - self._saved >= asked.checkpoint_seconds

    def _save(self) -> None:
        stopping = {f"stopping {k}": v for k, v in self.stopping.state().items()} if self.stopping else {}
        state = {
            **self.records.state(),
            **stopping,
            "step": self.step,
            "pace": self.pace.decision(),
            "roll_backs": self._roll_backs,
            "slowed": self._slowed,
            "ended": self.ended,
        }
        self._checkpoints.save(self.step, self._variables, state)
        self._saved = time.monotonic()

    def _restore(self) -> bool:
        """Goes back to the newest checkpoint, if there is one."""
        state = self._checkpoints.restore(self._variables, self._agreed)
        if state is None:
            return False
        self.step = state["step"]
        self.records.resume(state)
        self.pace.resume(state["pace"])
        if self.stopping:
            found = {key.removeprefix("stopping "): value for key, value in state.items()}
            self.stopping.resume(found)
        self._roll_backs = max(self._roll_backs, state["roll_backs"])
        self.ended = state["ended"]
        self._slow_down_to(min(self._slowed, state["slowed"]))
        return True

    def _agreed(self, newest: int | None) -> int | None:
        """The step of the chief's newest checkpoint: a shared folder may show another to the others."""
        step = round(self._replicas.chiefs([-1 if newest is None else newest])[0])
        return None if step < 0 else step

    # Losses that are no numbers

    def _set_back(self, found: _NonFinite) -> None:
        """Finds the layer, then rolls back or gives up.

        Raises:
            DataError: naming step and layer.
        """
        where = self._culprit(found.step)
        epoch, within = divmod(found.step, self.supply.an_epoch)
        told = f"the loss became {found.loss} in step {found.step + 1} (epoch {epoch + 1}, step {within + 1}): {where}"
        if self.settings.on_non_finite == "stop":
            raise DataError(
                f"{told}; the checkpoint before it is kept. Lower the learning rate, clip gradients "
                "(Trainer.clip_norm), look for extreme or missing values that preprocessing lets through, or "
                "set Trainer.on_non_finite=roll_back"
            )
        if self._roll_backs == MOST_ROLL_BACKS:
            raise DataError(f"{told}; rolled back {MOST_ROLL_BACKS} times already, a lower learning rate does not help")
        self._restore()
        if self.step == self._rolled_back_to:  # from there it went wrong already
            self._checkpoints.forget_newest()
            self._restore()
        self._rolled_back_to = self.step
        self._roll_backs += 1
        self._slow_down_to(self._slowed / 2)
        self._save()
        self.progress.say(f"{told}; back to step {self.step:,}, learning rate {self._slowed:g} times what it was")

    def _culprit(self, step: int) -> str:
        """Trains again from the newest checkpoint to just before the step, and looks at it."""
        self._restore()
        share = self.supply.share
        for whole, batches, last in self.supply.starting(self.step):
            count = min(whole, step - self.step)
            if count:
                self._called(batches, 0, count)
                self.step += count
            if self.step == step:
                batch = last if count == whole else batches
                rows = slice(None) if count == whole else slice(count * share, (count + 1) * share)
                return non_finite.culprit(self.model, _rows(self._replicas.first(batch), rows))
            if last is not None:
                self._loop.last_step(last)
                self.step += 1

    def _slow_down_to(self, factor: float) -> None:
        self._rate.slow_down(factor)
        if factor != self._slowed:
            self._slowed = factor
            self._loop = self._new_loop()

    # What it is made of

    def _new_loop(self) -> Loop:
        supply = self.supply
        return Loop(self.model, self._replicas, supply.share, supply.at_once, self._class_weights, self._gradients)

    def _measuring(self) -> Evaluation | None:
        split = self.settings.eval_split
        if not split or split not in self.job.examples.splits:
            return None
        data = dataset(
            self.job.examples,
            split,
            self.job.preprocessing,
            batch_size=max(self.settings.batch_size, 1024),
            work_dir=self.job.work_dir,
        )
        return Evaluation(self.model, self._replicas, data)

    def _log_folder(self) -> Any:
        if not self.settings.tensorboard or not self._replicas.chief:
            return None
        return self.job.log_dir


def _rows(chunk: Chunk, rows: slice) -> Chunk:
    return tf.nest.map_structure(lambda tensor: tensor[rows], chunk)


def _figures(model: keras.Model) -> dict[str, Any]:
    """The metrics of an epoch, but for the loss: numbers, or lists of them."""
    figures = {name: np.asarray(value) for name, value in model.get_metrics_result().items() if name != "loss"}
    return {name: value.astype(float).tolist() for name, value in figures.items()}


def _jit(settings: Any, prepared: Prepared) -> Any:
    """Whether to compile, as far as it is decided before the first step."""
    if settings.jit_compile != "auto":
        return settings.jit_compile
    texts = any(spec.dtype == tf.string for spec in tf.nest.flatten(prepared.supply.element_spec))
    impossible = texts or prepared.supply.varies or prepared.replicas.count > 1
    # A choice by the clock is not the same every time.
    return False if impossible or settings.deterministic else "auto"
