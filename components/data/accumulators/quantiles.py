"""Deterministic, mergeable quantiles of a stream in bounded memory.

Randomized sketches, such as KLL, would give other boundaries in each run, and so another model for the same seed. This
is the deterministic compactor of Manku, Rajagopalan and Lindsay (SIGMOD 1998).
"""

from __future__ import annotations

import numpy as np

# Number of values that a level holds before it is halved. Up to this many values the result is exact. Halving moves a
# rank by at most half of the new weight, so the rank error for n values is at most log2(n / LEVEL) / LEVEL: 0.04% of
# the rows for a million, 0.1% for a thousand million.
LEVEL = 1 << 14


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
