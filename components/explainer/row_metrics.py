"""Per-row metrics of a prediction: the compiled loss, accuracy, a Keras loss by name, or the user's function."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.errors import ParameterError, UserCodeError
from kerasline.components.core.user_code import call, name_of
from kerasline.components.explainer.explained_output import ExplainedOutput
from kerasline.components.explainer.settings import check_metric
from kerasline.components.trainer.settings import lower_is_better


@dataclass(frozen=True)
class RowMetric:
    """A metric with a value for each row. Its weighted mean is the value for all rows.

    Attributes:
        name: name of the metric.
        lower_is_better: whether lower values are better.
        function: `function(label, prediction)` returns the values, (rows,).
        in_graph: whether the function takes and returns tensors. Otherwise it takes and returns NumPy arrays.
    """

    name: str
    lower_is_better: bool
    function: Callable[[Any, Any], Any]
    in_graph: bool = True

    @property
    def direction(self) -> str:
        return "down" if self.lower_is_better else "up"

    def of_arrays(self, label: np.ndarray, prediction: np.ndarray) -> np.ndarray:
        """Call the user's function and return its values, float64 (rows,).

        Raises:
            UserCodeError: the function raised, or did not return a number for each row.
        """
        values = np.asarray(call(self.function, label, prediction))
        if values.shape[:1] != label.shape[:1] or values.size != len(label) or values.dtype.kind not in "biuf":
            raise UserCodeError(
                f"{name_of(self.function)} must return a number for each of {len(label)} rows; it returned "
                f"{values.dtype} of shape {values.shape}"
            )
        return values.astype(np.float64).reshape(-1)


def row_metric(metric: str | Callable | None, direction: str | None, explained: ExplainedOutput) -> RowMetric:
    """Return the metric for the value of `Explainer.metric`.

    Args:
        metric: None or "loss" for the compiled loss, "accuracy", the name of a Keras loss function, or a function.
        direction: "minimize" or "maximize". If None, it is inferred from the name.
        explained: the output to explain.

    Raises:
        ParameterError: the metric is unknown, or does not apply to the output.
    """
    if callable(metric):
        return _user_metric(metric, direction)
    check_metric(metric, has_loss=explained.loss is not None, task=explained.task, keras_names=keras_functions)
    if metric is None or metric == "loss":
        assert explained.loss is not None  # `check_metric` raises otherwise
        loss = explained.loss.loss
        return RowMetric("loss", True, lambda label, prediction: _row_losses(loss, label, prediction))
    if metric == "accuracy":
        return RowMetric("accuracy", False, lambda label, prediction: _row_accuracy(explained, label, prediction))
    known = keras_functions()
    lower = direction != "maximize"
    return RowMetric(
        metric, lower, lambda label, output: _row_losses(_of_floats(known[metric]), label, explained.scores(output))
    )


def has_row_values(loss: Callable[[Any, Any], Any], label: Any, output: Any) -> bool:
    """Return whether an unreduced loss has a value for each row, rather than one for the batch.

    Args:
        label, output: symbolic tensors (rows, ...).
    """
    forms = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in (label, output)]
    return tf.function(loss, autograph=False).get_concrete_function(*forms).structured_outputs.shape.rank != 0


def _row_losses(loss: Callable[[Any, Any], Any], label: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
    """Return the loss of each row, float32 (rows,), averaged over any further axes.

    Raises:
        ParameterError: the loss has one value for the whole batch.
    """
    losses = loss(label, prediction)
    if losses.shape.rank == 0:
        raise ParameterError(
            "Explainer.metric: the compiled loss has one value for a batch, not one per row; name a metric"
        )
    return _mean_of_row(tf.cast(losses, tf.float32))


def _mean_of_row(values: tf.Tensor) -> tf.Tensor:
    return tf.reduce_mean(tf.reshape(values, [tf.shape(values)[0], -1]), axis=1)


def _of_floats(function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    return lambda label, scores: function(*_of_one_rank(tf.cast(label, tf.float32), scores))


def _of_one_rank(label: tf.Tensor, prediction: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Add the missing axis of size 1, as Keras does. Otherwise (rows,) and (rows, 1) would broadcast to a square."""
    if label.shape.rank == prediction.shape.rank - 1 and prediction.shape[-1] == 1:
        return label[..., None], prediction
    if prediction.shape.rank == label.shape.rank - 1 and label.shape[-1] == 1:
        return label, prediction[..., None]
    return label, prediction


def _row_accuracy(explained: ExplainedOutput, label: tf.Tensor, prediction: tf.Tensor) -> tf.Tensor:
    scores = explained.scores(prediction)
    if not explained.one_class:
        label, scores = _of_one_rank(tf.cast(label, tf.float32), scores)
        return _mean_of_row(tf.cast((label > 0.5) == (scores > 0.5), tf.float32))
    one_hot = label.shape.rank == scores.shape.rank and label.shape[-1] == explained.units
    held = tf.argmax(label, -1) if one_hot else tf.cast(label, tf.int64)
    best = tf.argmax(scores, -1)
    return _mean_of_row(tf.cast(tf.reshape(held, tf.shape(best)) == best, tf.float32))


def keras_functions() -> dict[str, Callable]:
    """Return Keras's loss functions by name."""
    others = ("get", "serialize", "deserialize")
    found = {name: getattr(keras.losses, name) for name in dir(keras.losses) if name not in others}
    return {name: function for name, function in found.items() if inspect.isfunction(function) and name[0] != "_"}


def _user_metric(function: Callable, direction: str | None) -> RowMetric:
    name = getattr(function, "__name__", type(function).__name__)
    try:
        pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError):
        raise ParameterError(
            f"Explainer.metric: {name_of(function)} must be defined at the top level of its file, where "
            "Beam's workers find it"
        ) from None
    lower = lower_is_better(name) if direction is None else direction == "minimize"
    return RowMetric(name, lower, function, in_graph=False)
