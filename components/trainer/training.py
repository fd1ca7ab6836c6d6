"""The training loop: steps, epochs, checkpoints, and recovery from non-finite losses."""

from __future__ import annotations

import logging
import operator
import time
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core import interruption
from kerasline.components.core.error_places import describe_failure
from kerasline.components.core.errors import DataError, ParameterError, check_known
from kerasline.components.data.training_input import dataset
from kerasline.components.models.targets import taken_features, training_target, weight_ranks
from kerasline.components.trainer import non_finite
from kerasline.components.trainer.autotune import Autotuner
from kerasline.components.trainer.checkpoints import Checkpoints, all_variables
from kerasline.components.trainer.class_weights import class_weights
from kerasline.components.trainer.early_stopping import EarlyStopping
from kerasline.components.trainer.history import History
from kerasline.components.trainer.job import Job
from kerasline.components.trainer.optimizers import LearningRate, averaged_weights
from kerasline.components.trainer.phases import Phases
from kerasline.components.trainer.preparation import PreparedTraining, prepare
from kerasline.components.trainer.progress import Progress
from kerasline.components.trainer.replica_gradients import ReplicaGradients
from kerasline.components.trainer.results import Outcome, write_results
from kerasline.components.trainer.tensorboard import TensorBoardLogs
from kerasline.components.trainer.train_steps import Chunk, Evaluation, TrainSteps, metric_values

if TYPE_CHECKING:
    from kerasline.components.trainer.answer_evaluation import AnswerEvaluation

LOG = logging.getLogger("kerasline")
# Give up after this many rollbacks: a lower learning rate evidently does not help.
MAX_ROLLBACKS = 5
MIN_EVALUATION_BATCH = 1024
# The time between two checkpoints is at least this many times what one takes to write.
CHECKPOINT_INTERVAL = 20

OnEpoch = Callable[[int, Mapping[str, Any]], bool]


