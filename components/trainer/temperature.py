"""Temperature scaling: divide the logits of a trained classifier, so that its probabilities are those of being right.

Guo et al., "On calibration of modern neural networks", ICML 2017. The temperature minimizes the log loss of held-out
rows. The weights of the layer that computes the logits are divided by it, so the model keeps its layers and its costs.
"""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.errors import ParameterError
from kerasline.components.core.keras_compat import graph_nodes, source_operation
from kerasline.components.evaluator.settings import EvaluatorSettings
from kerasline.components.metrics.base import Rows
from kerasline.components.metrics.binary import BinaryScores
from kerasline.components.metrics.multi_class import Confidence
from kerasline.components.models.compile_config import compiled_losses, outputs_by_name
from kerasline.components.models.outputs import find_outputs
from kerasline.components.models.tasks import Output
from kerasline.components.trainer.job import Job

WHERE = "Trainer.calibrate"
# Layers whose output is linear in their weights, before the activation.
LINEAR = (keras.layers.Dense, keras.layers.EinsumDense, keras.layers.Conv1D, keras.layers.Conv2D)
# Layers that may follow it.
PASSED = (keras.layers.Activation, keras.layers.Softmax, keras.layers.Flatten, keras.layers.Reshape)
# Half the distance of 1 from the next smaller float32: probabilities of the other classes below it are not distinct.
EPSILON = 2.0**-25


class TemperatureScaling:
    """Calibrates a classifier on the held-out rows of a training.

    Args:
        job: the training.
        model: its compiled model.

    Raises:
        ParameterError: the model does not have one output of classes that is computed by a linear layer.
    """

    def __init__(self, job: Job, model: keras.Model) -> None:
        self._model = model
        self._output = _output_of_classes(job, model)
        self._layer = _linear_layer(model)

    def apply(self, data: tf.data.Dataset) -> dict[str, Any]:
        """Divide the logits, in place, and return the facts for `calibration.json`.

        Args:
            data: batches of the held-out rows.

        Returns:
            dict: `output`, `rows`, `temperature` (None if no temperature is best, and the logits stay unchanged), and
            `before` and `after`, each a dict of `log_loss`, `calibration_error` and `curve`.
        """
        logits, label, weight = self._logits(data)
        temperature = best_temperature(logits, label, weight)
        divided = logits / (temperature or 1.0)
        if temperature is not None:
            for variable in self._layer.weights:
                if "lora_kernel_a" not in variable.name:  # one factor of a product
                    variable.assign(variable / temperature)
        return {
            "output": self._output.name,
            "rows": len(label),
            "temperature": temperature,
            "before": self._quality(logits, label, weight),
            "after": self._quality(divided, label, weight),
        }

    def _logits(self, data: tf.data.Dataset) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return logits, float64 (rows, classes), labels and weights of the held-out rows."""
        predict = tf.function(lambda features: self._model(features, training=False), autograph=False)
        scores, labels, weights = [], [], []
        for batch in data:
            features, label, weight = keras.utils.unpack_x_y_sample_weight(batch)
            scores.append(tf.nest.flatten(predict(features))[0].numpy().astype(np.float64))
            labels.append(self._output.label(label.numpy()))
            weights.append(np.ones(len(labels[-1])) if weight is None else weight.numpy().reshape(len(labels[-1])))
        logits, label = np.concatenate(scores), np.concatenate(labels)
        if not self._output.from_logits:
            logits = np.log(np.maximum(logits, EPSILON)) - (
                np.log(np.maximum(1 - logits, EPSILON)) if self._output.task == "binary" else 0.0
            )
        if self._output.task == "binary":  # the logit of the second of two classes
            logits = np.pad(logits.reshape(len(label), 1), ((0, 0), (1, 0)))
        return logits, label, np.concatenate(weights).astype(np.float64)

    def _quality(self, logits: np.ndarray, label: np.ndarray, weight: np.ndarray) -> dict[str, Any]:
        p = _softmax(logits)
        losses = np.log(np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1))
        losses += logits.max(axis=1) - logits[np.arange(len(label)), label]
        family: BinaryScores = Confidence()
        if self._output.task == "binary":
            family, p = BinaryScores(), p[:, 1]
        cells, places = np.unique(family.cells(Rows(label, p, weight, np.arange(len(label)))), return_inverse=True)
        counts = np.bincount(places, weight)
        return {
            "log_loss": float(np.average(losses, weights=weight)),
            "calibration_error": float(family.values(cells, counts)["calibration_error"]),
            "curve": family.curves(cells, counts)["calibration"],
        }


def best_temperature(logits: np.ndarray, label: np.ndarray, weight: np.ndarray) -> float | None:
    """Return the temperature with the lowest mean log loss, or None if there is none.

    The loss is convex in the inverse of the temperature, whose derivative is the mean difference of the expected and
    the true logit. It has no root if all rows are classified correctly, or no better than by chance.

    Args:
        logits: float64 (rows, classes).
        label: int64 (rows,).
        weight: float64 (rows,).
    """
    excess = logits - logits[np.arange(len(label)), label][:, np.newaxis]

    def slope(inverse: float) -> float:
        return float(weight @ (_softmax(inverse * logits) * excess).sum(axis=1))

    if weight @ excess.max(axis=1) <= 0 or slope(0.0) >= 0:
        return None
    low, high = 0.0, 1.0
    while slope(high) < 0:
        low, high = high, 2 * high
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    return 2 / (low + high)


def _output_of_classes(job: Job, model: keras.Model) -> Output:
    tensors = outputs_by_name(model, model.output)
    losses, labels = compiled_losses(model), job.preprocessing.label_specs
    outputs = find_outputs(tensors, losses, labels, job.preprocessing, EvaluatorSettings())
    if len(tensors) == len(outputs) == 1 and outputs[0].task in ("binary", "multi_class") and not outputs[0].margins:
        return outputs[0]
    found = ", ".join(f"{output.name!r} ({output.task})" for output in outputs)
    raise ParameterError(f"{WHERE}: expected a model with one output, of classes; received {found}")


def _linear_layer(model: keras.Model) -> keras.layers.Layer:
    """Return the layer that computes the logits."""
    (tensor,) = outputs_by_name(model, model.output).values()
    layer, activations = source_operation(tensor), []
    while isinstance(layer, PASSED):
        activations.append(_activation(layer))
        layer = source_operation(layer.input)
    activations = [name for name in (*activations, _activation(layer)) if name != "linear"]
    calls = sum(node.operation is layer for node in graph_nodes(model))
    if isinstance(layer, LINEAR) and calls == 1 and activations in ([], ["softmax"], ["sigmoid"]):
        return layer
    raise ParameterError(
        f"{WHERE}: expected an output that a Dense or convolutional layer computes, used once, with no activation but "
        f"softmax or sigmoid; received that of {layer.name!r}, a {type(layer).__name__}"
    )


def _activation(layer: keras.layers.Layer) -> str:
    if isinstance(layer, keras.layers.Softmax):
        return "softmax"
    return getattr(getattr(layer, "activation", None), "__name__", "linear")


def _softmax(logits: np.ndarray) -> np.ndarray:
    exponents = np.exp(logits - logits.max(axis=1, keepdims=True))
    return exponents / exponents.sum(axis=1, keepdims=True)
