"""What a step of training takes: floating-point operations and memory, read off its graph.

The step is traced, not run: forward pass, loss, gradients and the optimizer's update, with every shape
known. Operations are counted as the graph has them; memory is what lives at once as they run in order.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.trainer.precision import set_precision

# Of inputs whose length varies (texts, sequences), where nothing else is known.
LENGTH = 128


@dataclass(frozen=True)
class Costs:
    """What one step takes.

    Attributes:
        forward_flops: of one row; a multiplication and an addition are two.
        training_flops: of one row: forward and backward.
        update_flops: of the optimizer, once a step.
        weight_bytes, gradient_bytes, optimizer_bytes: whatever the batch.
        activation_bytes: the most that lives at once between forward and backward, beyond those.
        input_bytes: a batch itself.
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
        """All together; gradients come as activations go, so that their sum is never needed."""
        lasting = self.weight_bytes + self.optimizer_bytes + self.input_bytes
        return lasting + max(self.activation_bytes, self.gradient_bytes)


def model_costs(model: keras.Model, batch_size: int, *, precision: str = "float32", length: int = LENGTH) -> Costs:
    """Traces a step.

    Args:
        model: with known inputs; compiled, or else the sum of its outputs is its loss.
        batch_size: rows of the step.
        precision: float32, mixed_bfloat16 or mixed_float16; the model is as before afterwards.
        length: what stands for a size that varies from row to row.

    Raises:
        ValueError: the model has no known inputs, or cannot be traced with these shapes.
    """
    with _precision(model, precision):
        traced = _traced(model, batch_size, length)
    forward = sum(map(_flops, traced.forward))
    training = forward + sum(map(_flops, traced.backward))
    optimizer = getattr(model, "optimizer", None)
    return Costs(
        forward // batch_size,
        training // batch_size,
        sum(map(_flops, traced.update)),
        _bytes_of(model.weights),
        _bytes_of(model.trainable_weights),
        _bytes_of(optimizer.variables) if optimizer else 0,
        _most_alive(traced.graph),
        sum(_size(tensor) for tensor in traced.graph.inputs if tensor.dtype != tf.resource),
    )


@dataclass(frozen=True)
class _Traced:
    graph: Any
    forward: list[tf.Operation]
    backward: list[tf.Operation]
    update: list[tf.Operation]


def _traced(model: keras.Model, batch_size: int, length: int) -> _Traced:
    marks: list[int] = []

    def mark() -> None:
        marks.append(len(tf.compat.v1.get_default_graph().get_operations()))

    def step(features: Any) -> None:
        with tf.GradientTape() as tape:
            loss = _loss(model, model(features, training=True), batch_size)
        mark()
        variables = model.trainable_weights
        gradients = tape.gradient(loss, [variable.value for variable in variables])
        mark()
        if getattr(model, "optimizer", None) is not None:
            model.optimizer.apply(
                [g for g in gradients if g is not None], [v for v, g in zip(variables, gradients) if g is not None]
            )

    optimizer = getattr(model, "optimizer", None)
    if optimizer is not None and not optimizer.built:
        optimizer.build(model.trainable_weights)
    features = keras.tree.map_structure(lambda tensor: _spec(tensor, batch_size, length), model.input)
    graph = tf.function(step).get_concrete_function(features).graph
    operations = graph.get_operations()
    return _Traced(graph, operations[: marks[0]], operations[marks[0] : marks[1]], operations[marks[1] :])


def _spec(tensor: Any, batch_size: int, length: int) -> tf.TensorSpec:
    shape = [batch_size, *(size or length for size in tensor.shape[1:])]
    return tf.TensorSpec(shape, tensor.dtype)


def _loss(model: keras.Model, outputs: Any, batch_size: int) -> tf.Tensor:
    """The compiled loss of the outputs and labels made up for it, or else the sum of the outputs."""
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
def _precision(model: keras.Model, precision: str) -> Iterator[None]:
    layers = model._flatten_layers(include_self=False)
    before = [(layer, layer.dtype_policy) for layer in layers]
    set_precision(model, precision)
    try:
        yield
    finally:
        for layer, policy in before:
            layer.dtype_policy = policy


def _bytes_of(variables: Any) -> int:
    return sum(math.prod(v.shape) * tf.as_dtype(keras.backend.standardize_dtype(v.dtype)).size for v in variables)


# Floating-point operations


