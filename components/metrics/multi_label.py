"""Metrics of multi-label classification."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from kerasline.components.core.errors import DataError
from kerasline.components.metrics.base import Direction, Rows, SumMetrics, divided
from kerasline.components.metrics.binary import EPSILON
from kerasline.components.metrics.multi_class import RATIOS, class_directions, class_values


class MultiLabelMetrics(SumMetrics):
    """Subset accuracy, Hamming loss, precision, recall and F1 over labels, and log loss.

    - `subset_accuracy`: the proportion of rows whose labels are all correct.
    - `hamming_loss`: the proportion of labels, over all rows, that are wrong.
    - precision = TP / (TP + FP), recall = TP / (TP + FN), F1 = 2 TP / (2 TP + FP + FN). `micro_...` of the counts
      of all labels together; `macro_...` the mean over labels; `weighted_...` that mean by the rows that have
      the label. A ratio of 0 to 0 counts as 0, as in scikit-learn with `zero_division=0`. (Tsoumakas, Katakis and
      Vlahavas, Mining Multi-label Data, 2010.)
    - `log_loss`: the mean over rows and labels of -ln p, p the probability of the true value, clipped to `EPSILON` from
      0 and 1.
    - `precision_at_k`, `recall_at_k`: of the k most likely labels of each row, the proportion that the row has; and of
      all labels that rows have, the proportion among these. Labels of equal probability count in their order.

    The label is 0 or 1, (rows, labels), the prediction probabilities of the same shape. The sums take
    4 + 3 * labels numbers per row.

    Args:
        classes: number of labels.
        threshold: a label is predicted where its probability is above this, as in Keras.
        top: the k of precision and recall at k.
        weights: weight of each label for `class_weighted_precision`, ...; None leaves them out.
        named: names of the labels, by index, for `precision_of_NAME`, ...

    Raises:
        DataError: when computing: labels or predictions are of another shape, or a label is neither 0 nor 1.
    """

    directions: dict[str, Direction] = {
        "subset_accuracy": "up",
        "hamming_loss": "down",
        **{f"{kind}_{name}": "up" for kind in ("micro", "macro", "weighted") for name in RATIOS},
        "log_loss": "down",
    }
    proportions = {"subset_accuracy": (1, 0)}

    def __init__(
        self,
        classes: int,
        *,
        threshold: float = 0.5,
        top: int | None = None,
        weights: np.ndarray | None = None,
        named: Mapping[int, str] | None = None,
    ) -> None:
        self.classes, self.threshold, self._top = classes, threshold, top or classes
        self._weights, self._named = weights, named or {}
        names = [f"precision_at_{self._top}", f"recall_at_{self._top}"]
        names += [f"class_weighted_{name}" for name in RATIOS] if weights is not None else []
        self.directions = {**self.directions, **dict.fromkeys(names, "up"), **class_directions(self._named)}

    def sums(self, rows: Rows) -> np.ndarray:
        label, probability = rows.label, rows.prediction
        for what, values in (("labels", label), ("predictions", probability)):
            if values.shape[1:] != (self.classes,):
                raise DataError(
                    f"{what} of several labels a row have the shape ({self.classes},) a row, but they "
                    f"have {values.shape[1:]}"
                )
        if not ((label == 0) | (label == 1)).all():
            raise DataError("labels of several labels a row are 0 or 1, but some are neither")
        true, predicted = label == 1, probability > self.threshold
        likely = np.argsort(-probability, axis=1, kind="stable")[:, : self._top]
        return np.concatenate(
            [
                np.ones((len(rows), 1)),
                (true == predicted).all(axis=1, keepdims=True),
                _log_loss(true, probability),
                np.take_along_axis(true, likely, axis=1).sum(axis=1, keepdims=True),
                true & predicted,
                predicted,
                true,
            ],
            axis=1,
            dtype=np.float64,
        )

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        count = sums[..., 0]
        hits, predicted, true = _counts(sums)
        of_labels = _ratios(hits, predicted, true)
        of_all = _ratios(hits.sum(axis=-1), predicted.sum(axis=-1), true.sum(axis=-1))
        wrong = (predicted + true - 2 * hits).mean(axis=-1)
        averages = {f"micro_{name}": ratio for name, ratio in of_all.items()}
        averages |= {f"macro_{name}": ratio.mean(axis=-1) for name, ratio in of_labels.items()}
        averages |= {
            f"weighted_{name}": _or_zero((ratio * true).sum(axis=-1), true.sum(axis=-1))
            for name, ratio in of_labels.items()
        }
        by_weight = {}
        if self._weights is not None:
            weights = (count > 0)[..., np.newaxis] * self._weights
            for name, ratio in of_labels.items():
                by_weight[f"class_weighted_{name}"] = divided((ratio * weights).sum(axis=-1), weights.sum(axis=-1))
        return {
            "subset_accuracy": divided(sums[..., 1], count),
            "hamming_loss": divided(wrong, count),
            **{name: np.where(count > 0, value, np.nan) for name, value in averages.items()},
            "log_loss": divided(sums[..., 2], count),
            f"precision_at_{self._top}": divided(sums[..., 3], count * self._top),
            f"recall_at_{self._top}": divided(sums[..., 3], true.sum(axis=-1)),
            **by_weight,
            **class_values(self._named, hits, predicted, true, count),
        }

    def per_class(self, sums: np.ndarray, classes: Sequence[str]) -> dict[str, dict[str, np.ndarray]]:
        """Precision, recall and F1 of each label, and the (weighted) rows that have it.

        Args:
            sums: float64 (..., k), weighted.
            classes: the labels' names, in their order.

        Returns:
            By class and by `precision`, `recall`, `f1` and `rows`, float64 (...). A ratio of 0 to 0 is 0, so that
            the macro average is the mean of these values.
        """
        hits, predicted, true = _counts(sums)
        metrics = {**_ratios(hits, predicted, true), "rows": true}
        return {
            str(one): {name: value[..., place] for name, value in metrics.items()} for place, one in enumerate(classes)
        }


def _counts(sums: np.ndarray) -> tuple[np.ndarray, ...]:
    """Return true positives, predicted positives and true rows of each label: each (..., labels)."""
    return tuple(np.split(sums[..., 4:], 3, axis=-1))


def _ratios(hits: np.ndarray, predicted: np.ndarray, true: np.ndarray) -> dict[str, np.ndarray]:
    ratios = ((hits, predicted), (hits, true), (2 * hits, predicted + true))
    return {name: _or_zero(*ratio) for name, ratio in zip(RATIOS, ratios)}


def _or_zero(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    return np.nan_to_num(divided(numerator, denominator))


def _log_loss(true: np.ndarray, probability: np.ndarray) -> np.ndarray:
    """Return the log loss of each row, the mean over labels: float64 (rows, 1)."""
    probability = probability.astype(np.float64)
    of_true = np.where(true, probability, 1 - probability)
    return -np.log(np.clip(of_true, EPSILON, 1 - EPSILON)).mean(axis=1, keepdims=True)
