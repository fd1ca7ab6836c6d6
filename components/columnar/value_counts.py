"""How often each value of a column occurs, and how many there are: exact while they are few."""

from __future__ import annotations

from typing import Any

import datasketches
import pyarrow as pa

# Up to so many distinct values all is exact; then Apache DataSketches take over.
EXACT = 10_000
# HyperLogLog with 2**13 registers: standard error 1.04 / sqrt(2**13) = 1.1% (Flajolet et al., 2007).
HLL_LG_REGISTERS = 13
# Frequent items in a map of 2**13: a count is too high by 3.5 / 2**13 = 0.043% of all values at
# most, and no value more frequent than that is missed (Anderson et al., IMC 2017).
FREQUENT_LG_SIZE = 13


class ValueCounts:
    """Counts of values; texts, bytes, integers, floats.

    Exact up to `EXACT` distinct values, then within the bounds stated above.
    """

    def __init__(self) -> None:
        self._exact: dict[Any, int] | None = {}
        self._distinct: datasketches.hll_sketch | None = None
        self._frequent: datasketches.frequent_strings_sketch | None = None
        self._made: type = str  # what a text of the sketch is made back into

    @property
    def exact(self) -> bool:
        return self._exact is not None

    def add(self, values: pa.Array) -> ValueCounts:
        """Takes in values without nulls."""
        table = values.value_counts()
        distinct = table.field("values").to_pylist()
        self._take(distinct, table.field("counts").to_pylist())
        return self

    def merge(self, other: ValueCounts) -> ValueCounts:
        if other._exact is not None:
            self._take(list(other._exact), list(other._exact.values()))
            return self
        self._leave_exactness()
        union = datasketches.hll_union(HLL_LG_REGISTERS)
        union.update(self._distinct)
        union.update(other._distinct)
        self._distinct = union.get_result(datasketches.tgt_hll_type.HLL_8)
        self._frequent.merge(other._frequent)
        self._made = other._made
        return self

    @property
    def distinct(self) -> int:
        """How many different values there are."""
        return len(self._exact) if self._exact is not None else round(self._distinct.get_estimate())

    def top(self, number: int) -> list[tuple[Any, int]]:
        """The most frequent values with their counts, ties in the order of the values."""
        if self._exact is not None:
            counts = list(self._exact.items())
        else:
            kind = datasketches.frequent_items_error_type.NO_FALSE_NEGATIVES
            found = self._frequent.get_frequent_items(kind)
            counts = [(self._made(text), estimate) for text, estimate, _low, _high in found]
        return sorted(counts, key=lambda item: (-item[1], item[0]))[:number]

    def _take(self, values: list[Any], counts: list[int]) -> None:
        if self._exact is not None:
            known = self._exact
            for value, count in zip(values, counts):
                known[value] = known.get(value, 0) + count
            if len(known) > EXACT:
                self._leave_exactness()
            return
        see, weigh = self._distinct.update, self._frequent.update
        for value, count in zip(values, counts):
            see(text := _text(value))
            weigh(text, count)
        if values:
            self._made = _maker(values[0])

    def _leave_exactness(self) -> None:
        if self._exact is None:
            return
        values, counts = list(self._exact), list(self._exact.values())
        self._exact = None
        self._distinct = datasketches.hll_sketch(HLL_LG_REGISTERS, datasketches.tgt_hll_type.HLL_8)
        self._frequent = datasketches.frequent_strings_sketch(FREQUENT_LG_SIZE)
        self._take(values, counts)

    def __getstate__(self) -> tuple[Any, ...]:
        if self._exact is not None:
            return self._exact, None, None, self._made
        return None, self._distinct.serialize_compact(), self._frequent.serialize(), self._made

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        self._exact, distinct, frequent, self._made = state
        self._distinct = self._frequent = None
        if distinct is not None:
            self._distinct = datasketches.hll_sketch.deserialize(distinct)
            self._frequent = datasketches.frequent_strings_sketch.deserialize(frequent)


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _maker(value: Any) -> Any:
    return _from_latin if isinstance(value, bytes) else type(value)


def _from_latin(text: str) -> bytes:
    return text.encode("latin-1")
