"""Optimizers, losses, metrics and schedules by Keras's names, as a setting or a file can hold them.

A value is a name ("adam"), a dict of a name and arguments ({"name": "SGD", "momentum": 0.9}), or the
Keras object itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from types import ModuleType
from typing import Any

import keras

from kerasline.components.core.errors import ParameterError, nearest, one_line

WARM_UP = ("warmup_steps", "warmup_from")


def optimizer(value: Any, where: str) -> keras.optimizers.Optimizer:
    """An optimizer; its `learning_rate` may be a schedule by name.

    Raises:
        ParameterError: an unknown name or argument; `where` says what setting it is of.
    """
    if isinstance(value, dict) and isinstance(value.get("learning_rate"), (str, dict)):
        rate = schedule(value["learning_rate"], f"{where}.learning_rate")
        value = {**value, "learning_rate": rate}
    return _made(value, where, keras.optimizers, keras.optimizers.Optimizer, "optimizer")


def loss(value: Any, where: str) -> Any:
    """A loss. Raises ParameterError as `optimizer` does."""
    return _made(value, where, keras.losses, keras.losses.Loss, "loss")


def metric(value: Any, where: str) -> Any:
    """A metric; "accuracy" stays a name, whose kind Keras chooses by the loss."""
    if value in ("accuracy", "acc", "crossentropy", "ce"):
        return value
    return _made(value, where, keras.metrics, keras.metrics.Metric, "metric")


def schedule(value: Any, where: str) -> Any:
    """A learning rate schedule; `warmup_steps` (and `warmup_from`) put a linear warm-up before any."""
    kind = keras.optimizers.schedules.LearningRateSchedule
    if not isinstance(value, dict):
        return _made(value, where, keras.optimizers.schedules, kind, "schedule")
    own = _known(keras.optimizers.schedules, kind).get(_key(str(value.get("name"))))
    takes = set(inspect.signature(own.__init__).parameters) if own else set()
    warm_up = {name: value[name] for name in WARM_UP if name in value and name not in takes}
    rest = {name: argument for name, argument in value.items() if name not in warm_up}
    made = _made(rest, where, keras.optimizers.schedules, kind, "schedule")
    if "warmup_steps" not in warm_up:
        return made
    return WarmUp(made, warm_up["warmup_steps"], warm_up.get("warmup_from", 0.0))


def each(value: Any, resolve: Callable[[Any, str], Any], where: str) -> Any:
    """One loss or metric, a list of them, or one or a list by output; {"name": …} is one."""
    if isinstance(value, dict) and "name" not in value:
        return {name: each(inner, resolve, f"{where}.{name}") for name, inner in value.items()}
    if isinstance(value, list):
        return [each(inner, resolve, where) for inner in value]
    return resolve(value, where)


@keras.saving.register_keras_serializable("kerasline")
class WarmUp(keras.optimizers.schedules.LearningRateSchedule):
    """From `start` straight to where another schedule begins, which then follows.

    Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2.

    Args:
        schedule: what follows, its steps counted from the end of the warm-up.
        steps: of the warm-up.
        start: the learning rate at step 0.
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


def _made(value: Any, where: str, module: ModuleType, kind: type, what: str) -> Any:
    if isinstance(value, kind) or callable(value):
        return value
    name, given = (value, {}) if isinstance(value, str) else _parts(value, where, what)
    known = _known(module, kind)
    if _key(name) not in known:
        try:  # short names, such as mse, and what users registered
            return module.get({"class_name": name, "config": given} if given else name)
        except (ValueError, TypeError):
            names = {cls.__name__ for cls in known.values()}
            raise ParameterError(f"{where}: Keras has no {what} {name!r}; {nearest(name, names)}") from None
    cls = known[_key(name)]
    takes = arguments(cls)
    for argument in given:
        if argument not in takes:
            raise ParameterError(f"{where}.{argument}: {cls.__name__} does not take it; {nearest(argument, takes)}")
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{where}: {cls.__name__}: {one_line(error, 300)}") from error


def _parts(value: Any, where: str, what: str) -> tuple[str, dict[str, Any]]:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        raise ParameterError(f'{where}: {value!r} given, the name of a {what} or {{"name": …, …}} wanted')
    return value["name"], {key: argument for key, argument in value.items() if key != "name"}


def _known(module: ModuleType, kind: type) -> dict[str, type]:
    """Classes by their names, as written and in snake case, in lower case."""
    classes = [cls for cls in vars(module).values() if inspect.isclass(cls) and issubclass(cls, kind)]
    return {_key(cls.__name__): cls for cls in classes if cls is not kind}


def arguments(cls: type) -> list[str]:
    """What a class takes; where it passes on the rest, what its bases take too."""
    found: dict[str, None] = {}
    for base in cls.__mro__:
        takes = inspect.signature(base.__init__).parameters.values()
        found |= dict.fromkeys(p.name for p in takes if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY))
        if not any(p.kind is p.VAR_KEYWORD for p in takes):
            break
    return [name for name in found if name != "self"]


def _key(name: str) -> str:
    return name.replace("_", "").lower()
