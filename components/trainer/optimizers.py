"""The optimizer of a training: the model's own or another one, with what the settings change about it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import keras

from kerasline.components.core.errors import ParameterError
from kerasline.components.models import compiling
from kerasline.components.trainer.settings import TrainerSettings


def prepare_optimizer(model: keras.Model, settings: TrainerSettings, precision: str) -> None:
    """Compile the model, in place, with the optimizer, loss and metrics of the settings.

    With mixed_float16, the optimizer is wrapped in one that scales the loss.

    Raises:
        ParameterError: an unknown optimizer, loss or metric, or an argument that it does not accept.
    """
    optimizer, changes = plain_optimizer(model), _changed_arguments(settings)
    if settings.optimizer is not None:
        optimizer = compiling.optimizer(settings.optimizer, "Trainer.optimizer")
    if changes:
        optimizer = _with_arguments(optimizer, changes)
    if precision == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    arguments: dict[str, Any] = {} if optimizer is model.optimizer else {"optimizer": optimizer}
    if settings.loss is not None:
        arguments["loss"] = compiling.each(settings.loss, compiling.loss, "Trainer.loss")
    if settings.metrics is not None:
        arguments["metrics"] = compiling.each(settings.metrics, compiling.metric, "Trainer.metrics")
    if arguments:
        compiling.recompile(model, **arguments)


def keeps_optimizer(settings: TrainerSettings) -> bool:
    """Return whether the settings leave the optimizer of the model as it is, so that its state is of use."""
    return settings.optimizer is None and not settings.phases and not _changed_arguments(settings)


def renew_optimizer(model: keras.Model, template: keras.optimizers.Optimizer, learning_rate: Any = None) -> None:
    """Compile the model, in place, with a new optimizer of the class and arguments of another.

    Args:
        model: its optimizer decides whether losses are scaled.
        template: the other optimizer, without loss scaling.
        learning_rate: number or schedule, or None for that of the template.
    """
    optimizer = _with_arguments(template, {} if learning_rate is None else {"learning_rate": learning_rate})
    if plain_optimizer(model) is not model.optimizer:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    compiling.recompile(model, optimizer=optimizer)


def plain_optimizer(model: keras.Model) -> keras.optimizers.Optimizer:
    """Return the optimizer inside loss scaling."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


class LearningRate:
    """Reads and reduces the learning rate of a model's optimizer, whether it is a number or a schedule."""

    def __init__(self, model: keras.Model) -> None:
        self._optimizer = plain_optimizer(model)
        config = self._optimizer.get_config()["learning_rate"]
        is_schedule = isinstance(config, dict)
        self._schedule = keras.saving.deserialize_keras_object(config) if is_schedule else None
        self._initial = self.current()

    def current(self) -> float:
        return float(keras.ops.convert_to_numpy(self._optimizer.learning_rate))

    def scale(self, factor: float) -> None:
        """Set the learning rate to `factor` times its initial value.

        Functions that were traced before keep a schedule unchanged.
        """
        if self._schedule is None:
            self._optimizer.learning_rate = self._initial * factor
        else:
            self._optimizer.learning_rate = ScaledSchedule(self._schedule, factor) if factor != 1 else self._schedule


@keras.saving.register_keras_serializable("kerasline", name="Slowed")  # the name in files of earlier versions
class ScaledSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate schedule multiplied by a factor."""

    def __init__(self, schedule: Any, factor: float) -> None:
        self._schedule, self._factor = keras.saving.deserialize_keras_object(schedule), factor

    def __call__(self, step: Any) -> Any:
        return self._schedule(step) * self._factor

    def get_config(self) -> dict[str, Any]:
        return {"schedule": keras.saving.serialize_keras_object(self._schedule), "factor": self._factor}


@contextlib.contextmanager
def averaged_weights(model: keras.Model) -> Iterator[None]:
    """Set the weights to their moving averages inside the context, if the optimizer keeps averages."""
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


def _changed_arguments(settings: TrainerSettings) -> dict[str, Any]:
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


def _with_arguments(optimizer: keras.optimizers.Optimizer, changes: dict[str, Any]) -> keras.optimizers.Optimizer:
    """Return a new optimizer of the same class, without state. These arguments are fixed at construction."""
    try:
        return type(optimizer).from_config({**optimizer.get_config(), **changes})
    except (TypeError, ValueError) as error:
        raise ParameterError(f"Trainer: {type(optimizer).__name__} does not accept {changes}: {error}") from error
