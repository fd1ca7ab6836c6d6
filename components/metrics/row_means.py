"""Metrics that are sums of a value per row: the loss, a user's function, and sums stored with the predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from kerasline.components.core.errors import UserCodeError
from kerasline.components.core.user_code import call, name_of
from kerasline.components.metrics.base import Direction, Rows, SumMetrics, divided


class MeanLoss(SumMetrics):
    """The compiled loss, as Keras computes it for all rows as one batch.

    It reads the columns `loss` and `loss_count` of `Rows.columns`, see `kerasline.components.models.prediction_files`.
    """

    directions: Mapping[str, Direction] = {"loss": "down"}
    weighs_rows = True

    def sums(self, rows: Rows) -> np.ndarray:
        if "loss" not in rows.columns:  # predictions without a loss, such as those of the exported model
            return np.full((len(rows), 3), [1.0, np.nan, np.nan])
        loss, count = (
            rows.columns[name].to_numpy(zero_copy_only=False).astype(np.float64) for name in ("loss", "loss_count")
        )
        return np.stack([np.ones(len(rows)), loss * count, count], axis=1)

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        return {"loss": divided(sums[..., 1], sums[..., 2])}


class FunctionMean(SumMetrics):
    """Mean of `function(label, prediction)`, a user's function that returns one number per row."""

    def __init__(self, function: Callable[[np.ndarray, np.ndarray], Any], direction: Direction = None) -> None:
        self._function, self._name = function, getattr(function, "__name__", type(function).__name__)
        self.directions: Mapping[str, Direction] = {self._name: direction}

    @property
    def key(self) -> str:
        return f"FunctionMean {self._name}"

    def sums(self, rows: Rows) -> np.ndarray:
        given = call(self._function, rows.label, rows.prediction)
        try:
            values = np.asarray(given, np.float64)
        except (TypeError, ValueError) as error:
            raise UserCodeError(f"{name_of(self._function)} must return one number per row: {error}") from error
        if values.shape != (len(rows),):
            raise UserCodeError(
                f"{name_of(self._function)} must return one number for each of {len(rows)} rows, received an array of "
                f"shape {values.shape}"
            )
        return np.stack([np.ones(len(rows)), values], axis=1)

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        return {self._name: divided(sums[..., 1], sums[..., 0])}


class StoredSums(SumMetrics):
    """Metrics whose sums were computed while predicting and are stored in place of the predictions."""

    def __init__(self, family: SumMetrics) -> None:
        self._family = family
        self.directions, self.proportions = family.directions, family.proportions

    def sums(self, rows: Rows) -> np.ndarray:
        return rows.prediction.astype(np.float64)

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        return self._family.values(sums)
