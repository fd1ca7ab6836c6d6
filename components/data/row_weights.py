"""Weights of rows, such as how many rows of the population each stands for."""

from __future__ import annotations

import numpy as np

from kerasline.components.core.errors import DataError


def checked_weights(values: np.ndarray, where: str) -> np.ndarray:
    """Return weights as float64 (rows,).

    Args:
        values: array (rows,) or (rows, 1).
        where: the column, for messages.

    Raises:
        DataError: a weight is missing, infinite, negative or no number.
    """
    array = np.asarray(values)
    if array.ndim != 1 and array.shape[1:] != (1,):
        raise DataError(f"{where}: expected one weight per row, received an array of shape {array.shape}")
    if array.dtype.kind not in "iufb":
        raise DataError(f"{where}: expected weights that are numbers, received {array.dtype} values")
    weights = array.reshape(-1).astype(np.float64)
    wrong = ~(np.isfinite(weights) & (weights >= 0))
    if wrong.any():
        received = "a missing one" if np.isnan(weights[wrong][0]) else weights[wrong][0]
        raise DataError(f"{where}: expected finite weights from 0, received {received}")
    return weights
