"""Counts the floating-point operations of a TensorFlow graph."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf


def count_flops(operations: Iterable[tf.Operation]) -> int:
    """Return the number of floating-point operations. A multiplication and an addition count as two."""
    return sum(map(_flops, operations))


def function_graph(operation: tf.Operation, attribute: str) -> Any:
    """Return the graph of a function that an operation calls, such as the body of a loop."""
    # TensorFlow has no public way from a function's name to its graph.
    function = operation.graph._get_function(operation.get_attr(attribute).name)
    if hasattr(function, "graph"):
        return function.graph
    from tensorflow.python.framework import function_def_to_graph

    return function_def_to_graph.function_def_to_graph(function.definition)


def elements(tensor: tf.Tensor) -> int:
    """Return the number of elements of a tensor, or 0 if its shape is unknown."""
    return tensor.shape.num_elements() or 0 if tensor.shape.rank is not None else 0


def _flops(operation: tf.Operation) -> int:
    count = _COUNTED.get(operation.type)
    if count is not None:
        return count(operation)
    if operation.type in _WITHOUT_ARITHMETIC or not operation.outputs or not _is_number(operation.outputs[0]):
        return 0
    if operation.type in _REDUCTIONS or operation.type.endswith("Grad"):
        return elements(operation.inputs[0])
    return sum(map(elements, operation.outputs[:1]))


def _is_number(tensor: tf.Tensor) -> bool:
    return tensor.dtype.is_floating or tensor.dtype.is_complex


def _matmul(operation: tf.Operation) -> int:
    inner = operation.inputs[0].shape[0 if operation.get_attr("transpose_a") else 1]
    return 2 * elements(operation.outputs[0]) * inner


def _batch_matmul(operation: tf.Operation) -> int:
    inner = operation.inputs[0].shape[-2 if operation.get_attr("adj_x") else -1]
    return 2 * elements(operation.outputs[0]) * inner


def _einsum(operation: tf.Operation) -> int:
    """Return two operations for each combination of the indices."""
    terms = operation.get_attr("equation").decode().split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, operation.inputs):
        letters = term.replace("...", "")
        batch_rank = tensor.shape.rank - len(letters)
        if "..." in term:
            sizes["..."] = max(sizes.get("...", 1), math.prod(tensor.shape[:batch_rank]))
        sizes |= dict(zip(letters, tensor.shape[batch_rank:] if "..." in term else tensor.shape))
    return 2 * math.prod(sizes.values())


def _convolution(
    result: Callable[[tf.Operation], tf.Tensor], kernel: Callable[[tf.Operation], tf.Tensor]
) -> Callable[[tf.Operation], int]:
    """Return a counter: two operations for each element of the result and of the kernel of one output channel.

    Args:
        result: returns the tensor with the shape of the forward pass's result.
        kernel: returns the tensor with the shape of the kernel, whose last dimensions are input and output channels.
    """

    def count(operation: tf.Operation) -> int:
        sizes = list(kernel(operation).shape)
        inner = math.prod(sizes[:-2]) if "Depthwise" in operation.type else math.prod(sizes[:-1])
        return 2 * elements(result(operation)) * inner

    return count


_forward = _convolution(lambda op: op.outputs[0], lambda op: op.inputs[1])
_input_gradient = _convolution(lambda op: op.inputs[2], lambda op: op.inputs[1])
_kernel_gradient = _convolution(lambda op: op.inputs[2], lambda op: op.outputs[0])


def _function_call(operation: tf.Operation) -> int:
    return count_flops(function_graph(operation, "f").get_operations())


@dataclass(frozen=True)
class Loop:
    """A loop of a graph.

    Attributes:
        iterations: largest number of iterations, or None if the graph does not bound it.
        flops: floating-point operations of an iteration.
    """

    iterations: int | None
    flops: int


def outer_loops(operations: Iterable[tf.Operation]) -> list[Loop]:
    """Return the loops of a graph that are not inside others and do arithmetic."""
    found = []
    for operation in operations:
        if operation.type in LOOPS:
            flops = count_flops(function_graph(operation, "body").get_operations())
            found += [Loop(_max_iterations(operation) or None, flops)] if flops else []
        elif operation.type in CALLS:
            found += outer_loops(function_graph(operation, "f").get_operations())
    return found


def _loop(operation: tf.Operation) -> int:
    return _iterations(operation) * count_flops(function_graph(operation, "body").get_operations())


def _iterations(operation: tf.Operation) -> int:
    """Return the number of iterations of a loop, or 1 if it has no known bound.

    A gradient's loop has as many as the loop of its forward pass.
    """
    loops = [operation]
    if "gradient" in operation.name:
        loops += [op for op in operation.graph.get_operations() if op.type in LOOPS]
    return next((count for count in map(_max_iterations, loops) if count), 1)


def _max_iterations(operation: tf.Operation) -> int:
    limit = operation.inputs[1]
    if limit.op.type == "Max":  # Keras's recurrent layers: over the lengths of all rows
        limit = limit.op.inputs[0]
    known = tf.get_static_value(limit)
    return max(0, int(known.max())) if known is not None and known.size else 0


def _branch(operation: tf.Operation) -> int:
    branches = ("then_branch", "else_branch")
    return max(count_flops(function_graph(operation, branch).get_operations()) for branch in branches)


LOOPS = ("While", "StatelessWhile")
CALLS = ("PartitionedCall", "StatefulPartitionedCall")
_COUNTED: dict[str, Callable[[tf.Operation], int]] = {
    "MatMul": _matmul,
    "BatchMatMul": _batch_matmul,
    "BatchMatMulV2": _batch_matmul,
    "BatchMatMulV3": _batch_matmul,
    "Einsum": _einsum,
    "Conv2D": _forward,
    "Conv3D": _forward,
    "DepthwiseConv2dNative": _forward,
    "Conv2DBackpropInput": _input_gradient,
    "Conv3DBackpropInputV2": _input_gradient,
    "DepthwiseConv2dNativeBackpropInput": _input_gradient,
    "Conv2DBackpropFilter": _kernel_gradient,
    "Conv3DBackpropFilterV2": _kernel_gradient,
    "DepthwiseConv2dNativeBackpropFilter": _kernel_gradient,
    "PartitionedCall": _function_call,
    "StatefulPartitionedCall": _function_call,
    "While": _loop,
    "StatelessWhile": _loop,
    "If": _branch,
    "StatelessIf": _branch,
}
# Operations that only move numbers, or produce none.
_WITHOUT_ARITHMETIC = frozenset(
    {
        "Cast",
        "ConcatV2",
        "Const",
        "ExpandDims",
        "Fill",
        "GatherV2",
        "Identity",
        "IdentityN",
        "OnesLike",
        "Pack",
        "Pad",
        "PadV2",
        "Placeholder",
        "PreventGradient",
        "ReadVariableOp",
        "Reshape",
        "ResourceGather",
        "Reverse",
        "ReverseV2",
        "Slice",
        "Split",
        "SplitV",
        "Squeeze",
        "StopGradient",
        "StridedSlice",
        "StridedSliceGrad",
        "Tile",
        "Transpose",
        "Unpack",
        "VariableV2",
        "ZerosLike",
        "BroadcastTo",
        "TensorListFromTensor",
        "TensorListStack",
    }
)
_REDUCTIONS = frozenset({"Sum", "Mean", "Max", "Min", "Prod", "BiasAddGrad", "Softmax", "LogSoftmax", "ArgMax"})
