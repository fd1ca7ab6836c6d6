"""The losses per row and the metrics that a Keras model was compiled with, by output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

# Names for which Keras chooses a metric by the shapes. Evaluator computes these metrics itself.
SHAPE_DEPENDENT_METRICS = ("accuracy", "acc", "crossentropy", "ce")


@dataclass(frozen=True)
class CompiledLoss:
    """The loss of one output.

    Attributes:
        weight: factor of this loss in the total loss.
    """

    loss: keras.losses.Loss
    weight: float = 1.0

    @property
    def kind(self) -> str:
        """Name of the loss as that of a Keras function, such as `binary_crossentropy`."""
        function = getattr(self.loss, "fn", None)
        name = getattr(function, "__name__", None) or type(self.loss).__name__
        return name.lower()

    @property
    def from_logits(self) -> bool:
        return bool(self.loss.get_config().get("from_logits", False))

    def of_rows(self, label: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
        """Return the loss of each row, float32 (rows,)."""
        rows = tf.shape(prediction)[0]
        losses = tf.reshape(tf.cast(self.loss(label, prediction), tf.float32), [rows, -1])
        return tf.reduce_mean(losses, axis=1)


def output_names(model: keras.Model) -> list[str]:
    """Return the names of the outputs, in the order in which TensorFlow flattens them."""
    if isinstance(model.output, dict):
        return sorted(model.output)
    return list(model.output_names)


def outputs_by_name(model: keras.Model, values: Any) -> dict[str, Any]:
    """Return what a model returned, or its symbolic outputs, by name of the output."""
    return dict(zip(output_names(model), tf.nest.flatten(values)))


def compiled_losses(model: keras.Model) -> dict[str, CompiledLoss]:
    """Return the loss of each output that has one."""
    config, names = _config(model), output_names(model)
    losses = _by_output(config.get("loss"), names, model)
    weights = config.get("loss_weights")
    weights = _by_output(weights, names, model) if isinstance(weights, (dict, list, tuple)) else {}
    return {
        name: CompiledLoss(unreduced_loss(loss), float(weights.get(name) or 1.0))
        for name, loss in losses.items()
        if loss is not None
    }


def compiled_metrics(model: keras.Model) -> dict[str, list[Mapping[str, Any]]]:
    """Return the configurations of the metrics by output, for `keras.metrics.deserialize`.

    Metrics that Keras chooses by shape, such as "accuracy", are left out.
    """
    config, names = _config(model), output_names(model)
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in names}
    for field in ("metrics", "weighted_metrics"):
        given = config.get(field) or []
        by_output = {names[0]: given} if len(names) == 1 else _by_output(given, names, model)
        for name, metrics in by_output.items():
            found[name] += [_metric_config(m) for m in _flat(metrics) if str(m).lower() not in SHAPE_DEPENDENT_METRICS]
    return found


def _config(model: keras.Model) -> dict[str, Any]:
    return (model.get_compile_config() or {}) if getattr(model, "compiled", False) else {}


def _by_output(given: Any, names: Sequence[str], model: keras.Model) -> dict[str, Any]:
    """Assign to each output its value, given as a dict by name, a list in the model's order, or one value for all."""
    if isinstance(given, dict) and not _is_config(given):
        return {name: value for name, value in given.items() if name in names}
    if isinstance(given, (list, tuple)) and len(names) > 1:
        return dict(zip(model.output_names, given))
    (one,) = given if isinstance(given, (list, tuple)) and len(given) == 1 else (given,)
    return dict.fromkeys(names, one)


def _is_config(value: Mapping[str, Any]) -> bool:
    return "class_name" in value and "config" in value


def unreduced_loss(identifier: Any) -> keras.losses.Loss:
    """Return the loss without reduction over the batch."""
    loss = keras.losses.get(identifier)
    if not isinstance(loss, keras.losses.Loss):

        class OfFunction(keras.losses.Loss):
            fn = staticmethod(loss)

            def call(self, y_true: Any, y_pred: Any) -> Any:
                if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
                    y_true = keras.ops.expand_dims(y_true, -1)
                return self.fn(y_true, y_pred)

        loss = OfFunction(name=getattr(loss, "__name__", "loss"))
    loss.reduction = None
    return loss


def _flat(metrics: Any) -> list[Any]:
    if metrics is None:
        return []
    return [m for one in metrics for m in _flat(one)] if isinstance(metrics, (list, tuple)) else [metrics]


def _metric_config(metric: Any) -> Mapping[str, Any]:
    return keras.metrics.serialize(keras.metrics.get(metric))
