"""The size and the costs of a model, for its artifact and for the screen."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import keras

from kerasline.components.core.artifacts import TensorForm
from kerasline.components.models.compile_config import compiled_losses, outputs_by_name
from kerasline.components.models.costs import model_costs

LOG = logging.getLogger("kerasline")
# Activations grow linearly with the batch size, so two sizes determine all others.
TRACED_BATCH_SIZES = (8, 16)
REPORTED_BATCH_SIZES = tuple(2**power for power in range(11))


def summarize(model: keras.Model) -> dict[str, Any]:
    """Return the content of `summary.json`: outputs, parameters, bytes, layers, optimizer, loss and costs of a step.

    Returns:
        A dict. `outputs` holds data type and shape by name, and `losses` the compiled loss by output: `kind`, the name
        of Keras's function, and `from_logits`. `flops` holds floating-point operations per row, `forward` and
        `training` (forward and backward), and `activation_bytes` holds bytes by batch size. Both are None if the model
        cannot be traced.
    """
    trainable = sum(int(w.value.shape.num_elements()) for w in model.trainable_weights)
    return {
        "name": model.name,
        "parameters": model.count_params(),
        "trainable_parameters": trainable,
        "bytes": sum(w.value.shape.num_elements() * w.value.dtype.size for w in model.weights),
        "optimizer": type(model.optimizer).__name__,
        "loss": _loss_name(model.loss),
        "outputs": tensor_forms(outputs_by_name(model, model.output)),
        "losses": {
            name: {"kind": loss.kind, "from_logits": loss.from_logits} for name, loss in compiled_losses(model).items()
        },
        "layers": [_layer_summary(layer) for layer in model.layers],
        **_costs(model),
    }


def tensor_forms(tensors: Mapping[str, keras.KerasTensor]) -> dict[str, dict[str, Any]]:
    """Return data type and shape of symbolic tensors by name, for JSON."""
    return {name: TensorForm(str(tensor.dtype), tuple(tensor.shape)).as_json() for name, tensor in tensors.items()}


def _layer_summary(layer: keras.layers.Layer) -> dict[str, Any]:
    try:
        shape = list(layer.output.shape)
    except (AttributeError, ValueError):  # called several times, or never in a graph
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
        small, large = (model_costs(model, batch) for batch in TRACED_BATCH_SIZES)
    except Exception as error:  # a model that cannot be traced can still be built and trained
        LOG.info("cannot determine the costs of a step of %s: %s", model.name, error)
        return {"flops": None, "activation_bytes": None}
    bytes_per_row = (large.activation_bytes - small.activation_bytes) / (TRACED_BATCH_SIZES[1] - TRACED_BATCH_SIZES[0])
    fixed_bytes = small.activation_bytes - bytes_per_row * TRACED_BATCH_SIZES[0]
    return {
        "flops": {"forward": small.forward_flops, "training": small.training_flops},
        "activation_bytes": {str(batch): round(fixed_bytes + bytes_per_row * batch) for batch in REPORTED_BATCH_SIZES},
    }
