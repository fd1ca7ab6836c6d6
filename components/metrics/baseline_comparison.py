"""How predictions differ from those of a baseline, row by row, whatever the labels are."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from kerasline.components.metrics.base import Direction, Rows, SumMetrics, divided

NAMES = ("flip_rate", "negative_to_positive_rate", "positive_to_negative_rate", "prediction_difference")


class BaselineComparison(SumMetrics):
    """Flip rates and the mean difference of the predictions from those of the baseline.

    - `flip_rate`: the proportion of decisions that differ: of rows or, with several labels, of all rows and labels.
    - `negative_to_positive_rate`, `positive_to_negative_rate`: the proportions that the baseline decides negatively and
      the model positively, and conversely.
    - `prediction_difference`: the mean of 2 |p - b| / (|p| + |b|), 0 where both are 0.

    Args:
        threshold: a prediction above it is positive; None if predictions are numbers without a decision.
        classes: whether a prediction has a score for each class, of which the highest decides.
    """

    compares_with_baseline = True

    def __init__(self, *, threshold: float | None = None, classes: bool = False) -> None:
        self._threshold, self._classes = threshold, classes
        flips = NAMES[:1] if classes else NAMES[:3] if threshold is not None else ()
        self.directions: Mapping[str, Direction] = dict.fromkeys((*flips, NAMES[-1]))

    def sums(self, rows: Rows) -> np.ndarray:
        if rows.baseline is None:
            return np.full((len(rows), 5), [1.0, *[np.nan] * 4])
        ours, theirs = (side.astype(np.float64).reshape(len(rows), -1) for side in (rows.prediction, rows.baseline))
        size = np.abs(ours) + np.abs(theirs)
        difference = np.divide(2 * np.abs(ours - theirs), size, out=np.zeros_like(size), where=size > 0)
        if self._classes:
            flips = (ours.argmax(axis=1) != theirs.argmax(axis=1))[:, np.newaxis]
            up = down = np.zeros_like(flips)
        else:
            # In the dtype of the predictions, as the metrics of decisions: float32(0.3) is not above 0.3.
            threshold, sides = self._threshold or 0.0, (rows.prediction, rows.baseline)
            above, before = (side.reshape(len(rows), -1) > threshold for side in sides)
            up, down, flips = above & ~before, before & ~above, above != before
        means = [part.mean(axis=1) for part in (flips, up, down, difference)]
        return np.column_stack([np.ones(len(rows)), *means])

    def values(self, sums: np.ndarray) -> dict[str, np.ndarray]:
        means = dict(zip(NAMES, np.moveaxis(divided(sums[..., 1:], sums[..., :1]), -1, 0)))
        return {name: means[name] for name in self.directions}
