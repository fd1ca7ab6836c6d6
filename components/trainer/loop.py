"""The steps of training: many in one call of TensorFlow, so that Python's share is small.

A chunk holds several batches, one after the other. One compiled function runs any of its steps: which
and how many are tensors, so nothing is traced again when the tuning or an epoch's end changes them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.errors import UserCodeError
from kerasline.components.trainer.gradients import WholeGradients
from kerasline.components.trainer.replicas import Replicas

# Features, label and weight, as tensors with all rows of the chunk first; for replicas, one a replica.
Chunk = Any


class Loop:
    """Trains a model, chunk by chunk.

    Args:
        model: compiled, its variables made under the strategy of `replicas`.
        batch_size: rows of a step that each replica gets.
        at_once: batches in a chunk, at most.
        class_weights: float32 (classes,): how much a row of each class counts; None for alike.
        gradients: of several replicas, which then need not have as many rows each.
    """

    def __init__(
        self,
        model: keras.Model,
        replicas: Replicas,
        batch_size: int,
        at_once: int,
        class_weights: tf.Tensor | None = None,
        gradients: WholeGradients | None = None,
    ) -> None:
        self.model = model
        self._replicas = replicas
        self._batch_size = batch_size
        self._at_once = at_once
        self._class_weights = class_weights
        self._gradients = gradients
        self._functions: dict[bool, Callable[..., tf.Tensor]] = {}
        self._last = tf.function(self._one_step, reduce_retracing=True)
        self._called: tuple[Callable[..., Any], tuple[Any, ...]] | None = None
        self._loss = next((m for m in model.metrics if m.name == "loss"), None)

    def steps(self, chunk: Chunk, start: int, count: int, *, compiled: bool) -> tf.Tensor:
        """Runs `count` steps on whole batches, from the chunk's batch `start` on.

        Args:
            compiled: with XLA.

        Returns:
            float32 (at_once,): the losses of the steps, in the first `count` places.
        """
        if compiled not in self._functions:
            self._functions[compiled] = tf.function(self._steps, jit_compile=compiled)
        arguments = chunk, tf.constant(start), tf.constant(count)
        self._called = self._functions[compiled], arguments
        return self._functions[compiled](*arguments)

    def last_step(self, batch: Chunk) -> tf.Tensor:
        """Runs one step on a batch of any number of rows.

        Returns:
            Its loss, float32 ().
        """
        self._called = self._last, (batch,)
        return self._last(batch)

    @property
    def graph(self) -> tf.Graph:
        """Of what was called last."""
        function, arguments = self._called
        return function.get_concrete_function(*arguments).graph

    def _steps(self, chunk: Chunk, start: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        several = self._replicas.count > 1
        batches = None if several else self._as_batches(chunk)

        def body(number: tf.Tensor, losses: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            place = start + number
            if several:
                return number + 1, self._replicas.strategy.run(self._shared_step, args=(chunk, place, number, losses))
            return number + 1, _noted(losses, number, self._step(_read(batches, place)))

        none_yet = self._replicas.strategy.run(lambda: tf.zeros(self._at_once))  # each replica its own
        _, losses = tf.while_loop(lambda number, losses: number < count, body, (0, none_yet), parallel_iterations=1)
        return self._mean(losses)  # of all steps at once: an exchange costs as much as a small step

    def _as_batches(self, chunk: Chunk) -> Any:
        """The chunk's batches, to be read by their place: tf.slice XLA would compile anew for every place."""

        def batches(tensor: tf.Tensor) -> tf.TensorArray:
            rows = tf.reshape(tensor, [self._at_once, self._batch_size, *tensor.shape[1:]])
            return tf.TensorArray(tensor.dtype, self._at_once, element_shape=rows.shape[1:]).unstack(rows)

        return tf.nest.map_structure(batches, chunk)

    def _shared_step(self, chunk: Chunk, place: tf.Tensor, number: tf.Tensor, losses: tf.Tensor) -> tf.Tensor:
        """What one of several replicas does in a step: on its share of a batch of its chunk."""
        return _noted(losses, number, self._step(_read(self._as_batches(chunk), place)))

    def _one_step(self, rows: Chunk) -> tf.Tensor:
        """A step of all replicas, each on all its rows, which may be more than another's."""
        if self._replicas.count == 1:
            return self._replicas.strategy.run(self._step, args=(rows,))
        return self._mean(self._replicas.strategy.run(self._uneven_step, args=(rows,)))

    def _uneven_step(self, rows: Chunk) -> tf.Tensor:
        replica = tf.distribute.get_replica_context()
        own = tf.cast(tf.shape(tf.nest.flatten(rows)[0])[0], tf.float32)
        # A mean over means is the mean over all rows if each counts by its rows.
        weight = own * self._replicas.count / replica.all_reduce(tf.distribute.ReduceOp.SUM, own)
        with self._gradients.weighed(weight):
            return weight * self._step(rows)

    def _mean(self, losses: tf.Tensor) -> tf.Tensor:
        if self._replicas.count == 1:
            return losses
        return self._replicas.strategy.reduce("MEAN", losses, axis=None)

    def _step(self, batch: Chunk) -> tf.Tensor:
        """What one replica does in a step."""
        if self._loss is not None:  # a mean over the epoch; of this step alone after this
            for variable in self._loss.variables:
                variable.assign(tf.zeros(variable.shape, variable.dtype))
        logs = self.model.train_step(self._weighted(batch))
        if "loss" not in logs:
            raise UserCodeError("train_step() must return a dict that holds `loss`")
        return tf.cast(logs["loss"], tf.float32)

    def _weighted(self, batch: Chunk) -> Chunk:
        if self._class_weights is None:
            return batch
        features, label, *weight = batch
        rows = tf.reshape(tf.cast(label, tf.int32), [-1])
        weights = tf.gather(self._class_weights, rows)
        return features, label, weights * tf.cast(weight[0], tf.float32) if weight else weights


