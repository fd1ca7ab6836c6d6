"""The size of a model and what it costs, for its artifact and for people."""

from __future__ import annotations

import logging
from typing import Any

import keras

from kerasline.components.models.costs import model_costs

LOG = logging.getLogger("kerasline")
# Activations grow by the same for each further row, so two batches tell all others.
TRACED = (8, 16)
BATCHES = tuple(2**power for power in range(11))


def summarise(model: keras.Model) -> dict[str, Any]:
    """Parameters in all and by layer, bytes, optimizer, loss, and what a step takes.

    Returns:
        What `summary.json` holds: `flops` a row, `forward` and `training` (forward and backward), and
        `activation_bytes` by batch size are null for a model that cannot be traced.
    """
    trainable = sum(int(w.value.shape.num_elements()) for w in model.trainable_weights)
    return {
        "name": model.name,
        "parameters": model.count_params(),
        "trainable_parameters": trainable,
        "bytes": sum(w.value.shape.num_elements() * w.value.dtype.size for w in model.weights),
        "optimizer": type(model.optimizer).__name__,
        "loss": _loss_name(model.loss),
        "layers": [_layer(layer) for layer in model.layers],
        **_costs(model),
    }


def _layer(layer: keras.layers.Layer) -> dict[str, Any]:
    try:
        shape = list(layer.output.shape)
    except (AttributeError, ValueError):  # called several times, or never as part of a graph
        shape = None
    return {
        "name": layer.name,
        "class": type(layer).__name__,
        "output_shape": shape,
        "parameters": layer.count_params(),
        "trainable": layer.trainable,
    }


def _loss_name(loss: Any) -> Any:
    if isinstance(loss, dict):
        return {name: _loss_name(inner) for name, inner in loss.items()}
    return getattr(loss, "name", None) or getattr(loss, "__name__", str(loss))


def _costs(model: keras.Model) -> dict[str, Any]:
    try:
        small, large = (model_costs(model, batch) for batch in TRACED)
    except Exception as error:  # an exotic model is built all the same
        LOG.info("what a step of %s takes is not known: %s", model.name, error)
        return {"flops": None, "activation_bytes": None}
    a_row = (large.activation_bytes - small.activation_bytes) / (TRACED[1] - TRACED[0])
    fixed = small.activation_bytes - a_row * TRACED[0]
    return {
        "flops": {"forward": small.forward_flops, "training": small.training_flops},
        "activation_bytes": {str(batch): round(fixed + a_row * batch) for batch in BATCHES},
    }
