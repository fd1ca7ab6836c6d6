"""The optimizer that training uses: the model's own or another, with what the settings add to it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import keras

from kerasline.components.core.errors import ParameterError
from kerasline.components.models import by_name


def prepare_optimizer(model: keras.Model, settings: SimpleNamespace, precision: str) -> None:
    """Gives the model, in place, the optimizer, loss and metrics that the settings ask for.

    With mixed_float16 the optimizer is wrapped in one that scales the loss.

    Raises:
        ParameterError: an unknown optimizer, loss or metric, or arguments that it does not take.
    """
    optimizer, changes = plain_optimizer(model), _changes(settings)
    if settings.optimizer is not None:
        optimizer = by_name.optimizer(settings.optimizer, "Trainer.optimizer")
    if changes:
        optimizer = _rebuilt(optimizer, changes)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    asked: dict[str, Any] = {} if optimizer is model.optimizer else {"optimizer": optimizer}
    if settings.loss is not None:
        asked["loss"] = by_name.each(settings.loss, by_name.loss, "Trainer.loss")
    if settings.metrics is not None:
        asked["metrics"] = by_name.each(settings.metrics, by_name.metric, "Trainer.metrics")
    if asked:
        recompile(model, **asked)


def recompile(model: keras.Model, **changes: Any) -> None:
    """Compiles a model, in place, as it was but for the changes; so does what is saved of it say."""
    compiled = keras.saving.deserialize_keras_object(model.get_compile_config())
    model.compile(**{**compiled, "auto_scale_loss": False, **changes})


def plain_optimizer(model: keras.Model) -> keras.optimizers.Optimizer:
    """The optimizer beneath loss scaling."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


class LearningRate:
    """The learning rate of a model's optimizer, a number or a schedule, which may be lowered."""

    def __init__(self, model: keras.Model) -> None:
        self._optimizer = plain_optimizer(model)
        base = self._optimizer._learning_rate
        self._schedule = base if isinstance(base, keras.optimizers.schedules.LearningRateSchedule) else None
        self._number = None if self._schedule else self.now()

    def now(self) -> float:
        return float(keras.ops.convert_to_numpy(self._optimizer.learning_rate))

    def slow_down(self, factor: float) -> None:
        """Makes it `factor` times what it was at first; a function traced before keeps a schedule as it was."""
        if self._schedule is None:
            self._optimizer.learning_rate = self._number * factor
        else:
            self._optimizer._learning_rate = Slowed(self._schedule, factor) if factor != 1 else self._schedule


@keras.saving.register_keras_serializable("kerasline")
class Slowed(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule times a factor."""

    def __init__(self, schedule: Any, factor: float) -> None:
        self._schedule, self._factor = keras.saving.deserialize_keras_object(schedule), factor

    def __call__(self, step: Any) -> Any:
        return self._schedule(step) * self._factor

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.saving.serialize_keras_object(self._schedule), "factor": self._factor}


@contextlib.contextmanager
def averaged(model: keras.Model) -> Iterator[None]:
    """While inside, the weights are their moving averages, where the optimizer keeps such."""
    if not plain_optimizer(model).use_ema:
        yield
        return
    weights = [keras.ops.convert_to_numpy(variable) for variable in model.trainable_variables]
    model.optimizer.finalize_variable_values(model.trainable_variables)
    try:
        yield
    finally:
        for variable, value in zip(model.trainable_variables, weights):
            variable.assign(value)


def _changes(settings: SimpleNamespace) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if settings.clip_norm is not None:
        changes["global_clipnorm"] = settings.clip_norm
    if settings.clip_value is not None:
        changes["clipvalue"] = settings.clip_value
    if settings.accumulate_steps > 1:
        changes["gradient_accumulation_steps"] = settings.accumulate_steps
    if settings.ema is not None:
        changes |= {"use_ema": True, "ema_momentum": settings.ema}
    return changes


def _rebuilt(optimizer: keras.optimizers.Optimizer, changes: dict[str, Any]) -> keras.optimizers.Optimizer:
    """A new one of the same kind, which has no past: what changes is fixed when it is made."""
    try:
        return type(optimizer).from_config({**optimizer.get_config(), **changes})
    except (TypeError, ValueError) as error:
        raise ParameterError(f"Trainer: {type(optimizer).__name__} does not take {changes}: {error}") from error
