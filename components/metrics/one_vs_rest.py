"""Areas under the curves of each class against the rest, and their averages, of multi-class and multi-label outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kerasline.components.data.hashing import mix
from kerasline.components.metrics.base import CellMetrics, Direction, Rows, divided
from kerasline.components.metrics.binary import BinaryScores, average_precision, roc_auc, rounded_keys, score_keys

# Each row has a cell for every class. With more classes, the areas would cost more than all other metrics together.
MOST_CLASSES = 50
AVERAGES = ("macro", "weighted", "micro")
# Rows are resampled in this many random groups, because the cells of a row are not independent.
FOLDS = 32
# Distinct scores of each class and fold that replicates are computed from, at least.
LEAST_RESAMPLED = 16
# A cell is class, score, label and fold. Scores have the precision of float32, which leaves bits for the class.
_FOLD_BITS, _SCORE_BITS, _DROPPED_BITS = 5, 31, 29


class OneVsRestScores(CellMetrics):
    """Areas under the ROC and precision-recall curves of each class against the rest.

    `macro_roc_auc` is the mean over classes, `weighted_roc_auc` weights each class by its rows, and `micro_roc_auc` is
    the area for all pairs of row and class together; `..._pr_auc` is average precision. They equal scikit-learn's
    `roc_auc_score(multi_class="ovr")` and `average_precision_score`. Classes without rows, or without others, are left
    out of the mean.

    Args:
        classes: number of classes.
        weights: weight of each class for `class_weighted_roc_auc` and `class_weighted_pr_auc`; None leaves them out.
        named: names of the classes, by index, for `roc_auc_of_NAME` and `pr_auc_of_NAME`.
    """

    max_exact_cells = 1 << 17
    coarsening_levels = 52 - _DROPPED_BITS
    row_groups = FOLDS

    def __init__(
        self, classes: int, *, weights: np.ndarray | None = None, named: Mapping[int, str] | None = None
    ) -> None:
        self.classes, self._weights, self._named = classes, weights, named or {}
        averages = (*AVERAGES, *(["class_weighted"] if weights is not None else []))
        names = [f"{average}_{area}" for area in ("roc_auc", "pr_auc") for average in averages]
        names += [f"{area}_of_{name}" for name in self._named.values() for area in ("roc_auc", "pr_auc")]
        self.directions: Mapping[str, Direction] = dict.fromkeys(names, "up")

    def cells(self, rows: Rows) -> np.ndarray:
        each = np.arange(self.classes)
        label = rows.label[:, np.newaxis] == each if rows.label.ndim == 1 else rows.label == 1
        keys = score_keys(rows.prediction).reshape(label.shape) >> _DROPPED_BITS
        with np.errstate(over="ignore"):
            fold = (mix(rows.number.astype(np.uint64)) % np.uint64(FOLDS)).astype(np.int64)[:, np.newaxis]
        return _joined(each << _SCORE_BITS | keys, label, fold)

    def values(self, cells: np.ndarray, counts: np.ndarray) -> dict[str, np.ndarray]:
        areas, true = self._areas(cells, counts)
        found = {}
        for area, by_class in areas.items():
            defined = ~np.isnan(by_class)
            values = np.where(defined, by_class, 0)
            found[f"macro_{area}"] = divided(values.sum(axis=-1), defined.sum(axis=-1))
            found[f"weighted_{area}"] = divided((values * true).sum(axis=-1), (defined * true).sum(axis=-1))
            if self._weights is not None:
                weight = defined * self._weights
                found[f"class_weighted_{area}"] = divided((values * weight).sum(axis=-1), weight.sum(axis=-1))
            for place, name in self._named.items():
                found[f"{area}_of_{name}"] = by_class[..., place]
        of_all = _areas_of(*_label_counts(_scores(cells), _labels(cells), counts)[1:])
        return {**found, **{f"micro_{area}": value for area, value in of_all.items()}}

    def class_rows(self, cells: np.ndarray, counts: np.ndarray) -> np.ndarray:
        """Return the rows of each class, (..., classes)."""
        return self._areas(cells, counts)[1]

    def coarsen(self, cells: np.ndarray, level: int) -> np.ndarray:
        keys = rounded_keys(_scores(cells) << _DROPPED_BITS, level + _DROPPED_BITS if level else 0) >> _DROPPED_BITS
        return _joined(_classes(cells) << _SCORE_BITS | keys, _labels(cells), _folds(cells))

    def resampling_cells(self, cells: np.ndarray, counts: np.ndarray, most: int) -> np.ndarray:
        most = max(most // self.classes, 2 * LEAST_RESAMPLED)
        found = cells.copy()
        for start, end in _segments(_classes(cells), self.classes):
            mine = cells[start:end]
            pairs = _scores(mine) << 1 | _labels(mine)
            few = BinaryScores().resampling_cells(pairs, counts[start:end], most)
            found[start:end] = _joined(_classes(mine) << _SCORE_BITS | few >> 1, few & 1, _folds(mine))
        return found

    def _areas(self, cells: np.ndarray, counts: np.ndarray) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Return both areas of each class by name, and the rows of each class, each (..., classes)."""
        keys, positive, negative = _label_counts(cells >> (1 + _FOLD_BITS), _labels(cells), counts)
        shape = (*counts.shape[:-1], self.classes)
        found: dict[str, np.ndarray] = {"roc_auc": np.full(shape, np.nan), "pr_auc": np.full(shape, np.nan)}
        true = np.zeros(shape)
        for place, (start, end) in enumerate(_segments(keys >> _SCORE_BITS, self.classes)):
            true[..., place] = positive[..., start:end].sum(axis=-1)
            for area, value in _areas_of(positive[..., start:end], negative[..., start:end]).items():
                found[area][..., place] = value
        return found, true


def _areas_of(positive: np.ndarray, negative: np.ndarray) -> dict[str, np.ndarray]:
    return {"roc_auc": roc_auc(positive, negative), "pr_auc": average_precision(positive, negative)}


def _label_counts(
    keys: np.ndarray, labels: np.ndarray, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the distinct keys, ascending (m,), and the counts of both labels at each, (..., m): positive, negative."""
    if not len(keys):
        none = np.zeros((*counts.shape[:-1], 0))
        return keys, none, none
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    starts = np.flatnonzero(np.diff(ordered, prepend=ordered[0] - 1))
    positive, negative = (np.add.reduceat((counts * (labels == side))[..., order], starts, axis=-1) for side in (1, 0))
    return ordered[starts], positive, negative


def _segments(classes: np.ndarray, number: int) -> list[tuple[int, int]]:
    """Return the first and the last index + 1 of each class, in ascending classes (n,)."""
    ends = np.searchsorted(classes, np.arange(number + 1))
    return list(zip(ends[:-1].tolist(), ends[1:].tolist()))


def _joined(keys: np.ndarray, label: np.ndarray, fold: np.ndarray) -> np.ndarray:
    return (keys << 1 | label) << _FOLD_BITS | fold


def _folds(cells: np.ndarray) -> np.ndarray:
    return cells & (FOLDS - 1)


def _labels(cells: np.ndarray) -> np.ndarray:
    return cells >> _FOLD_BITS & 1


def _scores(cells: np.ndarray) -> np.ndarray:
    return cells >> (1 + _FOLD_BITS) & ((1 << _SCORE_BITS) - 1)


def _classes(cells: np.ndarray) -> np.ndarray:
    return cells >> (1 + _FOLD_BITS + _SCORE_BITS)
