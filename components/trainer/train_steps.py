"""Compiled training steps, several per call of TensorFlow, so that Python's overhead is small.

A chunk holds several consecutive batches. One compiled function runs any number of a chunk's steps. Their first batch
and their number are tensors, so that nothing is traced again when they change.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.errors import UserCodeError
from kerasline.components.core.keras_compat import with_rank
from kerasline.components.trainer.class_weights import ClassWeights
from kerasline.components.trainer.replica_gradients import ReplicaGradients
from kerasline.components.trainer.replicas import Replicas

# A structure of features, label and weight, as tensors with the rows of the chunk first. With several replicas, these
# are per-replica values.
Chunk = Any


class TrainSteps:
    """Runs the training steps of a model on chunks.

    Args:
        model: compiled, with variables created under the strategy of `replicas`.
        replicas: the replicas.
        batch_size: number of rows per step of each replica.
        batches_per_chunk: largest number of batches in a chunk.
        class_weights: the weight of the rows of each class, or None for equal weights.
        gradients: required with several replicas. They may then have different numbers of rows.
    """

    def __init__(
        self,
        model: keras.Model,
        replicas: Replicas,
        batch_size: int,
        batches_per_chunk: int,
        class_weights: ClassWeights | None = None,
        gradients: ReplicaGradients | None = None,
    ) -> None:
        self.model = model
        self._replicas = replicas
        self._batch_size = batch_size
        self._batches_per_chunk = batches_per_chunk
        self._class_weights = class_weights
        self._gradients = gradients
        self._functions: dict[bool, Any] = {}
        self._any_size_function = tf.function(self._step_of_any_size, reduce_retracing=True, autograph=False)
        self._last_call: tuple[Any, tuple[Any, ...]] | None = None
        self._loss = next((m for m in model.metrics if m.name == "loss"), None)

    def run(self, chunk: Chunk, start: int, count: int, *, jit_compile: bool) -> tf.Tensor:
        """Run `count` steps on full batches.

        Args:
            chunk: the chunk.
            start: index of the first batch in the chunk.
            count: number of steps.
            jit_compile: whether to compile with XLA.

        Returns:
            float32 (batches_per_chunk,): the losses of the steps in the first `count` places.
        """
        if jit_compile not in self._functions:
            self._functions[jit_compile] = tf.function(self._run, jit_compile=jit_compile, autograph=False)
        arguments = chunk, tf.constant(start), tf.constant(count)
        self._last_call = self._functions[jit_compile], arguments
        return self._functions[jit_compile](*arguments)

    def run_one(self, batch: Chunk) -> tf.Tensor:
        """Run one step on a batch with any number of rows, and return its loss, float32 ()."""
        self._last_call = self._any_size_function, (batch,)
        return self._any_size_function(batch)

    @property
    def graph(self) -> tf.Graph:
        """The graph of the last call."""
        assert self._last_call is not None
        function, arguments = self._last_call
        return function.get_concrete_function(*arguments).graph

    def _run(self, chunk: Chunk, start: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        is_distributed = self._replicas.count > 1
        batches = None if is_distributed else self._as_batches(chunk)

        def body(number: tf.Tensor, losses: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            index = start + number
            if is_distributed:
                return number + 1, self._replicas.strategy.run(self._replica_step, args=(chunk, index, number, losses))
            return number + 1, _set_loss(losses, number, self._step(_read(batches, index)))

        # In strategy.run, so that each replica has losses of its own.
        zeros = self._replicas.strategy.run(lambda: tf.zeros(self._batches_per_chunk))
        _, losses = tf.while_loop(lambda number, losses: number < count, body, (0, zeros), parallel_iterations=1)
        return self._mean(losses)  # once for all steps, since an exchange costs as much as a small step

    def _as_batches(self, chunk: Chunk) -> Any:
        """Return the chunk as a TensorArray of batches. XLA would compile tf.slice again for each index."""

        def batches(tensor: tf.Tensor) -> tf.TensorArray:
            rows = tf.reshape(tensor, [self._batches_per_chunk, self._batch_size, *tensor.shape[1:]])
            return tf.TensorArray(tensor.dtype, self._batches_per_chunk, element_shape=rows.shape[1:]).unstack(rows)

        return tf.nest.map_structure(batches, chunk)

    def _replica_step(self, chunk: Chunk, index: tf.Tensor, number: tf.Tensor, losses: tf.Tensor) -> tf.Tensor:
        return _set_loss(losses, number, self._step(_read(self._as_batches(chunk), index)))

    def _step_of_any_size(self, rows: Chunk) -> tf.Tensor:
        """Run a step of all replicas, each on all of its rows. Their numbers of rows may differ."""
        if self._replicas.count == 1:
            return self._replicas.strategy.run(self._step, args=(rows,))
        return self._mean(self._replicas.strategy.run(self._weighted_step, args=(rows,)))

    def _weighted_step(self, rows: Chunk) -> tf.Tensor:
        assert self._gradients is not None
        replica = tf.distribute.get_replica_context()
        count = tf.cast(tf.shape(tf.nest.flatten(rows)[0])[0], tf.float32)
        # The mean of the replicas' means is the mean over all rows if each is weighted by its number of rows.
        weight = count * self._replicas.count / replica.all_reduce(tf.distribute.ReduceOp.SUM, count)
        with self._gradients.weighted(weight):
            return weight * self._step(rows)

    def _mean(self, losses: tf.Tensor) -> tf.Tensor:
        if self._replicas.count == 1:
            return losses
        return self._replicas.strategy.reduce("MEAN", losses, axis=None)

    def _step(self, batch: Chunk) -> tf.Tensor:
        """Run the step of one replica."""
        if self._loss is not None:  # reset, so that the running mean becomes the loss of this step alone
            for variable in self._loss.variables:
                variable.assign(tf.zeros(variable.shape, variable.dtype))
        logs = self.model.train_step(self._with_class_weights(batch))
        if "loss" not in logs:
            raise UserCodeError("train_step() must return a dict with the key `loss`")
        return tf.cast(logs["loss"], tf.float32)

    def _with_class_weights(self, batch: Chunk) -> Chunk:
        if self._class_weights is None:
            return batch
        features, label, weight = keras.utils.unpack_x_y_sample_weight(batch)
        alone = next(iter(label.values())) if isinstance(label, dict) else label
        weights = self._class_weights.of_labels(alone)
        if weight is not None:
            weights *= with_rank(weight, weights.shape.rank)
        if isinstance(label, dict):
            return features, label, dict.fromkeys(label, weights)
        return features, label, weights


def _set_loss(losses: tf.Tensor, number: tf.Tensor, loss: tf.Tensor) -> tf.Tensor:
    return tf.tensor_scatter_nd_update(losses, [[number]], [loss])


def _read(batches: Any, index: tf.Tensor) -> Chunk:
    return tf.nest.map_structure(lambda array: array.read(index), batches)


class Evaluation:
    """Evaluates a model on a split after each epoch.

    Args:
        model: compiled.
        replicas: the replicas, which share each batch.
        data: batches of the split.
    """

    def __init__(self, model: keras.Model, replicas: Replicas, data: tf.data.Dataset) -> None:
        self._model, self._replicas, self._data = model, replicas, data
        self._function: Callable[[], None] = tf.function(self._all_batches, autograph=False)

    def metrics(self) -> dict[str, Any]:
        """Return the metrics over all rows, by name, as numbers or lists of numbers."""
        self._model.reset_metrics()
        self._function()
        metrics = metric_values(self._model)
        self._model.reset_metrics()
        return metrics

    def _all_batches(self) -> None:
        def test(tested: tf.Tensor, batch: Chunk) -> tf.Tensor:
            self._replicas.strategy.run(self._test_step, args=(batch,))
            return tested + 1

        self._data.reduce(tf.constant(0), tf.autograph.experimental.do_not_convert(test))

    def _test_step(self, batch: Chunk) -> None:
        self._model.test_step(batch if self._replicas.count == 1 else self._own_rows(batch))

    def _own_rows(self, batch: Chunk) -> Chunk:
        """Return this replica's rows of a batch, or all rows if there are fewer than replicas."""
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        count = self._replicas.count
        rows = tf.shape(tf.nest.flatten(batch)[0])[0]
        is_divisible = rows >= count
        first = tf.where(is_divisible, rows * number // count, 0)
        last = tf.where(is_divisible, rows * (number + 1) // count, rows)
        return tf.nest.map_structure(lambda tensor: tensor[first:last], batch)


def metric_values(model: keras.Model) -> dict[str, Any]:
    """Return the metrics of a model, and its loss, as numbers or lists of numbers."""
    return {name: np.asarray(value, float).tolist() for name, value in model.get_metrics_result().items()}
