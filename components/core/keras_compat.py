"""The private attributes of Keras and TensorFlow that kerasline needs, each behind a function with a public name.

They may change in any release. They are used here and nowhere else, and
`tests/components/core/test_keras_compat.py` has a test for each: after an upgrade of Keras, its failures name the
attributes that changed. Importing this module imports neither Keras nor TensorFlow.
"""

from __future__ import annotations

import contextlib
import functools
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

# Layers


def flatten_layers(layer: keras.layers.Layer, *, include_self: bool = False) -> list[keras.layers.Layer]:
    """Return all layers inside a layer or model, at any depth. `Model.layers` has only the outermost ones."""
    return list(layer._flatten_layers(include_self=include_self))


def sublayers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """Return the layers directly inside a layer. `Model.layers` has them for models only."""
    return list(layer._flatten_layers(include_self=False, recursive=False))


def remove_variable(layer: keras.layers.Layer, name: str) -> None:
    """Remove a variable of a built layer, as `delattr` does, without collecting garbage each time."""
    import keras

    layer._untrack_variable(getattr(layer, name))
    super(keras.layers.Layer, layer).__delattr__(name)


def add_weight(layer: keras.layers.Layer, name: str, value: Any, dtype: str) -> keras.Variable:
    """Add a weight that is not trained to a built layer, which Keras has locked."""
    layer._tracker.unlock()
    weight = layer.add_weight(tuple(value.shape), "zeros", dtype, trainable=False, autocast=False, name=name)
    layer._tracker.lock()
    weight.assign(value)
    return weight


