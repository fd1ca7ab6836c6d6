"""Metrics of multi-class classification: a probability per class and the index of the true class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasline.components.metrics.base import CellMetrics, Direction, Rows, SumMetrics, divided
from kerasline.components.metrics.binary import EPSILON, BinaryScores, score_keys
from kerasline.components.metrics.estimates import wilson

RATIOS = ("precision", "recall", "f1")


class MultiClassLosses(SumMetrics):
    """Log loss, Brier score over all classes, top-k accuracy, and precision at k.

    `precision_at_k` is the proportion of the k most likely classes of all rows that are true. The recall at k is the
    top-k accuracy. The true class ranks last among classes of equal probability.

    Args:
        top: the k of top-k accuracy and precision at k.
    """

    def __init__(self, top: int = 5) -> None:
        self._top = top
        self.directions: Mapping[str, Direction] = {
            f"top_{top}_accuracy": "up",
            "log_loss": "down",
            "brier": "down",
            f"precision_at_{top}": "up",
        }
        self.proportions = {f"top_{top}_accuracy": (1, 0)}

    def sums(self, rows: Rows) -> np.ndarray:
        p, each = rows.prediction.astype(np.float64), np.arange(len(rows))
        p = p / np.maximum(p.sum(axis=1, keepdims=True), EPSILON)  # Correct the rounding of float32.
        true = p[each, rows.label]
        found = (p >= true[:, np.newaxis]).sum(axis=1) <= self._top
        loss = -np.log(np.clip(true, EPSILON, 1))
        brier = np.square(p).sum(axis=1) - 2 * true + 1
        return np.stack([np.ones(len(rows)), found, loss, brier, found / self._top], axis=1)

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        return {name: divided(sums[..., k], sums[..., 0]) for k, name in enumerate(self.directions, 1)}


class Confusion(CellMetrics):
    """Metrics of the confusion matrix. A cell is a pair of true and predicted class.

    Macro averages count each class that occurs as label or prediction once; weighted averages weight it by its rows.
    A class without a correct prediction has 0, as in scikit-learn. `matthews_correlation` is Gorodkin's for several
    classes (Computational Biology and Chemistry 28, 2004).

    Args:
        classes: number of classes.
        weights: weight of each class for `class_weighted_precision`, ...; None leaves them out.
        named: names of the classes, by index, for `precision_of_NAME`, ...: metrics of one class against the rest.
    """

    directions: Mapping[str, Direction] = {
        "accuracy": "up",
        "balanced_accuracy": "up",
        "macro_precision": "up",
        "macro_recall": "up",
        "macro_f1": "up",
        "weighted_precision": "up",
        "weighted_recall": "up",
        "weighted_f1": "up",
        "micro_precision": "up",
        "micro_recall": "up",
        "micro_f1": "up",
        "matthews_correlation": "up",
    }

    def __init__(
        self, classes: int, *, weights: np.ndarray | None = None, named: Mapping[int, str] | None = None
    ) -> None:
        self.classes, self._weights, self._named = classes, weights, named or {}
        weighted = [f"class_weighted_{name}" for name in RATIOS] if weights is not None else []
        self.directions = {**self.directions, **dict.fromkeys(weighted, "up"), **class_directions(self._named)}

    def cells(self, rows: Rows) -> np.ndarray:
        return rows.label * self.classes + rows.prediction.argmax(axis=1)

    def values(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        right, predicted, true = self._class_counts(cells, counts)
        rows, seen = counts.sum(axis=-1), (predicted + true) > 0
        precision, recall = _or_zero(right, predicted), _or_zero(right, true)
        f1 = _or_zero(2 * right, predicted + true)
        accuracy = divided(right.sum(axis=-1), rows)
        found = {"accuracy": accuracy, "balanced_accuracy": _mean(recall, true > 0)}
        for name, values in (("precision", precision), ("recall", recall), ("f1", f1)):
            found[f"macro_{name}"] = _mean(values, seen)
            found[f"weighted_{name}"] = divided((values * true).sum(axis=-1), rows)
            found[f"micro_{name}"] = accuracy  # Each row has one prediction.
            if self._weights is not None:
                found[f"class_weighted_{name}"] = _mean(values, seen * self._weights)
        found["matthews_correlation"] = _matthews(right, predicted, true)
        return found | class_values(self._named, right, predicted, true, rows)

    def proportions(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, tuple[float, float]]:
        right = float(counts[cells // self.classes == cells % self.classes].sum())
        names = ("accuracy", "micro_precision", "micro_recall", "micro_f1", "weighted_recall")
        return dict.fromkeys(names, (right, float(counts.sum())))

    def pairs(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the true and the predicted class of each cell, int64 (n,)."""
        return cells // self.classes, cells % self.classes

    def matrix(self, cells: np.ndarray, counts: np.ndarray) -> list[list[float]]:
        """Return the number of rows by true and predicted class, from counts (n,)."""
        table = np.zeros(self.classes * self.classes)
        table[cells] = counts
        return table.reshape(self.classes, self.classes).tolist()

    def per_class(
        self, cells: np.ndarray, counts: np.ndarray, weighted: bool, confidence: float
    ) -> list[dict[str, Any]]:
        """Return precision, recall and F1 of each class, from counts (n,). Unweighted rows give intervals."""
        right, predicted, true = self._class_counts(cells, counts)
        found = []
        for k in range(self.classes):
            trials = {"precision": predicted[k], "recall": true[k], "f1": None}
            values = (
                _or_zero(right, predicted)[k],
                _or_zero(right, true)[k],
                _or_zero(2 * right, predicted + true)[k],
            )
            for (name, of), value in zip(trials.items(), values):
                low, high = (np.nan, np.nan) if weighted or of is None else wilson(right[k], of, confidence)
                found.append(
                    {
                        "class": k,
                        "metric": name,
                        "value": float(value),
                        "low": low,
                        "high": high,
                        "rows": float(true[k]),
                    }
                )
        return found

    def _class_counts(self, cells: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, ...]:
        """Return the true positives, predicted rows and true rows of each class (..., classes)."""
        true, predicted = cells // self.classes, cells % self.classes
        shape = (*counts.shape[:-1], self.classes)
        found = []
        for classes, mask in ((true, true == predicted), (predicted, None), (true, None)):
            total = np.zeros(shape)
            taken = counts if mask is None else counts[..., mask]
            np.add.at(np.moveaxis(total, -1, 0), classes if mask is None else classes[mask], np.moveaxis(taken, -1, 0))
            found.append(total)
        return tuple(found)


