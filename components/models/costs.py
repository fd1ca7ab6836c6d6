"""The costs of a training step and of an answer: floating-point operations and memory, determined from their graphs.

They are traced but not run, with all shapes known. A step has the forward pass of the model as it is trained, loss,
gradients and the update of the optimizer. An answer has what the served model computes, such as decoding.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.keras_compat import flatten_layers, limit_tracing, variables_without_values
from kerasline.components.models.graph_flops import Loop, count_flops, outer_loops
from kerasline.components.models.graph_memory import peak_bytes, tensor_bytes
from kerasline.components.models.precision import Precision, set_precision

# Default length of inputs whose length varies (texts, sequences).
LENGTH = 128
# A model with a long loop that Python unrolls could take minutes. Large ones without take a few seconds.
TRACING_SECONDS = 30.0


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
        TimeoutError: tracing took longer than `TRACING_SECONDS`, such as for a long loop that Python unrolls.
    """
    with _precision(model, precision):
        traced = _trace(model, batch_size, length)
    forward = count_flops(traced.forward)
    training = forward + count_flops(traced.backward)
    return Costs(
        forward // batch_size,
        training // batch_size,
        count_flops(traced.update),
        _variable_bytes(model.weights),
        _variable_bytes(model.trainable_weights),
        _variable_bytes(traced.optimizer_variables),
        peak_bytes(traced.graph),
        sum(tensor_bytes(tensor) for tensor in traced.graph.inputs if tensor.dtype != tf.resource),
    )


@dataclass(frozen=True)
class AnswerCosts:
    """The costs of an answer to one row.

    Attributes:
        flops: floating-point operations. A loop counts as often as its bound, or once if it has none.
        loops: the loops, such as over the tokens that are generated.
        memory_bytes: largest number of bytes alive at once, beyond the weights.
    """

    flops: int
    loops: list[Loop]
    memory_bytes: int

    def __str__(self) -> str:
        parts = [f"{format_flops(self.flops)} a row"]
        for loop in self.loops:
            times = "any number of" if loop.iterations is None else f"at most {loop.iterations:,}"
            parts.append(f"{times} steps of {format_flops(loop.flops)}")
        return ", ".join(parts)


def answer_costs(
    answer: Callable[[dict[str, tf.Tensor]], Any], features: Mapping[str, Any], *, length: int = LENGTH
) -> AnswerCosts:
    """Trace the function that answers and return what one row costs.

    Args:
        answer: takes features by name and returns a structure of tensors.
        features: specs or symbolic tensors of the features, (rows, ...).
        length: size of dimensions that vary from row to row. Defaults to 128.

    Raises:
        TimeoutError: tracing took longer than `TRACING_SECONDS`.
        Exception: any, of the function.
    """

    def limited(rows: dict[str, tf.Tensor]) -> Any:
        limit_tracing(TRACING_SECONDS)
        return answer(rows)

    specs = {name: _spec(tensor, 1, length) for name, tensor in features.items()}
    graph = tf.function(limited, autograph=False).get_concrete_function(specs).graph
    operations = graph.get_operations()
    return AnswerCosts(count_flops(operations), outer_loops(operations), peak_bytes(graph))


def format_flops(flops: float) -> str:
    """Return a number of floating-point operations as text: "1.5 GFLOP", "20 MFLOP"."""
    for unit, size in (("EFLOP", 1e18), ("PFLOP", 1e15), ("TFLOP", 1e12), ("GFLOP", 1e9)):
        if flops >= size:
            return f"{flops / size:.3g} {unit}"
    return f"{flops / 1e6:.3g} MFLOP"


@dataclass(frozen=True)
class _TracedStep:
    graph: Any
    forward: list[tf.Operation]
    backward: list[tf.Operation]
    update: list[tf.Operation]
    optimizer_variables: list[keras.Variable]


def _trace(model: keras.Model, batch_size: int, length: int) -> _TracedStep:
    boundaries: list[int] = []

    def mark_boundary() -> None:
        boundaries.append(len(tf.compat.v1.get_default_graph().get_operations()))

    optimizer = _optimizer(model)

    def step(features: Any) -> None:
        limit_tracing(TRACING_SECONDS)
        with tf.GradientTape() as tape:
            loss = _loss(model, model(features, training=True))
        mark_boundary()
        variables = model.trainable_weights
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        mark_boundary()
        if optimizer is not None:
            pairs = [(g, v) for g, v in zip(gradients, variables) if g is not None]
            optimizer.apply([gradient for gradient, _ in pairs], [variable for _, variable in pairs])

    features = keras.tree.map_structure(lambda tensor: _spec(tensor, batch_size, length), model.input)
    graph = tf.function(step, autograph=False).get_concrete_function(features).graph
    operations = graph.get_operations()
    first, second = boundaries[:2]
    parts = operations[:first], operations[first:second], operations[second:]
    return _TracedStep(graph, *parts, optimizer.variables if optimizer is not None else [])


def _optimizer(model: keras.Model) -> keras.optimizers.Optimizer | None:
    """Return the optimizer of a model. If it has no state yet, return a copy whose state takes no memory."""
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None or optimizer.built:
        return optimizer
    with variables_without_values():
        copy = type(optimizer).from_config(optimizer.get_config())
        copy.build(model.trainable_weights)
    return copy


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