def seed_states(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the states of a layer's own seed generators. `Layer.variables` does not tell them from other variables."""
    return [generator.state for generator in getattr(layer, "_seed_generators", ())]


def state_variables(layer: keras.layers.Layer) -> list[keras.Variable]:
    """Return the variables of a layer that a call may change, such as moving averages, without those of seeds."""
    return list(layer._non_trainable_variables)


def is_stateful(layer: keras.layers.Layer) -> bool:
    """Return whether a call may change the layer: it draws random numbers or has non-trainable variables of its own.

    `Layer.non_trainable_variables` also has the frozen weights, which a call does not change.
    """
    return bool(layer._seed_generators or layer._non_trainable_variables)


def accepts_training(operation: Any) -> bool:
    """Return whether an operation's `call` has the argument `training`."""
    return getattr(operation, "_call_has_training_arg", False)


# Graphs of functional models. Keras has no public way from a symbolic tensor to what computed it.


def has_graph(model: keras.Model) -> bool:
    """Return whether a model is functional, so that its graph is known."""
    return hasattr(model, "_nodes_by_depth")


def graph_nodes(model: keras.Model) -> list[Any]:
    """Return the nodes of a functional model in the order of execution.

    A node is one call of an operation. Its attributes are `operation`, `arguments`, `input_tensors`, `outputs` and
    `is_input`.
    """
    return [node for depth in sorted(model._nodes_by_depth, reverse=True) for node in model._nodes_by_depth[depth]]


def source_operation(tensor: keras.KerasTensor) -> Any:
    """Return the layer or operation that computes a symbolic tensor."""
    return tensor._keras_history.operation


def source_node(tensor: keras.KerasTensor) -> Any:
    """Return the node that computes a symbolic tensor: one call of its operation."""
    history = tensor._keras_history
    return history.operation._inbound_nodes[history.node_index]


def call_nodes(operation: Any) -> list[Any]:
    """Return the nodes of an operation, one for each of its symbolic calls, in this model and in others."""
    return list(operation._inbound_nodes)


def run_graph(model: keras.Model, inputs: Any, operation_fn: Callable[[Any], Any]) -> Any:
    """Call the operations of a functional or Sequential model on inputs, each replaced by `operation_fn(operation)`."""
    functional = model if hasattr(model, "_run_through_graph") else model._functional
    return functional._run_through_graph(inputs, operation_fn=operation_fn)


def can_run_graph(operation: Any) -> bool:
    """Return whether `run_graph` accepts this operation: a functional or Sequential model."""
    return hasattr(operation, "_run_through_graph") or hasattr(operation, "_functional")


def standardize_inputs(model: keras.Model, inputs: Any) -> list[Any]:
    """Return the inputs of a functional model as a flat list in the order of `model.inputs`, cast and reshaped."""
    return model._standardize_inputs(inputs)


# Training


def build_for_training(model: keras.Model, batch: Any) -> None:
    """Create the variables of the model's loss, metrics and optimizer, which otherwise appear in the first step."""
    model._symbolic_build(data_batch=batch)


def reduce_gradients_first(optimizer: keras.optimizers.Optimizer, reduce: Callable[[list[Any]], list[Any]]) -> None:
    """Make an optimizer, in place, reduce its gradients over the replicas before it processes them.

    Keras's optimizers clip, check and accumulate the gradients of each replica and sum over the replicas last
    (keras/src/backend/tensorflow/optimizer.py). The norm of one replica's gradient is not the norm of the batch's.

    Args:
        optimizer: may be a `LossScaleOptimizer`.
        reduce: called in replica context with the gradients of a replica, some of them None. Returns their sums over
            all replicas.
    """
    apply = optimizer.apply

    def apply_reduced(grads: Sequence[Any], trainable_variables: Any = None) -> None:
        apply(reduce(list(grads)), trainable_variables)

    optimizer.apply = apply_reduced
    plain = getattr(optimizer, "inner_optimizer", optimizer)
    plain._all_reduce_sum_gradients = list  # they are summed already
    if plain.gradient_accumulation_steps:
        plain._backend_apply_gradients = lambda grads, variables: _accumulate(plain, grads, variables)


def _accumulate(optimizer: Any, grads: Sequence[Any], variables: Sequence[Any]) -> None:
    """Do what `BaseOptimizer._backend_apply_gradients` does with `gradient_accumulation_steps`.

    All replicas decide together whether this step updates, since a replica cannot wait for the others inside a
    condition of its own.
    """
    import tensorflow as tf

    steps = optimizer.gradient_accumulation_steps
    sums = [optimizer._accumulated_gradients[optimizer._get_variable_index(variable)] for variable in variables]

    def update(*grads: Any) -> None:
        means = [(gradient + sum) / steps for gradient, sum in zip(grads, sums)]
        optimizer._apply_weight_decay(variables)
        optimizer._backend_update_step(optimizer._clip_gradients(means), variables, optimizer.learning_rate)
        optimizer._backend_reset_gradient_accumulators()

    def add(*grads: Any) -> None:
        optimizer._backend_increment_gradient_accumulators(grads, sums)

    def on_all_replicas(strategy: tf.distribute.Strategy, *grads: Any) -> None:
        def call(function: Any) -> Any:
            strategy.extended.call_for_each_replica(function, args=grads)

        is_update = (optimizer._iterations.value + 1) % steps == 0
        tf.cond(is_update, lambda: call(update), lambda: call(add))

    tf.distribute.get_replica_context().merge_call(on_all_replicas, args=tuple(grads))
    if optimizer.use_ema:
        optimizer._update_model_variables_moving_average(optimizer._trainable_variables)


@contextlib.contextmanager
def variables_without_values() -> Iterator[None]:
    """Create variables without memory inside the context, for graphs that are only traced."""
    import tensorflow as tf
    from tensorflow.python.ops.resource_variable_ops import UninitializedVariable

    def create(_next_creator: Any, initial_value: Any = None, dtype: Any = None, name: Any = None, **_: Any) -> Any:
        with tf.Graph().as_default():  # only for the shape
            value = initial_value() if callable(initial_value) else initial_value
        return UninitializedVariable(trainable=False, name=name, dtype=dtype or value.dtype, shape=value.shape)

    with tf.variable_creator_scope(create):
        yield


def limit_tracing(seconds: float) -> None:
    """Make the graph that is being traced raise a TimeoutError at the first operation after so many seconds."""
    import tensorflow as tf

    graph: Any = tf.compat.v1.get_default_graph()
    create, end = graph._create_op_internal, time.monotonic() + seconds

    def create_in_time(*args: Any, **kwargs: Any) -> Any:
        if time.monotonic() > end:
            raise TimeoutError(f"tracing took longer than {seconds:g} s")
        return create(*args, **kwargs)

    graph._create_op_internal = create_in_time


# Files


@functools.cache
def save_weight_memory() -> None:
    """Make Keras initialize, save and load large weights without further copies of them, from now on.

    The values are the same. Otherwise Keras holds three tensors of a weight while it initializes it, two copies while
    it saves it and three while it loads it, and whole files of weights as long as half of the free memory suffices.
    """
    from keras.src.backend.tensorflow import core
    from keras.src.saving import saving_lib

    saving_lib.is_memory_sufficient = lambda model: False
    saving_lib.backend = _SharingBackend(saving_lib.backend)
    core.Variable._initialize_with_initializer = _initialize
    core.Variable.assign = functools.partialmethod(_assign, core.Variable.assign)


# Weights of at least 16 MB are large. They are assigned in parts of 4 MB.
LARGE_WEIGHT_BYTES, PART_BYTES = 1 << 24, 1 << 22


def shared_array(value: Any) -> np.ndarray:
    """Return an array, tensor or variable as an array, which shares its memory if it is in main memory."""
    import numpy as np
    import tensorflow as tf

    if isinstance(value, np.ndarray):
        return value
    tensor = tf.convert_to_tensor(value)
    if tensor.dtype in (tf.bfloat16, tf.string):  # which the buffer protocol lacks
        return np.asarray(tensor.numpy())
    return np.asarray(memoryview(tensor))


class _SharingBackend:
    """Keras's backend, except that arrays share the memory of their tensors."""

    def __init__(self, backend: Any) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)

    def convert_to_numpy(self, value: Any) -> np.ndarray:
        return shared_array(value)


