"""Average precision and recall of matched boxes, as COCOeval computes them, of many replicates at once."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kerasline.components.metrics.base import divided
from kerasline.components.metrics.box_matching import AREAS, IGNORED, MOST_DETECTIONS, OVERLAPS, RIGHT, Matches

RECALLS = np.linspace(0.0, 1.0, 101)


def precision_and_recall(matches: Matches, weight: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics by name, float64 (replicates,).

    Args:
        weight: of each image in each replicate, float64 (images, replicates).
    """
    classes = [_OfClass.of(of_class, weight) for _, of_class in matches.by_class()]
    none = np.zeros((0, len(AREAS), len(OVERLAPS), weight.shape[1]))
    precision = np.stack([one.average_precision() for one in classes]) if classes else none
    recall = {most: np.stack([one.recall(most) for one in classes]) if classes else none for most in MOST_DETECTIONS}
    areas = list(AREAS)[1:]
    return {
        "ap": _mean(precision[:, 0]),
        "ap_50": _mean(precision[:, 0, :1]),
        "ap_75": _mean(precision[:, 0, 5:6]),
        **{f"ap_{area}": _mean(precision[:, place]) for place, area in enumerate(areas, start=1)},
        **{f"ar_{most}": _mean(of_most[:, 0]) for most, of_most in recall.items()},
        **{f"ar_{area}": _mean(recall[100][:, place]) for place, area in enumerate(areas, start=1)},
    }


@dataclass(frozen=True)
class _OfClass:
    """The detections of a class, the highest score first.

    Attributes:
        place: as in `Matches`.
        outcome: as in `Matches`.
        weight: of each detection, float64 (detections, replicates).
        there: the weight of the true boxes, float64 (areas, replicates).
        slack: how much of the recall may be lost by rounding; none where weights are whole numbers.
    """

    place: np.ndarray
    outcome: np.ndarray
    weight: np.ndarray
    there: np.ndarray
    slack: float

    @classmethod
    def of(cls, matches: Matches, weight: np.ndarray) -> _OfClass:
        order = np.argsort(-matches.score, kind="stable")
        there = matches.there.T @ weight[matches.true_image]
        slack = 0.0 if (weight == np.rint(weight)).all() else 1e-9
        return cls(matches.place[order], matches.outcome[order], weight[matches.image[order]], there, slack)

    def average_precision(self) -> np.ndarray:
        """float64 (areas, overlaps, replicates); NaN where there is no true box."""
        return np.stack([self._average_precision(area) for area in range(len(AREAS))])

    def _average_precision(self, area: int) -> np.ndarray:
        """float64 (overlaps, replicates)."""
        outcome = self.outcome[:, area]
        counted = (outcome != IGNORED).astype(np.int8)
        # From one overlap to another few detections begin or cease to count, so these alone are summed up anew.
        of_first = np.cumsum(self.weight * counted[:, :1], axis=0)
        found = []
        for overlap in range(len(OVERLAPS)):
            right = np.flatnonzero(outcome[:, overlap] == RIGHT)
            change = counted[:, overlap] - counted[:, 0]
            changed = np.flatnonzero(change)
            changes = np.cumsum(self.weight[changed] * change[changed, np.newaxis], axis=0)
            changes = np.concatenate([np.zeros((1, self.weight.shape[1])), changes])
            so_far = of_first[right] + changes[np.searchsorted(changed, right, side="right")]
            found.append(_average_precision(self.weight[right], so_far, self.there[area], self.slack))
        return np.stack(found)

    def recall(self, most: int) -> np.ndarray:
        """Of so many best detections of each image: float64 (areas, overlaps, replicates)."""
        right = (self.outcome == RIGHT) & (self.place < most)[:, np.newaxis, np.newaxis]
        hits = np.tensordot(right.astype(np.float64), self.weight, axes=(0, 0))
        return divided(hits, self.there[:, np.newaxis])


def _average_precision(right: np.ndarray, so_far: np.ndarray, there: np.ndarray, slack: float) -> np.ndarray:
    """The mean over `RECALLS` of the best precision at such a recall or more: float64 (replicates,).

    Precision and recall rise at right detections alone. Where recall rises from one value to the next, the best
    precision from there on is that of all `RECALLS` between.

    Args:
        right: the weights of right detections, the highest score first, float64 (right ones, replicates).
        so_far: the weights of all that count up to each of them, summed up; the same shape.
        there: of all true boxes, float64 (replicates,).
        slack: as in `_OfClass`.
    """
    hits = np.cumsum(right, axis=0)
    precision = hits / (so_far + np.spacing(1))
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = np.searchsorted(RECALLS, divided(hits, there) + slack, side="right")
    risen = np.diff(reached, axis=0, prepend=0)
    return np.where(there > 0, (best * risen).sum(axis=0) / len(RECALLS), np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    """Over classes that are there and overlaps: float64 (replicates,)."""
    known = ~np.isnan(values)
    count = known.sum(axis=(0, 1))
    total = np.where(known, values, 0).sum(axis=(0, 1))
    return divided(total, count)
