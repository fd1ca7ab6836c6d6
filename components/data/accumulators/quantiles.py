"""Quantiles of a stream in bounded memory, mergeable, and the same each time.

Sketches that toss coins, such as KLL, give other boundaries in each run, and so another model for
the same seed. This is the deterministic compactor of Manku, Rajagopalan and Lindsay (SIGMOD 1998).
"""

from __future__ import annotations

import numpy as np

# Values a level holds before it is halved. Exact up to that many values; beyond, a halving moves a
# rank by at most half the weight that it makes, so n values are off by log2(n / LEVEL) / LEVEL at
# most: 0.04% of the rows for a million, 0.1% for a thousand million.
LEVEL = 1 << 14


class Quantiles:
    """Sorts what it is given into levels; a value of level l stands for 2**l values.

    Args:
        level: how many values a level holds.
    """

    def __init__(self, level: int = LEVEL) -> None:
        self._most = level
        self._levels: list[np.ndarray] = []
        self._halvings = 0

    def add(self, values: np.ndarray) -> None:
        """Takes in numbers of any shape; NaN are left out."""
        flat = np.asarray(values, np.float64).reshape(-1)
        flat = flat[~np.isnan(flat)]
        if len(flat) <= self._most:
            self._put(0, flat)
            return
        # Sorted at once, a big batch goes to the level where it fits: one value of each run of
        # 2**level, which errs less than halving as often would.
        level = (-(-len(flat) // self._most) - 1).bit_length()
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
        """The smallest values that at least these shares of all values do not pass.

        Args:
            ranks: shares in (0, 1], shape (n,).

        Returns:
            Values that were added, float64, shape (n,); shape (0,) where nothing was.
        """
        if not self.count:
            return np.empty(0)
        values, below = self._sorted()
        # A share that is a whole number of rows but for rounding is that number.
        wanted = np.ceil(np.asarray(ranks) * below[-1] - 1e-9 * below[-1])
        return values[np.minimum(np.searchsorted(below, wanted), len(values) - 1)]

    def shares_up_to(self, bounds: np.ndarray) -> np.ndarray:
        """The share of values that do not exceed each bound, shape (n,); there is at least one value."""
        values, below = self._sorted()
        return np.append(0, below)[np.searchsorted(values, bounds, side="right")] / below[-1]

    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """The values kept, sorted, and how many values each stands for with all before it."""
        values = np.concatenate(self._levels)
        weights = np.repeat(1 << np.arange(len(self._levels)), [len(v) for v in self._levels])
        order = np.argsort(values, kind="stable")
        return values[order], np.cumsum(weights[order])

    def _put(self, level: int, values: np.ndarray) -> None:
        while len(self._levels) <= level:
            self._levels.append(np.empty(0))
        held = np.concatenate([self._levels[level], values])
        if len(held) <= self._most:
            self._levels[level] = held
            return
        held.sort()
        whole = len(held) // 2 * 2
        self._levels[level] = held[whole:]
        self._put(level + 1, held[self._middle(1) : whole : 2])

    def _middle(self, level: int) -> int:
        """The place in a run of 2**level that stands for it: of the middle two, each in turn."""
        self._halvings += 1
        return (1 << level - 1) - self._halvings % 2
