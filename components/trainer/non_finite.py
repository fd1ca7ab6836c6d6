"""Finds the first layer with non-finite values in the step in which the loss became NaN or infinite."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.keras_compat import flatten_layers


def describe_cause(model: keras.Model, batch: Any) -> str:
    """Run the forward pass of a step layer by layer.

    Args:
        model: has the weights before the step.
        batch: features, or features, label and possibly weight.

    Returns:
        A clause that says where the first non-finite value occurs.
    """
    features, label, _ = keras.utils.unpack_x_y_sample_weight(batch)
    for kind, tensors in (("feature", features), ("label", {} if label is None else label)):
        by_name = tensors if isinstance(tensors, dict) else {"": tensors}
        for name, tensor in by_name.items():
            if not _is_finite(tensor):
                return f"{kind} {name!r} has non-finite values" if name else f"the {kind} has non-finite values"
    for layer in _innermost_layers(model):
        if any(not _is_finite(variable.value) for variable in layer.weights):
            return f"layer {layer.path!r} had non-finite weights after the previous step"
    return (
        _first_non_finite_output(model, features) or "the outputs are finite, but their loss or its gradients are not"
    )


def _first_non_finite_output(model: keras.Model, features: Any) -> str | None:
    """Return the first layer, in the order of execution, with non-finite outputs."""
    found: list[str] = []
    layers = _innermost_layers(model)
    originals = [layer.call for layer in layers]

    def checked(layer: keras.layers.Layer, call: Any) -> Any:
        def checked_call(*arguments: Any, **options: Any) -> Any:
            outputs = call(*arguments, **options)
            if not found and not all(_is_finite(t) for t in keras.tree.flatten(outputs)):
                found.append(f"layer {layer.path!r} ({type(layer).__name__}) has the first non-finite outputs")
            return outputs

        return checked_call

    for layer, call in zip(layers, originals):
        layer.call = checked(layer, call)
    try:
        model(features, training=True)
    finally:
        for layer, call in zip(layers, originals):
            layer.call = call
    return found[0] if found else None


def _innermost_layers(model: keras.Model) -> list[keras.layers.Layer]:
    return [layer for layer in flatten_layers(model) if not flatten_layers(layer)]


def _is_finite(value: Any) -> bool:
    tensor = tf.convert_to_tensor(value)
    return not tensor.dtype.is_floating or bool(np.isfinite(tf.cast(tensor, tf.float32).numpy()).all())
