"""The vocabulary of a column: its values in the order of their counts."""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.data.accumulators.value_counts import ValueCounts

BYTES_PER_VALUE = 256


class Vocabulary:
    """Counts values, strings or integers, or adds the weights of their rows; optionally also the rows with each.

    The order is that of Keras: by count, ties by value, both descending.

    Args:
        max_size: largest size of the vocabulary. By default unlimited.
        min_count: smallest count, or sum of weights, of a value in the vocabulary. 1 allows all values.
        excluded: strings or integers that are never in the vocabulary. Strings that are not UTF-8 are always excluded,
            because vocabularies are stored as text.
        single_lines: exclude strings that do not survive in a file of lines, as Keras's lookup layers write: with line
            breaks, or a trailing NUL.
        count_documents: whether to count for `documents`.
        coverage: smallest number of values of each key in the vocabulary, as far as the data have them, also beyond
            `max_size`, and of values below `min_count`.
        coverage_key: regular expression that finds the key of a value: its first group, or the whole match.
    """

    ACCEPTS_ARROW = True  # `add` accepts Arrow arrays too, for a column that enters the layer directly

    def __init__(
        self,
        max_size: int | None = None,
        min_count: int = 1,
        excluded: Iterable[Any] = (),
        single_lines: bool = False,
        count_documents: bool = False,
        coverage: int = 0,
        coverage_key: str = "",
    ) -> None:
        self._max_size, self._min_count, self._single_lines = max_size, min_count, single_lines
        self._excluded = {one.encode() if isinstance(one, str) else one for one in excluded} - {None}
        self._counts = ValueCounts(max_values=None, estimate_distinct=False)
        self._documents = ValueCounts(max_values=None, estimate_distinct=False) if count_documents else None
        self._coverage, self._coverage_key = coverage, coverage_key
        self.rows = 0

    def limit(self, values: int) -> None:
        """Bound the number of distinct values that are counted; see `error`."""
        for counts in [self._counts, *([] if self._documents is None else [self._documents])]:
            counts.limit(values, values * BYTES_PER_VALUE)

    @property
    def error(self) -> int:
        """Upper bound of the undercount of a value. 0 unless the limit was reached.

        A value whose count exceeds that of the vocabulary's last by more than this is in the vocabulary.
        """
        return self._counts.error

    def add(self, *columns: Any, **beside: Any) -> None:
        """Add strings or integers: NumPy arrays (rows, ...), Arrow arrays (rows,), ragged tensors (rows, None).

        Args:
            **beside: the weight of each row, `sample_weight` (rows,): always, or never.
        """
        for values in columns:
            self._add(values, beside.get("sample_weight"))

    def _add(self, values: Any, sample_weight: np.ndarray | None) -> None:
        flat, row_of, rows = flat_values(values)
        if sample_weight is None:
            self._counts.add(flat)
        else:
            weighted = flat.dictionary_encode()
            weights = np.asarray(sample_weight, np.float64).reshape(-1)[row_of]
            sums = np.bincount(weighted.indices.to_numpy(), weights, len(weighted.dictionary))
            self._counts.add_counted(weighted.dictionary, pa.array(sums))
        self.rows += rows
        if self._documents is not None:
            found = flat.dictionary_encode()
            # A value counts once in a row. A number encodes each pair of row and value.
            pairs = np.sort(row_of * len(found.dictionary) + found.indices.to_numpy(), kind="stable")
            pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # np.unique would take many times as long
            counts = np.bincount(pairs % max(len(found.dictionary), 1), minlength=len(found.dictionary))
            self._documents.add_counted(found.dictionary, pa.array(counts, pa.int64()))

    def merge(self, other: Vocabulary) -> None:
        self.rows += other.rows
        self._counts.merge(other._counts)
        if self._documents is not None and other._documents is not None:
            self._documents.merge(other._documents)

    def values(self) -> list[Any]:
        """Return the vocabulary in its order: strings or integers."""
        return [value for value, _ in self.readable()]

    def documents(self) -> np.ndarray | None:
        """Return the number of rows that contain each value of the vocabulary. None if not counted."""
        values = self.values()
        if self._documents is None or not values:
            return None if self._documents is None else np.empty(0, np.int64)
        rows_with = self._documents.table()
        vocabulary = pa.array([v.encode() if isinstance(v, str) else v for v in values])
        index = pc.index_in(vocabulary.cast(rows_with["values"].type), rows_with["values"].combine_chunks())
        counts = rows_with["counts"].take(index)  # null for a value that the limit dropped
        return counts.fill_null(self._documents.error).to_numpy()

    def readable(self) -> list[tuple[Any, Any]]:
        top: list[tuple[Any, Any]] = []
        key_of, in_key = re.compile(self._coverage_key), collections.Counter[str]()
        for value, count, is_frequent in self._ordered():
            enters = is_frequent and (self._max_size is None or len(top) < self._max_size)
            if not enters and not self._coverage:
                break
            if value in self._excluded or not self._is_storable(text := _decode(value)):
                continue
            found = key_of.search(str(text)) if self._coverage else None
            key = (found[1 if key_of.groups else 0] or "") if found else ""
            if enters or in_key[key] < self._coverage:
                top.append((text, count))
                in_key[key] += 1
        return top

    def _is_storable(self, text: Any) -> bool:
        if text is None or not (self._single_lines and isinstance(text, str)):
            return text is not None
        return text.splitlines() == [text] and not text.endswith("\0")

    def _ordered(self) -> Iterator[tuple[Any, Any, bool]]:
        """Yield each value with its count or weight, in the order of the vocabulary, and whether it is frequent."""
        counts = self._counts.table()
        counts = counts.filter(pc.greater(counts["counts"], 0))
        counts = counts.append_column("frequent", self._are_frequent(counts["counts"]))
        if not self._coverage:
            counts = counts.filter(counts["frequent"])
        counts = counts.sort_by([("counts", "descending"), ("values", "descending")])
        for batch in counts.to_batches(max_chunksize=1024):
            yield from zip(*(column.to_pylist() for column in batch.columns))

    def _are_frequent(self, counts: pa.Array) -> pa.Array:
        """Return which counts or weights are large enough. Weights may be less than the smallest count, 1."""
        return pc.greater_equal(counts, self._min_count if self._min_count > 1 else 0)


def flat_values(values: Any) -> tuple[pa.Array, np.ndarray, int]:
    """Return all values, the row of each, and the number of rows."""
    if isinstance(values, pa.Array):
        return values, np.arange(len(values)), len(values)
    if hasattr(values, "flat_values"):  # a ragged tensor
        return _as_arrow(values.flat_values.numpy()), values.value_rowids().numpy(), int(values.nrows())
    array = np.asarray(values)
    row_of = np.repeat(np.arange(len(array)), array.size // max(len(array), 1))
    return _as_arrow(array.reshape(-1)), row_of, len(array)


def _as_arrow(values: np.ndarray) -> pa.Array:
    if values.dtype.kind in "OSU":
        return pa.array(values).cast(pa.large_binary())
    return pa.array(values).cast(pa.int64())


def _decode(value: Any) -> Any:
    """Decode bytes. None if they are not UTF-8."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
