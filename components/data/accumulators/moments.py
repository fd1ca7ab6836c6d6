"""Moments, covariance and extremes of numbers, in float64. Moments are merged as in Chan, Golub and LeVeque (1979)."""

from __future__ import annotations

from typing import Any

import numpy as np


class Moments:
    """Count, mean and variance of the finite numbers, reduced over some axes. With weights, the count is their sum.

    The variance of numbers beyond 1e154 may be infinite, because its float64 is.

    Args:
        axes: axes to reduce, among them 0 (the rows).
    """

    def __init__(self, axes: tuple[int, ...] = (0,)) -> None:
        self._axes = axes
        self.count: np.ndarray | float = 0.0
        self.mean: np.ndarray | float = 0.0
        self._m2: np.ndarray | float = 0.0

    @property
    def variance(self) -> np.ndarray:
        """Population variance. 0 if there are no numbers."""
        return self._m2 / _divisor(self.count)

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation."""
        return np.sqrt(self.variance)

    def add(self, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Add numbers, each counted once or by its weight, from 0, in an array of the same shape."""
        values = np.asarray(values, np.float64)
        known = np.isfinite(values)
        if not known.all():
            values = np.where(known, values, 0)
        count = (known if weights is None else known * weights).sum(self._axes).astype(np.float64)
        divisor = _divisor(count)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = (values if weights is None else values * weights).sum(self._axes) / divisor
            if not np.isfinite(mean).all():  # the sum exceeds the largest float, which the mean cannot
                shares = values / np.expand_dims(divisor, self._axes)
                mean = (shares if weights is None else shares * weights).sum(self._axes)
            deviation = values - np.expand_dims(mean, self._axes)
            if not known.all():
                deviation[~known] = 0
            squares = np.square(deviation, out=deviation)
            if weights is not None:
                squares *= weights
            self._combine(count, mean, squares.sum(self._axes))

    def merge(self, other: Moments) -> None:
        self._combine(other.count, other.mean, other._m2)

    def _combine(self, count: Any, mean: Any, m2: Any) -> None:
        total = self.count + count
        share = count / _divisor(total)
        with np.errstate(over="ignore", invalid="ignore"):
            delta = mean - self.mean
            merged = self.mean + delta * share
            between = np.where(self.count * share > 0, np.square(delta) * self.count * share, 0)
            self.mean = np.where(np.isfinite(merged), merged, self.mean * (1 - share) + mean * share)[()]
            self._m2 = (self._m2 + m2 + between)[()]
        self.count = total

    def readable(self) -> dict[str, Any]:
        figures = {"mean": self.mean, "variance": self.variance, "count": self.count}
        return {name: np.asarray(value).tolist() for name, value in figures.items()}


def _divisor(count: Any) -> Any:
    """Return a count, or 1 for 0."""
    return np.where(count > 0, count, 1.0)


class FeatureMoments(Moments):
    """Moments of each feature on the last axis.

    Args:
        features: size of the last axis, or 1 to treat all numbers as one feature.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self._features = features

    def add(self, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        values = np.asarray(values).reshape(-1, self._features)
        super().add(values, None if weights is None else np.asarray(weights).reshape(values.shape))


class Covariance:
    """Mean and covariance of the features on the last axis, over all other axes. With weights, the count is their sum.

    Rows with a number that is not finite are ignored.

    Args:
        features: size of the last axis.

    Attributes:
        count: number of rows.
        mean: float64 (features,).
    """

    def __init__(self, features: int) -> None:
        self.count: float = 0
        self.mean = np.zeros(features)
        self._co_moment = np.zeros((features, features))

    @property
    def covariance(self) -> np.ndarray:
        """Sample covariance (divided by rows - 1), float64 (features, features). 0 for fewer than two rows."""
        return self._co_moment / max(self.count - 1, 1)

    def add(self, values: np.ndarray, weights: np.ndarray | None = None) -> None:
        """Add rows, each counted once or by its weight, float64 (rows,), from 0."""
        rows = np.asarray(values, np.float64).reshape(-1, len(self.mean))
        known = np.isfinite(rows).all(axis=1)
        rows, weights = rows[known], None if weights is None else weights[known]
        count = len(rows) if weights is None else float(weights.sum())
        if count:
            mean = np.average(rows, axis=0, weights=weights)
            deviation = rows - mean
            weighted = deviation if weights is None else deviation * weights[:, np.newaxis]
            self._combine(count, mean, weighted.T @ deviation)

    def merge(self, other: Covariance) -> None:
        if other.count:
            self._combine(other.count, other.mean, other._co_moment)

    def _combine(self, count: float, mean: np.ndarray, co_moment: np.ndarray) -> None:
        total = self.count + count
        delta = mean - self.mean
        self._co_moment = self._co_moment + co_moment + np.outer(delta, delta) * (self.count * count / total)
        self.mean = self.mean + delta * (count / total)
        self.count = total

    def readable(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean.tolist(), "covariance": self.covariance.tolist()}


class Extremes:
    """Minimum and maximum of the finite numbers of each feature on the last axis.

    Args:
        features: size of the last axis, or 1 to treat all numbers as one feature.

    Attributes:
        minimum, maximum: float64 (features,). inf and -inf for a feature without numbers.
    """

    def __init__(self, features: int = 1) -> None:
        self.minimum, self.maximum = np.full(features, np.inf), np.full(features, -np.inf)

    def add(self, values: np.ndarray) -> None:
        rows = np.asarray(values, np.float64).reshape(-1, len(self.minimum))
        known = np.isfinite(rows)
        self.minimum = np.minimum(self.minimum, np.where(known, rows, np.inf).min(axis=0, initial=np.inf))
        self.maximum = np.maximum(self.maximum, np.where(known, rows, -np.inf).max(axis=0, initial=-np.inf))

    def merge(self, other: Extremes) -> None:
        self.minimum = np.minimum(self.minimum, other.minimum)
        self.maximum = np.maximum(self.maximum, other.maximum)

    def readable(self) -> dict[str, Any]:
        return {"minimum": self.minimum.tolist(), "maximum": self.maximum.tolist()}
