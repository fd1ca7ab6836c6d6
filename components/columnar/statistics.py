"""Mergeable statistics of columns: one pass over the rows, in any number of pieces and any order."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import datasketches
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.columnar.hashing import row_hashes

# Rank error of a quantile: 1.33% for k=200 (Karnin, Lang, Liberty, FOCS 2016); here 0.28%.
KLL_K = 1024
DISTINCT_KEPT = 10_000
KMV_K = 4096


@dataclass
class Moments:
    """Count, mean and sum of squared deviations, merged by Chan, Golub and LeVeque (1979)."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    @classmethod
    def of(cls, values: np.ndarray) -> Moments:
        if not len(values):
            return cls()
        mean = float(values.mean(dtype=np.float64))
        return cls(len(values), mean, float(np.square(values - mean, dtype=np.float64).sum()))

    def merge(self, other: Moments) -> Moments:
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        self.mean += delta * other.count / count
        self.m2 += other.m2 + delta * delta * self.count * other.count / count
        self.count = count
        return self

    @property
    def std(self) -> float:
        """The population's standard deviation."""
        return float(np.sqrt(self.m2 / self.count)) if self.count else 0.0


class ValueCounts:
    """How often each value occurs: exact up to `DISTINCT_KEPT` values, then the frequent ones.

    Beyond that, the smallest counts are subtracted from all, as Misra and Gries do; a count is
    then too low by at most rows / DISTINCT_KEPT (Agarwal et al., "Mergeable summaries", PODS
    2012). The number of distinct values is estimated from the `KMV_K` smallest hashes
    (Bar-Yossef et al., 2002; standard error 1.6%).
    """

    def __init__(self) -> None:
        self.counts: dict[object, int] = {}
        self.exact = True
        self._smallest = np.empty(0, np.uint64)

    def add(self, values: pa.Array) -> ValueCounts:
        table = values.value_counts()
        distinct = table.field("values")
        hashes = row_hashes(pa.record_batch([distinct], names=["value"]))
        self._fold(dict(zip(distinct.to_pylist(), table.field("counts").to_pylist())), hashes)
        return self

    def merge(self, other: ValueCounts) -> ValueCounts:
        self.exact &= other.exact
        self._fold(other.counts, other._smallest)
        return self

    @property
    def distinct(self) -> int:
        if self.exact:
            return len(self.counts)
        return int((KMV_K - 1) / (float(self._smallest[KMV_K - 1]) / 2.0**64))

    def top(self, number: int) -> list[tuple[object, int]]:
        """The most frequent values with their counts, ties by value."""
        return sorted(self.counts.items(), key=lambda item: (-item[1], item[0]))[:number]

    def _fold(self, counts: dict[object, int], hashes: np.ndarray) -> None:
        for value, count in counts.items():
            self.counts[value] = self.counts.get(value, 0) + count
        self._smallest = np.unique(np.concatenate([self._smallest, hashes]))[:KMV_K]
        if len(self.counts) > DISTINCT_KEPT:
            self.exact = False
            sizes = np.fromiter(self.counts.values(), np.int64, len(self.counts))
            cut = int(np.partition(sizes, -(DISTINCT_KEPT + 1))[-(DISTINCT_KEPT + 1)])
            self.counts = {v: c - cut for v, c in self.counts.items() if c > cut}


