"""Objects found in images: average precision and recall as COCO defines them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.columnar.unify import is_list
from components.errors import DataError, ParameterError, nearest
from components.evaluation.estimates import Estimate
from components.evaluation.metrics.base import Direction, Rows, StateMetrics, divided

# The names of the columns by what they hold; `OPTIONAL` ones may be missing.
COLUMNS: Mapping[str, str] = MappingProxyType({
    "boxes": "boxes",
    "classes": "classes",
    "crowd": "crowd",
    "area": "area",
    "predicted_boxes": "predicted_boxes",
    "predicted_classes": "predicted_classes",
    "scores": "scores",
})  # fmt: skip
TRUE, PREDICTED = tuple(COLUMNS)[:4], tuple(COLUMNS)[4:]
OPTIONAL = ("crowd", "area")
# As COCOeval has them: limits of the area in pixels, thresholds of overlap and recall, detections an image.
AREAS = {"all": (0.0, 1e10), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2), "large": (96.0**2, 1e10)}
OVERLAPS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MOST_DETECTIONS = (1, 10, 100)
IGNORED, WRONG, RIGHT = 0, 1, 2
# Numbers at once when replicates are drawn: 32 MB.
MOST_NUMBERS = 1 << 22


class DetectionMetrics(StateMetrics):
    """Mean average precision and recall of boxes, exactly as pycocotools' COCOeval tells them.

    In each image and class the detections, the highest score first, take the free true box that they overlap
    most, if by the threshold (intersection over union; of a crowd, the share of the detection in it). Over all
    images, average precision is the mean of the best precision at recall r or more, r = 0, 0.01, ..., 1; recall
    that of the 1, 10 or 100 best detections an image. Both are means over classes that are there, and over
    overlaps 0.5, 0.55, ..., 0.95 but where one is named (Lin et al., ECCV 2014; cocodataset.org/#detection-eval).

    - `ap`, `ap_50`, `ap_75`; `ap_small`, `ap_medium`, `ap_large`: of boxes of less than 32^2 pixels, 96^2, more;
    - `ar_1`, `ar_10`, `ar_100`; `ar_small`, `ar_medium`, `ar_large`.

    Intervals are by a bootstrap of whole images, each counted Poisson(1) times. A row is an image; its number
    takes the place of COCO's image id, which tells the order of equal scores. Weights are of images. What is kept
    of an image grows with its detections, 72 bytes each, of which the 100 best of each class count.

    The columns (`rows.columns`), lists with an entry an object: `boxes`, lists of 4 numbers in absolute pixels;
    `classes`, whole numbers; and where they are there, `crowd`, whether a box is of a crowd and no error when
    missed, and `area`, of what is in the box, else that of the box; `predicted_boxes`, `predicted_classes`,
    `scores`. A class below 0 is padding.

    Args:
        columns: the names of the columns where they are others, by the names above.
        boxes: `xyxy`, left, top, right and bottom; or `xywh`, left, top, width and height.
        replicates: how many times images are drawn; 0 for no intervals.

    Raises:
        ParameterError: a parameter is not known; when adding rows: pycocotools is not installed.
        DataError: when adding rows: a column is missing, or lists of an image differ in length.
    """

    directions: dict[str, Direction] = dict.fromkeys(
        ["ap", "ap_50", "ap_75", "ap_small", "ap_medium", "ap_large"]
        + ["ar_1", "ar_10", "ar_100", "ar_small", "ar_medium", "ar_large"],
        "up",
    )

    def __init__(
        self,
        columns: Mapping[str, str] = MappingProxyType({}),
        *,
        boxes: Literal["xyxy", "xywh"] = "xyxy",
        replicates: int = 199,
    ):
        for name in columns:
            if name not in COLUMNS:
                raise ParameterError(f"columns: detections have no {name!r}; {nearest(name, COLUMNS)}")
        if boxes not in ("xyxy", "xywh"):
            raise ParameterError(f"boxes={boxes!r}: boxes are told as 'xyxy' or 'xywh'")
        self.columns, self.boxes, self.replicates = {**COLUMNS, **columns}, boxes, replicates

    def new_state(self) -> DetectionState:
        return DetectionState(self.columns, self.boxes)

    def estimates(self, state: DetectionState, seed: int) -> dict[str, Estimate]:
        matches = state.matches()
        value = _values(matches, matches.weight[:, np.newaxis])
        drawn = self._drawn(matches, seed)
        return {
            name: Estimate(float(value[name][0]), replicates=drawn[name] if self.replicates else None)
            for name in self.directions
        }

    def per_class(self, state: DetectionState) -> dict[int, dict[str, float]]:
        """By class, those metrics of its boxes alone."""
        found = {}
        for one, of_one in state.matches().by_class():
            values = _values(of_one, of_one.weight[:, np.newaxis])
            found[int(one)] = {name: float(value[0]) for name, value in values.items()}
        return found

    def _drawn(self, matches: Matches, seed: int) -> dict[str, np.ndarray]:
        """The metrics of each replicate; some at once, as many as fit into memory."""
        random = np.random.default_rng(seed)
        at_once = max(1, MOST_NUMBERS // max(len(matches.score), len(matches.number), 1))
        parts = []
        for first in range(0, self.replicates, at_once):
            # One replicate after the other, so that how many are drawn at once does not matter.
            times = random.poisson(1.0, (min(at_once, self.replicates - first), len(matches.number)))
            parts.append(_values(matches, np.ascontiguousarray(times.T) * matches.weight[:, np.newaxis]))
        return {name: np.concatenate([part[name] for part in parts]) for name in self.directions} if parts else {}


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


class DetectionState:
    """Images whose detections have been matched; each image by itself, so that states merge in any order."""

    def __init__(self, columns: Mapping[str, str], boxes: str):
        self._columns, self._boxes = columns, boxes
        self._parts: list[Matches] = []

    def add(self, rows: Rows) -> None:
        true, predicted = self._objects(rows, predicted=False), self._objects(rows, predicted=True)
        if len(rows):
            self._parts.append(_matched(rows, true, predicted))

    def merge(self, other: DetectionState) -> None:
        self._parts += other._parts

    def matches(self) -> Matches:
        """Of all images."""
        return Matches.joined(self._parts)

    def _objects(self, rows: Rows, *, predicted: bool) -> _Objects:
        names = PREDICTED if predicted else TRUE
        columns = {name: self._column(rows, name) for name in names}
        held = {name: _entries(column) for name, column in columns.items() if column is not None}
        image, boxes = held[names[0]]
        for name in held:
            self._check_lengths(rows, image, held[name][0], names=(names[0], name))
        boxes = self._as_xywh(boxes, names[0])
        values = {name: entries for name, (_, entries) in held.items()}
        objects = _Objects(
            image,
            values[names[1]].astype(np.int64),
            boxes,
            values.get("area", boxes[:, 2] * boxes[:, 3]).astype(np.float64),
            values.get("crowd", np.zeros(len(boxes))).astype(bool),
            values.get("scores", np.zeros(len(boxes))).astype(np.float64),
        )
        return objects.taken(objects.kind >= 0)

    def _column(self, rows: Rows, name: str) -> pa.Array | None:
        column = self._columns[name]
        if column in rows.columns:
            held = rows.columns[column]
            if is_list(held.type) or isinstance(held, pa.FixedShapeTensorArray):
                return held
            raise DataError(f"detection: the column {column!r} is of type {held.type}, not a list with an entry "
                            "an object")  # fmt: skip
        if name in OPTIONAL:
            return None
        raise DataError(f"detection: the data has no column {column!r}, which holds the {name.replace('_', ' ')}; "
                        f"{nearest(column, rows.columns)}")  # fmt: skip

    def _check_lengths(self, rows: Rows, boxes: np.ndarray, others: np.ndarray, *, names: tuple[str, str]) -> None:
        counts, others_counts = (np.bincount(image, minlength=len(rows)) for image in (boxes, others))
        if (differs := np.flatnonzero(counts != others_counts)).size:
            row = differs[0]
            raise DataError(
                f"detection: of row {rows.number[row]}, the columns {self._columns[names[0]]!r} and "
                f"{self._columns[names[1]]!r} hold {counts[row]} boxes and {others_counts[row]} entries; "
                "they need one entry a box"
            )

    def _as_xywh(self, boxes: np.ndarray, name: str) -> np.ndarray:
        """float64 (n, 4)."""
        if not len(boxes):
            return np.zeros((0, 4))
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise DataError(f"detection: the column {self._columns[name]!r} does not hold lists of 4 numbers")
        boxes = boxes.astype(np.float64)
        return boxes if self._boxes == "xywh" else np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


@dataclass(frozen=True)
class _Objects:
    """Boxes of some images, image after image; arrays (n, ...). The boxes are left, top, width, height."""

    image: np.ndarray
    kind: np.ndarray
    box: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    score: np.ndarray

    def taken(self, places: np.ndarray) -> _Objects:
        return _Objects(*(getattr(self, name)[places] for name in self.__dataclass_fields__))

    def by_image_and_class(self) -> dict[tuple[int, int], list[dict[str, Any]]]:
        """As COCOeval takes annotations; their ids begin with 1, for 0 would say that a box is not matched."""
        groups: dict[tuple[int, int], list[dict[str, Any]]] = {}
        values = (getattr(self, name).tolist() for name in self.__dataclass_fields__)
        for place, (image, kind, box, area, crowd, score) in enumerate(zip(*values), start=1):
            groups.setdefault((image, kind), []).append(
                {"id": place, "bbox": box, "area": area, "score": score}
                | {"iscrowd": int(crowd), "ignore": int(crowd)}
            )
        return groups


def _entries(lists: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """The row of each entry of the lists, int64 (n,), and the entries, (n,) or (n, m)."""
    if isinstance(lists, pa.FixedShapeTensorArray):
        values = lists.to_numpy_ndarray()
        return np.repeat(np.arange(len(values)), values.shape[1]), values.reshape(-1, *values.shape[2:])
    lengths = pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False)
    row, entries = np.repeat(np.arange(len(lists)), lengths), lists.flatten()
    if not is_list(entries.type):
        return row, _numbers(entries)
    inner = pc.fill_null(pc.list_value_length(entries), 0).to_numpy(zero_copy_only=False)
    numbers = _numbers(entries.flatten())
    is_square = len(inner) and inner[0] and (inner == inner[0]).all()
    return row, numbers.reshape(-1, inner[0]) if is_square else numbers


def _numbers(entries: pa.Array) -> np.ndarray:
    if entries.null_count:
        raise DataError(f"detection: {entries.null_count} entries in lists of objects are null")
    return entries.to_numpy(zero_copy_only=False)


def _matched(rows: Rows, true: _Objects, predicted: _Objects) -> Matches:
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


def _outcome(matches: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """uint8 (overlaps, detections)."""
    return np.where(ignored, IGNORED, np.where(matches > 0, RIGHT, WRONG)).astype(np.uint8)


def _nothing() -> Matches:
    whole, real = np.zeros(0, np.int64), np.zeros(0)
    outcome, there = np.zeros((0, len(AREAS), len(OVERLAPS)), np.uint8), np.zeros((0, len(AREAS)), np.int64)
    return Matches(whole, real, whole, whole, real, whole, outcome, whole, whole, there)


def _values(matches: Matches, weight: np.ndarray) -> dict[str, np.ndarray]:
    """The metrics by name, float64 (replicates,).

    Args:
        weight: of each image in each replicate, float64 (images, replicates).
    """
    classes = [_OfClass.of(of_class, weight) for _, of_class in matches.by_class()]
    none = np.zeros((0, len(AREAS), len(OVERLAPS), weight.shape[1]))
    precision = np.stack([one.average_precision() for one in classes]) if classes else none
    recall = {
        most: np.stack([one.recall(most) for one in classes]) if classes else none for most in MOST_DETECTIONS
    }
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


def _evaluator() -> Any:
    try:
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ParameterError("metrics of detections need the package pycocotools, which is not installed; "
                             "pip install 'kerasline[detection]'") from error  # fmt: skip
    return COCOeval(iouType="bbox")
