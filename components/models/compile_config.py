"""The losses per row and the metrics that a Keras model was compiled with, by output."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.keras_compat import mask_of, set_mask, with_rank
from kerasline.components.models.losses import unreduced_loss

# Names for which Keras chooses a metric by the shapes. Evaluator computes these metrics itself.
SHAPE_DEPENDENT_METRICS = ("accuracy", "acc", "crossentropy", "ce")


@dataclass(frozen=True)
class CompiledLoss:
    """The loss of one output.

    Attributes:
        weight: factor of this loss in the total loss.
        reduction: how Keras reduces the losses of a batch, such as `"sum_over_batch_size"`.
    """

    loss: keras.losses.Loss
    weight: float = 1.0
    reduction: str | None = "sum_over_batch_size"

    @property
    def kind(self) -> str:
        """Name of the loss as that of a Keras function, such as `binary_crossentropy`."""
        function = getattr(self._inner, "fn", None)
        name = getattr(function, "__name__", None) or type(self._inner).__name__
        return name.lower()

    @property
    def from_logits(self) -> bool:
        return bool(self._inner.get_config().get("from_logits", False))

    @property
    def _inner(self) -> keras.losses.Loss:
        """The loss, without `kerasline.losses.Masked` around it."""
        return getattr(self.loss, "inner", self.loss)

    def ignores(self, label: np.ndarray) -> np.ndarray:
        """Return which values of a label the loss leaves out, by `ignore_class` or `is_padding`: booleans."""
        ignored = label == self._inner.get_config().get("ignore_class")
        return ignored | self.loss.is_padding(label) if hasattr(self.loss, "is_padding") else ignored

    def of_rows(self, label: tf.Tensor, prediction: tf.Tensor, sample_weight: tf.Tensor | None = None) -> RowLosses:
        """Return the losses of the rows, which add up to the loss that Keras computes for them as one batch.

        Masks leave out tokens: that of the prediction, which `Embedding(mask_zero=True)` starts, and that of the loss
        (`ignore_class`). A loss that returns one number for a batch is computed row by row.

        Args:
            label, prediction: (rows, ...).
            sample_weight: (rows,), (rows, 1) or (rows, length), or None.
        """
        in_mask = mask_of(prediction)
        label, prediction = (keras.ops.convert_to_tensor(one, dtype=self.loss.dtype) for one in (label, prediction))
        set_mask(prediction, in_mask)
        values = self.loss.call(label, prediction)
        # A loss of whole rows, such as CTC, applies the mask of steps itself.
        masks = [m for m in (in_mask, mask_of(values)) if m is not None and len(m.shape) <= len(values.shape)]
        values = self._of_each_row(label, prediction) if values.shape.rank == 0 else tf.cast(values, tf.float32)
        mask = functools.reduce(tf.logical_and, masks) if masks else None
        counted = tf.ones_like(values) if mask is None else with_rank(mask, values.shape.rank)
        weight = None if sample_weight is None else with_rank(sample_weight, values.shape.rank)
        total = _sum_of_rows(values * counted if weight is None else values * counted * weight)
        if self.reduction == "sum":
            return RowLosses(total, tf.ones_like(total), mask)
        if self.reduction == "mean_with_sample_weight" and weight is not None:
            counted = weight if mask is None else counted * weight
        return RowLosses(total, _sum_of_rows(counted), mask)

    def token_shape(self, label: Any, prediction: Any) -> tuple[int | None, ...] | None:
        """Return the shape of the losses of a row, such as (length,), or None if the loss has no row values.

        Args:
            label, prediction: symbolic tensors (rows, ...).
        """
        specs = [tf.TensorSpec((None, *one.shape[1:]), one.dtype) for one in (label, prediction)]
        try:
            traced = tf.function(self._of_tensors, input_signature=specs, autograph=False).get_concrete_function()
        except (ValueError, TypeError, tf.errors.OpError):  # training reports it
            return None
        shape = traced.output_shapes
        return tuple(shape[1:]) if shape.rank else None

    def _of_tensors(self, label: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
        label, prediction = (keras.ops.convert_to_tensor(one, dtype=self.loss.dtype) for one in (label, prediction))
        return self.loss.call(label, prediction)

    def _of_each_row(self, label: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
        def of_row(row: tuple[tf.Tensor, tf.Tensor]) -> tf.Tensor:
            return tf.cast(self.loss.call(*(part[tf.newaxis] for part in row)), tf.float32)

        return tf.map_fn(of_row, (label, prediction), fn_output_signature=tf.float32)


class RowLosses(NamedTuple):
    """The losses of rows. The loss of several rows is the sum of their totals divided by the sum of their counts.

    Attributes:
        total: float32 (rows,), sum of the losses of each row's tokens, times the sample weights.
        count: float32 (rows,), number of tokens, or with the reduction `"mean_with_sample_weight"` their weights. With
            the reduction `"sum"`, whose value depends on the batch size, it is 1.
        mask: bool (rows, length), the tokens that count, or None if all do.
    """

    total: tf.Tensor
    count: tf.Tensor
    mask: tf.Tensor | None

    @property
    def mean(self) -> tf.Tensor:
        """The loss of each row, float32 (rows,)."""
        return tf.math.divide_no_nan(self.total, self.count)


def _sum_of_rows(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(values, axis=list(range(1, values.shape.rank)))


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
        name: _compiled_loss(loss, 1.0 if weights.get(name) is None else float(weights[name]))
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
            named = [one for one in _flat(metrics) if str(one).lower() not in SHAPE_DEPENDENT_METRICS]
            found[name] += [metric_config(keras.metrics.get(one), one) for one in named]
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


def _compiled_loss(identifier: Any, weight: float) -> CompiledLoss:
    loss = keras.losses.get(identifier)
    reduction = getattr(loss, "reduction", "sum_over_batch_size")
    return CompiledLoss(unreduced_loss(loss), weight, reduction)


def _flat(metrics: Any) -> list[Any]:
    if metrics is None:
        return []
    return [m for one in metrics for m in _flat(one)] if isinstance(metrics, (list, tuple)) else [metrics]


def metric_config(metric: Any, given: Any) -> Mapping[str, Any]:
    """Return the configuration of a metric, for `keras.metrics.deserialize`.

    Keras numbers the metrics of a process that have no name of their own: `auc`, `auc_1`. A metric that was given as a
    string or by its class gets the same name in every process.

    Args:
        metric: a Keras metric, or a function of (label, prediction).
        given: what the user wrote: `"mae"`, `{"name": "AUC", "curve": "PR"}`, or a metric, as an object or serialized.
    """
    if not isinstance(metric, keras.metrics.Metric):
        return keras.metrics.serialize(keras.metrics.MeanMetricWrapper(metric, name=metric.__name__))
    config = keras.metrics.serialize(metric)
    if not isinstance(given, str) and (not isinstance(given, dict) or _is_config(given)):
        return config
    name = re.sub(r"_\d+$", "", metric.name)
    if isinstance(given, str) and given.lower().replace("_", "") != name.replace("_", ""):
        name = given  # an abbreviation, such as `mae`, by which training reports it
    return {**config, "config": {**config["config"], "name": name}}
