"""COCO detection metrics: pycocotools matches boxes per image; average precision and recall are computed for many
bootstrap replicates at once, exactly as COCOeval does."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasline.components.core.errors import ParameterError
from kerasline.components.metrics.base import Rows, divided

# As in COCOeval: limits of the area in pixels, overlap thresholds, and detections per image.
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
OVERLAPS = np.linspace(0.5, 0.95, 10)
MOST_DETECTIONS = (1, 10, 100)
RECALLS = np.linspace(0.0, 1.0, 101)
IGNORED, WRONG, RIGHT = 0, 1, 2


def matched(rows: Rows, true: Objects, predicted: Objects) -> Matches:
    """Match the boxes of each image and class with pycocotools."""
    evaluator = _evaluator()
    truths, detections = true.by_image_and_class(), predicted.by_image_and_class()
    evaluator._gts.update(truths)
    evaluator._dts.update(detections)
    pairs = sorted(truths.keys() | detections.keys())
    outcomes, true_boxes, scores = [], [], []
    for pair in pairs:
        evaluator.ious[pair] = evaluator.computeIoU(*pair)
        found = [evaluator.evaluateImg(*pair, area, MOST_DETECTIONS[-1]) for area in AREAS.values()]
        scores.append(np.array(found[0]["dtScores"], np.float64))
        outcomes.append(np.stack([_outcome(one["dtMatches"], one["dtIgnore"]) for one in found]))
        true_boxes.append([np.count_nonzero(one["gtIgnore"] == 0) for one in found])
    images, kinds = np.array(pairs, np.int64).reshape(-1, 2).T
    counts = np.array(list(map(len, scores)), np.int64)
    return Matches(
        rows.number,
        np.ones(len(rows)) if rows.weight is None else rows.weight,
        np.repeat(images, counts),
        np.repeat(kinds, counts),
        np.concatenate([np.zeros(0), *scores]),
        np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts),
        np.concatenate([_nothing().outcome, *(one.transpose(2, 0, 1) for one in outcomes)]),
        images,
        kinds,
        np.array(true_boxes, np.int64).reshape(-1, len(AREAS)),
    )


@dataclass(frozen=True)
class Objects:
    """Boxes of some images, image after image; arrays (n, ...). The boxes are left, top, width, height."""

    image: np.ndarray
    kind: np.ndarray
    box: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    score: np.ndarray

    def take(self, places: np.ndarray) -> Objects:
        return Objects(*(getattr(self, name)[places] for name in self.__dataclass_fields__))

    def by_image_and_class(self) -> dict[tuple[int, int], list[dict[str, Any]]]:
        """Return annotations in COCOeval's format. Ids start at 1, because 0 means that a box is not matched."""
        groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
        values = (getattr(self, name).tolist() for name in self.__dataclass_fields__)
        for place, (image, kind, box, area, crowd, score) in enumerate(zip(*values), start=1):
            groups.setdefault((image, kind), []).append(
                {"id": place, "bbox": box, "area": area, "score": score} | {"iscrowd": int(crowd), "ignore": int(crowd)}
            )
        return groups


