"""What every way of generating does in a step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kerasline.components.preprocessing.layers.base import check

Step = Callable[[tf.Tensor, tf.Tensor, Any], tuple[tf.Tensor, Any]]


def take_step(
    step: Step, tokens: tf.Tensor, position: tf.Tensor, state: Any, pad: int, end: int | None
) -> tuple[tf.Tensor, Any]:
    """Return the logits, float32 (n, vocabulary), and the state after a step.

    The logit of padding is minus infinity, unless padding is the end too.
    """
    logits, next_state = step(tokens, position, state)
    logits = tf.cast(logits, tf.float32)
    check("generate", logits.shape.rank == 2, "logits of step", tuple(logits.shape), "shape (n, vocabulary)")
    try:
        tf.nest.assert_same_structure(next_state, state)
    except (TypeError, ValueError):
        received, expected = (_structure(one) for one in (next_state, state))
        problem = f"expected {expected}, received {received}"
        raise ValueError(f"generate: step returned another structure of state: {problem}") from None
    if pad >= 0 and pad != end:
        logits = tf.where(tf.range(tf.shape(logits)[1]) == pad, -float("inf"), logits)
    return logits, with_shapes(next_state, state)


def with_shapes(tensors: Any, examples: Any) -> Any:
    """Return nested tensors with the static shapes of others, as the variables of a loop need them."""

    def shaped(tensor: tf.Tensor, example: tf.Tensor) -> tf.Tensor:
        return tensor if tensor is example else tf.ensure_shape(tensor, example.shape)

    return tf.nest.map_structure(shaped, tensors, examples)


def lengths(ids: tf.Tensor, prompt: tf.Tensor, end: int | None, pad: int) -> tf.Tensor:
    """Return the number of ids of each row, int32 (rows,), up to the first end after the prompt."""
    length = tf.shape(ids)[1]
    if end is None:
        return tf.fill([tf.shape(ids)[0]], length)
    is_generated = tf.range(length) >= prompt_lengths(prompt, pad)[:, None]
    ended = tf.cumsum(tf.cast(is_generated & (ids == end), tf.int32), axis=1, exclusive=True)
    return tf.reduce_sum(tf.cast(ended == 0, tf.int32), axis=1)


def prompt_lengths(prompt: tf.Tensor, pad: int) -> tf.Tensor:
    """Return the number of ids of each row of a padded prompt, int32 (rows,)."""
    return tf.reduce_sum(tf.cast(prompt != pad, tf.int32), axis=1)


def _structure(state: Any) -> Any:
    return tf.nest.map_structure(lambda tensor: tuple(tensor.shape), state)
