"""Boxes found in images, matched with those that are there, image by image, by pycocotools."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasline.components.core.errors import ParameterError
from kerasline.components.metrics.base import Rows

# As COCOeval has them: limits of the area in pixels, thresholds of overlap, detections an image.
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
OVERLAPS = np.linspace(0.5, 0.95, 10)
MOST_DETECTIONS = (1, 10, 100)
IGNORED, WRONG, RIGHT = 0, 1, 2


def matched(rows: Rows, true: Objects, predicted: Objects) -> Matches:
    """Each image and class matched by itself, by pycocotools."""
    evaluator = _evaluator()
    truths, detections = true.by_image_and_class(), predicted.by_image_and_class()
    evaluator._gts.update(truths)
    evaluator._dts.update(detections)
    pairs = sorted(truths.keys() | detections.keys())
    outcomes, there, scores = [], [], []
    for pair in pairs:
        evaluator.ious[pair] = evaluator.computeIoU(*pair)
        found = [evaluator.evaluateImg(*pair, area, MOST_DETECTIONS[-1]) for area in AREAS.values()]
        scores.append(np.array(found[0]["dtScores"], np.float64))
        outcomes.append(np.stack([_outcome(one["dtMatches"], one["dtIgnore"]) for one in found]))
        there.append([np.count_nonzero(one["gtIgnore"] == 0) for one in found])
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
        np.array(there, np.int64).reshape(-1, len(AREAS)),
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

    def taken(self, places: np.ndarray) -> Objects:
        return Objects(*(getattr(self, name)[places] for name in self.__dataclass_fields__))

    def by_image_and_class(self) -> dict[tuple[int, int], list[dict[str, Any]]]:
        """As COCOeval takes annotations; their ids begin with 1, for 0 would say that a box is not matched."""
        groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
        values = (getattr(self, name).tolist() for name in self.__dataclass_fields__)
        for place, (image, kind, box, area, crowd, score) in enumerate(zip(*values), start=1):
            groups.setdefault((image, kind), []).append(
                {"id": place, "bbox": box, "area": area, "score": score} | {"iscrowd": int(crowd), "ignore": int(crowd)}
            )
        return groups


@dataclass(frozen=True)
class Matches:
    """What came of the detections in some images.

    Attributes:
        number: of each image, int64 (images,), ascending.
        weight: of each image, float64 (images,).
        image, kind, score, place: of each detection: the place of its image, its class, its score, and its
            place by score among those of the image and class; (detections,).
        outcome: `RIGHT`, `WRONG` or `IGNORED`, uint8 (detections, areas, overlaps).
        true_image, true_kind: of each pair of an image and a class that is in it; (pairs,).
        there: how many true boxes count, int64 (pairs, areas).
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
    there: np.ndarray

    @classmethod
    def joined(cls, parts: list[Matches]) -> Matches:
        """All in one, by the numbers of the images."""
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
            for name in ("weight", "kind", "score", "place", "outcome", "true_kind", "there")
        }
        return cls(
            number[order],
            every["weight"][order],
            image[by_image],
            *(every[name][by_image] for name in ("kind", "score", "place", "outcome")),
            true_image[true_by_image],
            *(every[name][true_by_image] for name in ("true_kind", "there")),
        )

    def by_class(self) -> Iterator[tuple[int, Matches]]:
        """Each class that has true boxes, with what is of it."""
        for kind in np.unique(self.true_kind):
            found, true = self.kind == kind, self.true_kind == kind
            yield (
                kind,
                Matches(
                    self.number,
                    self.weight,
                    *(getattr(self, name)[found] for name in ("image", "kind", "score", "place", "outcome")),
                    *(getattr(self, name)[true] for name in ("true_image", "true_kind", "there")),
                ),
            )


def _outcome(matches: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """uint8 (overlaps, detections)."""
    return np.where(ignored, IGNORED, np.where(matches > 0, RIGHT, WRONG)).astype(np.uint8)


def _nothing() -> Matches:
    whole, real = np.zeros(0, np.int64), np.zeros(0)
    outcome, there = np.zeros((0, len(AREAS), len(OVERLAPS)), np.uint8), np.zeros((0, len(AREAS)), np.int64)
    return Matches(whole, real, whole, whole, real, whole, outcome, whole, whole, there)


def _evaluator() -> Any:
    try:
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ParameterError(
            "metrics of detections need the package pycocotools, which is not installed; "
            "pip install 'kerasline[detection]'"
        ) from error
    return COCOeval(iouType="bbox")
