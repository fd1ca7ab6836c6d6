"""Quantiles of each feature."""

from __future__ import annotations

from typing import Any

import numpy as np

from kerasline.components.data.accumulators.quantiles import LEVEL, Quantiles

# Bound on the numbers that all features together hold per level: 8 MB of float64. Up to 64 features have `LEVEL` each.
# More features are exact for fewer numbers, and the error of their ranks is log2(n / level) / level.
MAX_TOTAL_LEVEL = 64 * LEVEL
MIN_LEVEL = 1 << 10


class FeatureQuantiles:
    """Quantiles of each feature on the last axis. NaN is ignored. Infinities are ordered as numbers.

    Args:
        features: size of the last axis, or 1 to treat all numbers as one feature.
    """

    def __init__(self, features: int = 1) -> None:
        level = max(MIN_LEVEL, min(LEVEL, MAX_TOTAL_LEVEL // features))
        self._features = [Quantiles(level) for _ in range(features)]

    def add(self, values: np.ndarray) -> None:
        for quantiles, column in zip(self._features, np.asarray(values).reshape(-1, len(self._features)).T):
            quantiles.add(column)

    def merge(self, other: FeatureQuantiles) -> None:
        for ours, theirs in zip(self._features, other._features):
            ours.merge(theirs)

    def at(self, shares: np.ndarray | list[float]) -> np.ndarray:
        """Return quantiles by linear interpolation between two values, as NumPy's default method.

        If one of the two is infinite, the nearer value is returned.

        Args:
            shares: numbers in [0, 1] of shape (n,).

        Returns:
            float64 (features, n). NaN for a feature without numbers.
        """
        return np.stack([_interpolate(one, np.asarray(shares, np.float64)) for one in self._features])

    def readable(self) -> dict[str, Any]:
        figures = self.at([0, 0.25, 0.5, 0.75, 1])
        names = ("minimum", "quartile_1", "median", "quartile_3", "maximum")
        return {name: column.tolist() for name, column in zip(names, figures.T)}


def _interpolate(quantiles: Quantiles, shares: np.ndarray) -> np.ndarray:
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
