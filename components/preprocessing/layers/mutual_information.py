"""A vocabulary in the order of the information that each value gives about the label."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import tensorflow as tf

from kerasline.components.core.errors import DataError
from kerasline.components.data.accumulators.value_counts import ValueCounts
from kerasline.components.data.accumulators.vocabulary import BYTES_PER_VALUE, Vocabulary, flat_values
from kerasline.components.preprocessing.layers.base import known_labels

MAX_CLASSES = 1000


class InformativeVocabulary(Vocabulary):
    """Counts, for each class of the label, the rows that contain each value.

    Args:
        layer: name of the layer's class, for messages.
        adjusted: whether to subtract the information that is expected by chance.
        **options: as for `Vocabulary`.
    """

    TAKES_LABEL = True

    def __init__(self, layer: str, adjusted: bool, **options: Any) -> None:
        super().__init__(**options)
        self._layer, self._adjusted = layer, adjusted
        self._by_class: dict[Any, ValueCounts] = {}
        self._weights: dict[Any, float] = {}  # sum of the weights of the rows of each class
        self._limit: int | None = None

    def limit(self, values: int) -> None:
        super().limit(values)
        self._limit = values

    @property
    def error(self) -> int:
        return max((counts.error for counts in self._by_class.values()), default=0)

    def add(
        self, *columns: Any, label: np.ndarray, positions: np.ndarray, sample_weight: np.ndarray | None = None
    ) -> None:
        labels, known = known_labels(self._layer, label, may_be_text=True)
        classes, class_of_known = np.unique(labels, return_inverse=True)
        if len(self._by_class.keys() | set(classes.tolist())) > MAX_CLASSES:
            raise DataError(
                f"{self._layer}: expected a label of at most {MAX_CLASSES} classes to order a vocabulary by mutual "
                "information, received more distinct values; pass a label of classes"
            )
        class_of = np.full(len(known), -1)
        class_of[known] = class_of_known.reshape(-1)
        weights = np.ones(len(known)) if sample_weight is None else np.asarray(sample_weight, np.float64).reshape(-1)
        for values in columns:
            flat, row_of, rows = flat_values(values)
            self.rows += rows
            found = flat.dictionary_encode()
            size = max(len(found.dictionary), 1)
            pairs = np.unique(row_of * size + found.indices.to_numpy())  # a value counts once in a row
            row, value = pairs // size, pairs % size
            for number, name in enumerate(classes.tolist()):
                mine = class_of[row] == number
                counts = np.bincount(value[mine], weights[row[mine]], size)[: len(found.dictionary)]
                table = self._counts_of(name)
                table.add_counted(found.dictionary.filter(pa.array(counts > 0)), pa.array(counts[counts > 0]))
                self._weights[name] = self._weights.get(name, 0.0) + float(weights[class_of == number].sum())

    def merge(self, other: Vocabulary) -> None:
        assert isinstance(other, InformativeVocabulary)
        self.rows += other.rows
        for name, counts in other._by_class.items():
            self._counts_of(name).merge(counts)
            self._weights[name] = self._weights.get(name, 0.0) + other._weights[name]

    def _counts_of(self, name: Any) -> ValueCounts:
        if name not in self._by_class:
            self._by_class[name] = ValueCounts(max_values=None, estimate_distinct=False)
            if self._limit is not None:
                self._by_class[name].limit(self._limit, self._limit * BYTES_PER_VALUE)
        return self._by_class[name]

    def _ordered(self) -> Iterator[tuple[Any, Any, bool]]:
        tables = [counts.table() for counts in self._by_class.values()]
        if not any(map(len, tables)):
            return iter(())
        found = pa.concat_arrays([table["values"].combine_chunks() for table in tables if len(table)])
        found = found.dictionary_encode()
        joint = np.zeros((len(found.dictionary), len(tables)))
        column = np.repeat(np.arange(len(tables)), [len(table) for table in tables])
        np.add.at(joint, (found.indices.to_numpy(), column), np.concatenate([table["counts"] for table in tables]))
        scores = mutual_information(joint, np.array(list(self._weights.values())), self._adjusted)
        columns = [found.dictionary, pa.array(scores), self._are_frequent(pa.array(joint.sum(axis=1)))]
        table = pa.table(columns, names=["values", "scores", "frequent"])
        table = table if self._coverage else table.filter(table["frequent"])
        table = table.sort_by([("scores", "descending"), ("values", "descending")])
        return zip(*(column.to_pylist() for column in table.columns))


def mutual_information(joint: np.ndarray, classes: np.ndarray, adjusted: bool) -> np.ndarray:
    """Return the information in bits that the presence of each value gives about the class, in all of its rows.

    With n rows, x of them with the value, y of a class and c of both, it is the sum over classes of
    c log2(n c / (x y)). The adjustment subtracts its expectation if the value's rows were drawn at random, when c has
    a hypergeometric distribution (Vinh, Epps and Bailey, "Information theoretic measures for clusterings comparison",
    JMLR 2010, equation 24). Both are as in tensorflow-transform, which does not normalise them either.

    Args:
        joint: rows, or their weight, with each value in each class (values, classes).
        classes: rows, or their weight, of each class (classes,).
        adjusted: whether to subtract the expectation. Weights are then rounded to whole rows.

    Returns:
        float64 (values,).
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = joint * np.log2(classes.sum() * joint / (joint.sum(axis=1)[:, None] * classes))
    scores = np.where(joint > 0, terms, 0.0).sum(axis=1)
    if not adjusted:
        return scores
    sizes, place = np.unique(np.rint(joint.sum(axis=1)).astype(np.int64), return_inverse=True)
    whole = np.rint(classes).astype(np.int64)
    total = int(np.rint(classes.sum()))
    expected = np.array([sum(_expected_information(total, size, one) for one in whole.tolist()) for size in sizes])
    return scores - expected[place.reshape(-1)]


def _expected_information(n: int, x: int, y: int) -> float:
    """Return the expectation of c log2(n c / (x y)) for a hypergeometric c."""
    c = np.arange(max(1, x + y - n), min(x, y) + 1, dtype=np.float64)
    if not len(c):
        return 0.0
    ways = [x, y, n - x, n - y]
    shared = [n, c, x - c, y - c, n - x - y + c]
    log_factorials = sum(_log_factorial(one) for one in ways) - sum(_log_factorial(one) for one in shared)
    return float((c * np.log2(n * c / (x * y)) * np.exp(log_factorials)).sum())


def _log_factorial(values: Any) -> np.ndarray:
    return tf.math.lgamma(tf.constant(values, tf.float64) + 1).numpy()
