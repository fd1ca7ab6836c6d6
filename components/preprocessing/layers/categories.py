"""Categories as indices: the frequent values by a vocabulary, the others by a hash; and crosses of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.data.accumulators.vocabulary import Vocabulary

MODES = ("int", "one_hot", "multi_hot", "count")


@keras.saving.register_keras_serializable("kerasline")
class FrequencyLookup(keras.layers.Layer):
    """Gives each frequent value an index of its own, and the others some to share.

    Index 0 is a missing value ("" or -1); then come `hash_bins` buckets, or a single index, for values
    that are not in the vocabulary; then the vocabulary by count, ties by value (numbers as numbers),
    both descending, as Keras orders it. Buckets are by FarmHash64's fingerprint of the text modulo
    `hash_bins`, as those of `keras.layers.StringLookup`. Over no values the vocabulary is empty, and
    all that is not missing is unknown.

    Input: texts or integers of any shape; integers count as their decimal text. Texts that are no UTF-8
    are never in the vocabulary.

    Output, by `output_mode`:
        int: the indices, int64, of the input's shape.
        one_hot: 1 in the column of each value; (rows, columns) for inputs (rows,) or (rows, 1), otherwise
            the input's shape and one axis more.
        multi_hot: 1 in the column of each value of a row; the input's shape with its last axis
            replaced by the columns, (rows, columns) for inputs (rows,).
        count: as multi_hot, but how often.
        The columns are the indices but 0: a missing value, such as the padding of a list, has none, and
        is zeros. The dtype is the layer's (float32).

    Args:
        max_tokens: how many values the vocabulary has at most; all by default.
        min_count: how often a value must occur to be in it.
        hash_bins: how many indices the others share; 0 and 1 are the same, one for all.
        output_mode: one of those above.
        vocabulary: texts or integers, where they are known: such a layer needs no data.

    Attributes:
        vocabulary: the values as texts, in the order of their indices; None before the layer is adapted.

    Raises:
        ValueError: an argument or the input is not among what is possible, or the layer is called without
            vocabulary.
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        min_count: int = 1,
        hash_bins: int = 0,
        output_mode: Literal["int", "one_hot", "multi_hot", "count"] = "int",
        vocabulary: Sequence[str | int] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.supports_jit = False  # XLA has no texts
        _check(max_tokens is None or _is_whole(max_tokens, 1), "max_tokens", max_tokens, "None, 1 or more")
        _check(_is_whole(min_count, 1), "min_count", min_count, "1 or more")
        _check(_is_whole(hash_bins, 0), "hash_bins", hash_bins, "0 or more")
        _check(output_mode in MODES, "output_mode", output_mode, ", ".join(map(repr, MODES)))
        self.max_tokens, self.min_count, self.hash_bins = max_tokens, min_count, hash_bins
        self.output_mode = output_mode
        self._values: np.ndarray | None = None  # of str; a list would be tracked, value by value
        if vocabulary is not None:
            different = len(set(map(str, vocabulary))) == len(vocabulary) and "" not in vocabulary
            _check(different, "vocabulary", vocabulary, "different values, none of them empty")
            self._set_vocabulary(vocabulary)

    @property
    def vocabulary(self) -> list[str] | None:
        return None if self._values is None else self._values.tolist()

    def call(self, values: Any) -> tf.Tensor:
        places = self._places(tf.convert_to_tensor(values))
        if self.output_mode == "int":
            return places + 1
        columns = self._columns()
        if self.output_mode == "one_hot":
            alone = places.shape.rank > 1 and places.shape[-1] == 1
            return tf.one_hot(tf.squeeze(places, -1) if alone else places, columns, dtype=self.compute_dtype)
        places = places[:, None] if places.shape.rank == 1 else places
        shape = tf.shape(places, tf.int64)[:-1]
        rows = tf.reduce_prod(shape)
        flat = tf.reshape(places, [rows, tf.shape(places, tf.int64)[-1]])
        cells = tf.where(flat < 0, flat, flat + columns * tf.range(rows)[:, None])
        # Negative segments, the missing values, are dropped.
        counts = tf.math.unsorted_segment_sum(tf.ones_like(cells, tf.float32), cells, rows * columns)
        counts = tf.minimum(counts, 1) if self.output_mode == "multi_hot" else counts
        counts = tf.reshape(counts, tf.concat([shape, [columns]], 0))
        return tf.cast(tf.ensure_shape(counts, [*places.shape[:-1], columns]), self.compute_dtype)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        shape = tuple(input_shape)
        if self.output_mode == "int":
            return shape
        if len(shape) > 1 and (self.output_mode != "one_hot" or shape[-1] == 1):
            shape = shape[:-1]
        return *shape, None if self._values is None else self._columns()

    def compute_output_spec(self, values: Any) -> keras.KerasTensor:
        _check_dtype("FrequencyLookup", values.dtype)
        dtype = "int64" if self.output_mode == "int" else self.compute_dtype
        return keras.KerasTensor(self.compute_output_shape(values.shape), dtype)

    def new_state(self) -> Vocabulary | None:
        if self._values is not None:
            return None
        return Vocabulary(self.max_tokens, self.min_count, left_out=("", -1))

    def set_state(self, state: Vocabulary) -> None:
        self._set_vocabulary(state.values())

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_tokens": self.max_tokens,
            "min_count": self.min_count,
            "hash_bins": self.hash_bins,
            "output_mode": self.output_mode,
            "vocabulary": self.vocabulary,
        }

    def _places(self, values: tf.Tensor) -> tf.Tensor:
        """The indices less one: -1 for what is missing."""
        if self._values is None:
            raise ValueError(f"FrequencyLookup {self.name!r} has no vocabulary yet; adapt it, or give it one")
        texts, bins = _texts(values, "FrequencyLookup"), max(self.hash_bins, 1)
        places = self._table.lookup(texts)
        unknown = tf.strings.to_hash_bucket_fast(texts, bins) if bins > 1 else tf.zeros_like(places)
        places = tf.where(places < 0, unknown, places + bins)
        return tf.where(texts == "", tf.constant(-1, tf.int64), places)

    def _columns(self) -> int:
        return max(self.hash_bins, 1) + len(self._values)

    def _set_vocabulary(self, values: Sequence[str | int]) -> None:
        self._values = np.array([*map(str, values), None], object)[:-1]  # of objects, whatever the texts are
        with tf.init_scope():
            # TensorFlow refuses a table of nothing; the empty text is missing, and never looked for.
            keys = tf.constant([*self._values, ""])
            places = tf.constant([*range(len(self._values)), -1], tf.int64)
            self._table = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, places), -1)


