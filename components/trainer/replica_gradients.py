"""The gradient of a whole batch, summed over the replicas before the optimizer clips, checks or accumulates it."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.keras_compat import reduce_gradients_first


class ReplicaGradients:
    """Sums gradients over replicas that may have different numbers of rows.

    Args:
        optimizer: changed in place.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        # MirroredStrategy runs each replica in its own thread.
        self._local = threading.local()
        reduce_gradients_first(optimizer, self._sum)

    @contextlib.contextmanager
    def weighted(self, weight: tf.Tensor) -> Iterator[None]:
        """Weight the gradients of this replica inside the context. The weights average 1 over the replicas."""
        self._local.weight = weight
        try:
            yield
        finally:
            self._local.weight = None

    def _sum(self, gradients: list[Any]) -> list[Any]:
        weight = getattr(self._local, "weight", None)
        present = [gradient for gradient in gradients if gradient is not None]
        if weight is not None:
            present = [_scaled(gradient, weight) for gradient in present]
        if present:
            present = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, present)
        sums = iter(present)
        return [None if gradient is None else next(sums) for gradient in gradients]


def _scaled(gradient: Any, factor: tf.Tensor) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(_scaled(gradient.values, factor), gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(factor, gradient.dtype)
