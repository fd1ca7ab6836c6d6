"""Copies weights from an earlier model: all of them, those that match, or layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import keras

from kerasline.components.core.errors import ParameterError, nearest

WHERE = "ModelBuilder.warm_start"
Layers = Mapping[str, keras.layers.Layer]


def warm_start(model: keras.Model, source: keras.Model, layers: Literal["all", "matching"] | dict[str, str]) -> str:
    """Copy weights into a model, in place, by the names and shapes of its layers.

    Args:
        model: receives the weights.
        source: the earlier model.
        layers: "all" requires a match for every layer with weights. "matching" copies the layers that match. A dict
            maps layers of the model to layers of the earlier model.

    Returns:
        The number of layers that received weights, such as "3 of 4 layers".

    Raises:
        ParameterError: a layer does not exist or has other shapes, or no layer matches.
    """
    new, old = _layers_with_weights(model), _layers_with_weights(source)
    pairs = {name: name for name in new} if isinstance(layers, str) else layers
    copied = 0
    for target, origin in pairs.items():
        problem = _mismatch(target, origin, new, old)
        if problem is None:
            for variable, value in zip(new[target].weights, old[origin].weights):
                variable.assign(value)
            copied += 1
        elif layers != "matching":
            raise ParameterError(f"{WHERE}: {problem}")
    if not copied:
        raise ParameterError(
            f"{WHERE}: no layer of the model matches the name and shapes of a layer of the earlier model "
            f"({', '.join(old) or 'which has no weights'}); map the layers with a dict"
        )
    return f"{copied} of {len(new)} layers"


def _mismatch(target: str, origin: str, new: Layers, old: Layers) -> str | None:
    """Return why the weights of a layer cannot be copied, or None if they can."""
    if target not in new:
        return f"the model has no layer {target!r} with weights; {nearest(target, new)}"
    if origin not in old:
        return f"the earlier model has no layer {origin!r} with weights; {nearest(origin, old)}"
    shapes = [[tuple(w.shape) for w in layer.weights] for layer in (new[target], old[origin])]
    if shapes[0] != shapes[1]:
        return f"layer {target!r} has weights of shapes {shapes[0]}, {origin!r} of the earlier model {shapes[1]}"
    return None


def _layers_with_weights(model: keras.Model) -> dict[str, keras.layers.Layer]:
    return {layer.name: layer for layer in model.layers if layer.weights}