@dataclass(frozen=True)
class Matches:
    """The outcome of the detections in some images.

    Attributes:
        number: of each image, int64 (images,), ascending.
        weight: of each image, float64 (images,).
        image, kind, score, place: of each detection: the place of its image, its class, its score, and its
            place by score among those of the image and class; (detections,).
        outcome: `RIGHT`, `WRONG` or `IGNORED`, uint8 (detections, areas, overlaps).
        true_image, true_kind: of each pair of an image and a class present in it; (pairs,).
        true_boxes: number of true boxes that count, int64 (pairs, areas).
    """

    number: np.ndarray
    weight: np.ndarray
    image: np.ndarray
    kind: np.ndarray
    score: np.ndarray
    place: np.ndarray
    outcome: np.ndarray
    true_image: np.ndarray
    true_kind: np.ndarray
    true_boxes: np.ndarray

    @classmethod
    def joined(cls, parts: list[Matches]) -> Matches:
        """Join matches, ordered by the numbers of the images."""
        parts = [_nothing(), *parts]
        number = np.concatenate([part.number for part in parts])
        order = np.argsort(number)
        new_place = np.empty(len(order), np.int64)
        new_place[order] = np.arange(len(order))
        firsts = np.cumsum([0, *(len(part.number) for part in parts)])
        image, true_image = (
            new_place[np.concatenate([getattr(part, name) + first for part, first in zip(parts, firsts)])]
            for name in ("image", "true_image")
        )
        by_image, true_by_image = np.argsort(image, kind="stable"), np.argsort(true_image, kind="stable")
        every = {
            name: np.concatenate([getattr(part, name) for part in parts])
            for name in ("weight", "kind", "score", "place", "outcome", "true_kind", "true_boxes")
        }
        return cls(
            number[order],
            every["weight"][order],
            image[by_image],
            every["kind"][by_image],
            every["score"][by_image],
            every["place"][by_image],
            every["outcome"][by_image],
            true_image[true_by_image],
            every["true_kind"][true_by_image],
            every["true_boxes"][true_by_image],
        )

    def true_counts(self) -> dict[int, int]:
        """Return the number of true boxes that count, by class."""
        kinds, places = np.unique(self.true_kind, return_inverse=True)
        return dict(zip(kinds.tolist(), np.bincount(places, self.true_boxes[:, 0]).astype(int).tolist()))

    def by_class(self) -> Iterator[tuple[int, Matches]]:
        """Yield each class that has true boxes, with its matches."""
        for kind in np.unique(self.true_kind):
            found, true = self.kind == kind, self.true_kind == kind
            yield (
                kind,
                Matches(
                    self.number,
                    self.weight,
                    *(getattr(self, name)[found] for name in ("image", "kind", "score", "place", "outcome")),
                    *(getattr(self, name)[true] for name in ("true_image", "true_kind", "true_boxes")),
                ),
            )


