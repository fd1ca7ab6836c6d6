"""Models as data: layers, their arguments, loss, optimizer and metrics.

    {"layers": [{"layer": "Dense", "units": "$units", "activation": "relu"},
                {"layer": "Dense", "units": 10}],
     "loss": {"name": "SparseCategoricalCrossentropy", "from_logits": true},
     "optimizer": {"name": "SGD", "learning_rate": 0.01, "momentum": 0.9},
     "metrics": ["accuracy"]}

The input of a layer is the previous layer, or the layers or features that `inputs` names. `outputs` names the layers
whose outputs are the model's, one name or a dict by label. By default it is the last layer. The string `"$name"` stands
for a hyperparameter.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kerasline.components.core.errors import ParameterError, nearest, one_line
from kerasline.components.models import compiling

MODEL_KEYS = ("layers", "outputs", "loss", "loss_weights", "optimizer", "metrics", "name")
# Keys of a layer that are not arguments of its class.
LAYER_KEYS = ("layer", "name", "inputs")


def build(
    description: Mapping[str, Any],
    inputs: Mapping[str, keras.KerasTensor],
    hyperparameters: Mapping[str, Any],
    where: str,
) -> keras.Model:
    """Build and compile the model of a description.

    Args:
        description: the description.
        inputs: symbolic features by name.
        hyperparameters: the values that `"$name"` stands for.
        where: name of the description, for error messages.

    Raises:
        ParameterError: the description is invalid. The message names the place.
    """
    description = _substituted(description, hyperparameters, where)
    _check_keys(description, MODEL_KEYS, where)
    graph = _Graph(dict(inputs), where)
    layers = description.get("layers")
    if not isinstance(layers, Sequence) or not layers:
        raise ParameterError(f"{where}.layers: expected a list of layers, received {layers!r}")
    for number, layer in enumerate(layers):
        graph.add(layer, f"{where}.layers[{number}]")
    name = description.get("name")
    model = keras.Model(dict(inputs), graph.outputs(description.get("outputs")), **({"name": name} if name else {}))
    _compile(model, description, where)
    return model


class _Graph:
    """The symbolic outputs of the layers so far, by layer name."""

    def __init__(self, inputs: dict[str, keras.KerasTensor], where: str) -> None:
        self._tensors: dict[str, Any] = inputs
        self._where = where
        self._last: Any = None

    def add(self, description: Any, where: str) -> None:
        if not isinstance(description, Mapping) or not isinstance(description.get("layer"), str):
            raise ParameterError(f'{where}: expected {{"layer": a name, …}}, received {description!r}')
        layer = _layer(description, where)
        inputs = self._inputs(description.get("inputs"), where)
        try:
            output = layer(inputs, inputs) if _is_attention(layer) and not isinstance(inputs, list) else layer(inputs)
        except (TypeError, ValueError) as error:
            raise ParameterError(f"{where}: {type(layer).__name__}: {one_line(error)}") from error
        if layer.name in self._tensors:
            raise ParameterError(f"{where}.name: {layer.name!r} is already the name of another layer or feature")
        self._tensors[layer.name] = self._last = output

    def outputs(self, names: Any) -> Any:
        """Return the tensor or the tensors by label."""
        if names is None:
            return self._last
        if isinstance(names, Mapping):
            return {label: self._named(name, f"{self._where}.outputs.{label}") for label, name in names.items()}
        if isinstance(names, str):
            return self._named(names, f"{self._where}.outputs")
        return {name: self._named(name, f"{self._where}.outputs") for name in names}

    def _inputs(self, names: Any, where: str) -> Any:
        if names is None:
            return self._all_features() if self._last is None else self._last
        if isinstance(names, str):
            return self._named(names, f"{where}.inputs")
        return [self._named(name, f"{where}.inputs") for name in names]

    def _all_features(self) -> Any:
        """Return the only feature, or all features concatenated, if each is a vector of numbers."""
        tensors = list(self._tensors.values())
        if len(tensors) == 1:
            return tensors[0]
        if any(len(tensor.shape) != 2 or "string" in tensor.dtype for tensor in tensors):
            raise ParameterError(
                f"{self._where}.layers[0]: the features {', '.join(self._tensors)} are not all vectors of numbers; "
                "name its `inputs`"
            )
        return keras.layers.Concatenate()([keras.ops.cast(tensor, "float32") for tensor in tensors])

    def _named(self, name: str, where: str) -> Any:
        if name not in self._tensors:
            raise ParameterError(f"{where}: no earlier layer or feature {name!r}; {nearest(name, self._tensors)}")
        return self._tensors[name]


def _layer(description: Mapping[str, Any], where: str) -> keras.layers.Layer:
    kind = description["layer"]
    cls = getattr(keras.layers, kind, None) or keras.saving.get_registered_object(kind)
    if not (inspect.isclass(cls) and issubclass(cls, keras.layers.Layer)):
        known = [name for name, value in vars(keras.layers).items() if inspect.isclass(value)]
        raise ParameterError(f"{where}.layer: Keras has no layer {kind!r}; {nearest(kind, known)}")
    arguments = {key: value for key, value in description.items() if key not in LAYER_KEYS}
    accepted = [*compiling.arguments(cls), "trainable", "dtype"]
    for argument in arguments:
        if argument not in accepted:
            raise ParameterError(f"{where}.{argument}: {kind} has no such argument; {nearest(argument, accepted)}")
    try:
        return cls(**arguments, **({"name": description["name"]} if "name" in description else {}))
    except (TypeError, ValueError) as error:
        raise ParameterError(f"{where}: {kind}: {one_line(error)}") from error


def _is_attention(layer: keras.layers.Layer) -> bool:
    """Return whether a layer takes query and value. With one input, that is both (self-attention)."""
    return "query" in inspect.signature(layer.call).parameters


def _compile(model: keras.Model, description: Mapping[str, Any], where: str) -> None:
    if "loss" not in description:
        raise ParameterError(f"{where}.loss: missing; it is required for training")
    model.compile(
        optimizer=compiling.optimizer(description.get("optimizer", "adam"), f"{where}.optimizer"),
        loss=compiling.each(description["loss"], compiling.loss, f"{where}.loss"),
        loss_weights=description.get("loss_weights"),
        metrics=compiling.each(description.get("metrics", []), compiling.metric, f"{where}.metrics"),
    )


def _substituted(value: Any, hyperparameters: Mapping[str, Any], where: str) -> Any:
    """Return the description with every `"$name"` replaced by its value."""
    if isinstance(value, Mapping):
        return {key: _substituted(inner, hyperparameters, f"{where}.{key}") for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_substituted(inner, hyperparameters, f"{where}[{n}]") for n, inner in enumerate(value)]
    if isinstance(value, str) and value.startswith("$"):
        if value[1:] not in hyperparameters:
            raise ParameterError(f"{where}: no hyperparameter {value[1:]!r}; {nearest(value[1:], hyperparameters)}")
        return hyperparameters[value[1:]]
    return value


def _check_keys(mapping: Mapping[str, Any], known: Sequence[str], where: str) -> None:
    for key in mapping:
        if key not in known:
            raise ParameterError(f"{where}.{key}: no such key; {nearest(key, known)}")