def _noted(losses: tf.Tensor, number: tf.Tensor, loss: tf.Tensor) -> tf.Tensor:
    return tf.tensor_scatter_nd_update(losses, [[number]], [loss])


def _read(batches: Any, place: tf.Tensor) -> Chunk:
    return tf.nest.map_structure(lambda array: array.read(place), batches)


def padded(chunk: Chunk, rows: int) -> Chunk:
    """The chunk with rows of zeros behind its own: the compiled function wants one shape."""

    def longer(tensor: tf.Tensor) -> tf.Tensor:
        missing = rows - tensor.shape[0]
        return tf.concat([tensor, tf.zeros([missing, *tensor.shape[1:]], tensor.dtype)], 0) if missing else tensor

    return tf.nest.map_structure(longer, chunk)


class Evaluation:
    """Measures a model on a split, after an epoch."""

    def __init__(self, model: keras.Model, replicas: Replicas, data: tf.data.Dataset) -> None:
        self._model, self._replicas, self._data = model, replicas, data
        self._whole = tf.function(self._all_batches)

    def figures(self) -> dict[str, float]:
        """Metrics by name, over all rows."""
        self._model.reset_metrics()
        self._whole()
        figures = self._model.get_metrics_result()
        self._model.reset_metrics()
        return {name: float(value) for name, value in figures.items()}

    def _all_batches(self) -> None:
        for batch in self._data:
            self._replicas.strategy.run(self._measured, args=(batch,))

    def _measured(self, batch: Chunk) -> None:
        self._model.test_step(batch if self._replicas.count == 1 else self._share(batch))

    def _share(self, batch: Chunk) -> Chunk:
        """This replica's rows of a batch; all of them where there are too few to share."""
        number = tf.distribute.get_replica_context().replica_id_in_sync_group
        count = self._replicas.count
        rows = tf.shape(tf.nest.flatten(batch)[0])[0]
        shared = rows >= count
        first = tf.where(shared, rows * number // count, 0)
        last = tf.where(shared, rows * (number + 1) // count, rows)
        return tf.nest.map_structure(lambda tensor: tensor[first:last], batch)
