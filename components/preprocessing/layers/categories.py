"""Categories as indices: frequent values by a vocabulary, the others by a hash; and crosses of categories."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.data.accumulators.vocabulary import Vocabulary
from kerasline.components.preprocessing.layers.base import (
    AdaptableLayer,
    as_texts,
    check,
    check_category_dtype,
    is_whole,
    vocabulary_table,
)
from kerasline.components.preprocessing.layers.mutual_information import InformativeVocabulary

ORDERS = ("count", "mutual_information", "adjusted_mutual_information")
MODES = ("int", "one_hot", "multi_hot", "count")


@keras.saving.register_keras_serializable("kerasline")
class FrequencyLookup(AdaptableLayer):
    """Maps each frequent value to its own index, and the other values to shared indices.

    Index 0 is a missing value ("" or -1). Then come `hash_bins` indices, or one if `hash_bins` is 0, for values outside
    of the vocabulary. Then comes the vocabulary in descending order of count, then value (numbers as numbers), as in
    Keras, or in that of `order`. The hash is FarmHash64's fingerprint of the text modulo `hash_bins`, as in
    `keras.layers.StringLookup`. Integers count as their decimal text. Texts that are not UTF-8 are never in the
    vocabulary. Without data the vocabulary is empty.

    Args:
        max_tokens: int. Maximum size of the vocabulary. Defaults to None, unlimited.
        min_count: int. Minimum number of occurrences of a value of the vocabulary. Defaults to 1.
        hash_bins: int. Number of indices that all other values share. 0 and 1 both give one. Defaults to 0.
        output_mode: `"int"`, `"one_hot"`, `"multi_hot"` or `"count"`, see below. Defaults to `"int"`.
        vocabulary: list of str or int. The layer then needs no data.
        reserved: list of str or int. Values that begin the vocabulary, whether the data have them or not. They count
            towards `max_tokens`. Defaults to none.
        may_be_missing: bool. Whether -1 in integers means a missing value. If `False`, it is an ordinary integer.
            Defaults to `True`.
        sample_weight: str. The output of the preprocessing, or else the raw column, with the weight of each row, which
            is added instead of 1. Defaults to None.
        order: `"count"`; `"mutual_information"` of a row's having the value and the label, in bits, times the number of
            rows; or `"adjusted_mutual_information"`, without the information that is expected by chance, which rare
            values have most of. The latter two need Transform's `label`, whose values are classes, and are those of
            tensorflow-transform. Defaults to `"count"`.
        label: str. The label for `order` if Transform learns several.
        coverage_top_k: int. Minimum number of values of each key in the vocabulary, also beyond `max_tokens` and below
            `min_count`, such as the commonest words of every language. Defaults to 0.
        coverage_key: str. Regular expression that finds the key of a value: its first group, or the whole match, such
            as `"^(..)_"` for `"en_house"`.

    Inputs:
        Texts or integers of any shape. Columns with a joint vocabulary, such as the two towns of a trip, are a list of
        such tensors. The output is then a list too.

    Outputs:
        - `"int"`: the indices, int64 of the same shape.
        - `"one_hot"`: 1 in the column of each value. The shape is (rows, columns) for inputs (rows,) or (rows, 1), else
          the inputs' shape with one more axis.
        - `"multi_hot"`: 1 in the column of each value of a row. The columns replace the last axis; they are
          (rows, columns) for inputs (rows,).
        - `"count"`: as `"multi_hot"`, with the number of occurrences.

        The columns are the indices except 0: a missing value, such as the padding of a list, gives zeros. They have the
        layer's dtype, float32 by default.

    Attributes:
        vocabulary: the values as texts, in the order of their indices. None before the layer is adapted.

    Raises:
        ValueError: an argument or the inputs are invalid, or the layer is called before it is adapted.

    Example:

    >>> layer = kl.layers.FrequencyLookup(max_tokens=2)
    >>> layer.adapt(["cash", "card", "cash", "card", "cash", "app"])
    >>> layer.vocabulary
    ['cash', 'card']
    >>> layer(np.array(["", "app", "cash", "card"])).numpy().tolist()
    [0, 1, 2, 3]
    """

    def __init__(
        self,
        max_tokens: int | None = None,
        min_count: int = 1,
        hash_bins: int = 0,
        output_mode: Literal["int", "one_hot", "multi_hot", "count"] = "int",
        vocabulary: Sequence[str | int] | None = None,
        reserved: Sequence[str | int] = (),
        may_be_missing: bool = True,
        sample_weight: str | None = None,
        order: Literal["count", "mutual_information", "adjusted_mutual_information"] = "count",
        label: str | None = None,
        coverage_top_k: int = 0,
        coverage_key: str = "",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.supports_jit = False  # XLA has no texts
        self._check(order in ORDERS, "order", order, " or ".join(map(repr, ORDERS)))
        self._check(is_whole(coverage_top_k, 0), "coverage_top_k", coverage_top_k, "an integer from 0")
        self._check(_is_pattern(coverage_key), "coverage_key", coverage_key, "a regular expression")
        both = bool(coverage_top_k) == bool(coverage_key)
        self._check(both, "coverage_key", coverage_key, "coverage_top_k and coverage_key together")
        self.sample_weight, self.order, self.label = sample_weight, order, label
        self.coverage_top_k, self.coverage_key = coverage_top_k, coverage_key
        distinct = len({*map(str, reserved), ""}) == len(reserved) + 1
        self._check(distinct, "reserved", reserved, "distinct values, none of them empty")
        self.reserved, self.may_be_missing = tuple(reserved), bool(may_be_missing)
        fits = max_tokens is None or not is_whole(max_tokens, 1) or max_tokens > len(reserved)
        self._check(fits, "max_tokens", max_tokens, f"more than the {len(reserved)} reserved values")
        whole = max_tokens is None or is_whole(max_tokens, 1)
        self._check(whole, "max_tokens", max_tokens, "None or an integer from 1")
        self._check(is_whole(min_count, 1), "min_count", min_count, "an integer from 1")
        self._check(is_whole(hash_bins, 0), "hash_bins", hash_bins, "an integer from 0")
        self._check(output_mode in MODES, "output_mode", output_mode, " or ".join(map(repr, MODES)))
        self.max_tokens, self.min_count, self.hash_bins = max_tokens, min_count, hash_bins
        self.output_mode = output_mode
        self._values: np.ndarray | None = None  # of str; Keras would track each value of a list
        if vocabulary is not None:
            different = len(set(map(str, vocabulary))) == len(vocabulary) and "" not in vocabulary
            self._check(different, "vocabulary", vocabulary, "distinct values, none of them empty")
            self._set_vocabulary(vocabulary)

    @property
    def vocabulary(self) -> list[str] | None:
        return None if self._values is None else self._values.tolist()

    def call(self, values: Any) -> Any:
        return self._of_each(self._encoded, values)

    def _of_each(self, function: Callable[[Any], Any], values: Any) -> Any:
        """Apply a function to the input, or to each of several inputs."""
        is_several = isinstance(values, (list, tuple)) and all(hasattr(one, "shape") for one in values)
        return [function(one) for one in values] if is_several else function(values)

    def _encoded(self, values: Any) -> tf.Tensor:
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

    def compute_output_spec(self, values: Any) -> Any:
        return self._of_each(self._spec, values)

    def _spec(self, values: Any) -> keras.KerasTensor:
        check_category_dtype(type(self).__name__, values.dtype)
        dtype = "int64" if self.output_mode == "int" else self.compute_dtype
        return keras.KerasTensor(self.compute_output_shape(values.shape), dtype)

    def new_state(self) -> Vocabulary | None:
        if self._values is not None:
            return None
        most = None if self.max_tokens is None else self.max_tokens - len(self.reserved)
        missing = ("", -1) if self.may_be_missing else ("",)
        options: dict[str, Any] = {
            "max_size": most,
            "min_count": self.min_count,
            "excluded": (*missing, *self.reserved),
            "coverage": self.coverage_top_k,
            "coverage_key": self.coverage_key,
        }
        if self.order == "count":
            return Vocabulary(**options)
        return InformativeVocabulary(type(self).__name__, self.order == "adjusted_mutual_information", **options)

    def set_state(self, state: Vocabulary) -> None:
        self._set_vocabulary([*self.reserved, *state.values()])

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "max_tokens": self.max_tokens,
            "min_count": self.min_count,
            "hash_bins": self.hash_bins,
            "output_mode": self.output_mode,
            "vocabulary": self.vocabulary,
            "reserved": list(self.reserved),
            "may_be_missing": self.may_be_missing,
            "sample_weight": self.sample_weight,
            "order": self.order,
            "label": self.label,
            "coverage_top_k": self.coverage_top_k,
            "coverage_key": self.coverage_key,
        }

    def _places(self, values: tf.Tensor) -> tf.Tensor:
        """Return the indices less one: -1 for a missing value."""
        if self._values is None:
            raise ValueError(f"FrequencyLookup {self.name!r} has no vocabulary yet; adapt it, or pass it one")
        texts, bins = as_texts(values, "FrequencyLookup", self.may_be_missing), max(self.hash_bins, 1)
        places = self._table.lookup(texts)
        unknown = tf.strings.to_hash_bucket_fast(texts, bins) if bins > 1 else tf.zeros_like(places)
        places = tf.where(places < 0, unknown, places + bins)
        return tf.where(texts == "", tf.constant(-1, tf.int64), places)

    def _columns(self) -> int:
        return max(self.hash_bins, 1) + (0 if self._values is None else len(self._values))

    def _set_vocabulary(self, values: Sequence[str | int]) -> None:
        self._values = np.array([*map(str, values), None], object)[:-1]  # of objects, whatever the texts are
        self._table = vocabulary_table(self._values)

    def _check(self, holds: bool, name: str, received: Any, expected: str) -> None:
        check(type(self).__name__, holds, name, received, expected)


@keras.saving.register_keras_serializable("kerasline")
class ClassIndex(FrequencyLookup):
    """Maps the classes of a label to 0, 1, ... in ascending order. Numbers are ordered as numbers.

    Unlike features, a label has no index for missing or unknown values: they are -1, which training refuses.

    Args:
        output_mode: `"int"`, `"one_hot"` or `"multi_hot"`, see below. Defaults to `"int"`.
        vocabulary: list of str or int, the classes in the order of their indices. The layer then needs no data.
        may_be_missing: bool. Whether -1 in integers means a missing value. If `False`, it is a class, such as of labels
            -1 and 1. Defaults to `True`.

    Inputs:
        Texts or integers of any shape.

    Outputs:
        - `"int"`: the indices, int64 of the same shape.
        - `"one_hot"`, `"multi_hot"`: a column for each class, as those of `FrequencyLookup`. Missing and unknown values
          give zeros.

    Attributes:
        vocabulary: the classes as texts, in the order of their indices. None before the layer is adapted.

    Raises:
        ValueError: an argument or the inputs are invalid, or the layer is called before it is adapted.

    Example:

    >>> layer = kl.layers.ClassIndex()
    >>> layer.adapt(["yes", "no", "no"])
    >>> layer.vocabulary
    ['no', 'yes']
    >>> layer(np.array(["no", "yes", "perhaps"])).numpy().tolist()
    [0, 1, -1]
    """

    def __init__(
        self,
        output_mode: Literal["int", "one_hot", "multi_hot"] = "int",
        vocabulary: Sequence[str | int] | None = None,
        may_be_missing: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(output_mode=output_mode, vocabulary=vocabulary, may_be_missing=may_be_missing, **options)

    def call(self, values: Any) -> tf.Tensor:
        return self._places(tf.convert_to_tensor(values)) if self.output_mode == "int" else super().call(values)

    def set_state(self, state: Vocabulary) -> None:
        self._set_vocabulary(sorted(state.values()))

    def get_config(self) -> dict[str, Any]:
        config = {"output_mode": self.output_mode, "vocabulary": self.vocabulary}
        return {**keras.layers.Layer.get_config(self), **config, "may_be_missing": self.may_be_missing}

    def _places(self, values: tf.Tensor) -> tf.Tensor:
        if self._values is None:
            raise ValueError(f"ClassIndex {self.name!r} has no classes yet; adapt it, or pass it a vocabulary")
        return self._table.lookup(as_texts(values, "ClassIndex", self.may_be_missing))

    def _columns(self) -> int:
        return 0 if self._values is None else len(self._values)


@keras.saving.register_keras_serializable("kerasline")
class Cross(keras.layers.Layer):
    """Joins the texts of several categories into one category, as input of a lookup or `keras.layers.Hashing`.

    The separator is not escaped. If values contain it, different combinations may give the same text.

    Args:
        separator: str between the texts. Defaults to `"_X_"`.
        may_be_missing: bool. Whether -1 in integers means a missing value. If `False`, it is an ordinary integer.
            Defaults to `True`.

    Inputs:
        A list of at least two tensors of the same shape: texts, or integers, which count as their decimal text.

    Outputs:
        Texts of that shape. A text is empty (missing) where one of the inputs is missing ("" or -1).

    Raises:
        ValueError: the separator is not a str, or the inputs are not such a list.

    Example:

    >>> cross = kl.layers.Cross()
    >>> cross([np.array(["a", ""]), np.array([3, 4])]).numpy().tolist()
    [b'a_X_3', b'']
    """

    def __init__(self, separator: str = "_X_", may_be_missing: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.supports_jit = False  # XLA has no texts
        check("Cross", isinstance(separator, str), "separator", separator, "a str")
        self.separator, self.may_be_missing = separator, bool(may_be_missing)

    def call(self, values: Sequence[Any]) -> tf.Tensor:
        texts = [as_texts(tf.convert_to_tensor(one), "Cross", self.may_be_missing) for one in values]
        missing = tf.reduce_any([one == "" for one in texts], axis=0)
        return tf.where(missing, "", tf.strings.join(texts, self.separator))

    def build(self, input_shape: Any) -> None:
        shapes = [shape for shape in input_shape if isinstance(shape, (list, tuple))]
        agree = all(len(set(sizes) - {None}) <= 1 for sizes in zip(*shapes))
        fits = len(shapes) >= 2 and len(set(map(len, shapes))) == 1 and agree
        check("Cross", fits, "inputs", input_shape, "a list of at least two tensors of the same shape")

    def compute_output_shape(self, input_shape: Sequence[Sequence[int | None]]) -> tuple[int | None, ...]:
        known = (set(sizes) - {None} for sizes in zip(*input_shape))
        return tuple(sizes.pop() if sizes else None for sizes in known)

    def compute_output_spec(self, values: Sequence[Any]) -> keras.KerasTensor:
        for one in values:
            check_category_dtype("Cross", one.dtype)
        return keras.KerasTensor(self.compute_output_shape([one.shape for one in values]), "string")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "separator": self.separator, "may_be_missing": self.may_be_missing}


def _is_pattern(text: Any) -> bool:
    try:
        return isinstance(text, str) and bool(re.compile(text))
    except re.error:
        return False
