"""Where numbers stopped being numbers: the first layer, of the step in which the loss did."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf


def culprit(model: keras.Model, batch: Any) -> str:
    """Looks at a step layer by layer.

    Args:
        model: with the weights before the step.
        batch: features, label and perhaps a weight.

    Returns:
        Where the first value that is no finite number stands, for the middle of a sentence.
    """
    features, label, *_ = batch
    for kind, tensors in (("feature", features), ("label", label)):
        named = tensors if isinstance(tensors, dict) else {"": tensors}
        for name, tensor in named.items():
            if not _finite(tensor):
                return f"{kind} {name!r} has such values itself" if name else f"the {kind} has such values itself"
    for layer in model._flatten_layers(include_self=False):
        if not layer._layers and any(not _finite(variable.value) for variable in layer.weights):
            return f"the weights of layer {layer.path!r} were no numbers after the step before"
    return _first_bad_output(model, features) or "the outputs are numbers, their loss or its gradients are not"


def _first_bad_output(model: keras.Model, features: Any) -> str | None:
    """The first layer, in the order of their calls, that makes such values of good ones."""
    found: list[str] = []
    watched = [layer for layer in model._flatten_layers(include_self=False) if not layer._layers]
    originals = [layer.call for layer in watched]

    def watching(layer: keras.layers.Layer, call: Any) -> Any:
        def watched_call(*arguments: Any, **settings: Any) -> Any:
            outputs = call(*arguments, **settings)
            if not found and not all(_finite(t) for t in keras.tree.flatten(outputs)):
                found.append(f"layer {layer.path!r} ({type(layer).__name__}) gave such values first")
            return outputs

        return watched_call

    for layer, call in zip(watched, originals):
        layer.call = watching(layer, call)
    try:
        model(features, training=True)
    finally:
        for layer, call in zip(watched, originals):
            layer.call = call
    return found[0] if found else None


def _finite(value: Any) -> bool:
    tensor = tf.convert_to_tensor(value)
    return not tensor.dtype.is_floating or bool(np.isfinite(tf.cast(tensor, tf.float32).numpy()).all())
