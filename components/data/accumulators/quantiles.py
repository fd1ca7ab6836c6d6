"""Deterministic, mergeable quantiles of a stream in bounded memory.

Randomized sketches, such as KLL, would give other boundaries in each run, and so another model for the same seed. This
is the deterministic compactor of Manku, Rajagopalan and Lindsay (SIGMOD 1998).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasline.components.data.accumulators.weighted_quantiles import WeightedQuantiles

# Number of values that a level holds before it is halved. Up to this many values the result is exact. Halving moves a
# rank by at most half of the new weight, so the rank error for n values is at most log2(n / LEVEL) / LEVEL: 0.04% of
# the rows for a million, 0.1% for a thousand million.
LEVEL = 1 << 14
# Bound on the numbers that all features together hold per level: 8 MB of float64. Up to 64 features have `LEVEL` each.
# More features are exact for fewer numbers, and the error of their ranks is log2(n / level) / level.
MAX_TOTAL_LEVEL = 64 * LEVEL
MIN_LEVEL = 1 << 10


class Quantiles:
    """Keeps values in levels. A value on level l represents 2**l values.

    Args:
        level: number of values that a level holds.
    """

    def __init__(self, level: int = LEVEL) -> None:
        self._capacity = level
        self._levels: list[np.ndarray] = []
        self._halvings = 0

    def add(self, values: np.ndarray) -> None:
        """Add numbers of any shape. NaN is ignored."""
        flat = np.asarray(values, np.float64).reshape(-1)
        flat = flat[~np.isnan(flat)]
        if len(flat) <= self._capacity:
            self._put(0, flat)
            return
        # A large batch is sorted and goes directly to the level where it fits, with one value for each run of 2**level
        # values. The error is smaller than that of repeated halving.
        level = (-(-len(flat) // self._capacity) - 1).bit_length()
        flat.sort()
        whole = len(flat) >> level << level
        self._put(0, flat[whole:])
        self._put(level, flat[self._middle(level) : whole : 1 << level])

    def merge(self, other: Quantiles) -> None:
        for level, values in enumerate(other._levels):
            self._put(level, values)

    @property
    def count(self) -> int:
        return sum(len(values) << level for level, values in enumerate(self._levels))

    def at(self, ranks: np.ndarray) -> np.ndarray:
        """Return, for each share, the smallest value such that at least this share of all values do not exceed it.

        Args:
            ranks: shares in (0, 1] of shape (n,).

        Returns:
            float64 values of shape (n,), or (0,) if there are no values.
        """
        if not self.count:
            return np.empty(0)
        values, below = self._sorted()
        # Tolerate rounding if a share is a whole number of rows.
        counts = np.ceil(np.asarray(ranks) * below[-1] - 1e-9 * below[-1])
        return values[np.minimum(np.searchsorted(below, counts), len(values) - 1)]

    def cumulative_shares(self, bounds: np.ndarray) -> np.ndarray:
        """Return the share of values that do not exceed each bound, shape (n,). There must be at least one value."""
        values, below = self._sorted()
        return np.append(0, below)[np.searchsorted(values, bounds, side="right")] / below[-1]

    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the kept values, sorted, and their cumulative weights."""
        values = np.concatenate(self._levels)
        weights = np.repeat(1 << np.arange(len(self._levels)), [len(v) for v in self._levels])
        order = np.argsort(values, kind="stable")
        return values[order], np.cumsum(weights[order])

    def _put(self, level: int, values: np.ndarray) -> None:
        while len(self._levels) <= level:
            self._levels.append(np.empty(0))
        held = np.concatenate([self._levels[level], values])
        if len(held) <= self._capacity:
            self._levels[level] = held
            return
        held.sort()
        whole = len(held) // 2 * 2
        self._levels[level] = held[whole:]
        self._put(level + 1, held[self._middle(1) : whole : 2])

    def _middle(self, level: int) -> int:
        """Return the index in a run of 2**level values that represents it: alternately one of the middle two."""
        self._halvings += 1
        return (1 << level - 1) - self._halvings % 2


class FeatureQuantiles:
    """Quantiles of each feature on the last axis. NaN is ignored. Infinities are ordered as numbers.

    Args:
        features: size of the last axis, or 1 to treat all numbers as one feature.
        weighted: whether rows have weights.
    """

    def __init__(self, features: int = 1, weighted: bool = False) -> None:
        level = max(MIN_LEVEL, min(LEVEL, MAX_TOTAL_LEVEL // features))
        kind = WeightedQuantiles if weighted else Quantiles
        self._features: list[Quantiles | WeightedQuantiles] = [kind(level) for _ in range(features)]

    def add(self, values: np.ndarray, sample_weight: np.ndarray | None = None) -> None:
        columns = np.asarray(values).reshape(-1, len(self._features))
        each = None if sample_weight is None else weight_of_each(sample_weight, len(columns))
        for quantiles, column in zip(self._features, columns.T):
            quantiles.add(*((column,) if each is None else (column, each)))

    def merge(self, other: FeatureQuantiles) -> None:
        for ours, theirs in zip(self._features, other._features):
            ours.merge(theirs)  # type: ignore[arg-type]  # of the same kind

    def at(self, shares: np.ndarray | list[float]) -> np.ndarray:
        """Return quantiles by linear interpolation between two values, as NumPy's default method.

        If one of the two is infinite, the nearer value is returned. Quantiles of numbers with weights are values of
        the data, as with NumPy's method `inverted_cdf`.

        Args:
            shares: numbers in [0, 1] of shape (n,).

        Returns:
            float64 (features, n). NaN for a feature without numbers.
        """
        return np.stack([interpolated(one, np.asarray(shares, np.float64)) for one in self._features])

    def readable(self) -> dict[str, Any]:
        figures = self.at([0, 0.25, 0.5, 0.75, 1])
        names = ("minimum", "quartile_1", "median", "quartile_3", "maximum")
        return {name: column.tolist() for name, column in zip(names, figures.T)}


def weight_of_each(sample_weight: np.ndarray, number: int) -> np.ndarray:
    """Return the weight of each of `number` values, equally many in each row, float64 (number,)."""
    weights = np.asarray(sample_weight, np.float64).reshape(-1)
    return np.repeat(weights, number // max(len(weights), 1))


def interpolated(quantiles: Quantiles | WeightedQuantiles, shares: np.ndarray) -> np.ndarray:
    """Return quantiles as `FeatureQuantiles.at` does, of one feature."""
    if isinstance(quantiles, WeightedQuantiles):
        return quantiles.at(shares)
    count = quantiles.count
    if not count:
        return np.full(shares.shape, np.nan)
    position = shares * (count - 1)  # in the sorted values
    low = np.floor(position + 1e-9)
    below, above = (quantiles.at(np.minimum(low + step, count) / count) for step in (1, 2))
    between = np.clip(position - low, 0, 1)
    far = ~np.isfinite(below) | ~np.isfinite(above)
    with np.errstate(invalid="ignore"):  # 0 times infinity
        linear = below * (1 - between) + above * between
    return np.where(below == above, below, np.where(far, np.where(between < 0.5, below, above), linear))
