"""Random ids, drawn from logits."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

# The largest float32 below 1.
BELOW_ONE = 1 - 2.0**-24


def uniforms(seed: Any, rows: tf.Tensor, number: int) -> tf.Tensor:
    """Return numbers from 0 to 1, float32 (rows, number). They depend on a row's seed alone, not on the other rows.

    Args:
        seed: int, or integer tensor (rows,) or (rows, 1). None draws anew in each call.
    """
    if seed is None:
        return tf.random.uniform([rows, number])
    seeds = tf.reshape(tf.cast(seed, tf.int64), [-1])

    def drawn(one: tf.Tensor) -> tf.Tensor:
        return tf.random.stateless_uniform([number], tf.stack([one, 0]))

    found = tf.map_fn(drawn, seeds, fn_output_signature=tf.TensorSpec([number]))
    return tf.broadcast_to(found, [rows, number])


def draw(
    logits: tf.Tensor, chances: tf.Tensor, temperature: tf.Tensor, top_k: int | None, top_p: float | None
) -> tf.Tensor:
    """Return an id for each row, int32 (rows,), by inversion of the distribution function.

    Args:
        logits: float32 (rows, vocabulary).
        chances: float32 (rows,), numbers from 0 to 1.
        temperature: float32 (rows,). For temperatures of 0, any id is returned.
        top_k: number of the most probable ids to draw from.
        top_p: draw from the fewest ids with at least this probability together.
    """
    logits /= tf.where(temperature > 0, temperature, 1.0)[:, None]
    ids = None
    if top_k is not None or top_p is not None:
        size = tf.shape(logits)[1]
        logits, ids = tf.math.top_k(logits, size if top_k is None else tf.minimum(top_k, size))
    probabilities = tf.nn.softmax(logits)
    if top_p is not None:
        before = tf.cumsum(probabilities, axis=1, exclusive=True)
        probabilities = tf.where(before < top_p, probabilities, 0.0)
    # In float64, since large vocabularies add up many small probabilities.
    cumulative = tf.cumsum(tf.cast(probabilities, tf.float64), axis=1)
    aim = tf.cast(tf.minimum(chances, BELOW_ONE), tf.float64)[:, None] * cumulative[:, -1:]
    places = tf.reduce_sum(tf.cast(cumulative <= aim, tf.int32), axis=1)
    return places if ids is None else tf.gather(ids, places, batch_dims=1)
