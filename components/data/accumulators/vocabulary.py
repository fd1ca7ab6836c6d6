"""The vocabulary of a column: its values by how often they occur."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.data.accumulators.value_counts import ValueCounts

BYTES_A_VALUE = 256


class Vocabulary:
    """Counts values, and on request the rows that have each; texts or whole numbers.

    Args:
        most: how many values the vocabulary has; all by default.
        least: how often a value must occur to be in it.
        left_out: values that are never in it, as texts or numbers. Texts that are no UTF-8 are not
            either: vocabularies are kept as text.
        as_lines: leaves out texts that a file of lines, such as Keras's own lookups keep, does not
            give back: those with line breaks, or a NUL at their end.
        counts_documents: whether `documents` is asked for.

    The order is Keras's: by count, ties by value, both descending.
    """

    TAKES_ARROW = True  # arrays of Arrow as well, where a column needs no layer before this one

    def __init__(
        self,
        most: int | None = None,
        least: int = 1,
        left_out: Iterable[Any] = (),
        as_lines: bool = False,
        counts_documents: bool = False,
    ) -> None:
        self._most, self._least, self._as_lines = most, least, as_lines
        self._left_out = {one.encode() if isinstance(one, str) else one for one in left_out} - {None}
        self._counts = ValueCounts(most=None, estimates_distinct=False)
        self._documents = ValueCounts(most=None, estimates_distinct=False) if counts_documents else None
        self.rows = 0

    def limit(self, values: int) -> None:
        """Counts no more than so many values at once; see `error`."""
        for counts in filter(None, (self._counts, self._documents)):
            counts.limit(values, values * BYTES_A_VALUE)

    @property
    def error(self) -> int:
        """By how much a count may be too low; 0 unless the limit was met.

        A value that occurs more often than the last of the vocabulary by more than this is in it.
        """
        return self._counts.error

    def add(self, values: Any) -> None:
        """Takes texts (str or bytes) or integers: an array of NumPy's (rows, ...) or Arrow's (rows,),
        or a ragged tensor of texts (rows, None)."""
        flat, row_of, rows = _flat(values)
        self._counts.add(flat)
        self.rows += rows
        if self._documents is not None:
            found = flat.dictionary_encode()
            # In each row a value counts once: a pair of row and value as one number.
            pairs = np.sort(row_of * len(found.dictionary) + found.indices.to_numpy(), kind="stable")
            pairs = pairs[np.diff(pairs, prepend=-1) > 0]  # np.unique sorts in many times the time
            counts = np.bincount(pairs % max(len(found.dictionary), 1), minlength=len(found.dictionary))
            self._documents.add_counted(found.dictionary, pa.array(counts, pa.int64()))

    def merge(self, other: Vocabulary) -> None:
        self.rows += other.rows
        self._counts.merge(other._counts)
        if self._documents is not None:
            self._documents.merge(other._documents)

    def values(self) -> list[Any]:
        """The vocabulary in its order: texts, or whole numbers."""
        return [value for value, _ in self.readable()]

    def documents(self) -> np.ndarray | None:
        """How many rows have each value of the vocabulary, in its order; None if not asked for."""
        values = self.values()
        if self._documents is None or not values:
            return None if self._documents is None else np.empty(0, np.int64)
        rows_with = self._documents.table()
        wanted = pa.array([v.encode() if isinstance(v, str) else v for v in values])
        place = pc.index_in(wanted.cast(rows_with["values"].type), rows_with["values"].combine_chunks())
        counts = rows_with["counts"].take(place)  # null for one that the limit left out
        return counts.fill_null(self._documents.error).to_numpy()

    def readable(self) -> list[tuple[Any, int]]:
        kept: list[tuple[Any, int]] = []
        for value, count in self._ordered():
            if len(kept) == self._most:
                break
            if value not in self._left_out and self._can_be_kept(text := _decoded(value)):
                kept.append((text, count))
        return kept

    def _can_be_kept(self, text: Any) -> bool:
        if text is None or not (self._as_lines and isinstance(text, str)):
            return text is not None
        return text.splitlines() == [text] and not text.endswith("\0")

    def _ordered(self) -> Iterator[tuple[Any, int]]:
        counts = self._counts.table()
        counts = counts.filter(pc.greater_equal(counts["counts"], self._least))
        counts = counts.sort_by([("counts", "descending"), ("values", "descending")])
        for batch in counts.to_batches(max_chunksize=1024):
            yield from zip(batch["values"].to_pylist(), batch["counts"].to_pylist())


def _flat(values: Any) -> tuple[pa.Array, np.ndarray, int]:
    """All values, the row of each, and how many rows there are."""
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


def _decoded(value: Any) -> Any:
    """The text; None where it is no UTF-8."""
    if not isinstance(value, bytes):
        return value
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None
