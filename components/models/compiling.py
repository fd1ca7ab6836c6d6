"""Resolve the arguments of `compile`: optimizers, losses, metrics and schedules, by their Keras names.

A value is a name (`"adam"`), a dict of name and arguments (`{"name": "SGD", "momentum": 0.9}`), or a Keras object.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras

from kerasline.components.core.errors import ParameterError, nearest, one_line

WARM_UP_ARGUMENTS = ("warmup_steps", "warmup_from")


def optimizer(value: Any, where: str) -> keras.optimizers.Optimizer:
    """Return an optimizer. Its `learning_rate` may be the name or dict of a schedule.

    Args:
        value: name, dict or optimizer.
        where: the parameter that holds the value, for error messages.

    Raises:
        ParameterError: unknown name or argument.
    """
    if isinstance(value, dict) and isinstance(value.get("learning_rate"), (str, dict)):
        rate = schedule(value["learning_rate"], f"{where}.learning_rate")
        value = {**value, "learning_rate": rate}
    return _resolve(value, where, keras.optimizers, keras.optimizers.Optimizer, "optimizer")


def loss(value: Any, where: str) -> Any:
    """Return a loss. Raises ParameterError as `optimizer` does."""
    return _resolve(value, where, keras.losses, keras.losses.Loss, "loss")


def metric(value: Any, where: str) -> Any:
    """Return a metric. `"accuracy"` stays a string, since Keras chooses its kind by the loss."""
    if value in ("accuracy", "acc", "crossentropy", "ce"):
        return value
    return _resolve(value, where, keras.metrics, keras.metrics.Metric, "metric")


def schedule(value: Any, where: str) -> Any:
    """Return a learning rate schedule. `warmup_steps` and `warmup_from` add a linear warm-up to any schedule."""
    base = keras.optimizers.schedules.LearningRateSchedule
    if not isinstance(value, dict):
        return _resolve(value, where, keras.optimizers.schedules, base, "schedule")
    cls: Any = _classes_by_key(keras.optimizers.schedules, base).get(_key(str(value.get("name"))))
    accepted = set(inspect.signature(cls.__init__).parameters) if cls else set()
    warm_up = {name: value[name] for name in WARM_UP_ARGUMENTS if name in value and name not in accepted}
    rest = {name: argument for name, argument in value.items() if name not in warm_up}
    found = _resolve(rest, where, keras.optimizers.schedules, base, "schedule")
    if "warmup_steps" not in warm_up:
        return found
    return WarmUp(found, warm_up["warmup_steps"], warm_up.get("warmup_from", 0.0))


def each(value: Any, resolve: Callable[[Any, str], Any], where: str) -> Any:
    """Apply `resolve` to one loss or metric, to each in a list, or to each in a dict by output."""
    if isinstance(value, dict) and "name" not in value:
        return {name: each(inner, resolve, f"{where}.{name}") for name, inner in value.items()}
    if isinstance(value, list):
        return [each(inner, resolve, where) for inner in value]
    return resolve(value, where)


def recompile(model: keras.Model, **changes: Any) -> None:
    """Compile a model again, in place, with the arguments of its last `compile` except for the changes."""
    arguments = keras.saving.deserialize_keras_object(model.get_compile_config())
    model.compile(**{**arguments, "auto_scale_loss": False, **changes})


@keras.saving.register_keras_serializable("kerasline")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """Increases the learning rate linearly up to the first value of another schedule, then follows that schedule.

    Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2.

    Args:
        schedule: the schedule to follow. Its steps count from the end of the warm-up.
        steps: number of warm-up steps.
        start: learning rate at step 0. Defaults to 0.

    >>> from kerasline.components.models.compiling import WarmUp
    >>> schedule = WarmUp(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5), steps=4)
    >>> [round(float(schedule(step)), 3) for step in (0, 2, 4, 14)]
    [0.0, 0.05, 0.1, 0.05]
    """

    def __init__(self, schedule: Any, steps: int, start: float = 0.0) -> None:
        self._schedule, self._steps, self._start = schedule, steps, start

    def __call__(self, step: Any) -> Any:
        step = keras.ops.cast(step, "float32")
        first = keras.ops.cast(self._schedule(0), "float32")
        rising = self._start + (first - self._start) * step / self._steps
        after = self._schedule(keras.ops.maximum(step - self._steps, 0.0))
        return keras.ops.where(step < self._steps, rising, after)

    def get_config(self) -> dict[str, Any]:
        schedule = keras.saving.serialize_keras_object(self._schedule)
        return {"schedule": schedule, "steps": self._steps, "start": self._start}

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> WarmUp:
        schedule = keras.saving.deserialize_keras_object(config["schedule"], custom_objects)
        return cls(**{**config, "schedule": schedule})


def _resolve(value: Any, where: str, module: ModuleType, base: type, noun: str) -> Any:
    if isinstance(value, base) or callable(value):
        return value
    name, given = (value, {}) if isinstance(value, str) else _name_and_arguments(value, where, noun)
    known = _classes_by_key(module, base)
    if _key(name) not in known:
        try:  # short names, such as mse, and what users registered
            return module.get({"class_name": name, "config": given} if given else name)
        except (ValueError, TypeError, AttributeError):
            names = {cls.__name__ for cls in known.values()}
            raise ParameterError(f"{where}: Keras has no {noun} {name!r}; {nearest(name, names)}") from None
    cls = known[_key(name)]
    accepted = arguments(cls)
    for argument in given:
        if argument not in accepted:
            raise ParameterError(
                f"{where}.{argument}: {cls.__name__} has no such argument; {nearest(argument, accepted)}"
            )
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{where}: {cls.__name__}: {one_line(error)}") from error


def _name_and_arguments(value: Any, where: str, noun: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ParameterError(f'{where}: expected the name of a {noun} or {{"name": …, …}}, received {value!r}')
    return value["name"], {key: argument for key, argument in value.items() if key != "name"}


def _classes_by_key(module: ModuleType, base: type) -> dict[str, Any]:
    """Return the subclasses in a module by name, in lower case without underscores."""
    classes = [cls for cls in vars(module).values() if inspect.isclass(cls) and issubclass(cls, base)]
    return {_key(cls.__name__): cls for cls in classes if cls is not base}


def arguments(cls: type) -> list[str]:
    """Return the names of a class's arguments, including those that it passes on to its bases."""
    found: dict[str, None] = {}
    for base in cls.__mro__:
        parameters = inspect.signature(base.__init__).parameters.values()  # type: ignore[misc] # each base in turn
        found |= dict.fromkeys(p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in found if name != "self"]


def _key(name: str) -> str:
    return name.replace("_", "").lower()
