"""The most frequent value of each feature."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.data.accumulators.value_counts import ValueCounts
from kerasline.components.data.accumulators.vocabulary import BYTES_PER_VALUE


class MostFrequent:
    """The most frequent value of each feature on the last axis. Of equally frequent values, the smallest.

    Args:
        features: size of the last axis, or 1 to treat all values as one feature.
        may_be_missing: whether -1 is a missing integer, which is not counted.
    """

    def __init__(self, features: int, may_be_missing: bool = True) -> None:
        self._may_be_missing = may_be_missing
        self._counts = [ValueCounts(max_values=None, estimate_distinct=False) for _ in range(features)]

    def limit(self, values: int) -> None:
        """Bound the number of distinct values that are counted for each feature."""
        for counts in self._counts:
            counts.limit(values, values * BYTES_PER_VALUE)

    @property
    def error(self) -> int:
        """Upper bound of the undercount of a value."""
        return max(counts.error for counts in self._counts)

    def add(self, values: np.ndarray) -> None:
        columns = np.asarray(values).reshape(-1, len(self._counts)).T
        for counts, column in zip(self._counts, columns):
            if column.dtype == object:
                column = pa.array(column).cast(pa.large_binary())
                counts.add(column.filter(pc.not_equal(column, b"")))
            else:
                is_missing = column == -1 if self._may_be_missing and column.dtype.kind == "i" else False
                counts.add(pa.array(column[np.isfinite(column) & ~np.asarray(is_missing)]))

    def merge(self, other: MostFrequent) -> None:
        for ours, theirs in zip(self._counts, other._counts):
            ours.merge(theirs)

    def values(self) -> list[Any]:
        """Return the value of each feature. None if a feature has no values."""
        return [value for value, _ in self.readable()]

    def readable(self) -> list[tuple[Any, int]]:
        tops = [counts.top(1) for counts in self._counts]
        return [(_text(*top[0]) if top else (None, 0)) for top in tops]


def _text(value: Any, count: int) -> tuple[Any, int]:
    return (value.decode(errors="replace") if isinstance(value, bytes) else value), count
