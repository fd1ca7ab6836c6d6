"""Quantiles of each feature."""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasline.components.data.accumulators.quantiles import LEVEL, Quantiles

# Numbers that all features together hold a level: 8 MB of float64. Of 64 features and fewer each has
# `LEVEL`; of more, each is exact to fewer numbers, and its ranks err by log2(n / level) / level.
MOST_HELD = 64 * LEVEL
LEAST_LEVEL = 1 << 10


class FeatureQuantiles:
    """Quantiles of each place of the last axis; NaN are left out, infinities ordered as numbers.

    Args:
        features: how many places there are; 1 takes all numbers together.
    """

    def __init__(self, features: int = 1) -> None:
        level = max(LEAST_LEVEL, min(LEVEL, MOST_HELD // features))
        self._features = [Quantiles(level) for _ in range(features)]

    def add(self, values: np.ndarray) -> None:
        for quantiles, column in zip(self._features, np.asarray(values).reshape(-1, len(self._features)).T):
            quantiles.add(column)

    def merge(self, other: FeatureQuantiles) -> None:
        for ours, theirs in zip(self._features, other._features):
            ours.merge(theirs)

    def at(self, shares: np.ndarray | list[float]) -> np.ndarray:
        """Quantiles as NumPy's default method gives them: between two values by linear interpolation,
        and where one of the two is infinite, the nearer.

        Args:
            shares: in [0, 1], shape (n,).

        Returns:
            float64 (features, n); NaN for a feature without numbers.
        """
        return np.stack([_interpolated(one, np.asarray(shares, np.float64)) for one in self._features])

    def readable(self) -> dict[str, Any]:
        figures = self.at([0, 0.25, 0.5, 0.75, 1])
        names = ("minimum", "quartile_1", "median", "quartile_3", "maximum")
        return {name: column.tolist() for name, column in zip(names, figures.T)}


def _interpolated(quantiles: Quantiles, shares: np.ndarray) -> np.ndarray:
    count = quantiles.count
    if not count:
        return np.full(shares.shape, np.nan)
    place = shares * (count - 1)  # among the sorted values, from 0
    low = np.floor(place + 1e-9)
    below, above = (quantiles.at(np.minimum(low + step, count) / count) for step in (1, 2))
    between = np.clip(place - low, 0, 1)
    far = ~np.isfinite(below) | ~np.isfinite(above)
    with np.errstate(invalid="ignore"):  # 0 times infinity
        linear = below * (1 - between) + above * between
    return np.where(below == above, below, np.where(far, np.where(between < 0.5, below, above), linear))
