"""Metrics of binary classification: a probability and a label that is 0 or 1."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from kerasline.components.metrics.base import CellMetrics, Direction, Rows, SumMetrics, divided

# Distance that probabilities keep from 0 and 1 before a logarithm: float32's epsilon, as in Keras and scikit-learn.
EPSILON = float(np.finfo(np.float32).eps)
# With more distinct scores than this in a slice, scores are rounded.
MOST_EXACT_SCORES = 1 << 14
# Scores below this count as 0. float32 has almost none of them.
LEAST_SCORE = 2.0**-127
# Proportions are quotients, and constraints decimal fractions.
ROUNDING = 1e-12
CALIBRATION_BINS = 10
OPERATING_POINTS = (
    "precision_at_recall",
    "specificity_at_recall",
    "recall_at_precision",
    "recall_at_specificity",
    "recall_at_false_positive_rate",
)
MOST_POINTS = 200


class BinaryLosses(SumMetrics):
    """Log loss and Brier score (Brier, Monthly Weather Review 78, 1950), and the means of prediction and label.

    - `calibration_ratio`: mean prediction / mean label.
    - `discrimination`: mean prediction of positive rows minus that of negative rows (Tjur, American Statistician 63,
      2009).
    """

    directions: Mapping[str, Direction] = {
        "log_loss": "down",
        "brier": "down",
        "mean_prediction": None,
        "mean_label": None,
        "calibration_ratio": None,
        "discrimination": "up",
    }
    proportions = {"mean_label": (4, 0)}

    def sums(self, rows: Rows) -> np.ndarray:
        y, p = rows.label.astype(np.float64), rows.prediction.astype(np.float64)
        kept = np.clip(p, EPSILON, 1 - EPSILON)
        loss = -(y * np.log(kept) + (1 - y) * np.log1p(-kept))
        return np.stack([np.ones_like(p), loss, np.square(p - y), p, y, p * y], axis=1)

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        rows, loss, squares, prediction, label, of_positive = np.moveaxis(sums, -1, 0)
        return {
            "log_loss": divided(loss, rows),
            "brier": divided(squares, rows),
            "mean_prediction": divided(prediction, rows),
            "mean_label": divided(label, rows),
            "calibration_ratio": divided(prediction, label),
            "discrimination": divided(of_positive, label) - divided(prediction - of_positive, rows - label),
        }


class BinaryThresholds(CellMetrics):
    """Metrics of the binary confusion matrix at a threshold.

    A row is predicted positive if its probability is above the threshold, as in Keras.

    Args:
        thresholds: the metrics use the first one. `table` returns the counts at all of them.
        beta: weight of recall relative to precision in F-beta (van Rijsbergen, 1979).
    """

    directions: Mapping[str, Direction] = {
        "accuracy": "up",
        "balanced_accuracy": "up",
        "precision": "up",
        "recall": "up",
        "specificity": "up",
        "f1": "up",
        "false_positive_rate": "down",
        "selection_rate": None,
        "false_negative_rate": "down",
        "negative_predictive_value": "up",
        "false_discovery_rate": "down",
        "false_omission_rate": "down",
        "prevalence": None,
        "matthews_correlation": "up",
    }

    classes = 2

    def __init__(self, thresholds: Sequence[float] = (0.5,), beta: float = 1.0) -> None:
        self._first = thresholds[0]
        self._thresholds = np.array(sorted(set(thresholds)))
        self._beta = beta
        if beta != 1:
            self.directions = {**self.directions, f"f{beta:g}": "up"}

    def cells(self, rows: Rows) -> np.ndarray:
        above = np.searchsorted(self._thresholds.astype(rows.prediction.dtype), rows.prediction, side="left")
        return above * 2 + rows.label

    def values(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        tp, fp, tn, fn = self._four(cells, counts, self._first)
        recall, specificity = divided(tp, tp + fn), divided(tn, tn + fp)
        found = {
            "accuracy": divided(tp + tn, tp + fp + tn + fn),
            "balanced_accuracy": (recall + specificity) / 2,
            # 0 if no row is predicted positive, as in scikit-learn.
            "precision": _zero_where(divided(tp, tp + fp), tp + fp, tp + fn + tn),
            "recall": recall,
            "specificity": specificity,
            "f1": _f(tp, fp, fn, 1.0),
            "false_positive_rate": divided(fp, fp + tn),
            "selection_rate": divided(tp + fp, tp + fp + tn + fn),
            "false_negative_rate": divided(fn, tp + fn),
            "negative_predictive_value": divided(tn, tn + fn),
            "false_discovery_rate": divided(fp, tp + fp),
            "false_omission_rate": divided(fn, tn + fn),
            "prevalence": divided(tp + fn, tp + fp + tn + fn),
            "matthews_correlation": _matthews(tp, fp, tn, fn),
        }
        return found if self._beta == 1 else {**found, f"f{self._beta:g}": _f(tp, fp, fn, self._beta)}

    def proportions(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, tuple[float, float]]:
        tp, fp, tn, fn = (float(part) for part in self._four(cells, counts, self._first))
        rows = tp + fp + tn + fn
        return {
            "accuracy": (tp + tn, rows),
            "precision": (tp, tp + fp),
            "recall": (tp, tp + fn),
            "specificity": (tn, tn + fp),
            "false_positive_rate": (fp, fp + tn),
            "selection_rate": (tp + fp, rows),
            "false_negative_rate": (fn, tp + fn),
            "negative_predictive_value": (tn, tn + fn),
            "false_discovery_rate": (fp, tp + fp),
            "false_omission_rate": (fn, tn + fn),
            "prevalence": (tp + fn, rows),
        }

    def table(self, cells: np.ndarray, counts: np.ndarray) -> list[dict[str, float]]:
        """Return the four counts at each threshold, from counts (n,)."""
        names = ("true_positives", "false_positives", "true_negatives", "false_negatives")
        return [
            {"threshold": float(t), **dict(zip(names, map(float, self._four(cells, counts, t))))}
            for t in self._thresholds
        ]

    def pairs(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the true and the predicted class of each cell, 0 or 1, int64 (n,)."""
        return cells % 2, (cells // 2 > np.searchsorted(self._thresholds, self._first)).astype(np.int64)

    def _four(self, cells: np.ndarray, counts: np.ndarray, threshold: float) -> tuple[np.ndarray, ...]:
        above = cells // 2 > np.searchsorted(self._thresholds, threshold)
        positive = cells % 2 == 1
        masks = (above & positive, above & ~positive, ~above & ~positive, ~above & positive)
        return tuple(counts @ mask.astype(np.float64) for mask in masks)


class BinaryScores(CellMetrics):
    """Areas under the ROC and precision-recall curves, and the calibration error.

    - `roc_auc`: the probability that a positive row has a higher score than a negative one, ties counting half (Hanley
      and McNeil, 1982).
    - `pr_auc`: average precision, the sum of precision times the steps of recall, as in scikit-learn.
    - `calibration_error`: the mean distance between predicted and observed in bins of equal width, weighted by rows
      (Naeini, Cooper and Hauskrecht, AAAI 2015).

    Exact for up to `MOST_EXACT_SCORES` distinct scores in a slice. With more, scores lose binary digits of their
    distance to 0 or 1, whichever is nearer, until there are few enough. The order is then lost only among groups of
    about one ten-thousandth of the scores.

    Args:
        operating_points: values to fix, by name of `OPERATING_POINTS`. `{"precision_at_recall": [0.9]}` gives
            `precision_at_recall_0.9`, the highest precision among the thresholds with a recall of 0.9 or more, and
            `threshold_for_precision_at_recall_0.9`, the highest such threshold. Without such a threshold, recall is 0
            and the threshold undefined.
    """

    directions: Mapping[str, Direction] = {"roc_auc": "up", "pr_auc": "up", "calibration_error": "down"}
    max_exact_cells = 2 * MOST_EXACT_SCORES
    coarsening_levels = 52

    def __init__(self, operating_points: Mapping[str, Sequence[float]] | None = None) -> None:
        self._points = {f"{kind}_{at:g}": (kind, at) for kind, ats in (operating_points or {}).items() for at in ats}
        extra: dict[str, Direction] = {}
        for name in self._points:
            extra |= {name: "up", f"threshold_for_{name}": None}
        self.directions = {**self.directions, **extra}

    def cells(self, rows: Rows) -> np.ndarray:
        return score_keys(rows.prediction) << 1 | rows.label

    def values(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        scores, positive, negative = self._by_score(cells, counts)
        return {
            "roc_auc": roc_auc(positive, negative),
            "pr_auc": average_precision(positive, negative),
            "calibration_error": _calibration_error(scores, positive, negative),
            **self._at_operating_points(scores, positive, negative),
        }

    def coarsen(self, cells: np.ndarray, level: int) -> np.ndarray:
        return rounded_keys(cells >> 1, level) << 1 | cells & 1

    def resampling_cells(self, cells: np.ndarray, counts: np.ndarray, most: int) -> np.ndarray:
        # Equal parts of the rows, with equal weight of both labels, so that rare positive rows count.
        share = np.zeros(len(cells))
        for side in (0, 1):
            mine = counts * (cells & 1 == side)
            share += np.cumsum(mine) / max(mine.sum(), EPSILON) / 2
        part = np.minimum((share * (most // 2)).astype(np.int64), most // 2 - 1)
        _, keys = np.unique(cells >> 1, return_inverse=True)
        part = part[np.searchsorted(keys, keys)]  # Keep rows of equal scores together.
        return cells[np.searchsorted(part, part)] >> 1 << 1 | cells & 1

    def curves(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, dict[str, list[float]]]:
        """Return the points of the ROC, precision-recall and calibration curves, from counts (n,)."""
        scores, positive, negative = self._by_score(cells, counts)
        true, false = (np.append(0, np.cumsum(side[::-1])) for side in (positive, negative))
        found = {"calibration": _calibration(scores, positive, negative)}
        if true[-1] and false[-1]:
            found["roc"] = _thinned(divided(false, false[-1]), divided(true, true[-1]))
        if true[-1]:
            found["precision_recall"] = _thinned(divided(true, true[-1])[1:], divided(true, true + false)[1:])
        return found

    def _at_operating_points(
        self, scores: np.ndarray, positive: np.ndarray, negative: np.ndarray
    ) -> dict[str, np.ndarray]:
        if not self._points:
            return {}
        # Counts of the rows above each threshold, from the highest to the lowest.
        tp, fp = (np.cumsum(side[..., ::-1], axis=-1) for side in (positive, negative))
        # float32 below the score, so that predictions of this score are above the threshold.
        thresholds = np.nextafter(scores[::-1].astype(np.float32), np.float32(-1)).astype(np.float64)
        found: dict[str, np.ndarray] = {}
        for name, (kind, at) in self._points.items():
            found[name], found[f"threshold_for_{name}"] = _best(kind, at, tp, fp, thresholds)
        return found

    def _by_score(self, cells: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the distinct scores, ascending (m,), and the counts of both labels at each (..., m)."""
        if not len(cells):
            none = np.zeros((*counts.shape[:-1], 0))
            return np.empty(0), none, none
        keys, label = cells >> 1, cells & 1
        starts = np.flatnonzero(np.diff(keys, prepend=keys[0] - 1))
        positive, negative = (np.add.reduceat(counts * (label == side), starts, axis=-1) for side in (1, 0))
        return scores_of(keys[starts]), positive, negative


def score_keys(scores: np.ndarray) -> np.ndarray:
    """Map scores in [0, 1] to integers in the same order, int64, from 0 to `_LAST`.

    Up to one half, they are the bits of the score; above, those of 1 - score counted from the end. Both ends have the
    resolution that floating point has near 0.
    """
    scores = np.clip(np.ascontiguousarray(scores, np.float64), 0, 1)
    bits = np.maximum(_bits(np.minimum(scores, 1 - scores)) - _FIRST, 0)
    return np.where(scores <= 0.5, bits, _LAST - bits)


def scores_of(keys: np.ndarray) -> np.ndarray:
    """Return the scores of keys from `score_keys`, float64."""
    near = np.minimum(keys, _LAST - keys)
    scores = np.where(near > 0, (near + _FIRST).view(np.float64), 0.0)
    return np.where(keys <= _LAST // 2, scores, 1 - scores)


def rounded_keys(keys: np.ndarray, digits: int) -> np.ndarray:
    """Round keys from `score_keys` to the middle of those with the same leading digits. 0 and 1 are unchanged."""
    if not digits:
        return keys
    return np.where((keys > 0) & (keys < _LAST), keys >> digits << digits | 1 << digits - 1, keys)


def _bits(scores: np.ndarray) -> np.ndarray:
    """Return the bits of non-negative numbers, which have the order of the numbers."""
    return (scores + 0.0).view(np.int64)  # -0.0 becomes 0.0


_FIRST = int(_bits(np.array(LEAST_SCORE)))
_LAST = 2 * (int(_bits(np.array(0.5))) - _FIRST)


def _zero_where(values: np.ndarray, denominator: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return 0 instead of NaN where only the denominator is 0."""
    return np.where((denominator == 0) & (others > 0), 0.0, values)


def _f(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, beta: float) -> np.ndarray:
    square = beta * beta
    return divided((1 + square) * tp, (1 + square) * tp + square * fn + fp)


def _matthews(tp: np.ndarray, fp: np.ndarray, tn: np.ndarray, fn: np.ndarray) -> np.ndarray:
    """Return Matthews' correlation (Biochimica et Biophysica Acta 405, 1975); 0 for a single class, as scikit-learn."""
    root = np.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn))
    return _zero_where(divided(tp * tn - fp * fn, root), root, tp + fp + tn + fn)


def roc_auc(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    below = np.cumsum(negative, axis=-1) - negative
    pairs = positive.sum(axis=-1) * negative.sum(axis=-1)
    return divided((positive * (below + negative / 2)).sum(axis=-1), pairs)


def average_precision(positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    true = np.cumsum(positive[..., ::-1], axis=-1)
    chosen = np.cumsum((positive + negative)[..., ::-1], axis=-1)
    precision = np.divide(true, chosen, out=np.zeros_like(true), where=chosen > 0)
    return divided((precision * positive[..., ::-1]).sum(axis=-1), positive.sum(axis=-1))


def _best(
    kind: str, at: float, tp: np.ndarray, fp: np.ndarray, thresholds: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest value of a metric among the thresholds that satisfy a constraint, and the highest of these.

    Args:
        kind: one of `OPERATING_POINTS`.
        at: the value that the constraint demands.
        tp: positive rows above each threshold, (..., m).
        fp: negative rows above each threshold, (..., m).
        thresholds: descending, (m,).
    """
    if not len(thresholds):
        return np.full(tp.shape[:-1], np.nan), np.full(tp.shape[:-1], np.nan)
    metric, constraint = kind.split("_at_")
    rates = {
        "recall": divided(tp, tp[..., -1:]),
        "precision": divided(tp, tp + fp),
        "specificity": 1 - divided(fp, fp[..., -1:]),
        "false_positive_rate": divided(fp, fp[..., -1:]),
    }
    # Up to rounding: 9 of 10 rows are a recall of 0.9.
    if constraint == "false_positive_rate":
        allowed = rates[constraint] <= at + ROUNDING
    else:
        allowed = rates[constraint] >= at - ROUNDING
    candidates = np.where(allowed, np.nan_to_num(rates[metric]), -1.0)
    best = candidates.argmax(axis=-1)[..., np.newaxis]
    value, none = np.take_along_axis(candidates, best, axis=-1)[..., 0], ~allowed.any(axis=-1)
    defined = (tp[..., -1] > 0) & ((fp[..., -1] > 0) | ("precision" in kind))
    value = np.where(defined, np.where(none, 0.0, value), np.nan)
    return value, np.where(defined & ~none, thresholds[best[..., 0]], np.nan)


def _calibration_error(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> np.ndarray:
    rows, true, predicted = _binned(scores, positive, negative)
    return divided(np.abs(true - predicted).sum(axis=-1), rows.sum(axis=-1))


def _calibration(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> dict[str, list[float]]:
    rows, true, predicted = _binned(scores, positive, negative)
    filled = rows > 0
    return {
        "x": (predicted[filled] / rows[filled]).tolist(),
        "y": (true[filled] / rows[filled]).tolist(),
        "rows": rows[filled].tolist(),
    }


def _binned(scores: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return the number of rows, of positive rows, and the sum of scores of each bin (..., bins)."""
    place = np.minimum((scores * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)
    inside = (place[:, np.newaxis] == np.arange(CALIBRATION_BINS)).astype(np.float64)
    both = positive + negative
    return both @ inside, positive @ inside, (both * scores) @ inside


def _thinned(x: np.ndarray, y: np.ndarray) -> dict[str, list[float]]:
    """Reduce a curve to at most `MOST_POINTS` points, evenly spaced along it."""
    if len(x) > MOST_POINTS:
        targets = np.linspace(0, 1, MOST_POINTS)
        spread = np.append(0, np.cumsum(np.hypot(np.diff(x), np.diff(y))))
        place = np.unique(np.searchsorted(spread / spread[-1], targets).clip(0, len(x) - 1))
        x, y = x[place], y[place]
    return {"x": x.tolist(), "y": y.tolist()}


def checked_probabilities(values: Any, name: str) -> None:
    """Raise a DataError if scores are not probabilities."""
    from kerasline.components.core.errors import DataError

    if not np.size(values):
        return
    least, most = np.min(values), np.max(values)
    if np.isnan(least):
        raise DataError(f"output {name!r} gives NaN for some rows; look for NaN among its inputs and weights")
    if not (least >= 0 and most <= 1 + 1e-6):
        raise DataError(
            f"output {name!r} gives {least:.4g} to {most:.4g}, expected "
            "probabilities; end the model in a sigmoid or softmax, or compile it with from_logits=True"
        )
