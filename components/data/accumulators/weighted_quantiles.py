"""Deterministic, mergeable quantiles of numbers with weights, in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

LEVEL = 1 << 12  # values of a block


class WeightedQuantiles:
    """Keeps numbers with their weights in levels. Up to `level` numbers the result is exact.

    A level holds a block of numbers. Two blocks of a level become one of the next, in which `level` numbers of equal
    weight represent them. The rank error of n numbers is at most log2(n / level) / (2 level).

    Args:
        level: number of values of a block.
    """

    def __init__(self, level: int = LEVEL) -> None:
        self._capacity = level
        self._levels: list[np.ndarray] = []  # (n, 2): values and weights

    def add(self, values: np.ndarray, weights: np.ndarray) -> None:
        """Add numbers (n,) with weights (n,). NaN, and numbers without weight, are ignored."""
        pairs = np.stack([values, weights], axis=1).astype(np.float64)
        pairs = pairs[~np.isnan(pairs[:, 0]) & (pairs[:, 1] > 0)]
        for first in range(0, len(pairs), self._capacity):
            self._put(0, pairs[first : first + self._capacity])

    def merge(self, other: WeightedQuantiles) -> None:
        for level, pairs in enumerate(other._levels):
            self._put(level, pairs)

    def at(self, shares: np.ndarray) -> np.ndarray:
        """Return, for each share, the smallest number such that at least this share of the weight does not exceed it.

        NumPy calls this method `inverted_cdf`.

        Args:
            shares: numbers in [0, 1] of shape (n,).

        Returns:
            float64 (n,). NaN without numbers.
        """
        if not any(map(len, self._levels)):
            return np.full(np.shape(shares), np.nan)
        pairs = _sorted(np.concatenate(self._levels))
        below = np.cumsum(pairs[:, 1])
        return pairs[_places(below, np.asarray(shares)), 0]

    @property
    def weight(self) -> float:
        """The sum of all weights."""
        return float(sum(pairs[:, 1].sum() for pairs in self._levels))

    def shares_up_to(self, bounds: Sequence[float]) -> np.ndarray:
        """Return the share of the weight of the numbers that do not exceed each bound, float64 (n,)."""
        pairs = _sorted(np.concatenate(self._levels))
        below = np.cumsum(pairs[:, 1])
        return np.append(0, below)[np.searchsorted(pairs[:, 0], bounds, side="right")] / below[-1]

    @property
    def median(self) -> float:
        """The number with half of the weight below and above; the mean of two numbers that share this place."""
        pairs = _sorted(np.concatenate(self._levels))
        below = np.cumsum(pairs[:, 1])
        place = int(_places(below, np.array(0.5)))
        following = min(place + (below[place] <= below[-1] / 2 * (1 + 1e-12)), len(pairs) - 1)
        return float(pairs[place, 0] / 2 + pairs[following, 0] / 2)

    def _put(self, level: int, pairs: np.ndarray) -> None:
        while len(self._levels) <= level:
            self._levels.append(np.empty((0, 2)))
        held = np.concatenate([self._levels[level], pairs])
        if len(held) <= self._capacity:
            self._levels[level] = held
            return
        self._levels[level] = np.empty((0, 2))
        held = _sorted(held)
        below = np.cumsum(held[:, 1])
        chosen = held[_places(below, (np.arange(self._capacity) + 0.5) / self._capacity), 0]
        weight = np.full(self._capacity, below[-1] / self._capacity)
        self._put(level + 1, np.stack([chosen, weight], axis=1))


def _sorted(pairs: np.ndarray) -> np.ndarray:
    return pairs[np.argsort(pairs[:, 0], kind="stable")]


def _places(below: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """Return the first index at which the cumulative weight reaches each share of the whole, within rounding."""
    return np.minimum(np.searchsorted(below, shares * below[-1] * (1 - 1e-12)), len(below) - 1)
