"""Weighted means over rows with normal intervals."""

from __future__ import annotations

from statistics import NormalDist

import numpy as np

CONFIDENCE = 0.95
_Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


def around(mean: float, influence: np.ndarray) -> tuple[float, float]:
    """Return the normal interval of a mean, from the influence of each row.

    Its variance is sum(influence^2) / (n (n - 1)): the delta method (van der Vaart, "Asymptotic Statistics",
    1998, chapter 20). With a single row, the interval is unbounded.

    Args:
        influence: float64 (rows,), of mean zero.
    """
    rows = len(influence)
    if rows < 2:
        return -np.inf, np.inf
    half = _Z * float(np.sqrt((influence**2).sum() / (rows * (rows - 1))))
    return mean - half, mean + half


def weighted_mean(values: np.ndarray, weight: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the mean of values (rows,) and the influence of each row: n w_i (v_i - mean) / sum(w)."""
    mean = float((weight * values).sum() / weight.sum())
    return mean, weight * (values - mean) * (len(values) / weight.sum())
