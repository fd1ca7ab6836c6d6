"""Beam search: the most probable sequences among some hypotheses for each row."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from kerasline.components.decoding.steps import Step, prompt_lengths, take_step, with_shapes

# Logarithm of the probability of what cannot be. Finite, so that sums of it are.
IMPOSSIBLE = -1e9


def beam_search(
    step: Step,
    ids: tf.Tensor,
    state: Any,
    end: int | None,
    pad: int,
    start: Any,
    beams: int,
    length_penalty: float,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the best sequence of each row, int32 (rows, length), and its score, float32 (rows,).

    A hypothesis ends with `end` or when it is full. In each step a row continues its `beams` most probable hypotheses
    that have not ended, and keeps the best one that has. It stops when no continuation can be better.

    Args:
        step, end, pad, start, length_penalty: as in `generate`.
        ids: the prompt, padded to the length, int32 (rows, length).
        state: tensors (rows, ...), nested.
    """
    rows, length = tf.shape(ids)[0], ids.shape[1]
    prompts = prompt_lengths(ids, pad)

    def penalty(size: tf.Tensor) -> tf.Tensor:
        """Return by what the scores of sequences with this number of ids are divided."""
        generated = tf.cast(tf.maximum(size - prompts, 1), tf.float32)
        return ((5.0 + generated) / 6.0) ** length_penalty

    def body(
        t: tf.Tensor, ids: tf.Tensor, scores: tf.Tensor, best: tf.Tensor, best_score: tf.Tensor, state: Any
    ) -> tuple:
        before = (t, ids, scores, best, best_score, state)
        logits, next_state = take_step(step, tf.reshape(tf.gather(ids, t, axis=2), [-1]), t, state, pad, end)
        chances = tf.nn.log_softmax(logits)
        size = tf.shape(chances)[1]
        chances = tf.reshape(chances, [rows, beams, size])
        given = tf.gather(ids[:, 0], t + 1, axis=1)
        is_given = given != pad
        forced = tf.where(tf.range(size) == given[:, None], 0.0, IMPOSSIBLE)
        chances = tf.where(is_given[:, None, None], forced[:, None], chances)
        # Twice as many, since half of them may end.
        found, places = tf.math.top_k(tf.reshape(scores[:, :, None] + chances, [rows, -1]), 2 * beams)
        origins, chosen = places // size, places % size
        ended = tf.zeros_like(chosen, tf.bool) if end is None else (chosen == end) & ~is_given[:, None]

        final = tf.where(ended, found / penalty(t + 2)[:, None], IMPOSSIBLE)
        first = tf.argmax(final, axis=1, output_type=tf.int32)
        is_better = tf.gather(final, first, batch_dims=1) > best_score
        best_score = tf.maximum(best_score, tf.reduce_max(final, axis=1))
        best_now = _append(tf.gather(ids, tf.gather(origins, first, batch_dims=1), batch_dims=1), chosen, first, t)
        best = tf.where(is_better[:, None], best_now, best)

        scores, kept = tf.math.top_k(tf.where(ended, IMPOSSIBLE, found), beams)
        origins, chosen = tf.gather(origins, kept, batch_dims=1), tf.gather(chosen, kept, batch_dims=1)
        ids = tf.where(tf.range(length) == t + 1, chosen[:, :, None], tf.gather(ids, origins, batch_dims=1))
        flat = tf.reshape(tf.range(rows)[:, None] * beams + origins, [-1])

        def reordered(new: tf.Tensor, old: tf.Tensor) -> tf.Tensor:
            return old if new is old else tf.gather(new, flat)

        next_state = tf.nest.map_structure(reordered, next_state, state)
        return with_shapes((t + 1, ids, scores, best, best_score, next_state), before)

    def continues(
        t: tf.Tensor, ids: tf.Tensor, scores: tf.Tensor, best: tf.Tensor, best_score: tf.Tensor, *_: Any
    ) -> tf.Tensor:
        # No logarithm of a probability grows, and the largest penalty reduces it most.
        can_improve = tf.reduce_max(scores, axis=1) / penalty(length) > best_score
        return (t < length - 1) & tf.reduce_any(can_improve)

    state = tf.nest.map_structure(lambda one: tf.repeat(one, beams, axis=0), state)
    scores = tf.tile([[0.0] + [IMPOSSIBLE] * (beams - 1)], [rows, 1])
    first = (
        tf.cast(start, tf.int32),
        tf.tile(ids[:, None], [1, beams, 1]),
        tf.ensure_shape(scores, [ids.shape[0], beams]),
        ids,
        tf.fill([rows], IMPOSSIBLE),
        state,
    )
    t, ids, scores, best, best_score, _ = tf.while_loop(continues, body, first, maximum_iterations=length - 1)
    alive = scores[:, 0] / penalty(t + 1)
    return tf.where((alive > best_score)[:, None], ids[:, 0], best), tf.maximum(alive, best_score)


def _append(ids: tf.Tensor, chosen: tf.Tensor, first: tf.Tensor, t: tf.Tensor) -> tf.Tensor:
    """Return ids (rows, length) with that of the chosen candidate at the next position."""
    return tf.where(tf.range(ids.shape[1]) == t + 1, tf.gather(chosen, first, batch_dims=1)[:, None], ids)
