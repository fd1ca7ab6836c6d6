"""Random changes of features and labels together, in training alone, as a Keras model."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kerasline.components.core.artifacts import needed_inputs
from kerasline.components.core.errors import UserCodeError, nearest
from kerasline.components.core.keras_names import check_layer_names, input_names
from kerasline.components.core.user_code import call, name_of
from kerasline.components.preprocessing.adaptation import new_state


def augmentation_model(
    function: Callable[..., Any], outputs: Mapping[str, keras.KerasTensor], labels: Sequence[str]
) -> keras.Model:
    """Return the functional model that a user's `augment(outputs)` describes.

    Args:
        function: from a dict of symbolic tensors to a dict of those that training receives.
        outputs: the outputs of the preprocessing by name.
        labels: names of the labels and the weight among them.

    Raises:
        UserCodeError: the function raised, or returned something else.
    """
    source, names = name_of(function), input_names(outputs)
    inputs = {
        name: keras.Input(tensor.shape[1:], dtype=tensor.dtype, name=names[name]) for name, tensor in outputs.items()
    }
    found = call(function, dict(inputs))
    if not isinstance(found, Mapping) or not all(isinstance(tensor, keras.KerasTensor) for tensor in found.values()):
        raise UserCodeError(f"{source} must return a dict of tensors by name, it returned {type(found).__name__}")
    for name, tensor in found.items():
        if name not in outputs:
            raise UserCodeError(f"{source} returned {name!r}, no output of the preprocessing; {nearest(name, outputs)}")
        before = outputs[name]
        sizes = zip(tensor.shape[1:], before.shape[1:])
        fits = len(tensor.shape) == len(before.shape) and all(a == b or b is None or a is None for a, b in sizes)
        if not fits or tensor.dtype != before.dtype:
            raise UserCodeError(
                f"{source}: {name!r} must stay {before.dtype} {tuple(before.shape[1:])} per row, it became "
                f"{tensor.dtype} {tuple(tensor.shape[1:])}"
            )
    missing = [name for name in labels if name in outputs and name not in found]
    if missing or not set(found) - set(labels):
        absent = ", ".join(map(repr, missing)) or "a feature"
        raise UserCodeError(f"{source} must return all labels and at least one feature; {absent} is missing")
    model = keras.Model(needed_inputs(inputs, dict(found)), dict(found))
    for layer in model.layers:
        if new_state(layer) is not None:
            raise UserCodeError(f"{source}: layer {layer.name!r} needs data; adapt it in the preprocessing")
    check_layer_names(model, source)
    return model
