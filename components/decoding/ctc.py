"""Texts from the outputs of models trained with CTC, connectionist temporal classification."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf

from kerasline.components.decoding.ctc_beam_search import search
from kerasline.components.decoding.generation import Generated
from kerasline.components.preprocessing.layers.base import check
from kerasline.components.preprocessing.layers.n_grams import NGrams


def ctc(
    logits: Any,
    lengths: Any = None,
    *,
    blank: int = 0,
    beams: int = 1,
    language: NGrams | None = None,
    language_weight: float = 0.5,
    label_bonus: float = 0.0,
) -> Generated:
    """Return the labels that the frames of a CTC model say: repeated ones merged, blanks left out.

    Args:
        logits: floats (rows, frames, classes).
        lengths: integers (rows,). Number of frames of each row; later ones are ignored. Defaults to None, all.
        blank: int. The class that says nothing. Defaults to 0, as in `keras.losses.CTC`.
        beams: int. 1 takes the most probable class of each frame. More search for the most probable labels, over all
            alignments, with this number of hypotheses. Defaults to 1.
        language: NGrams, adapted on labels. The search adds the logarithm of the probability that it gives to the
            labels, with their end, times `language_weight` (shallow fusion). `blank` is 0. Defaults to None.
        language_weight: float from 0. Defaults to 0.5.
        label_bonus: float. Added for each label, since a language model prefers short texts. Defaults to 0.

    Returns:
        Generated: `ids` (rows, longest), padded with `blank`, their `lengths`, and as `scores` the logarithm of the
        probability of the path (`beams=1`) or of the labels, with what the language model adds.

    Raises:
        ValueError: an argument is invalid.

    Example:

    >>> frames = np.array([[1, 1, 0, 1, 2, 2]])  # 0 is blank
    >>> kl.decoding.ctc(np.eye(3)[frames] * 9).ids.numpy()
    array([[1, 1, 2]], dtype=int32)
    """
    logits = tf.nn.log_softmax(tf.cast(logits, tf.float32))
    shape = tuple(logits.shape)
    check("ctc", len(shape) == 3, "logits", shape, "shape (rows, frames, classes)")
    classes = shape[2]
    check("ctc", classes is not None and 0 <= blank < classes, "blank", blank, f"a class from 0 to {classes} - 1")
    check("ctc", isinstance(beams, int) and beams >= 1, "beams", beams, "an integer from 1")
    rows, frames = tf.shape(logits)[0], tf.shape(logits)[1]
    lengths = tf.fill([rows], frames) if lengths is None else tf.cast(tf.reshape(lengths, [-1]), tf.int32)
    if language is not None:
        expected = "None, or NGrams of as many classes as the logits have, and blank=0"
        fits = isinstance(language, NGrams) and language.classes == classes and blank == 0
        check("ctc", fits, "language", language, expected)
        check("ctc", language_weight >= 0, "language_weight", language_weight, "a number from 0")
        ids, scores = search(logits, lengths, beams, language, language_weight, label_bonus)
        sizes = tf.reduce_sum(tf.cast(ids != blank, tf.int32), axis=1)
        return Generated(ids[:, : tf.reduce_max(sizes)], sizes, scores)
    by_time = tf.transpose(logits, [1, 0, 2])
    if beams == 1:
        (found,), negative = tf.nn.ctc_greedy_decoder(by_time, lengths, blank_index=blank)
        scores = -negative[:, 0]
    else:
        # TensorFlow's beam search expects the blank to be the last class.
        by_time = tf.concat([by_time[..., :blank], by_time[..., blank + 1 :], by_time[..., blank : blank + 1]], axis=2)
        (found,), likelihoods = tf.nn.ctc_beam_search_decoder(by_time, lengths, beams, top_paths=1)
        found = tf.SparseTensor(
            found.indices, tf.where(found.values >= blank, found.values + 1, found.values), found.dense_shape
        )
        scores = likelihoods[:, 0]
    ids = tf.cast(tf.sparse.to_dense(found, default_value=blank), tf.int32)
    return Generated(ids, tf.reduce_sum(tf.cast(ids != blank, tf.int32), axis=1), scores)


def join_tokens(ids: Any, vocabulary: Sequence[str], separator: str = "") -> tf.Tensor:
    """Return texts of ids, for vocabularies of characters or words, such as that of `TextVectorization`.

    Args:
        ids: integers (..., n).
        vocabulary: the tokens by their ids. Empty tokens, as for padding, and ids beyond it are left out.
        separator: str between tokens. Defaults to none.

    Returns:
        Texts (...).

    Example:

    >>> kl.decoding.join_tokens([[2, 3, 0], [3, 3, 2]], ["", "[UNK]", "a", "b"]).numpy()
    array([b'ab', b'bba'], dtype=object)
    """
    ids = tf.cast(tf.convert_to_tensor(ids), tf.int32)
    table = tf.constant([*vocabulary, ""])
    tokens = tf.gather(table, tf.where((ids >= 0) & (ids < len(vocabulary)), ids, len(vocabulary)))
    flat = tf.reshape(tokens, [-1, tf.shape(ids)[-1]])
    texts = tf.strings.reduce_join(tf.ragged.boolean_mask(flat, flat != ""), axis=1, separator=separator)
    return tf.ensure_shape(tf.reshape(texts, tf.shape(ids)[:-1]), ids.shape[:-1])
