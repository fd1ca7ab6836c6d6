"""Beam search over the labels of a CTC model with a language model, as loops of a graph."""

from __future__ import annotations

from typing import NamedTuple

import tensorflow as tf

from kerasline.components.decoding.beam_search import IMPOSSIBLE
from kerasline.components.decoding.steps import with_shapes
from kerasline.components.preprocessing.layers.n_grams import NGrams

_MULTIPLIER = 6364136223846793005  # of Knuth's linear congruential generator, MMIX


class _Beams(NamedTuple):
    """Hypotheses: labels (rows, beams, frames), padded with 0, and for each what follows, (rows, beams).

    Attributes:
        labels, size: the labels and their number.
        last: the last label, 0 if there is none.
        hash, parent: a hash of the labels, and of those before the last one.
        blank, label: logarithm of the probability of all paths that end with a blank, and with the last label.
        context: the state of the language model.
        bonus: what the language model and the number of labels add.
    """

    labels: tf.Tensor
    size: tf.Tensor
    last: tf.Tensor
    hash: tf.Tensor
    parent: tf.Tensor
    blank: tf.Tensor
    label: tf.Tensor
    context: tf.Tensor
    bonus: tf.Tensor


def search(
    chances: tf.Tensor, lengths: tf.Tensor, beams: int, language: NGrams, weight: float, label_bonus: float
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the best labels of each row, int32 (rows, frames), padded with 0, and their scores, float32 (rows,).

    Prefixes of labels are extended frame by frame (Graves and Jaitly, ICML 2014; Hannun et al., "First-Pass Large
    Vocabulary Continuous Speech Recognition using Bi-Directional Recurrent DNNs", 2014). Class 0 is the blank.

    Args:
        chances: logarithms of probabilities, float32 (rows, frames, classes).
        lengths: number of frames of each row, int32 (rows,).
        beams: number of prefixes that are kept.
        language, weight, label_bonus: as in `ctc`.
    """
    rows, frames, classes = tf.shape(chances)[0], tf.shape(chances)[1], chances.shape[2]
    table = weight * tf.convert_to_tensor(language.table) + label_bonus

    def start(value: float, others: float | None = None) -> tf.Tensor:
        """Return a value for the first hypothesis, the empty one, and one for the rest, which do not exist."""
        values = [value] + [value if others is None else others] * (beams - 1)
        return tf.tile(tf.constant([values], tf.float32), [rows, 1])

    none = tf.zeros([rows, beams], tf.int32)
    hashes = tf.tile(tf.range(beams, dtype=tf.int64)[tf.newaxis] + 1, [rows, 1])  # so that none is that of another
    first = _Beams(
        tf.zeros([rows, beams, frames], tf.int32),
        none,
        none,
        hashes,
        tf.zeros_like(hashes),
        start(0.0, IMPOSSIBLE),
        start(IMPOSSIBLE),
        none,
        start(0.0),
    )

    def step(t: tf.Tensor, old: _Beams) -> tuple[tf.Tensor, _Beams]:
        now = chances[:, t]
        total = _add(old.blank, old.label)
        of_last = tf.gather(now, old.last, batch_dims=1)
        # A label that repeats the last one is another label only after a blank.
        is_last = tf.one_hot(old.last, classes, on_value=True, off_value=False)
        added = tf.where(is_last, old.blank[..., tf.newaxis], total[..., tf.newaxis]) + now[:, tf.newaxis]
        added = tf.concat([tf.fill([rows, beams, 1], IMPOSSIBLE), added[..., 1:]], axis=2)
        # Where hypothesis j is hypothesis i with one more label, the paths of both are of the same labels.
        extends = (old.parent[:, :, tf.newaxis] == old.hash[:, tf.newaxis]) & (old.size > 0)[..., tf.newaxis]
        by_label = tf.gather(added, tf.tile(old.last[:, tf.newaxis], [1, beams, 1]), batch_dims=2)  # (rows, i, j)
        gained = tf.reduce_max(tf.where(extends, tf.transpose(by_label, [0, 2, 1]), IMPOSSIBLE), axis=2)
        stays_blank, stays_label = total + now[:, :1], _add(old.label + of_last, gained)
        is_known = tf.einsum("rji,rjc->ric", tf.cast(extends, tf.float32), tf.cast(is_last, tf.float32)) > 0
        added = tf.where(is_known, IMPOSSIBLE, added)

        bonus = tf.concat([old.bonus[..., tf.newaxis], old.bonus[..., tf.newaxis] + tf.gather(table, old.context)], 2)
        reached = tf.concat([_add(stays_blank, stays_label)[..., tf.newaxis], added], axis=2)
        size = classes + 1
        _, places = tf.math.top_k(tf.reshape(reached + bonus, [rows, beams * size]), beams)
        origin, chosen = places // size, places % size - 1  # -1 stays
        grows = chosen >= 0

        def kept(values: tf.Tensor) -> tf.Tensor:
            return tf.gather(values, origin, batch_dims=1)

        def candidates(values: tf.Tensor) -> tf.Tensor:
            return tf.gather(tf.reshape(values, [rows, beams * size]), places, batch_dims=1)

        count, hash = kept(old.size), kept(old.hash)
        is_next = grows[..., tf.newaxis] & (tf.range(frames) == count[..., tf.newaxis])
        new = _Beams(
            labels=tf.where(is_next, chosen[..., tf.newaxis], kept(old.labels)),
            size=count + tf.cast(grows, tf.int32),
            last=tf.where(grows, chosen, kept(old.last)),
            hash=tf.where(grows, hash * _MULTIPLIER + tf.cast(chosen, tf.int64), hash),
            parent=tf.where(grows, hash, kept(old.parent)),
            blank=tf.where(grows, IMPOSSIBLE, kept(stays_blank)),
            label=tf.where(grows, candidates(reached), kept(stays_label)),
            context=tf.where(grows, language.next_context(kept(old.context), chosen), kept(old.context)),
            bonus=candidates(bonus),
        )
        is_frame = t < lengths
        new = _Beams(*(_where_row(is_frame, one, other) for one, other in zip(new, old)))
        return t + 1, with_shapes(new, old)

    last_frame = tf.reduce_max(lengths)
    _, found = tf.while_loop(lambda t, _: t < last_frame, step, (tf.constant(0), first))
    ends = weight * tf.gather(tf.convert_to_tensor(language.table)[:, 0], found.context)
    scores = _add(found.blank, found.label) + found.bonus + ends
    best = tf.argmax(scores, axis=1)
    return tf.gather(found.labels, best, batch_dims=1), tf.reduce_max(scores, axis=1)


def _add(one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    """Return the logarithm of the sum of two probabilities."""
    return tf.maximum(one, other) + tf.math.log1p(tf.exp(-tf.abs(one - other)))


def _where_row(condition: tf.Tensor, one: tf.Tensor, other: tf.Tensor) -> tf.Tensor:
    return tf.where(tf.reshape(condition, [-1] + [1] * (one.shape.rank - 1)), one, other)
