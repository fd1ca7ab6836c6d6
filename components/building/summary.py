"""The size of a model, for its artifact and for people."""

from __future__ import annotations

from typing import Any

import keras


def summarise(model: keras.Model) -> dict[str, Any]:
    """Parameters in all and by layer, bytes, optimizer and loss."""
    layers = [
        {
            "name": layer.name,
            "class": type(layer).__name__,
            "parameters": layer.count_params(),
            "trainable": layer.trainable,
        }
        for layer in model.layers
    ]
    trainable = sum(int(w.value.shape.num_elements()) for w in model.trainable_weights)
    return {
        "name": model.name,
        "parameters": model.count_params(),
        "trainable_parameters": trainable,
        "bytes": sum(w.value.shape.num_elements() * w.value.dtype.size for w in model.weights),
        "optimizer": type(model.optimizer).__name__,
        "loss": getattr(model.loss, "name", None) or getattr(model.loss, "__name__", str(model.loss)),
        "layers": layers,
    }