@keras.saving.register_keras_serializable("kerasline")
class Cross(keras.layers.Layer):
    """Several categories as one: their texts joined, for a lookup or `keras.layers.Hashing` to follow.

    Called on a list of two tensors or more of one shape, texts or integers (as their decimal text).
    Gives texts of that shape, empty (missing) where any of them is missing ("" or -1). Nothing is
    escaped: with the separator in the values, different ones may give the same text.

    Args:
        separator: what stands between the texts.

    Raises:
        ValueError: the separator is no text, or the inputs are not such a list.
    """

    def __init__(self, separator: str = "_X_", **options: Any) -> None:
        super().__init__(**options)
        self.supports_jit = False  # XLA has no texts
        if not isinstance(separator, str):
            raise ValueError(f"Cross: separator is {separator!r}; possible: a text")
        self.separator = separator

    def call(self, values: Sequence[Any]) -> tf.Tensor:
        texts = [_texts(tf.convert_to_tensor(one), "Cross") for one in values]
        missing = tf.reduce_any([one == "" for one in texts], axis=0)
        return tf.where(missing, "", tf.strings.join(texts, self.separator))

    def build(self, input_shape: Sequence[Sequence[int | None]]) -> None:
        shapes = [shape for shape in input_shape if isinstance(shape, (list, tuple))]
        agree = all(len(set(sizes) - {None}) <= 1 for sizes in zip(*shapes))
        if len(shapes) < 2 or len(set(map(len, shapes))) > 1 or not agree:
            possible = "a list of two or more of one shape"
            raise ValueError(f"Cross: inputs are of shape {input_shape}; possible: {possible}")

    def compute_output_shape(self, input_shape: Sequence[Sequence[int | None]]) -> tuple[int | None, ...]:
        known = (set(sizes) - {None} for sizes in zip(*input_shape))
        return tuple(sizes.pop() if sizes else None for sizes in known)

    def compute_output_spec(self, values: Sequence[Any]) -> keras.KerasTensor:
        for one in values:
            _check_dtype("Cross", one.dtype)
        return keras.KerasTensor(self.compute_output_shape([one.shape for one in values]), "string")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "separator": self.separator}


def _texts(values: tf.Tensor, layer: str) -> tf.Tensor:
    """Integers as their decimal texts, -1 as the empty one; texts as they are."""
    if values.dtype == tf.string:
        return values
    _check_dtype(layer, values.dtype.name)
    texts = tf.strings.as_string(tf.cast(values, tf.int64))
    return tf.where(values == -1, "", texts) if values.dtype.is_integer and values.dtype.min else texts


def _check_dtype(layer: str, dtype: str) -> None:
    if "float" in dtype or "complex" in dtype:
        raise ValueError(f"{layer}: inputs are {dtype}; possible: texts and integers")


def _is_whole(number: Any, least: int) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool) and number >= least


def _check(holds: bool, name: str, given: Any, possible: str) -> None:
    if not holds:
        raise ValueError(f"FrequencyLookup: {name} is {given!r}; possible: {possible}")
