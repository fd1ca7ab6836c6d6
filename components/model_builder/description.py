"""Models from a description: layers, units, activations and initialisers as data, not as code.

    {"layers": [{"layer": "Dense", "units": "$units", "activation": "relu"},
                {"layer": "Dense", "units": 10}],
     "loss": {"name": "SparseCategoricalCrossentropy", "from_logits": true},
     "optimizer": {"name": "SGD", "learning_rate": 0.01, "momentum": 0.9},
     "metrics": ["accuracy"]}

A layer takes what the one before it gives; with `inputs` it takes the layers or features of those names.
`outputs` names the layers whose results are the model's: the last by default, or by label. A text
`"$name"` stands for a hyperparameter.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kerasline.components.core.errors import ParameterError, nearest, one_line
from kerasline.components.models import by_name

KEYS = ("layers", "outputs", "loss", "loss_weights", "optimizer", "metrics", "name")
OWN = ("layer", "name", "inputs")


def build(
    description: Mapping[str, Any],
    inputs: Mapping[str, keras.KerasTensor],
    hyperparameters: Mapping[str, Any],
    where: str,
) -> keras.Model:
    """Builds and compiles the model.

    Args:
        inputs: symbolic features by name.
        hyperparameters: what `$name` stands for.
        where: what the description is called in messages.

    Raises:
        ParameterError: what is wrong, and at which place of the description.
    """
    description = _filled(description, hyperparameters, where)
    _check_keys(description, KEYS, where)
    made = _Graph(dict(inputs), where)
    layers = description.get("layers")
    if not isinstance(layers, Sequence) or not layers:
        raise ParameterError(f"{where}.layers: a list of layers wanted")
    for number, layer in enumerate(layers):
        made.add(layer, f"{where}.layers[{number}]")
    name = description.get("name")
    model = keras.Model(dict(inputs), made.outputs(description.get("outputs")), **({"name": name} if name else {}))
    _compile(model, description, where)
    return model


class _Graph:
    """Layers put together one after the other."""

    def __init__(self, inputs: dict[str, keras.KerasTensor], where: str) -> None:
        self._tensors: dict[str, Any] = inputs
        self._where = where
        self._last: Any = None

    def add(self, described: Any, where: str) -> None:
        if not isinstance(described, Mapping) or not isinstance(described.get("layer"), str):
            raise ParameterError(f'{where}: {{"layer": a name, …}} wanted, {described!r} given')
        layer = _layer(described, where)
        taken = self._taken(described.get("inputs"), where)
        try:
            result = layer(taken, taken) if _is_attention(layer) and not isinstance(taken, list) else layer(taken)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"{where}: {type(layer).__name__}: {one_line(error, 300)}") from error
        if layer.name in self._tensors:
            raise ParameterError(f"{where}.name: {layer.name!r} is the name of another layer or feature")
        self._tensors[layer.name] = self._last = result

    def outputs(self, wanted: Any) -> Any:
        """One result, or several by label."""
        if wanted is None:
            return self._last
        if isinstance(wanted, Mapping):
            return {label: self._named(name, f"{self._where}.outputs.{label}") for label, name in wanted.items()}
        if isinstance(wanted, str):
            return self._named(wanted, f"{self._where}.outputs")
        return {name: self._named(name, f"{self._where}.outputs") for name in wanted}

    def _taken(self, names: Any, where: str) -> Any:
        if names is None:
            return self._first() if self._last is None else self._last
        if isinstance(names, str):
            return self._named(names, f"{where}.inputs")
        return [self._named(name, f"{where}.inputs") for name in names]

    def _first(self) -> Any:
        """The feature, or all of them side by side where each is a row of numbers."""
        tensors = list(self._tensors.values())
        if len(tensors) == 1:
            return tensors[0]
        if any(len(tensor.shape) != 2 or "string" in tensor.dtype for tensor in tensors):
            raise ParameterError(
                f"{self._where}.layers[0]: the features {', '.join(self._tensors)} are not all rows of numbers; "
                "name those that it takes as `inputs`"
            )
        return keras.layers.Concatenate()([keras.ops.cast(tensor, "float32") for tensor in tensors])

    def _named(self, name: str, where: str) -> Any:
        if name not in self._tensors:
            raise ParameterError(f"{where}: no layer or feature {name!r} before it; {nearest(name, self._tensors)}")
        return self._tensors[name]


def _layer(described: Mapping[str, Any], where: str) -> keras.layers.Layer:
    kind = described["layer"]
    cls = getattr(keras.layers, kind, None) or keras.saving.get_registered_object(kind)
    if not (inspect.isclass(cls) and issubclass(cls, keras.layers.Layer)):
        known = [name for name, value in vars(keras.layers).items() if inspect.isclass(value)]
        raise ParameterError(f"{where}.layer: Keras has no layer {kind!r}; {nearest(kind, known)}")
    arguments = {key: value for key, value in described.items() if key not in OWN}
    takes = [*by_name.arguments(cls), "trainable", "dtype"]
    for argument in arguments:
        if argument not in takes:
            raise ParameterError(f"{where}.{argument}: {kind} does not take it; {nearest(argument, takes)}")
    try:
        return cls(**arguments, **({"name": described["name"]} if "name" in described else {}))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{where}: {kind}: {one_line(error, 300)}") from error


def _is_attention(layer: keras.layers.Layer) -> bool:
    """Whether it takes a query and a value: of one tensor, each other's."""
    return "query" in inspect.signature(layer.call).parameters


def _compile(model: keras.Model, description: Mapping[str, Any], where: str) -> None:
    if "loss" not in description:
        raise ParameterError(f"{where}.loss: none given; it is what training makes less")
    model.compile(
        optimizer=by_name.optimizer(description.get("optimizer", "adam"), f"{where}.optimizer"),
        loss=by_name.each(description["loss"], by_name.loss, f"{where}.loss"),
        loss_weights=description.get("loss_weights"),
        metrics=by_name.each(description.get("metrics", []), by_name.metric, f"{where}.metrics"),
    )


def _filled(value: Any, hyperparameters: Mapping[str, Any], where: str) -> Any:
    """The description with every `$name` replaced."""
    if isinstance(value, Mapping):
        return {key: _filled(inner, hyperparameters, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_filled(inner, hyperparameters, f"{where}[{n}]") for n, inner in enumerate(value)]
    if isinstance(value, str) and value.startswith("$"):
        if value[1:] not in hyperparameters:
            raise ParameterError(f"{where}: no hyperparameter {value[1:]!r}; {nearest(value[1:], hyperparameters)}")
        return hyperparameters[value[1:]]
    return value


def _check_keys(given: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in given:
        if key not in known:
            raise ParameterError(f"{where}.{key}: no such key; {nearest(key, known)}")
