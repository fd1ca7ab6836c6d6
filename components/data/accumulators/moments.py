"""Count, mean and variance, in float64, merged as in Chan, Golub and LeVeque (1979)."""

from __future__ import annotations

from typing import Any

import numpy as np


class Moments:
    """Count, mean and variance of the finite numbers, reduced over some axes.

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
        return self._m2 / np.maximum(self.count, 1)

    @property
    def std(self) -> np.ndarray:
        """Population standard deviation."""
        return np.sqrt(self.variance)

    def add(self, values: np.ndarray) -> None:
        values = np.asarray(values, np.float64)
        known = np.isfinite(values)
        if not known.all():
            values = np.where(known, values, 0)
        count = known.sum(self._axes).astype(np.float64)
        mean = values.sum(self._axes) / np.maximum(count, 1)
        deviation = values - np.expand_dims(mean, self._axes)
        if not known.all():
            deviation[~known] = 0
        self._combine(count, mean, np.square(deviation, out=deviation).sum(self._axes))

    def merge(self, other: Moments) -> None:
        self._combine(other.count, other.mean, other._m2)

    def _combine(self, count: Any, mean: Any, m2: Any) -> None:
        total = self.count + count
        delta = mean - self.mean
        share = count / np.maximum(total, 1)
        self.mean = self.mean + delta * share
        self._m2 = self._m2 + m2 + np.square(delta) * self.count * share
        self.count = total

    def readable(self) -> dict[str, Any]:
        figures = {"mean": self.mean, "variance": self.variance, "count": self.count}
        return {name: np.asarray(value).tolist() for name, value in figures.items()}


class FeatureMoments(Moments):
    """Moments of each feature on the last axis.

    Args:
        features: size of the last axis, or 1 to treat all numbers as one feature.
    """

    def __init__(self, features: int) -> None:
        super().__init__()
        self._features = features

    def add(self, values: np.ndarray) -> None:
        super().add(np.asarray(values).reshape(-1, self._features))