def _flops(operation: tf.Operation) -> int:
    counted = _COUNTED.get(operation.type)
    if counted is not None:
        return counted(operation)
    if operation.type in _MOVING or not operation.outputs or not _is_number(operation.outputs[0]):
        return 0
    if operation.type in _REDUCING or operation.type.endswith("Grad"):
        return _elements(operation.inputs[0])
    return sum(map(_elements, operation.outputs[:1]))


def _matmul(operation: tf.Operation) -> int:
    inner = operation.inputs[0].shape[0 if operation.get_attr("transpose_a") else 1]
    return 2 * _elements(operation.outputs[0]) * inner


def _batch_matmul(operation: tf.Operation) -> int:
    inner = operation.inputs[0].shape[-2 if operation.get_attr("adj_x") else -1]
    return 2 * _elements(operation.outputs[0]) * inner


def _einsum(operation: tf.Operation) -> int:
    """A multiplication and an addition for every combination of the indices."""
    terms = operation.get_attr("equation").decode().split("->")[0].split(",")
    sizes: dict[str, int] = {}
    for term, tensor in zip(terms, operation.inputs):
        named = term.replace("...", "")
        ahead = tensor.shape.rank - len(named)
        if "..." in term:
            sizes["..."] = max(sizes.get("...", 1), math.prod(tensor.shape[:ahead]))
        sizes |= dict(zip(named, tensor.shape[ahead:] if "..." in term else tensor.shape))
    return 2 * math.prod(sizes.values())


def _convolution(result: Callable[[tf.Operation], tf.Tensor], kernel: Callable[[tf.Operation], tf.Tensor]):
    """For every number of the forward pass's result, a kernel without its output channels.

    Args:
        result: the tensor that has the shape of that result.
        kernel: the one that has the shape of the kernel; the last of its sizes are input and output channels.
    """

    def count(operation: tf.Operation) -> int:
        sizes = list(kernel(operation).shape)
        inner = math.prod(sizes[:-2]) if "Depthwise" in operation.type else math.prod(sizes[:-1])
        return 2 * _elements(result(operation)) * inner

    return count


_forward = _convolution(lambda op: op.outputs[0], lambda op: op.inputs[1])
_to_input = _convolution(lambda op: op.inputs[2], lambda op: op.inputs[1])
_to_kernel = _convolution(lambda op: op.inputs[2], lambda op: op.outputs[0])


def _called(operation: tf.Operation) -> int:
    return sum(map(_flops, _body(operation, "f").get_operations()))


def _loop(operation: tf.Operation) -> int:
    return _times(operation) * sum(map(_flops, _body(operation, "body").get_operations()))


def _times(operation: tf.Operation) -> int:
    """How often a loop runs; a gradient's, which does not say, as often as the loop it is of."""
    loops = [operation, *(op for op in operation.graph.get_operations() if op.type in _LOOPS)]
    return next((times for times in map(_most_times, loops) if times), 1)


def _most_times(operation: tf.Operation) -> int:
    most = operation.inputs[1]
    if most.op.type == "Max":  # Keras's recurrent layers: of the lengths of all rows
        most = most.op.inputs[0]
    known = tf.get_static_value(most)
    return max(0, int(known.max())) if known is not None and known.size else 0


def _branch(operation: tf.Operation) -> int:
    branches = ("then_branch", "else_branch")
    return max(sum(map(_flops, _body(operation, branch).get_operations())) for branch in branches)


def _body(operation: tf.Operation, attribute: str) -> Any:
    function = operation.graph._get_function(operation.get_attr(attribute).name)
    return function.graph if hasattr(function, "graph") else _graph_of(function)


def _graph_of(function: Any) -> Any:
    from tensorflow.python.framework import function_def_to_graph

    return function_def_to_graph.function_def_to_graph(function.definition)


