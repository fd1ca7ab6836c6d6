"""Weights from an earlier model: all of them, those that match, or layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, Union

import keras

from kerasline.components.core.errors import ParameterError, nearest

WHERE = "ModelBuilder.warm_start"

How = Union[Literal["all", "matching"], dict[str, str]]


def warm_start(model: keras.Model, source: keras.Model, how: How) -> str:
    """Copies weights into a model, in place, by the names and shapes of its layers.

    Args:
        how: "all" wants every layer that has weights found; "matching" takes what fits; a dict says
            which layer of the new model takes the weights of which layer of the earlier one.

    Returns:
        How many layers were given weights, such as "3 of 4 layers".

    Raises:
        ParameterError: a layer is not there or of another shape, or nothing fits.
    """
    new, old = _weighted(model), _weighted(source)
    wanted = dict(how) if isinstance(how, Mapping) else {name: name for name in new}
    done = 0
    for target, origin in wanted.items():
        problem = _problem(target, origin, new, old)
        if problem is None:
            for variable, value in zip(new[target].weights, old[origin].weights):
                variable.assign(value)
            done += 1
        elif how != "matching":
            raise ParameterError(f"{WHERE}: {problem}")
    if not done:
        raise ParameterError(
            f"{WHERE}: no layer of the model has name and shapes of one of the earlier model's "
            f"({', '.join(old) or 'which has none'}); say which takes which, as a dict"
        )
    return f"{done} of {len(new)} layers"


def _problem(target: str, origin: str, new: Mapping, old: Mapping) -> str | None:
    """Why the weights of one layer cannot be those of another, if they cannot."""
    if target not in new:
        return f"the model has no layer {target!r} with weights; {nearest(target, new)}"
    if origin not in old:
        return f"the earlier model has no layer {origin!r} with weights; {nearest(origin, old)}"
    shapes = [[tuple(w.shape) for w in layer.weights] for layer in (new[target], old[origin])]
    if shapes[0] != shapes[1]:
        return f"layer {target!r} has weights of shapes {shapes[0]}, {origin!r} of the earlier model {shapes[1]}"
    return None


def _weighted(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """The layers of the model's graph that have weights, by name."""
    return {layer.name: layer for layer in model.layers if layer.weights}
