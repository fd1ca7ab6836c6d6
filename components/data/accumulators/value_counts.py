"""Counts of the values of a column, and their number: exact if there are few."""

from __future__ import annotations

from typing import Any

import datasketches
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# Default bounds on the number of distinct values and on their bytes. Up to the bounds, all counts are exact. Beyond,
# the smallest counts are subtracted from all, as Misra and Gries do, and a count is too low by at most rows/MAX_VALUES
# (Agarwal et al., "Mergeable summaries", PODS 2012). The frequent items of Apache DataSketches are no alternative:
# their results depend on how often they were pickled, and so on the runner.
MAX_VALUES = 10_000
MAX_BYTES = 8 << 20
# HyperLogLog with 2**13 registers: standard error 1.04 / sqrt(2**13) = 1.1% (Flajolet et al., 2007).
HLL_LG_REGISTERS = 13
# Counts are merged when there are this many of them, or of their parts.
MAX_PENDING = 2 * MAX_VALUES
MAX_PENDING_PARTS = 64


class ValueCounts:
    """Counts values of one type: strings, bytes or numbers.

    Args:
        max_values: largest number of distinct values to count. Beyond, counts are too low by at most `error`. None
            counts all values, regardless of memory.
        max_bytes: largest memory for the distinct values, unless `max_values` is None.
        estimate_distinct: whether to maintain a sketch for `distinct`, once values are dropped.
    """

    def __init__(
        self, max_values: int | None = MAX_VALUES, max_bytes: int = MAX_BYTES, estimate_distinct: bool = True
    ) -> None:
        self._max_values, self._max_bytes = max_values, max_bytes
        self._estimates = estimate_distinct
        self._parts: list[pa.Table] = []  # with `values` and `counts`; a value may be in several
        self._merged = 0  # number of rows of the first part, in which each value is unique
        self._distinct: datasketches.hll_sketch | None = None
        self._error = 0

    def limit(self, max_values: int, max_bytes: int) -> None:
        """Set new bounds for the values that follow."""
        self._max_values, self._max_bytes = max_values, max_bytes

    @property
    def exact(self) -> bool:
        self._merge_parts()
        return not self._error

    @property
    def error(self) -> int:
        """Upper bound of the undercount of a value, and of the count of a dropped value."""
        self._merge_parts()
        return self._error

    def add(self, values: pa.Array) -> ValueCounts:
        """Add values without nulls."""
        found = values.value_counts()
        return self.add_counted(found.field("values"), found.field("counts"))

    def add_counted(self, values: pa.Array, counts: pa.Array) -> ValueCounts:
        """Add values with their counts (int64), or with their weights (float64), always of one type."""
        self._take([pa.table([values, counts], names=["values", "counts"])])
        return self

    def merge(self, other: ValueCounts) -> ValueCounts:
        self._error += other._error
        if other._distinct is not None:
            self._start_estimate()
            union = datasketches.hll_union(HLL_LG_REGISTERS)
            union.update(self._distinct)
            union.update(other._distinct)
            self._distinct = union.get_result(datasketches.tgt_hll_type.HLL_8)
        self._take(other._parts)
        return self

    @property
    def distinct(self) -> int:
        """Number of distinct values."""
        counts = self._merge_parts()
        return len(counts) if self._distinct is None else round(self._distinct.get_estimate())

    def top(self, number: int) -> list[tuple[Any, int]]:
        """Return the most frequent values with their counts. Ties are in the order of the values."""
        counts = self.table().sort_by([("counts", "descending"), ("values", "ascending")])[:number]
        return list(zip(counts["values"].to_pylist(), counts["counts"].to_pylist()))

    def table(self) -> pa.Table:
        """Return a table with a row for each value, unordered, and the columns `values` and `counts`."""
        return self._merge_parts()

    def _take(self, parts: list[pa.Table]) -> None:
        if self._distinct is not None:
            for part in parts:
                self._update_estimate(part)
        self._parts += parts
        # Merging takes time proportional to all values, so wait until their number has about doubled.
        pending = sum(map(len, self._parts)) - self._merged
        if pending > max(MAX_PENDING, self._merged) or (
            len(self._parts) > MAX_PENDING_PARTS and pending > self._merged
        ):
            self._merge_parts()
        elif self._max_values is not None and sum(part.nbytes for part in self._parts) > self._max_bytes:
            self._merge_parts()

    def _merge_parts(self) -> pa.Table:
        """Merge the parts into one table with a row for each value. Drop the rarest values if there are too many."""
        if len(self._parts) != 1:
            self._parts = [_merge_tables(self._parts)]
        (counts,) = self._parts
        room = self._room(counts)
        if len(counts) > room:
            if self._estimates:
                self._start_estimate()
            sizes = counts["counts"].to_numpy()
            cut = np.partition(sizes, -(room + 1))[-(room + 1)].item()
            counts = counts.filter(pa.array(sizes > cut)).combine_chunks()
            self._parts = [counts.set_column(1, "counts", pc.subtract(counts["counts"], cut))]
            self._error += cut
        self._merged = len(self._parts[0])
        return self._parts[0]

    def _room(self, counts: pa.Table) -> int:
        """Return how many of these values may be kept."""
        if self._max_values is None:
            return len(counts)
        if counts.nbytes <= self._max_bytes:
            return self._max_values
        return min(self._max_values, self._max_bytes * len(counts) // counts.nbytes)

    def _start_estimate(self) -> None:
        if self._distinct is None:
            self._distinct = datasketches.hll_sketch(HLL_LG_REGISTERS, datasketches.tgt_hll_type.HLL_8)
            for part in self._parts:
                self._update_estimate(part)

    def _update_estimate(self, part: pa.Table) -> None:
        assert self._distinct is not None
        update = self._distinct.update
        for value in part["values"].to_pylist():
            update(value.decode("latin-1") if isinstance(value, bytes) else value)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_distinct": self._distinct and self._distinct.serialize_compact()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._distinct = self._distinct and datasketches.hll_sketch.deserialize(self._distinct)


def _merge_tables(parts: list[pa.Table]) -> pa.Table:
    """Return one table of one chunk with a row for each value. Arrow's `group_by` would take four times as long."""
    if not parts:
        return pa.table({"values": pa.nulls(0), "counts": pa.array([], pa.int64())})
    all_parts = pa.concat_tables(parts).combine_chunks()
    found = all_parts["values"].combine_chunks().dictionary_encode()
    counts = np.zeros(len(found.dictionary), all_parts["counts"].type.to_pandas_dtype())
    np.add.at(counts, found.indices.to_numpy(), all_parts["counts"].to_numpy())
    return pa.table({"values": found.dictionary, "counts": counts})
