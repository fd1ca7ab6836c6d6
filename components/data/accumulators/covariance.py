"""Means and covariances of features, in float64, merged as in Chan, Golub and LeVeque (1979)."""

from __future__ import annotations

from typing import Any

import numpy as np


class Covariance:
    """Mean and covariance of the features on the last axis, over all other axes.

    Rows with a number that is not finite are ignored.

    Args:
        features: size of the last axis.

    Attributes:
        count: number of rows.
        mean: float64 (features,).
    """

    def __init__(self, features: int) -> None:
        self.count = 0
        self.mean = np.zeros(features)
        self._co_moment = np.zeros((features, features))

    @property
    def covariance(self) -> np.ndarray:
        """Sample covariance (divided by rows - 1), float64 (features, features). 0 for fewer than two rows."""
        return self._co_moment / max(self.count - 1, 1)

    def add(self, values: np.ndarray) -> None:
        rows = np.asarray(values, np.float64).reshape(-1, len(self.mean))
        rows = rows[np.isfinite(rows).all(axis=1)]
        if len(rows):
            mean = rows.mean(axis=0)
            deviation = rows - mean
            self._combine(len(rows), mean, deviation.T @ deviation)

    def merge(self, other: Covariance) -> None:
        if other.count:
            self._combine(other.count, other.mean, other._co_moment)

    def _combine(self, count: int, mean: np.ndarray, co_moment: np.ndarray) -> None:
        total = self.count + count
        delta = mean - self.mean
        self._co_moment = self._co_moment + co_moment + np.outer(delta, delta) * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def readable(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean.tolist(), "covariance": self.covariance.tolist()}
