"""Estimates the peak memory of a TensorFlow graph."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kerasline.components.models.graph_flops import LOOPS, elements, function_graph

# Operations whose result is their first input, in the same memory.
_VIEWS = frozenset(
    {
        "Reshape",
        "Identity",
        "IdentityN",
        "ExpandDims",
        "Squeeze",
        "StopGradient",
        "PreventGradient",
        "ReadVariableOp",
        "Placeholder",
    }
)
# Operations whose result may reuse the memory of an input of the same size that is no longer needed.
_IN_PLACE = frozenset(
    {
        "Add",
        "AddV2",
        "AddN",
        "BiasAdd",
        "Div",
        "Erf",
        "Exp",
        "Log",
        "Maximum",
        "Minimum",
        "Mul",
        "Neg",
        "Pow",
        "RealDiv",
        "Relu",
        "ReluGrad",
        "Rsqrt",
        "RsqrtGrad",
        "SelectV2",
        "Sigmoid",
        "SigmoidGrad",
        "Softmax",
        "Sqrt",
        "Square",
        "SquaredDifference",
        "Sub",
        "Tanh",
        "TanhGrad",
        "DivNoNan",
        "Elu",
        "EluGrad",
        "Selu",
        "LeakyRelu",
    }
)


def peak_bytes(graph: Any) -> int:
    """Return the largest number of bytes that are alive at once.

    Operations run in the order of their creation: the forward pass, then, in reverse, the gradients.
    """
    operations = graph.get_operations()
    last_use = {tensor.name: number for number, operation in enumerate(operations) for tensor in operation.inputs}
    buffer_of: dict[str, str] = {}  # by tensor; a buffer has the name of the first tensor in it
    sizes: dict[str, int] = {}
    ends: dict[str, int] = {}
    ending: dict[int, list[str]] = {}
    alive = peak = 0
    for number, operation in enumerate(operations):
        temporary = _temporary_bytes(operation)
        for tensor in operation.outputs:
            buffer = _reused_buffer(operation, tensor, number, buffer_of, sizes, ends)
            end = last_use.get(tensor.name, number)
            if buffer is None:
                buffer = tensor.name
                is_external = operation.type in ("Placeholder", "Const", "VarHandleOp")
                sizes[buffer] = 0 if is_external else tensor_bytes(tensor)
                alive += sizes[buffer]
                ends[buffer] = -1
            buffer_of[tensor.name] = buffer
            if end > ends[buffer]:
                ends[buffer] = end
                ending.setdefault(end, []).append(buffer)
        peak = max(peak, alive + temporary)
        for buffer in set(ending.pop(number, ())):
            if ends[buffer] == number:
                alive -= sizes[buffer]
                sizes[buffer] = 0
    return peak


def tensor_bytes(tensor: tf.Tensor) -> int:
    """Return the size of a tensor in bytes, or 0 if it is unknown."""
    is_known = tensor.dtype not in (tf.resource, tf.variant, tf.string)
    return elements(tensor) * tensor.dtype.size if is_known else 0


def _reused_buffer(
    operation: tf.Operation,
    tensor: tf.Tensor,
    number: int,
    buffer_of: dict[str, str],
    sizes: dict[str, int],
    ends: dict[str, int],
) -> str | None:
    """Return the buffer of an input that the result is stored in, or None if it needs a new one."""
    if operation.type in _VIEWS:
        return buffer_of.get(operation.inputs[0].name) if len(operation.inputs) else None
    if operation.type not in _IN_PLACE:
        return None
    size = tensor_bytes(tensor)
    buffers = [buffer_of[source.name] for source in operation.inputs if source.name in buffer_of]
    return next((buffer for buffer in buffers if sizes[buffer] == size and ends[buffer] == number), None)


def _temporary_bytes(operation: tf.Operation) -> int:
    """Return the bytes that a function, a loop's step, a branch or a kernel needs while it runs."""
    if operation.type.startswith("Conv"):  # data reordered for the kernels of oneDNN and cuDNN
        data = [t for t in (*operation.inputs, *operation.outputs) if t.dtype.is_floating]
        # The two gradients of a convolution have the same inputs and run in parallel.
        return sum(sorted(map(tensor_bytes, data))[-2:]) * (2 if "Backprop" in operation.type else 1)
    if operation.type == "MatMul":  # transposed inputs are copied
        transposed = (operation.get_attr("transpose_a"), operation.get_attr("transpose_b"))
        return sum(tensor_bytes(tensor) for tensor, is_copied in zip(operation.inputs, transposed) if is_copied)
    return max((peak_bytes(function_graph(operation, name)) for name in _functions(operation)), default=0)


def _functions(operation: tf.Operation) -> Sequence[str]:
    """Return the attributes of an operation that name functions."""
    if operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
        return ("f",)
    if operation.type in LOOPS:
        return ("body",)
    return ("then_branch", "else_branch") if operation.type in ("If", "StatelessIf") else ()
