"""What a Keras model was compiled with: the loss of each row, and its metrics, output by output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

# The names by which Keras chooses an accuracy by the shapes: `kerasline.components.evaluator` has it anyway.
OWN_NAMES = ("accuracy", "acc", "crossentropy", "ce")


@dataclass(frozen=True)
class CompiledLoss:
    """The loss of one output.

    Attributes:
        weight: how much it counts in the whole loss.
    """

    loss: keras.losses.Loss
    weight: float = 1.0

    @property
    def kind(self) -> str:
        """Its name as that of Keras's function: `binary_crossentropy`."""
        function = getattr(self.loss, "fn", None)
        name = getattr(function, "__name__", None) or type(self.loss).__name__
        return name.lower()

    @property
    def from_logits(self) -> bool:
        return bool(self.loss.get_config().get("from_logits", False))

    def of_rows(self, label: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
        """The loss of each row, float32 (rows,)."""
        rows = tf.shape(prediction)[0]
        losses = tf.reshape(tf.cast(self.loss(label, prediction), tf.float32), [rows, -1])
        return tf.reduce_mean(losses, axis=1)


def output_names(model: keras.Model) -> list[str]:
    """The model's outputs, in the order in which TensorFlow flattens them."""
    if isinstance(model.output, dict):
        return sorted(model.output)
    return list(model.output_names)


def compiled_losses(model: keras.Model) -> dict[str, CompiledLoss]:
    """The loss by output; without those that have none."""
    config, names = _config(model), output_names(model)
    losses = _by_output(config.get("loss"), names, model)
    weights = config.get("loss_weights")
    weights = _by_output(weights, names, model) if isinstance(weights, (dict, list, tuple)) else {}
    return {
        name: CompiledLoss(_each_row(loss), float(weights.get(name) or 1.0))
        for name, loss in losses.items()
        if loss is not None
    }


def compiled_metrics(model: keras.Model) -> dict[str, list[Mapping[str, Any]]]:
    """The configurations of the metrics by output, for `keras.metrics.deserialize`.

    Those that Keras chooses by shape, such as "accuracy", are not among them.
    """
    config, names = _config(model), output_names(model)
    found: dict[str, list[Mapping[str, Any]]] = {name: [] for name in names}
    for field in ("metrics", "weighted_metrics"):
        given = config.get(field) or []
        by_output = {names[0]: given} if len(names) == 1 else _by_output(given, names, model)
        for name, metrics in by_output.items():
            found[name] += [_metric_config(m) for m in _flat(metrics) if str(m).lower() not in OWN_NAMES]
    return found


def _config(model: keras.Model) -> dict[str, Any]:
    return (model.get_compile_config() or {}) if getattr(model, "compiled", False) else {}


def _by_output(given: Any, names: Sequence[str], model: keras.Model) -> dict[str, Any]:
    """What was given for each output: a dict by name, a list in the model's order, or one for all."""
    if isinstance(given, dict) and not _is_config(given):
        return {name: value for name, value in given.items() if name in names}
    if isinstance(given, (list, tuple)) and len(names) > 1:
        return dict(zip(model.output_names, given))
    (one,) = given if isinstance(given, (list, tuple)) and len(given) == 1 else (given,)
    return dict.fromkeys(names, one)


def _is_config(value: Mapping[str, Any]) -> bool:
    return "class_name" in value and "config" in value


def _each_row(identifier: Any) -> keras.losses.Loss:
    """The loss that gives a figure a row instead of one a batch."""
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
