"""Regression metrics."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np

from kerasline.components.core.errors import DataError
from kerasline.components.data.accumulators.quantiles import Quantiles
from kerasline.components.metrics.base import Direction, Rows, StateMetrics, SumMetrics, divided
from kerasline.components.metrics.estimates import Estimate

# The divisor for a label of 0, as in scikit-learn.
LEAST_DIVISOR = float(np.finfo(np.float64).eps)
RESIDUAL_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


class RegressionErrors(SumMetrics):
    """Regression errors. With several numbers per row, their mean, as in scikit-learn.

    With errors e = prediction - label: the means of e², |e|, e and |e| / |label|; the root of the first;
    R² = 1 - sum e² / sum (label - mean label)²; and, for a quantile q, the pinball loss
    mean max(q (-e), (q - 1) (-e)) (Koenker and Bassett, Econometrica 46, 1978). The logarithmic error is the mean of
    (ln(1 + prediction) - ln(1 + label))², negative numbers as 0, as in Keras. `calibration_ratio` is mean prediction /
    mean label, and `pearson_correlation` that of prediction and label.

    Args:
        middle: near the mean of the label, a number or float64 (numbers,): sums are taken about it, or digits
            of R² would be lost.
        quantiles: the q of quantile losses.
    """

    def __init__(self, middle: Any = 0.0, quantiles: Sequence[float] = (0.1, 0.5, 0.9)) -> None:
        self._middle, self._quantiles = middle, tuple(quantiles)
        self._means: Mapping[str, Direction] = {
            "mean_squared_error": "down",
            "mean_absolute_error": "down",
            "mean_absolute_percentage_error": "down",
            "mean_error": None,
            **{f"quantile_loss_{q:g}": "down" for q in self._quantiles},
            "mean_squared_logarithmic_error": "down",
            "mean_prediction": None,
            "mean_label": None,
        }
        self.directions: Mapping[str, Direction] = {
            "root_mean_squared_error": "down",
            **self._means,
            "r2": "up",
            "pearson_correlation": "up",
            "calibration_ratio": None,
        }

    def sums(self, rows: Rows) -> np.ndarray:
        label, prediction = _numbers(rows)
        error = prediction - label
        absolute, about = np.abs(error), label - self._middle
        parts = [np.square(error), absolute, absolute / np.maximum(np.abs(label), LEAST_DIVISOR), error]
        parts += [np.maximum(-q * error, (1 - q) * error) for q in self._quantiles]
        parts += [np.square(np.log1p(np.maximum(prediction, 0)) - np.log1p(np.maximum(label, 0))), prediction, label]
        around = prediction - self._middle
        parts += [around, np.square(around), about * around, about, np.square(about)]
        return np.concatenate([np.ones((len(rows), 1)), *parts], axis=1)

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        weight = sums[..., :1]
        parts = len(self._means) + 5
        width = (sums.shape[-1] - 1) // parts  # not -1, which an array without replicates cannot infer
        each = sums[..., 1:].reshape(*sums.shape[:-1], parts, width)
        means = {name: divided(each[..., k, :], weight) for k, name in enumerate(self._means)}
        spread = each[..., -1, :] - divided(np.square(each[..., -2, :]), weight)
        # R² is undefined for constant labels.
        r2 = np.where(spread > 1e-12 * np.abs(each[..., -1, :]), 1 - divided(each[..., 0, :], spread), np.nan)
        root = np.sqrt(means["mean_squared_error"])
        around, around_squares, products, about = (each[..., k, :] for k in (-5, -4, -3, -2))
        spread_of_prediction = around_squares - divided(np.square(around), weight)
        varies = (spread > 1e-12 * np.abs(each[..., -1, :])) & (spread_of_prediction > 1e-12 * np.abs(around_squares))
        deviations = np.sqrt(np.where(varies, spread * spread_of_prediction, np.nan))
        found = {
            "root_mean_squared_error": root,
            **means,
            "r2": r2,
            "pearson_correlation": divided(products - divided(about * around, weight), deviations),
            "calibration_ratio": divided(means["mean_prediction"], means["mean_label"]),
        }
        return {name: values.mean(axis=-1) for name, values in found.items()}


class ResidualQuantiles(StateMetrics):
    """Quantiles of prediction - label, with intervals by order statistics.

    The number of rows below the quantile q is binomial, so the values at ranks n q ± z √(n q (1 - q)) enclose
    it (Conover, Practical Nonparametric Statistics, 1999, 3.2). Sample weights are ignored.
    """

    directions: Mapping[str, Direction] = {f"residual_q{round(q * 100):02d}": None for q in RESIDUAL_QUANTILES}

    def new_state(self) -> ResidualState:
        return ResidualState()

    def estimates(self, state: ResidualState, seed: int) -> dict[str, Estimate]:
        values = state.quantiles.at(np.array(RESIDUAL_QUANTILES))
        if not len(values):
            return {name: Estimate(np.nan) for name in self.directions}
        return {
            name: Estimate(float(value), bounds=_Ends(state, q))
            for name, q, value in zip(self.directions, RESIDUAL_QUANTILES, values)
        }


class ResidualState:
    """The residuals, as far as quantiles need them."""

    def __init__(self) -> None:
        self.quantiles = Quantiles()
        self.numbers_a_row = 0

    def add(self, rows: Rows) -> None:
        label, prediction = _numbers(rows)
        self.numbers_a_row = max(self.numbers_a_row, label.shape[1])
        self.quantiles.add(prediction - label)

    def merge(self, other: ResidualState) -> None:
        self.numbers_a_row = max(self.numbers_a_row, other.numbers_a_row)
        self.quantiles.merge(other.quantiles)

    @property
    def rows(self) -> float:
        return self.quantiles.count / max(1, self.numbers_a_row)


class _Ends:
    """The interval of a quantile by confidence."""

    def __init__(self, state: ResidualState, q: float) -> None:
        self._state, self._q = state, q

    def __call__(self, confidence: float) -> tuple[float, float]:
        # The numbers of a row are not independent, so they count as one.
        rows, q = self._state.rows, self._q
        reach = NormalDist().inv_cdf(1 - (1 - confidence) / 2) * np.sqrt(q * (1 - q) / rows)
        ends = np.clip([q - reach, q + reach + 1 / rows], 1 / rows, 1.0)
        low, high = self._state.quantiles.at(ends)
        return float(low), float(high)


def _numbers(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    """Return label and prediction, both float64 (rows, numbers)."""
    numbers = math.prod(rows.label.shape[1:]), math.prod(rows.prediction.shape[1:])
    if numbers[0] != numbers[1]:
        raise DataError(
            f"the label of a regression has {numbers[0]} numbers a row, but the prediction has {numbers[1]}"
        )
    label, prediction = (
        side.astype(np.float64).reshape(len(rows), numbers[0]) for side in (rows.label, rows.prediction)
    )
    return label, prediction


def residual_table(estimates: Mapping[str, Estimate]) -> dict[str, Any]:
    """Return the shares and the values of the quantiles of the residuals."""
    values = [estimates[name].value for name in ResidualQuantiles.directions]
    return {"quantiles": list(RESIDUAL_QUANTILES), "values": values}
