"""Minimum and maximum of each feature."""

from __future__ import annotations

from typing import Any

import numpy as np


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