def _initialize(variable: Any, initializer: Callable[..., Any]) -> None:
    """Initialize a variable. Keras's own random initializers compute large values in place."""
    import tensorflow as tf
    from keras.src.initializers import random_initializers

    compute = functools.partial(initializer, variable._shape, dtype=variable._dtype)
    is_large = math.prod(variable._shape) * 4 >= LARGE_WEIGHT_BYTES
    is_own = type(initializer).__module__ == random_initializers.RandomInitializer.__module__
    variable._initialize(
        lambda: _compute_in_place(compute) if is_large and is_own and tf.executing_eagerly() else compute()
    )


def _compute_in_place(compute: Callable[[], tf.Tensor]) -> tf.Tensor:
    """Compute a tensor in a graph, where operations write their results over their inputs."""
    import tensorflow as tf

    graph = tf.function(compute, autograph=False).get_concrete_function()
    config = tf.compat.v1.ConfigProto()
    config.graph_options.rewrite_options.disable_meta_optimizer = True  # which would compute constants beforehand
    (tensor,) = tf.raw_ops.StatefulPartitionedCall(
        args=graph.captured_inputs,
        Tout=[output.dtype for output in graph.outputs],
        f=graph,
        config_proto=config.SerializeToString(),
    )
    return tensor


def _assign(variable: Any, assign: Callable[..., Any], value: Any) -> Any:
    """Assign a value to a variable, a large array part by part, since TensorFlow copies an array twice."""
    import numpy as np
    import tensorflow as tf
    from keras.src.backend.common.stateless_scope import in_stateless_scope
    from tensorflow.python.ops.resource_variable_ops import ResourceVariable

    is_large = isinstance(value, np.ndarray) and value.nbytes >= LARGE_WEIGHT_BYTES
    if (
        not is_large
        or (value.shape, value.dtype.name) != (tuple(variable.shape), variable.dtype)
        or not isinstance(variable._value, ResourceVariable)  # but one on several devices
        or in_stateless_scope()
        or not tf.executing_eagerly()
    ):
        return assign(variable, value)
    rows = max(1, len(value) * PART_BYTES // value.nbytes)
    for start in range(0, len(value), rows):
        part = value[start : start + rows]
        # `variable[...].assign` would read the variable, so that TensorFlow would copy it before each change.
        tf.raw_ops.ResourceStridedSliceAssign(
            ref=variable._value.handle, begin=[start], end=[start + len(part)], strides=[1], value=part
        )
    return variable._value


def write_archive(archive: keras.export.ExportArchive, folder: str) -> None:
    """Write a SavedModel with each weight once.

    Keras lists the variables of a layer as they are and those that its functions use as TensorFlow's variables inside
    them, and TensorFlow saves both.
    """
    tracked = archive._tf_trackable
    for name in ("variables", "trainable_variables", "non_trainable_variables"):
        setattr(tracked, name, [variable.value for variable in getattr(tracked, name)])
    archive.write_out(folder, verbose=False)


# Preprocessing layers


def lookup_layer(layer: keras.layers.TextVectorization) -> keras.layers.StringLookup:
    """Return the lookup inside a TextVectorization, which holds its vocabulary."""
    return layer._lookup_layer


def split_into_tokens(layer: keras.layers.TextVectorization, texts: Any) -> Any:
    """Return the tokens of texts, before they become integers."""
    return layer._preprocess(texts)


def mark_adapted(space: keras.utils.FeatureSpace) -> None:
    """Tell a FeatureSpace that its preprocessors have their state, which otherwise only its own `adapt` does."""
    space._is_adapted = True


# Masks. Keras keeps the mask of a tensor, which layers with `mask_zero` or `Masking` start, as an attribute of it.


def mask_of(tensor: Any) -> Any:
    """Return the mask of a tensor, bool (rows, length), which is False where losses and metrics ignore it; or None."""
    return getattr(tensor, "_keras_mask", None)


def set_mask(tensor: Any, mask: Any) -> None:
    """Set the mask of a tensor, for losses and metrics that receive it."""
    tensor._keras_mask = mask


def with_rank(factor: Any, rank: int) -> tf.Tensor:
    """Return a mask or weights of rows as float32 of the rank of what they multiply, such as losses of tokens.

    Keras multiplies (rows,) by (rows, tokens) along the wrong axis.

    Args:
        factor: (rows,), (rows, 1) or (rows, ...).
    """
    import tensorflow as tf

    factor = tf.cast(factor, tf.float32)
    while factor.shape.rank < rank:
        factor = factor[..., tf.newaxis]
    if factor.shape.rank > rank:
        factor = tf.squeeze(factor, axis=list(range(rank, factor.shape.rank)))
    return factor


# Randomness


def seed_source() -> Any:
    """Return what Keras draws the seeds of layers and initializers from. By default it is Python's module `random`."""
    from keras.src.random import seed_generator

    return seed_generator.python_random


def replace_seed_source(source: Any) -> None:
    """Make Keras draw the seeds of layers and initializers that have none from another source."""
    from keras.src.random import seed_generator

    seed_generator.python_random = source


def seed_keras_and_tensorflow(seed: int) -> None:
    """Seed `keras.random` in this thread and TensorFlow's random operations in this process.

    `keras.utils.set_random_seed` and `tf.random.set_seed` also clear the kernel caches of the process. That destroys
    the resources that kernels own, such as the SentencePiece tokenizers of other stages and of the calling program.
    Only the sequence of an operation that ran eagerly before therefore does not start again.
    """
    from keras.src.backend.common import global_state
    from keras.src.random import seed_generator
    from keras.src.utils import rng_utils
    from tensorflow.python.eager import context

    global_state.set_global_attribute(rng_utils.GLOBAL_RANDOM_SEED, seed)
    global_state.set_global_attribute(seed_generator.GLOBAL_SEED_GENERATOR, None)
    eager = context.context()
    eager._seed, eager._rng = seed, random.Random(seed)
