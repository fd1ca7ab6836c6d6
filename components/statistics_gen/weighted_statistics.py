"""The statistics of a feature when rows have weights, such as how many rows of the population each stands for."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.data.accumulators.moments import Moments
from kerasline.components.data.accumulators.value_counts import ValueCounts
from kerasline.components.data.arrow_types import is_list

# Number of values that represent a block of numbers. The rank error of n numbers is at most log2(n / 4096) / 8192.
QUANTILE_LEVEL = 4096


class WeightedQuantiles:
    """Values with weights in bounded memory, deterministic.

    A level holds a block of values. Two blocks of a level become one of the next, in which `QUANTILE_LEVEL` values of
    equal weight represent them.
    """

    def __init__(self) -> None:
        self._levels: list[np.ndarray] = []  # (n, 2): values and weights

    def add(self, values: np.ndarray, weights: np.ndarray) -> None:
        pairs = np.stack([values, weights], axis=1)
        for first in range(0, len(pairs), QUANTILE_LEVEL):
            self._put(0, pairs[first : first + QUANTILE_LEVEL])

    def merge(self, other: WeightedQuantiles) -> None:
        for level, pairs in enumerate(other._levels):
            self._put(level, pairs)

    @property
    def median(self) -> float:
        """The value with half of the weight below and above; the mean of two values that share this place."""
        pairs = _sorted(np.concatenate(self._levels))
        pairs = pairs[pairs[:, 1] > 0]
        below = np.cumsum(pairs[:, 1])
        half = below[-1] / 2
        place = np.searchsorted(below, half * (1 - 1e-12))
        following = min(place + (below[place] <= half * (1 + 1e-12)), len(pairs) - 1)
        return float(pairs[place, 0] / 2 + pairs[following, 0] / 2)

    def _put(self, level: int, pairs: np.ndarray) -> None:
        while len(self._levels) <= level:
            self._levels.append(np.empty((0, 2)))
        held = np.concatenate([self._levels[level], pairs])
        if len(held) <= QUANTILE_LEVEL:
            self._levels[level] = held
            return
        self._levels[level] = np.empty((0, 2))
        held = _sorted(held)
        below = np.cumsum(held[:, 1])
        targets = (np.arange(QUANTILE_LEVEL) + 0.5) / QUANTILE_LEVEL * below[-1]
        chosen = held[np.minimum(np.searchsorted(below, targets), len(held) - 1), 0]
        self._put(level + 1, np.stack([chosen, np.full(QUANTILE_LEVEL, below[-1] / QUANTILE_LEVEL)], axis=1))


def _sorted(pairs: np.ndarray) -> np.ndarray:
    return pairs[np.argsort(pairs[:, 0], kind="stable")]


@dataclass
class WeightedSummary:
    """Weighted statistics of one feature. A value has the weight of its row.

    Attributes:
        missing, present: sums of the weights of the rows without and with a value.
        values: sum of the weights of all values.
        moments: those of the finite numbers.
        quantiles: the finite numbers.
        counts: sums of the weights of each distinct text or integer.
    """

    missing: float = 0.0
    present: float = 0.0
    values: float = 0.0
    moments: Moments = field(default_factory=Moments)
    quantiles: WeightedQuantiles = field(default_factory=WeightedQuantiles)
    counts: ValueCounts = field(default_factory=lambda: ValueCounts(estimate_distinct=False))

    @classmethod
    def of(cls, column: pa.Array, weights: np.ndarray) -> WeightedSummary:
        """Return the statistics of a column of one batch.

        Args:
            weights: float64 (rows,).
        """
        column = column.storage if isinstance(column, pa.ExtensionArray) else column
        absent = column.is_null(nan_is_null=pa.types.is_floating(column.type)).to_numpy(zero_copy_only=False)
        summary = cls(float(weights[absent].sum()), float(weights[~absent].sum()))
        weights = np.where(absent, 0, weights) if not is_list(column.type) else weights
        while is_list(column.type):
            weights, column = weights[pc.list_parent_indices(column).to_numpy()], column.flatten()
        present = column.is_valid().to_numpy(zero_copy_only=False)
        weights, values = weights[present], column.drop_null()
        summary.values = float(weights.sum())
        kind = values.type
        if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
            numbers = values.cast(pa.float64(), safe=False).to_numpy(zero_copy_only=False)
            counted = np.isfinite(numbers) & (weights > 0)
            summary.moments.add(numbers[counted], weights[counted])
            summary.quantiles.add(numbers[counted], weights[counted])
        if not pa.types.is_floating(kind) and not pa.types.is_binary(kind) and len(values):
            found = values.dictionary_encode()
            sums = np.bincount(found.indices.to_numpy(), weights, len(found.dictionary))
            summary.counts.add_counted(found.dictionary, pa.array(sums))
        return summary

    def merge(self, other: WeightedSummary) -> WeightedSummary:
        for name in ("missing", "present", "values"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.moments.merge(other.moments)
        self.quantiles.merge(other.quantiles)
        self.counts.merge(other.counts)
        return self
