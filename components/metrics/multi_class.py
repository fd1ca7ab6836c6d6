"""Metrics of multi-class classification: a probability per class and the index of the true class."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from kerasline.components.metrics.base import CellMetrics, Direction, Rows, SumMetrics, divided
from kerasline.components.metrics.binary import EPSILON, BinaryScores, score_keys
from kerasline.components.metrics.estimates import wilson


class MultiClassLosses(SumMetrics):
    """Log loss, Brier score over all classes, and top-k accuracy.

    The true class ranks last among classes of equal probability.

    Args:
        top: the k of top-k accuracy.
    """

    def __init__(self, top: int = 5) -> None:
        self._top = top
        self.directions: Mapping[str, Direction] = {f"top_{top}_accuracy": "up", "log_loss": "down", "brier": "down"}
        self.proportions = {f"top_{top}_accuracy": (1, 0)}

    def sums(self, rows: Rows) -> np.ndarray:
        p, each = rows.prediction.astype(np.float64), np.arange(len(rows))
        p = p / np.maximum(p.sum(axis=1, keepdims=True), EPSILON)  # Correct the rounding of float32.
        true = p[each, rows.label]
        found = (p >= true[:, np.newaxis]).sum(axis=1) <= self._top
        loss = -np.log(np.clip(true, EPSILON, 1))
        brier = np.square(p).sum(axis=1) - 2 * true + 1
        return np.stack([np.ones(len(rows)), found, loss, brier], axis=1)

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        return {name: divided(sums[..., k], sums[..., 0]) for k, name in enumerate(self.directions, 1)}


class Confusion(CellMetrics):
    """Metrics of the confusion matrix. A cell is a pair of true and predicted class.

    Macro averages count each class that occurs as label or prediction once; weighted averages weight it by its rows.
    A class without a correct prediction has 0, as in scikit-learn.

    Args:
        classes: number of classes.
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
    }

    def __init__(self, classes: int) -> None:
        self.classes = classes

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
        return found

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


def _or_zero(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.divide(numerator, denominator, out=np.zeros(np.shape(numerator)), where=denominator > 0)


def _mean(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    return divided((values * of).sum(axis=-1), of.sum(axis=-1))