def precision_and_recall(matches: Matches, weight: np.ndarray) -> dict[str, np.ndarray]:
    """Compute the metrics by name, float64 (replicates,).

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


def precision_by_recall(matches: Matches) -> np.ndarray:
    """Return the best precision at each of `RECALLS` or higher, a mean over classes, at an overlap of 0.5.

    It is float64 (recalls,), and NaN without true boxes. Its mean is `ap_50`.
    """
    classes = (_OfClass.of(of_class, matches.weight[:, np.newaxis]) for _, of_class in matches.by_class())
    curves = [one.precision_by_recall() for one in classes if one.true_boxes[0, 0] > 0]
    return np.mean(curves, axis=0) if curves else np.full(len(RECALLS), np.nan)


@dataclass(frozen=True)
class _OfClass:
    """The detections of a class, in descending order of score.

    Attributes:
        place: as in `Matches`.
        outcome: as in `Matches`.
        weight: of each detection, float64 (detections, replicates).
        true_boxes: total weight of the true boxes, float64 (areas, replicates).
        slack: tolerance for rounding errors of the recall; 0 for integer weights.
    """

    place: np.ndarray
    outcome: np.ndarray
    weight: np.ndarray
    true_boxes: np.ndarray
    slack: float

    @classmethod
    def of(cls, matches: Matches, weight: np.ndarray) -> _OfClass:
        order = np.argsort(-matches.score, kind="stable")
        true_boxes = matches.true_boxes.T @ weight[matches.true_image]
        slack = 0.0 if (weight == np.rint(weight)).all() else 1e-9
        return cls(matches.place[order], matches.outcome[order], weight[matches.image[order]], true_boxes, slack)

    def average_precision(self) -> np.ndarray:
        """Return float64 (areas, overlaps, replicates), NaN without true boxes."""
        return np.stack([self._average_precision(area) for area in range(len(AREAS))])

    def _average_precision(self, area: int) -> np.ndarray:
        """float64 (overlaps, replicates)."""
        outcome = self.outcome[:, area]
        counted = (outcome != IGNORED).astype(np.int8)
        # Few detections change between overlaps, so only the changes are summed again.
        of_first = np.cumsum(self.weight * counted[:, :1], axis=0)
        found = []
        for overlap in range(len(OVERLAPS)):
            right = np.flatnonzero(outcome[:, overlap] == RIGHT)
            change = counted[:, overlap] - counted[:, 0]
            changed = np.flatnonzero(change)
            changes = np.cumsum(self.weight[changed] * change[changed, np.newaxis], axis=0)
            changes = np.concatenate([np.zeros((1, self.weight.shape[1])), changes])
            so_far = of_first[right] + changes[np.searchsorted(changed, right, side="right")]
            found.append(_average_precision(self.weight[right], so_far, self.true_boxes[area], self.slack))
        return np.stack(found)

    def precision_by_recall(self) -> np.ndarray:
        """Return the best precision at each of `RECALLS` or higher, at the first overlap: float64 (recalls,)."""
        outcome = self.outcome[:, 0, :1]
        right = np.flatnonzero(outcome == RIGHT)
        so_far = np.cumsum(self.weight * (outcome != IGNORED), axis=0)[right]
        best, risen = _best_precision(self.weight[right], so_far, self.true_boxes[0], self.slack)
        found = np.repeat(best[:, 0], risen[:, 0])
        return np.pad(found, (0, len(RECALLS) - len(found)))

    def recall(self, most: int) -> np.ndarray:
        """Compute the recall of the `most` best detections of each image: float64 (areas, overlaps, replicates)."""
        right = (self.outcome == RIGHT) & (self.place < most)[:, np.newaxis, np.newaxis]
        hits = np.tensordot(right.astype(np.float64), self.weight, axes=(0, 0))
        return divided(hits, self.true_boxes[:, np.newaxis])


def _average_precision(right: np.ndarray, so_far: np.ndarray, true_boxes: np.ndarray, slack: float) -> np.ndarray:
    """Average, over `RECALLS`, the best precision at that recall or higher: float64 (replicates,).

    The arguments are those of `_best_precision`.
    """
    best, risen = _best_precision(right, so_far, true_boxes, slack)
    return np.where(true_boxes > 0, (best * risen).sum(axis=0) / len(RECALLS), np.nan)


def _best_precision(
    right: np.ndarray, so_far: np.ndarray, true_boxes: np.ndarray, slack: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return the best precision from each correct detection on, and at how many of `RECALLS` it is the best.

    Precision and recall rise only at correct detections. Where recall rises from one value to the next, the best
    precision from there on applies to all `RECALLS` in between.

    Args:
        right: the weights of correct detections in descending order of score, float64 (right ones, replicates).
        so_far: cumulative weight of all detections that count up to each of them; the same shape.
        true_boxes: total weight of all true boxes, float64 (replicates,).
        slack: as in `_OfClass`.

    Returns:
        Both of the shape of `right`.
    """
    hits = np.cumsum(right, axis=0)
    precision = hits / (so_far + np.spacing(1))
    best = np.maximum.accumulate(precision[::-1], axis=0)[::-1]
    reached = np.searchsorted(RECALLS, divided(hits, true_boxes) + slack, side="right")
    return best, np.diff(reached, axis=0, prepend=0)


def _mean(values: np.ndarray) -> np.ndarray:
    """Average over overlaps and the classes present: float64 (replicates,)."""
    known = ~np.isnan(values)
    count = known.sum(axis=(0, 1))
    total = np.where(known, values, 0).sum(axis=(0, 1))
    return divided(total, count)


def _outcome(matches: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """uint8 (overlaps, detections)."""
    return np.where(ignored, IGNORED, np.where(matches > 0, RIGHT, WRONG)).astype(np.uint8)


def _nothing() -> Matches:
    whole, real = np.zeros(0, np.int64), np.zeros(0)
    outcome, true_boxes = np.zeros((0, len(AREAS), len(OVERLAPS)), np.uint8), np.zeros((0, len(AREAS)), np.int64)
    return Matches(whole, real, whole, whole, real, whole, outcome, whole, whole, true_boxes)


def _evaluator() -> Any:
    try:
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ParameterError(
            "metrics of detections need the package pycocotools, which is not installed; "
            "pip install 'kerasline[detection]'"
        ) from error
    return COCOeval(iouType="bbox")