def train(
    job: Job,
    report: Callable[[str], None],
    on_epoch: OnEpoch = lambda epoch, metrics: False,
    watched: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """Train, and write the trained model and its history into the folders of the job.

    Args:
        job: the training.
        report: called with progress messages.
        on_epoch: called after each epoch with its number, from 1, and its metrics. Training stops if it returns
            True. By default it never does.
        watched: names of metrics that `on_epoch` reads, by the parameter that holds them.

    Returns:
        The metrics to display.

    Raises:
        DataError: the loss is NaN or infinite (the message names the step and the layer), or memory ran out.
        ParameterError: a setting cannot be applied.
    """
    start = time.perf_counter()
    prepared = prepare(job)
    # Outside the scope of the strategy, because it loads the preprocessing.
    answers = None
    if job.settings.evaluate_answers:
        from kerasline.components.trainer.answer_evaluation import AnswerEvaluation  # imports Beam

        answers = AnswerEvaluation(job, prepared.model, taken={"loss", *metric_values(prepared.model)})
    with interruption.deferred() as stop, prepared.scope():
        training = Training(job, prepared, answers, report, on_epoch, stop.is_set)
        training.check_watched(watched)
        outcome = _run(training, job, prepared)
    # Outside the scope, in which creating a variable is a collective operation of all workers.
    return write_results(job, prepared, outcome, time.perf_counter() - start)


def _run(training: Training, job: Job, prepared: PreparedTraining) -> Outcome:
    try:
        return training.run()
    except tf.errors.InvalidArgumentError as error:
        failure = describe_failure(error, job.preprocessing.load(), prepared.model)
        raise DataError(f"{training.position}: {failure}") from error
    except (tf.errors.ResourceExhaustedError, MemoryError) as error:
        from kerasline.components.trainer.planning.memory import describe_shortage

        settings = job.settings
        message = describe_shortage(job.model.load(), settings.batch_size, prepared.precision, settings.device)
        raise DataError(f"memory ran out: {message}") from error


class _NonFiniteLoss(Exception):
    """The loss of a step (counted from 0) is NaN or infinite."""

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(step, loss)
        self.step, self.loss = step, loss


class Training:
    """Runs the steps of one training.

    Args:
        job: the training.
        prepared: the model and the data.
        answers: evaluates answers after each epoch, or None.
        report: called with progress messages.
        on_epoch: see `train`.
        stop_requested: returns whether to write a checkpoint and stop.
    """

    def __init__(
        self,
        job: Job,
        prepared: PreparedTraining,
        answers: AnswerEvaluation | None,
        report: Callable[[str], None],
        on_epoch: OnEpoch,
        stop_requested: Callable[[], bool],
    ) -> None:
        self._job, self._settings, self._model = job, job.settings, prepared.model
        self._prepared, self._replicas, self._data = prepared, prepared.replicas, prepared.data
        self._on_epoch, self._stop_requested = on_epoch, stop_requested
        self._total_steps = self._settings.steps or self._data.steps_per_epoch * (self._settings.epochs or 1)
        epochs = -(-self._total_steps // self._data.steps_per_epoch)
        self._progress = Progress(report, epochs, self._total_steps)
        self._history = History()
        self._class_weights = class_weights(job, self._model)
        self._evaluation_data = self._new_evaluation_data()
        self._rollbacks, self._rate_factor = 0, 1.0
        self._phases = Phases(self._settings.phases, prepared)
        self._begin_phase(0)
        self._scaling = None
        if self._settings.calibrate:
            from kerasline.components.trainer.temperature import TemperatureScaling

            self._scaling = TemperatureScaling(job, self._model)
        self._answers, self._early_stopping = answers, None
        if stopping := self._settings.early_stopping:
            self.check_watched({"Trainer.early_stopping.monitor": stopping.monitor})
            direction = answers.directions.get(stopping.monitor.removeprefix("val_")) if answers else None
            self._early_stopping = EarlyStopping(stopping, direction)
        writes_logs = self._settings.tensorboard and self._replicas.is_chief
        self._logs = TensorBoardLogs(job.log_dir if writes_logs else None, self._settings.profile_steps)
        folder = (job.state_dir or job.work_dir) / "checkpoints"
        self._checkpoints = Checkpoints(folder, self._settings.keep_checkpoints, writes=self._replicas.is_chief)
        self._last_checkpoint = time.monotonic()
        self._step = 0  # number of steps done, over all epochs
        self._running_steps = 1  # number of steps in the call that is running
        self._resumed_at: int | None = None
        self._ended_early = False
        self._rolled_back_to: int | None = None

    def check_watched(self, metrics: Mapping[str, str]) -> None:
        """Raise a ParameterError if a metric, given by parameter, is none that each epoch reports as one number."""
        known = {"loss": 0.0, **metric_values(self._model)}
        if self._evaluation is not None:
            known |= {f"val_{name}": value for name, value in known.items()}
        if self._answers is not None:
            known |= dict.fromkeys((f"val_{name}" for name in self._answers.directions), 0.0)
        for where, name in metrics.items():
            check_known(where, "no metric", [name], known)
            if isinstance(known[name], list):
                raise ParameterError(f"{where}: expected a metric with one value, and {name!r} has {len(known[name])}")

    def run(self) -> Outcome:
        """Train to the end, from the newest checkpoint if there is one."""
        try:
            return self._train()
        finally:
            self._checkpoints.wait()

    def _train(self) -> Outcome:
        if self._restore():
            self._resumed_at = self._step
            self._progress.say(f"resumed after step {self._step:,} of {self._total_steps:,}")
        else:
            self._save()
        while True:
            try:
                self._run_steps()
                break
            except _NonFiniteLoss as found:
                self._roll_back(found)
        self._logs.close()
        best = self._early_stopping.restore_weights(self._model) if self._early_stopping else None
        if best is None:
            self._model.optimizer.finalize_variable_values(self._model.trainable_variables)
        calibration = None
        if self._scaling is not None and self._evaluation_data is not None:
            calibration = self._scaling.apply(self._evaluation_data)
        return Outcome(
            self._history,
            self._step,
            self._autotuner.step_seconds,
            self._autotuner.is_compiled,
            self._autotuner.next_steps(self._data.batches_per_chunk),
            best,
            self._resumed_at,
            self._phases.facts,
            calibration,
        )

    @property
    def position(self) -> str:
        """The steps that are running, as text: their number in the training, from 1, and the epoch."""
        first, last = self._step + 1, min(self._step + self._running_steps, self._total_steps)
        steps = f"step {first:,}" if first >= last else f"steps {first:,} to {last:,}"
        return f"{steps} (epoch {self._step // self._data.steps_per_epoch + 1})"

    # Steps and epochs

    def _run_steps(self) -> None:
        chunks = self._data.starting_at(self._step)
        while self._step < self._total_steps and not self._ended_early:
            self._running_steps = self._data.batches_per_chunk
            self._run_chunk(*next(chunks))
            if self._step % self._data.steps_per_epoch == 0 or self._step == self._total_steps:
                self._end_epoch()
                self._maybe_begin_phase()
                self._maybe_checkpoint(epoch_ended=True)

    def _run_chunk(self, full_batches: int, batches: Chunk | None, last: Chunk | None) -> None:
        done, count = 0, min(full_batches, self._total_steps - self._step)
        while done < count:
            steps = self._next_steps(count - done)
            losses = self._call(batches, done, steps)
            self._add_losses(losses)
            done += steps
        if last is not None and self._step < self._total_steps:
            self._running_steps = 1
            self._add_losses(np.array([self._train_steps.run_one(last)], np.float32))

    def _call(self, batches: Chunk, first: int, steps: int) -> np.ndarray:
        """Run some steps in one call of TensorFlow and return their losses."""
        start, self._running_steps = time.perf_counter(), steps
        if self._data.has_varying_shapes:
            losses = self._train_steps.run_one(batches)[None]
        else:
            losses = self._call_compiled(batches, first, steps)
        values = losses.numpy()[:steps]
        self._logs.write_graph(lambda: self._train_steps.graph)
        self._autotuner.record(steps, time.perf_counter() - start, self._total_steps - self._step - steps)
        return values

    def _call_compiled(self, batches: Chunk, first: int, steps: int) -> tf.Tensor:
        try:
            return self._train_steps.run(batches, first, steps, jit_compile=self._autotuner.is_compiled)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            if not self._autotuner.is_compiled or self._settings.jit_compile is True:
                raise
            LOG.info("XLA cannot compile the step: %s", error)
            self._progress.say("XLA cannot compile this model; training without XLA")
            self._autotuner.disable_xla()
            return self._train_steps.run(batches, first, steps, jit_compile=False)

    def _next_steps(self, limit: int) -> int:
        """Return the number of steps of the next call. It ends where a checkpoint or the profile is due."""
        every = self._settings.checkpoint_steps
        boundaries = [(self._step // every + 1) * every] if every else []
        boundary = self._logs.next_profile_boundary(self._step)
        boundaries += [] if boundary is None else [boundary]
        self._logs.update_profile(self._step)
        steps = self._autotuner.next_steps(min([limit, *(boundary - self._step for boundary in boundaries)]))
        return round(self._replicas.from_chief([steps])[0])

    def _add_losses(self, losses: np.ndarray) -> None:
        """Record the losses of some steps of one epoch."""
        is_finite = np.isfinite(losses)
        if not is_finite.all():
            first = int(np.argmin(is_finite))
            raise _NonFiniteLoss(self._step + first, float(losses[first]))
        self._history.add(losses, self._data.rows_of(self._step))
        self._step += len(losses)
        if self._step % self._data.steps_per_epoch and self._step < self._total_steps:
            self._logs.write_scalars(self._step, {"loss": float(losses.mean())})
            epoch = self._step // self._data.steps_per_epoch + 1
            self._progress.steps_done(epoch, self._step, self._history.loss, self._autotuner.step_seconds)
            self._maybe_checkpoint(epoch_ended=False)

    def _end_epoch(self) -> None:
        """Record the metrics of an epoch and decide whether it is the last one."""
        steps = self._step % self._data.steps_per_epoch or self._data.steps_per_epoch
        metrics = {**metric_values(self._model), "loss": self._history.loss}
        rate = self._learning_rate.current()
        with averaged_weights(self._model):
            self._model.reset_metrics()
            if self._evaluation is not None:
                metrics |= {f"val_{name}": value for name, value in self._evaluation.metrics().items()}
            if self._answers is not None:
                metrics |= {f"val_{name}": value for name, value in self._answers.metrics().items()}
            epoch = len(self._history.epochs) + 1
            stopping, first_epoch = self._early_stopping, self._phases.first_epoch(self._phase)
            stops = stopping is not None and stopping.should_stop(epoch, metrics, self._model, first_epoch)
        stops = stops and self._phase == len(self._phases) - 1  # an earlier phase only prepares the last one
        phase = {"phase": self._phase + 1} if len(self._phases) > 1 else {}
        self._history.end_epoch(epoch, steps, {**phase, **metrics, "learning_rate": rate})
        self._progress.epoch_done(epoch, metrics)
        self._logs.write_epoch(epoch, {**metrics, "learning_rate": rate})
        if stops and self._step < self._total_steps and self._settings.early_stopping:
            monitor = self._settings.early_stopping.monitor
            self._progress.say(f"stopped after epoch {epoch}: {monitor} did not improve")
        self._ended_early = bool(self._replicas.from_chief([float(self._on_epoch(epoch, metrics) or stops)])[0])

    # Phases

    def _begin_phase(self, number: int) -> None:
        """Begin a phase, and set up all that depends on the optimizer and on what is trained."""
        self._phase = number
        self._phases.begin(number)
        self._autotuner = Autotuner(
            self._settings.steps_per_execution,
            _jit_compile(self._job, self._prepared),
            self._prepared.placement.kind == "GPU",
        )
        self._gradients = ReplicaGradients(self._model.optimizer) if self._replicas.count > 1 else None
        self._variables = all_variables(self._model)
        self._learning_rate = LearningRate(self._model)
        if self._rate_factor != 1:
            self._learning_rate.scale(self._rate_factor)
        self._train_steps = self._new_train_steps()
        data = self._evaluation_data
        self._evaluation = None if data is None else Evaluation(self._model, self._replicas, data)

    def _maybe_begin_phase(self) -> None:
        """Begin the next phase if the next epoch belongs to it."""
        number = self._phases.of_epoch(len(self._history.epochs) + 1)
        if number == self._phase or self._ended_early or self._step == self._total_steps:
            return
        self._model.optimizer.finalize_variable_values(self._model.trainable_variables)
        self._begin_phase(number)
        self._save()  # the cause of a non-finite loss is sought from the newest checkpoint on, within one phase

    # Checkpoints

    def _maybe_checkpoint(self, epoch_ended: bool) -> None:
        """Write a checkpoint if one is due or if a stop was requested, and obey the request."""
        stops, is_due = self._replicas.sum_over_processes(
            [float(self._stop_requested()), float(self._is_checkpoint_due(epoch_ended))]
        )
        if stops or is_due:
            self._save()
        if stops:
            self._checkpoints.wait()
            self._replicas.sum_over_processes([0.0])  # wait until the chief has written it
            self._logs.flush()
            LOG.info("stop requested; checkpoint written after step %s", self._step)
            interruption.obey()

    def _is_checkpoint_due(self, epoch_ended: bool) -> bool:
        settings = self._settings
        if settings.checkpoint_steps and self._step % settings.checkpoint_steps == 0:
            return True
        if epoch_ended and settings.checkpoint_epochs:
            return len(self._history.epochs) % settings.checkpoint_epochs == 0
        if settings.checkpoint_seconds is None or self._checkpoints.is_writing:
            return False
        seconds = max(settings.checkpoint_seconds, CHECKPOINT_INTERVAL * self._checkpoints.seconds)
        return time.monotonic() - self._last_checkpoint >= seconds

    def _save(self) -> None:
        stopping = self._early_stopping.state() if self._early_stopping else {}
        state = {
            **self._history.state(),
            **{f"early_stopping {key}": value for key, value in stopping.items()},
            "step": self._step,
            "autotuner": self._autotuner.state(),
            "rollbacks": self._rollbacks,
            "rate_factor": self._rate_factor,
            "ended_early": self._ended_early,
            "phase": self._phase,
        }
        self._checkpoints.save(self._step, self._variables, state)
        self._last_checkpoint = time.monotonic()

    def _restore(self) -> bool:
        """Return to the newest checkpoint. Returns False if there is none."""
        state = self._checkpoints.restore(self._variables_of, self._chiefs_step)
        if state is None:
            return False
        self._step = state["step"]
        self._history.restore(state)
        self._autotuner.restore(state["autotuner"])
        if self._early_stopping:
            self._early_stopping.restore({key.removeprefix("early_stopping "): value for key, value in state.items()})
        self._rollbacks = max(self._rollbacks, state["rollbacks"])
        self._ended_early = state["ended_early"]
        self._scale_learning_rate(min(self._rate_factor, state["rate_factor"]))
        return True

    def _variables_of(self, state: Mapping[str, Any]) -> list[keras.Variable]:
        """Return the variables of a checkpoint, in whose phase training is afterwards."""
        if state["phase"] != self._phase:
            self._begin_phase(state["phase"])
        return self._variables

    def _chiefs_step(self, newest: int | None) -> int | None:
        """Return the step of the chief's newest checkpoint. Others may see another one in a shared folder."""
        step = round(self._replicas.from_chief([-1 if newest is None else newest])[0])
        return None if step < 0 else step

    # Non-finite losses

    def _roll_back(self, found: _NonFiniteLoss) -> None:
        """Return to the last checkpoint with half the learning rate.

        Raises:
            DataError: the settings do not allow it, or it was done too often. Names the step and the layer.
        """
        cause = self._cause(found.step)
        epoch, step = divmod(found.step, self._data.steps_per_epoch)
        message = f"the loss became {found.loss} in step {found.step + 1} (epoch {epoch + 1}, step {step + 1}): {cause}"
        if self._settings.on_non_finite == "stop":
            raise DataError(
                f"{message}; the checkpoint before it is kept. Lower the learning rate, clip gradients "
                "(Trainer.clip_norm), check the preprocessed features for extreme or missing values, or set "
                "Trainer.on_non_finite=roll_back"
            )
        if self._rollbacks == MAX_ROLLBACKS:
            raise DataError(f"{message}; gave up after {MAX_ROLLBACKS} rollbacks, a lower learning rate does not help")
        self._restore()
        if self._step == self._rolled_back_to:  # this checkpoint has already led to a non-finite loss
            self._checkpoints.forget_newest()
            self._restore()
        self._rolled_back_to = self._step
        self._rollbacks += 1
        self._scale_learning_rate(self._rate_factor / 2)
        self._save()
        self._progress.say(
            f"{message}; back to step {self._step:,} with {self._rate_factor:g} times the initial learning rate"
        )

    def _cause(self, step: int) -> str:
        """Train again from the newest checkpoint up to the step, and describe what is non-finite in it."""
        self._restore()
        batch_size = self._data.rows_per_replica
        for full_batches, batches, last in self._data.starting_at(self._step):
            count = min(full_batches, step - self._step)
            if count:
                self._call(batches, 0, count)
                self._step += count
            if self._step == step:
                chunk, first = (last, 0) if count == full_batches else (batches, count * batch_size)
                chunk = self._replicas.first_local(chunk)
                batch = tf.nest.map_structure(operator.itemgetter(slice(first, first + batch_size)), chunk)
                return non_finite.describe_cause(self._model, batch)
            if last is not None:
                self._train_steps.run_one(last)
                self._step += 1
        raise AssertionError("the training data repeats without end")

    def _scale_learning_rate(self, factor: float) -> None:
        self._learning_rate.scale(factor)
        if factor != self._rate_factor:
            self._rate_factor = factor
            self._train_steps = self._new_train_steps()  # traced functions keep a schedule unchanged

    # Parts

    def _new_train_steps(self) -> TrainSteps:
        return TrainSteps(
            self._model,
            self._replicas,
            self._data.rows_per_replica,
            self._data.batches_per_chunk,
            self._class_weights,
            self._gradients,
        )

    def _new_evaluation_data(self) -> tf.data.Dataset | None:
        if self._job.eval_split is None:
            return None
        return dataset(
            self._job.examples,
            self._job.eval_split,
            self._job.preprocessing,
            batch_size=self._evaluation_batch_size,
            work_dir=self._job.work_dir,
            features=taken_features(self._model),
            target=training_target(self._model, self._job.preprocessing),
            weight_ranks=weight_ranks(self._model, self._job.preprocessing),
            bucketing=self._settings.bucketing,
        )

    @property
    def _evaluation_batch_size(self) -> int:
        # Rows of varying length are padded to the longest: what fits in training may not fit in larger batches.
        if self._data.has_varying_shapes:
            return self._settings.batch_size
        return max(self._settings.batch_size, MIN_EVALUATION_BATCH)


def _jit_compile(job: Job, prepared: PreparedTraining) -> bool | Literal["auto"]:
    """Return whether to compile with XLA, or "auto" if the first steps decide."""
    settings, data = job.settings, prepared.data
    if settings.jit_compile != "auto":
        return settings.jit_compile
    has_strings = any(spec.dtype == tf.string for spec in tf.nest.flatten(data.element_spec))
    is_impossible = has_strings or data.has_varying_shapes or prepared.replicas.count > 1
    # Decisions by measured time differ between runs.
    return False if is_impossible or settings.deterministic else "auto"