_LOOPS = ("While", "StatelessWhile")
_COUNTED: dict[str, Callable[[tf.Operation], int]] = {
    "MatMul": _matmul,
    "BatchMatMul": _batch_matmul,
    "BatchMatMulV2": _batch_matmul,
    "BatchMatMulV3": _batch_matmul,
    "Einsum": _einsum,
    "Conv2D": _forward,
    "Conv3D": _forward,
    "DepthwiseConv2dNative": _forward,
    "Conv2DBackpropInput": _to_input,
    "Conv3DBackpropInputV2": _to_input,
    "DepthwiseConv2dNativeBackpropInput": _to_input,
    "Conv2DBackpropFilter": _to_kernel,
    "Conv3DBackpropFilterV2": _to_kernel,
    "DepthwiseConv2dNativeBackpropFilter": _to_kernel,
    "PartitionedCall": _called,
    "StatefulPartitionedCall": _called,
    "While": _loop,
    "StatelessWhile": _loop,
    "If": _branch,
    "StatelessIf": _branch,
}
# They move numbers, or make none.
_MOVING = frozenset(
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
_REDUCING = frozenset({"Sum", "Mean", "Max", "Min", "Prod", "BiasAddGrad", "Softmax", "LogSoftmax", "ArgMax"})


# Memory

# Their result is their first input, in the same place.
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
# Their result takes the place of an input of the same size that nobody needs any more.
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


def _most_alive(graph: Any) -> int:
    """The most bytes that live at once as the operations run in the order of their making, which is that
    of the forward pass and then, backwards, of the gradients."""
    operations = graph.get_operations()
    last_use = _last_uses(operations)
    place: dict[str, str] = {}  # a tensor, and whose memory it lies in
    sizes: dict[str, int] = {}
    leaving: dict[int, list[str]] = {}
    ends: dict[str, int] = {}
    alive = most = 0
    for number, operation in enumerate(operations):
        inside = _alive_inside(operation)
        for tensor in operation.outputs:
            home = _home(operation, tensor, number, place, sizes, ends)
            until = last_use.get(tensor.name, number)
            if home is None:
                home = tensor.name
                sizes[home] = 0 if operation.type in ("Placeholder", "Const", "VarHandleOp") else _size(tensor)
                alive += sizes[home]
                ends[home] = -1
            place[tensor.name] = home
            if until > ends[home]:
                ends[home] = until
                leaving.setdefault(until, []).append(home)
        most = max(most, alive + inside)
        for home in set(leaving.pop(number, ())):
            if ends[home] == number:
                alive -= sizes[home]
                sizes[home] = 0
    return most


def _home(operation: tf.Operation, tensor: tf.Tensor, number: int, place: Any, sizes: Any, ends: Any) -> str | None:
    """The memory of an input that the result lies in, if it does."""
    if operation.type in _VIEWS:
        return place.get(operation.inputs[0].name) if len(operation.inputs) else None
    if operation.type not in _IN_PLACE:
        return None
    wanted = _size(tensor)
    homes = [place[source.name] for source in operation.inputs if source.name in place]
    return next((home for home in homes if sizes[home] == wanted and ends[home] == number), None)


def _last_uses(operations: list[tf.Operation]) -> dict[str, int]:
    return {tensor.name: number for number, operation in enumerate(operations) for tensor in operation.inputs}


def _alive_inside(operation: tf.Operation) -> int:
    """What a function, a loop's step, a branch or a kernel takes while it runs."""
    if operation.type.startswith("Conv"):  # data in the order that the kernels want: oneDNN's, cuDNN's
        data = [t for t in (*operation.inputs, *operation.outputs) if t.dtype.is_floating]
        # A convolution's two gradients have the same inputs: they run side by side.
        return sum(sorted(map(_size, data))[-2:]) * (2 if "Backprop" in operation.type else 1)
    if operation.type == "MatMul":  # what is to be transposed is copied
        transposed = (operation.get_attr("transpose_a"), operation.get_attr("transpose_b"))
        return sum(_size(tensor) for tensor, turned in zip(operation.inputs, transposed) if turned)
    if operation.type in ("PartitionedCall", "StatefulPartitionedCall"):
        return _most_alive(_body(operation, "f"))
    if operation.type in _LOOPS:
        return _most_alive(_body(operation, "body"))
    if operation.type in ("If", "StatelessIf"):
        return max(_most_alive(_body(operation, branch)) for branch in ("then_branch", "else_branch"))
    return 0


def _is_number(tensor: tf.Tensor) -> bool:
    return tensor.dtype.is_floating or tensor.dtype.is_complex


def _elements(tensor: tf.Tensor) -> int:
    return tensor.shape.num_elements() or 0 if tensor.shape.rank is not None else 0


def _size(tensor: tf.Tensor) -> int:
    known = tensor.dtype not in (tf.resource, tf.variant, tf.string)
    return _elements(tensor) * tensor.dtype.size if known else 0
