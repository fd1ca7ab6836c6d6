"""How often each value of a column occurs, and how many there are: exact while they are few."""

from __future__ import annotations

from typing import Any

import datasketches
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

# So many values are counted, or as many as have so many bytes. While there are no more, all is
# exact. Then the smallest counts are subtracted from all, as Misra and Gries do, and a count is too
# low by rows / KEPT at most (Agarwal et al., "Mergeable summaries", PODS 2012). Apache DataSketches'
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
    """Counts of values: texts, bytes, numbers; all of one type; within the bounds stated above."""

    def __init__(self) -> None:
        self._parts: list[pa.Table] = []  # of `values` and `counts`; a value may stand in several
        self._distinct: datasketches.hll_sketch | None = None

    @property
    def exact(self) -> bool:
        self._settle()
        return self._distinct is None

    def add(self, values: pa.Array) -> ValueCounts:
        """Takes in values without nulls."""
        found = values.value_counts()
        self._take([pa.table([found.field("values"), found.field("counts")], names=["values", "counts"])])
        return self

    def merge(self, other: ValueCounts) -> ValueCounts:
        if other._distinct is not None:
            self._leave_exactness()
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
        counts = self._settle().sort_by([("counts", "descending"), ("values", "ascending")])[:number]
        return list(zip(counts["values"].to_pylist(), counts["counts"].to_pylist()))

    def _take(self, parts: list[pa.Table]) -> None:
        if self._distinct is not None:
            for part in parts:
                self._see(part)
        self._parts += parts
        many = len(self._parts) > WAITING_PARTS or sum(map(len, self._parts)) > WAITING
        if many or sum(part.nbytes for part in self._parts) > KEPT_BYTES:
            self._settle()

    def _settle(self) -> pa.Table:
        """Brings the parts together: a row a value, the most frequent if there are too many."""
        if len(self._parts) != 1:
            empty = pa.table({"values": pa.nulls(0), "counts": pa.array([], pa.int64())})
            counts = pa.concat_tables(self._parts) if self._parts else empty
            counts = counts.group_by("values", use_threads=False).aggregate([("counts", "sum")])
            self._parts = [counts.rename_columns({"counts_sum": "counts"})]
        (counts,) = self._parts
        most = KEPT if counts.nbytes <= KEPT_BYTES else min(KEPT, KEPT_BYTES * len(counts) // counts.nbytes)
        if len(counts) > most:
            self._leave_exactness()
            sizes = counts["counts"].to_numpy()
            cut = int(np.partition(sizes, -(most + 1))[-(most + 1)])
            counts = counts.filter(pa.array(sizes > cut)).combine_chunks()
            less = pc.subtract(counts["counts"], cut)
            self._parts = [counts.set_column(1, "counts", less)]
        return self._parts[0]

    def _leave_exactness(self) -> None:
        if self._distinct is None:
            self._distinct = datasketches.hll_sketch(HLL_LG_REGISTERS, datasketches.tgt_hll_type.HLL_8)
            for part in self._parts:
                self._see(part)

    def _see(self, part: pa.Table) -> None:
        update = self._distinct.update
        for value in part["values"].to_pylist():
            update(value.decode("latin-1") if isinstance(value, bytes) else value)

    def __getstate__(self) -> tuple[list[pa.Table], bytes | None]:
        return self._parts, self._distinct and self._distinct.serialize_compact()

    def __setstate__(self, state: tuple[list[pa.Table], bytes | None]) -> None:
        self._parts, distinct = state
        self._distinct = distinct and datasketches.hll_sketch.deserialize(distinct)