@dataclass
class NumberSummary:
    """The distribution of numbers, NaN left out and infinities counted apart."""

    moments: Moments = field(default_factory=Moments)
    zeros: int = 0
    non_finite: int = 0
    minimum: float = np.inf
    maximum: float = -np.inf
    sketch: bytes = b""

    def add(self, values: np.ndarray) -> NumberSummary:
        finite = values[np.isfinite(values)]
        self.non_finite += len(values) - len(finite)
        if len(finite):
            self.moments.merge(Moments.of(finite))
            self.zeros += int((finite == 0).sum())
            self.minimum = min(self.minimum, float(finite.min()))
            self.maximum = max(self.maximum, float(finite.max()))
            sketch = self._quantiles()
            sketch.update(finite.astype(np.float64))
            self.sketch = sketch.serialize()
        return self

    def merge(self, other: NumberSummary) -> NumberSummary:
        self.moments.merge(other.moments)
        self.zeros += other.zeros
        self.non_finite += other.non_finite
        self.minimum = min(self.minimum, other.minimum)
        self.maximum = max(self.maximum, other.maximum)
        sketch = self._quantiles()
        if other.sketch:
            sketch.merge(other._quantiles())
            self.sketch = sketch.serialize()
        return self

    def quantiles(self, ranks: Iterable[float]) -> list[float]:
        """Values at ranks in [0, 1]; exact for up to `KLL_K` numbers, then within 0.28% of rank."""
        return [float(v) for v in self._quantiles().get_quantiles(list(ranks), True)]

    def shares_below(self, bounds: Iterable[float]) -> list[float]:
        """The share of numbers up to each bound."""
        return list(self._quantiles().get_cdf(list(bounds), True))[:-1]

    def _quantiles(self) -> datasketches.kll_doubles_sketch:
        if self.sketch:
            return datasketches.kll_doubles_sketch.deserialize(self.sketch)
        return datasketches.kll_doubles_sketch(KLL_K)


@dataclass
class ColumnSummary:
    """All that is kept of one column.

    Attributes:
        kind: INT, FLOAT or STRING; NONE while only nulls were seen.
        missing: rows without a value: null, or NaN in a float.
        values: how many values the present rows hold: their number, or more for lists and tensors.
    """

    kind: str
    shape: tuple[int, ...] | None = None
    rows: int = 0
    missing: int = 0
    values: int = 0
    least_values: int | None = None
    most_values: int = 0
    text_bytes: int = 0
    numbers: NumberSummary = field(default_factory=NumberSummary)
    counts: ValueCounts = field(default_factory=ValueCounts)

    @classmethod
    def of(cls, column: pa.Array) -> ColumnSummary:
        """The summary of one column of one batch."""
        shape = tuple(column.type.shape) if isinstance(column.type, pa.FixedShapeTensorType) else None
        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        listed = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
        listed |= pa.types.is_fixed_size_list(column.type)
        present = column.drop_null()
        values = present.flatten() if listed else present
        if pa.types.is_floating(values.type) and not listed:
            values = values.filter(pc.invert(pc.is_nan(values)))
        summary = cls(_kind(values.type), shape, len(column), len(column) - len(present))
        if not listed:
            summary.missing = len(column) - len(values)
        summary.values = len(values)
        if len(present):
            lengths = pc.min_max(pc.list_value_length(present)).as_py() if listed else {"min": 1, "max": 1}  # fmt: skip
            summary.least_values, summary.most_values = lengths["min"], lengths["max"]
        if summary.kind == "STRING":
            summary.counts.add(values.drop_null())
            summary.text_bytes = pc.sum(pc.binary_length(values)).as_py() or 0
        elif summary.kind != "NONE":
            summary.numbers.add(values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False))
        return summary

    def merge(self, other: ColumnSummary) -> ColumnSummary:
        if self.kind == "NONE":
            self.kind = other.kind
        self.rows += other.rows
        self.missing += other.missing
        self.values += other.values
        if other.least_values is not None:
            mine = other.least_values if self.least_values is None else self.least_values
            self.least_values = min(mine, other.least_values)
        self.most_values = max(self.most_values, other.most_values)
        self.text_bytes += other.text_bytes
        self.numbers.merge(other.numbers)
        self.counts.merge(other.counts)
        return self


def _kind(kind: pa.DataType) -> str:
    if pa.types.is_null(kind):
        return "NONE"
    if pa.types.is_floating(kind):
        return "FLOAT"
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "INT"
    return "STRING"
