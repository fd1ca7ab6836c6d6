"""How often each value of a column occurs, and how many there are: exact while they are few."""

from __future__ import annotations

from typing import Any

import datasketches
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# By default so many values are counted, or as many as have so many bytes. While there are no more,
# all is exact. Then the smallest counts are subtracted from all, as Misra and Gries do, and a count is
# too low by rows / KEPT at most (Agarwal et al., "Mergeable summaries", PODS 2012). Apache DataSketches'
# frequent items would do, but what they answer depends on how often they were pickled, and so on
# the runner.
KEPT = 10_000
KEPT_BYTES = 8 << 20
# HyperLogLog with 2**13 registers: standard error 1.04 / sqrt(2**13) = 1.1% (Flajolet et al., 2007).
HLL_LG_REGISTERS = 13
# Counts wait, unsorted, until there are so many of them or of their parts.
WAITING = 2 * KEPT
WAITING_PARTS = 64


class ValueCounts:
    """Counts of values: texts, bytes, numbers; all of one type.

    Args:
        most: how many values are counted at once; beyond, counts are too low by `error` at most.
            None counts all, whatever memory they take.
        most_bytes: the memory that the values counted may take, where `most` is given.
        estimates_distinct: whether `distinct` is asked for; otherwise no sketch is kept for it.
    """

    def __init__(self, most: int | None = KEPT, most_bytes: int = KEPT_BYTES, estimates_distinct: bool = True) -> None:
        self._most, self._most_bytes = most, most_bytes
        self._estimates = estimates_distinct
        self._parts: list[pa.Table] = []  # of `values` and `counts`; a value may stand in several
        self._settled = 0  # rows of the first part, where each value stands once
        self._distinct: datasketches.hll_sketch | None = None
        self._error = 0

    def limit(self, most: int, most_bytes: int) -> None:
        """From now on counts no more values than these."""
        self._most, self._most_bytes = most, most_bytes

    @property
    def exact(self) -> bool:
        self._settle()
        return not self._error

    @property
    def error(self) -> int:
        """By how much a count may be too low; a value not among them occurs no more often."""
        self._settle()
        return self._error

    def add(self, values: pa.Array) -> ValueCounts:
        """Takes in values without nulls."""
        found = values.value_counts()
        return self.add_counted(found.field("values"), found.field("counts"))

    def add_counted(self, values: pa.Array, counts: pa.Array) -> ValueCounts:
        """Takes in values, each so many times (int64)."""
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
        """How many different values there are."""
        counts = self._settle()
        return len(counts) if self._distinct is None else round(self._distinct.get_estimate())

    def top(self, number: int) -> list[tuple[Any, int]]:
        """The most frequent values with their counts, ties in the order of the values."""
        counts = self.table().sort_by([("counts", "descending"), ("values", "ascending")])[:number]
        return list(zip(counts["values"].to_pylist(), counts["counts"].to_pylist()))

    def table(self) -> pa.Table:
        """A row for each value: `values`, `counts`; in no order."""
        return self._settle()

    def _take(self, parts: list[pa.Table]) -> None:
        if self._distinct is not None:
            for part in parts:
                self._see(part)
        self._parts += parts
        # Bringing together costs as much as all values: not before they have about doubled.
        waiting = sum(map(len, self._parts)) - self._settled
        if waiting > max(WAITING, self._settled) or (len(self._parts) > WAITING_PARTS and waiting > self._settled):
            self._settle()
        elif self._most is not None and sum(part.nbytes for part in self._parts) > self._most_bytes:
            self._settle()

    def _settle(self) -> pa.Table:
        """Brings the parts together: a row a value, the most frequent if there are too many."""
        if len(self._parts) != 1:
            self._parts = [_together(self._parts)]
        (counts,) = self._parts
        most = self._room(counts)
        if len(counts) > most:
            if self._estimates:
                self._start_estimate()
            sizes = counts["counts"].to_numpy()
            cut = int(np.partition(sizes, -(most + 1))[-(most + 1)])
            counts = counts.filter(pa.array(sizes > cut)).combine_chunks()
            self._parts = [counts.set_column(1, "counts", pc.subtract(counts["counts"], cut))]
            self._error += cut
        self._settled = len(self._parts[0])
        return self._parts[0]

    def _room(self, counts: pa.Table) -> int:
        """How many of these values may be kept."""
        if self._most is None:
            return len(counts)
        if counts.nbytes <= self._most_bytes:
            return self._most
        return min(self._most, self._most_bytes * len(counts) // counts.nbytes)

    def _start_estimate(self) -> None:
        if self._distinct is None:
            self._distinct = datasketches.hll_sketch(HLL_LG_REGISTERS, datasketches.tgt_hll_type.HLL_8)
            for part in self._parts:
                self._see(part)

    def _see(self, part: pa.Table) -> None:
        update = self._distinct.update
        for value in part["values"].to_pylist():
            update(value.decode("latin-1") if isinstance(value, bytes) else value)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_distinct": self._distinct and self._distinct.serialize_compact()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._distinct = self._distinct and datasketches.hll_sketch.deserialize(self._distinct)


def _together(parts: list[pa.Table]) -> pa.Table:
    """One table of one chunk, a row a value. Arrow's `group_by` does the same in four times the time."""
    if not parts:
        return pa.table({"values": pa.nulls(0), "counts": pa.array([], pa.int64())})
    all_parts = pa.concat_tables(parts).combine_chunks()
    found = all_parts["values"].combine_chunks().dictionary_encode()
    counts = np.zeros(len(found.dictionary), np.int64)
    np.add.at(counts, found.indices.to_numpy(), all_parts["counts"].to_numpy())
    return pa.table({"values": found.dictionary, "counts": counts})