class Confidence(BinaryScores):
    """Calibration of the probability of the most likely class."""

    directions: Mapping[str, Direction] = {"calibration_error": "down"}

    def cells(self, rows: Rows) -> np.ndarray:
        right = rows.prediction.argmax(axis=1) == rows.label
        return score_keys(rows.prediction.max(axis=1)) << 1 | right

    def values(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        return {"calibration_error": super().values(cells, counts)["calibration_error"]}

    def curves(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, dict[str, list[float]]]:
        return {"calibration": super().curves(cells, counts)["calibration"]}


def class_directions(named: Mapping[int, str]) -> dict[str, Direction]:
    """Return the directions of the metrics of single classes."""
    kinds: dict[str, Direction] = {**dict.fromkeys(RATIOS, "up"), "false_positive_rate": "down"}
    return {f"{kind}_of_{name}": direction for name in named.values() for kind, direction in kinds.items()}


def class_values(
    named: Mapping[int, str], right: np.ndarray, predicted: np.ndarray, true: np.ndarray, rows: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the metrics of single classes against the rest.

    Args:
        named: names of the classes by index.
        right: rows of each class that are predicted as such, (..., classes).
        predicted: rows predicted as each class.
        true: rows of each class.
        rows: all rows, (...).
    """
    found = {}
    for place, name in named.items():
        hits, of_class, chosen = right[..., place], true[..., place], predicted[..., place]
        found[f"precision_of_{name}"] = _known(_or_zero(hits, chosen), rows)
        found[f"recall_of_{name}"] = divided(hits, of_class)
        found[f"f1_of_{name}"] = divided(2 * hits, chosen + of_class)
        found[f"false_positive_rate_of_{name}"] = divided(chosen - hits, rows - of_class)
    return found


def _matthews(right: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> np.ndarray:
    rows = true.sum(axis=-1)
    covariance = right.sum(axis=-1) * rows - (predicted * true).sum(axis=-1)
    of_predicted, of_true = (np.square(rows) - np.square(side).sum(axis=-1) for side in (predicted, true))
    return _known(_or_zero(covariance, np.sqrt(np.maximum(of_predicted * of_true, 0))), rows)


def _known(values: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.where(rows > 0, values, np.nan)


def _or_zero(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)


def _mean(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    return divided((values * of).sum(axis=-1), of.sum(axis=-1))
