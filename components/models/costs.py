"""The costs of a training step: floating-point operations and memory, determined from its graph.

The step is traced but not run: forward pass, loss, gradients and the update of the optimizer, with all shapes known.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.keras_compat import flatten_layers
from kerasline.components.models.graph_flops import count_flops
from kerasline.components.models.graph_memory import peak_bytes, tensor_bytes
from kerasline.components.models.precision import Precision, set_precision

# Default length of inputs whose length varies (texts, sequences).
LENGTH = 128


@dataclass(frozen=True)
class Costs:
    """The costs of one step.

    Attributes:
        forward_flops: floating-point operations of the forward pass per row. A multiplication and an addition are two.
        training_flops: floating-point operations of the forward and backward pass per row.
        update_flops: floating-point operations of the optimizer per step.
        weight_bytes: bytes of the weights.
        gradient_bytes: bytes of the gradients.
        optimizer_bytes: bytes of the optimizer's variables.
        activation_bytes: largest number of bytes alive at once between forward and backward pass, beyond the above.
        input_bytes: bytes of a batch.
    """

    forward_flops: int
    training_flops: int
    update_flops: int
    weight_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    input_bytes: int

    @property
    def memory_bytes(self) -> int:
        """The total. Gradients replace activations during the backward pass, so only the larger of both counts."""
        constant = self.weight_bytes + self.optimizer_bytes + self.input_bytes
        return constant + max(self.activation_bytes, self.gradient_bytes)


def model_costs(
    model: keras.Model, batch_size: int, *, precision: Precision = "float32", length: int = LENGTH
) -> Costs:
    """Trace a training step of a model and return its costs.

    Args:
        model: has known inputs. If it is not compiled, the sum of its outputs is the loss.
        batch_size: number of rows of the step.
        precision: precision of the step. The model is unchanged afterwards. Defaults to float32.
        length: size of dimensions that vary from row to row. Defaults to 128.

    Raises:
        ValueError: the model has no known inputs, or cannot be traced with these shapes.
    """
    with _precision(model, precision):
        traced = _trace(model, batch_size, length)
    forward = count_flops(traced.forward)
    training = forward + count_flops(traced.backward)
    optimizer = getattr(model, "optimizer", None)
    return Costs(
        forward // batch_size,
        training // batch_size,
        count_flops(traced.update),
        _variable_bytes(model.weights),
        _variable_bytes(model.trainable_weights),
        _variable_bytes(optimizer.variables) if optimizer else 0,
        peak_bytes(traced.graph),
        sum(tensor_bytes(tensor) for tensor in traced.graph.inputs if tensor.dtype != tf.resource),
    )


@dataclass(frozen=True)
class _TracedStep:
    graph: Any
    forward: list[tf.Operation]
    backward: list[tf.Operation]
    update: list[tf.Operation]


def _trace(model: keras.Model, batch_size: int, length: int) -> _TracedStep:
    boundaries: list[int] = []

    def mark_boundary() -> None:
        boundaries.append(len(tf.compat.v1.get_default_graph().get_operations()))

    optimizer = getattr(model, "optimizer", None)

    def step(features: Any) -> None:
        with tf.GradientTape() as tape:
            loss = _loss(model, model(features, training=True))
        mark_boundary()
        variables = model.trainable_weights
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        mark_boundary()
        if optimizer is not None:
            pairs = [(g, v) for g, v in zip(gradients, variables) if g is not None]
            optimizer.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])

    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_weights)
    features = keras.tree.map_structure(lambda tensor: _spec(tensor, batch_size, length), model.input)
    graph = tf.function(step, autograph=False).get_concrete_function(features).graph
    operations = graph.get_operations()
    first, second = boundaries[:2]
    return _TracedStep(graph, operations[:first], operations[first:second], operations[second:])


def _spec(tensor: Any, batch_size: int, length: int) -> tf.TensorSpec:
    shape = [batch_size, *(size or length for size in tensor.shape[1:])]
    return tf.TensorSpec(shape, tensor.dtype)


def _loss(model: keras.Model, outputs: Any) -> tf.Tensor:
    """Return the compiled loss for synthetic labels, or the sum of the outputs if there is none."""
    if getattr(model, "compiled", False):
        for labels in (_dense_labels, _class_labels):
            with contextlib.suppress(ValueError, TypeError, KeyError, tf.errors.InvalidArgumentError):
                targets = keras.tree.map_structure(labels, outputs)
                return model.compute_loss(y=targets, y_pred=outputs, training=True)
    return sum(tf.reduce_sum(tf.cast(output, tf.float32)) for output in keras.tree.flatten(outputs))


def _dense_labels(output: tf.Tensor) -> tf.Tensor:
    return tf.zeros(output.shape, tf.float32)


def _class_labels(output: tf.Tensor) -> tf.Tensor:
    return tf.zeros(output.shape[:-1], tf.int64)


@contextlib.contextmanager
def _precision(model: keras.Model, precision: Precision) -> Iterator[None]:
    before = [(layer, layer.dtype_policy) for layer in flatten_layers(model)]
    set_precision(model, precision)
    try:
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy


def _variable_bytes(variables: Any) -> int:
    return sum(math.prod(v.shape) * tf.as_dtype(keras.backend.standardize_dtype(v.dtype)).size for v in variables)
