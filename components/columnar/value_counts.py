"""How often each value of a column occurs, and how many there are: exact while they are few."""

from __future__ import annotations

from typing import Any

import datasketches
import numpy as np
import pyarrow as pa

# So many values are counted. While there are no more, all is exact. Then the smallest counts are
# subtracted from all, as Misra and Gries do, and a count is too low by rows / KEPT at most
# (Agarwal et al., "Mergeable summaries", PODS 2012). Apache DataSketches' frequent items would do,
# but what they answer depends on how often they were pickled, and so on the runner.
KEPT = 10_000
# HyperLogLog with 2**13 registers: standard error 1.04 / sqrt(2**13) = 1.1% (Flajolet et al., 2007).
HLL_LG_REGISTERS = 13


class ValueCounts:
    """Counts of values: texts, bytes, integers, floats; within the bounds stated above."""

    def __init__(self) -> None:
        self._counts: dict[Any, int] = {}
        self._distinct: datasketches.hll_sketch | None = None

    @property
    def exact(self) -> bool:
        return self._distinct is None

    def add(self, values: pa.Array) -> ValueCounts:
        """Takes in values without nulls."""
        table = values.value_counts()
        self._take(dict(zip(table.field("values").to_pylist(), table.field("counts").to_pylist())))
        return self

    def merge(self, other: ValueCounts) -> ValueCounts:
        if other._distinct is not None:
            self._leave_exactness()
            union = datasketches.hll_union(HLL_LG_REGISTERS)
            union.update(self._distinct)
            union.update(other._distinct)
            self._distinct = union.get_result(datasketches.tgt_hll_type.HLL_8)
        self._take(other._counts)
        return self

    @property
    def distinct(self) -> int:
        """How many different values there are."""
        return len(self._counts) if self.exact else round(self._distinct.get_estimate())

    def top(self, number: int) -> list[tuple[Any, int]]:
        """The most frequent values with their counts, ties in the order of the values."""
        return sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))[:number]

    def _take(self, counts: dict[Any, int]) -> None:
        known = self._counts
        for value, count in counts.items():
            known[value] = known.get(value, 0) + count
        if self._distinct is not None:
            self._see(counts)
        if len(known) > KEPT:
            self._leave_exactness()
            sizes = np.fromiter(known.values(), np.int64, len(known))
            cut = int(np.partition(sizes, -(KEPT + 1))[-(KEPT + 1)])
            self._counts = {value: count - cut for value, count in known.items() if count > cut}

    def _leave_exactness(self) -> None:
        if self._distinct is None:
            self._distinct = datasketches.hll_sketch(HLL_LG_REGISTERS, datasketches.tgt_hll_type.HLL_8)
            self._see(self._counts)

    def _see(self, values: dict[Any, int]) -> None:
        update = self._distinct.update
        for value in values:
            update(value.decode("latin-1") if isinstance(value, bytes) else value)

    def __getstate__(self) -> tuple[dict[Any, int], bytes | None]:
        return self._counts, self._distinct and self._distinct.serialize_compact()

    def __setstate__(self, state: tuple[dict[Any, int], bytes | None]) -> None:
        self._counts, distinct = state
        self._distinct = distinct and datasketches.hll_sketch.deserialize(distinct)
