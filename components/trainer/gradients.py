"""The gradient of a whole batch, made of its replicas' shares before the optimizer sees it.

Keras's optimizers clip, check and add up what one replica has, and sum over the replicas last
(keras/src/backend/tensorflow/optimizer.py); but the norm of a share's gradient is not that of the batch's.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf


class WholeGradients:
    """Makes an optimizer take the gradients of all replicas together.

    Args:
        optimizer: changed in place; outside replicas it works as it did.
    """

    def __init__(self, optimizer: keras.optimizers.Optimizer) -> None:
        # MirroredStrategy has a thread for each replica, and goes from one to the next at every exchange.
        self._own = threading.local()
        apply = optimizer.apply

        def apply_whole(grads: Sequence[Any], trainable_variables: Any = None) -> None:
            apply(self._summed(list(grads)), trainable_variables)

        optimizer.apply = apply_whole
        plain = getattr(optimizer, "inner_optimizer", optimizer)  # beneath loss scaling
        plain._all_reduce_sum_gradients = list  # summed already
        if plain.gradient_accumulation_steps:
            plain._backend_apply_gradients = lambda grads, variables: _accumulate(plain, grads, variables)

    @contextlib.contextmanager
    def weighed(self, weight: tf.Tensor) -> Iterator[None]:
        """While inside, the gradients of this replica count so much, 1 on average over the replicas."""
        self._own.weight = weight
        try:
            yield
        finally:
            self._own.weight = None

    def _summed(self, gradients: list[Any]) -> list[Any]:
        weight = getattr(self._own, "weight", None)
        there = [gradient for gradient in gradients if gradient is not None]
        if weight is not None:
            there = [_times(gradient, weight) for gradient in there]
        if there:
            there = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, there)
        summed = iter(there)
        return [None if gradient is None else next(summed) for gradient in gradients]


def _accumulate(optimizer: Any, grads: Sequence[Any], variables: Sequence[Any]) -> None:
    """What `BaseOptimizer._backend_apply_gradients` does with gradient_accumulation_steps, but that the replicas
    decide together whether this step updates: none may wait for the others inside of a condition of its own."""
    steps = optimizer.gradient_accumulation_steps
    sums = [optimizer._accumulated_gradients[optimizer._get_variable_index(variable)] for variable in variables]

    def update(*grads: Any) -> None:
        means = [(gradient + sum) / steps for gradient, sum in zip(grads, sums)]
        optimizer._apply_weight_decay(variables)
        optimizer._backend_update_step(optimizer._clip_gradients(means), variables, optimizer.learning_rate)
        optimizer._backend_reset_gradient_accumulators()

    def add(*grads: Any) -> None:
        optimizer._backend_increment_gradient_accumulators(grads, sums)

    def together(strategy: tf.distribute.Strategy, *grads: Any) -> None:
        def all_do(act: Any) -> Any:
            strategy.extended.call_for_each_replica(act, args=grads)

        is_update = (optimizer._iterations.value + 1) % steps == 0
        tf.cond(is_update, lambda: all_do(update), lambda: all_do(add))

    tf.distribute.get_replica_context().merge_call(together, args=tuple(grads))
    if optimizer.use_ema:
        optimizer._update_model_variables_moving_average(optimizer._trainable_variables)


def _times(gradient: Any, weight: tf.Tensor) -> Any:
    if isinstance(gradient, tf.IndexedSlices):
        return tf.IndexedSlices(_times(gradient.values, weight), gradient.indices, gradient.dense_shape)
    return gradient * tf.cast(weight, gradient.dtype)
