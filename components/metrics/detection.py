"""Metrics of object detection: average precision and recall as defined by COCO."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.core.errors import DataError, ParameterError, nearest
from kerasline.components.data.arrow_arrays import as_texts
from kerasline.components.data.arrow_types import is_list
from kerasline.components.data.hashing import row_hashes
from kerasline.components.metrics.base import Direction, Rows, StateMetrics, divided
from kerasline.components.metrics.coco import (
    RECALLS,
    RIGHT,
    WRONG,
    Matches,
    Objects,
    matched,
    precision_and_recall,
    precision_by_recall,
)
from kerasline.components.metrics.estimates import Estimate

# Default names of the columns by content. Those in `OPTIONAL` may be missing.
COLUMNS: Mapping[str, str] = MappingProxyType(
    {
        "boxes": "boxes",
        "classes": "classes",
        "crowd": "crowd",
        "area": "area",
        "predicted_boxes": "predicted_boxes",
        "predicted_classes": "predicted_classes",
        "scores": "scores",
    }
)
BoxFormat = Literal["xyxy", "yxyx", "xywh", "center_xywh"]
BOX_FORMATS = get_args(BoxFormat)
TRUE, PREDICTED = tuple(COLUMNS)[:4], tuple(COLUMNS)[4:]
OPTIONAL = ("crowd", "area")
# Limit of the numbers in memory when replicates are drawn: 32 MB.
MOST_NUMBERS = 1 << 22


class DetectionMetrics(StateMetrics):
    """Mean average precision and recall of boxes, exactly as in pycocotools' COCOeval.

    In each image and class, each detection, in descending order of the scores, is matched with the free true box of
    largest overlap, if it reaches the threshold. The overlap is the intersection over union; with a crowd, it is the
    share of the detection inside it. Over all images, average precision is the mean of the best precision at a recall
    of at least r, for r = 0, 0.01, ..., 1. Recall is that of the 1, 10 or 100 best detections of an image. Both are
    means over the classes that occur, and over the thresholds 0.5, 0.55, ..., 0.95 unless one is named (Lin et al.,
    ECCV 2014; cocodataset.org/#detection-eval).

    - `ap`, `ap_50`, `ap_75`; `ap_small`, `ap_medium`, `ap_large`: boxes below 32^2 pixels, below 96^2, and above;
    - `ar_1`, `ar_10`, `ar_100`; `ar_small`, `ar_medium`, `ar_large`.

    Intervals come from a bootstrap of whole images, each counted Poisson(1) times. A row is an image. Its number
    replaces COCO's image id, which orders equal scores. Weights apply to images. The state of an image has 72 bytes per
    detection, for the 100 best of each class.

    The columns (`rows.columns`) are lists with an entry per object: `boxes`, lists of 4 numbers in absolute pixels;
    `classes`, integers or names; optionally `crowd`, whether a box is a crowd, which may be missed, and `area`, that of
    the object instead of the box; `predicted_boxes`, `predicted_classes`, `scores`. A class below 0, or an empty name,
    is padding.

    Args:
        columns: other names of the columns, by the names above.
        boxes: order of the four numbers: `xyxy` (left, top, right, bottom), `yxyx` (top, left, bottom, right), `xywh`
            (left, top, width, height) or `center_xywh` (those of the centre, width, height).
        replicates: number of bootstrap replicates. 0 for no intervals.

    Raises:
        ParameterError: a parameter is unknown, or, when rows are added, pycocotools is not installed.
        DataError: when rows are added: a column is missing, or lists of an image differ in length.
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
        boxes: BoxFormat = "xyxy",
        replicates: int = 199,
    ):
        for name in columns:
            if name not in COLUMNS:
                raise ParameterError(f"columns: detections have no {name!r}; {nearest(name, COLUMNS)}")
        if boxes not in BOX_FORMATS:
            raise ParameterError(f"boxes={boxes!r}: expected one of {', '.join(map(repr, BOX_FORMATS))}")
        self.columns, self.boxes, self.replicates = {**COLUMNS, **columns}, boxes, replicates

    def new_state(self) -> DetectionState:
        return DetectionState(self.columns, self.boxes)

    def estimates(self, state: DetectionState, seed: int) -> dict[str, Estimate]:
        matches = state.matches()
        value = precision_and_recall(matches, matches.weight[:, np.newaxis])
        drawn = self._drawn(matches, seed)
        return {
            name: Estimate(float(value[name][0]), replicates=drawn[name] if self.replicates else None)
            for name in self.directions
        }

    def per_class(self, state: DetectionState) -> dict[int, dict[str, float]]:
        """Return the metrics of each class, computed from its boxes only."""
        found = {}
        for one, of_one in state.matches().by_class():
            values = precision_and_recall(of_one, of_one.weight[:, np.newaxis])
            found[int(one)] = {name: float(value[0]) for name, value in values.items()}
        return found

    def curves(self, state: DetectionState) -> dict[str, dict[str, list[float]]]:
        """Return the points of the precision-recall curve at an overlap of 0.5, a mean over the classes."""
        precision = precision_by_recall(state.matches())
        if np.isnan(precision).any():
            return {}
        return {"precision_recall": {"x": RECALLS.tolist(), "y": precision.tolist()}}

    def row_scores(self, rows: Rows) -> np.ndarray:
        """Return the F1 score of each image, float64 (rows,): of all its boxes, matched at an overlap of 0.5."""
        state = self.new_state()
        state.add(rows)
        matches = state.matches()
        images, outcome = len(matches.number), matches.outcome[:, 0, 0]
        right, wrong = (np.bincount(matches.image[outcome == one], minlength=images) for one in (RIGHT, WRONG))
        true = np.bincount(matches.true_image, matches.true_boxes[:, 0], minlength=images)
        boxes = right + wrong + true
        return np.where(boxes > 0, divided(2.0 * right, boxes), 1.0)

    def _drawn(self, matches: Matches, seed: int) -> dict[str, np.ndarray]:
        """Return the metrics of each replicate, computing as many at once as fit into memory."""
        random = np.random.default_rng(seed)
        at_once = max(1, MOST_NUMBERS // max(len(matches.score), len(matches.number), 1))
        parts = []
        for first in range(0, self.replicates, at_once):
            # Drawn replicate by replicate, so that the result does not depend on `at_once`.
            times = random.poisson(1.0, (min(at_once, self.replicates - first), len(matches.number)))
            weight = np.ascontiguousarray(times.T) * matches.weight[:, np.newaxis]
            parts.append(precision_and_recall(matches, weight))
        return {name: np.concatenate([part[name] for part in parts]) for name in self.directions} if parts else {}


class DetectionState:
    """Matched images. Each image is matched separately, so states merge in any order.

    Attributes:
        names: the names of the classes by number, if classes are names.
    """

    def __init__(self, columns: Mapping[str, str], boxes: str):
        self._columns, self._boxes = columns, boxes
        self.names: dict[int, str] = {}
        self._parts: list[Matches] = []

    def add(self, rows: Rows) -> None:
        true, predicted = self._objects(rows, predicted=False), self._objects(rows, predicted=True)
        if len(rows):
            self._parts.append(matched(rows, true, predicted))

    def merge(self, other: DetectionState) -> None:
        self._parts += other._parts
        self.names |= other.names

    def matches(self) -> Matches:
        """Return the matches of all images."""
        return Matches.joined(self._parts)

    def _objects(self, rows: Rows, *, predicted: bool) -> Objects:
        names = PREDICTED if predicted else TRUE
        columns = {name: self._column(rows, name) for name in names}
        held = {name: _entries(column) for name, column in columns.items() if column is not None}
        image, boxes = held[names[0]]
        for name in held:
            self._check_lengths(rows, image, held[name][0], names=(names[0], name))
        boxes = self._as_xywh(boxes, names[0])
        values = {name: entries for name, (_, entries) in held.items()}
        objects = Objects(
            image,
            self._class_numbers(values[names[1]]),
            boxes,
            values.get("area", boxes[:, 2] * boxes[:, 3]).astype(np.float64),
            values.get("crowd", np.zeros(len(boxes))).astype(bool),
            values.get("scores", np.zeros(len(boxes))).astype(np.float64),
        )
        return objects.take(objects.kind >= 0)

    def _class_numbers(self, classes: np.ndarray) -> np.ndarray:
        """Return classes as numbers, int64 (n,). That of a name is a hash, so that states merge."""
        if classes.dtype != object:
            return classes.astype(np.int64)
        names, places = np.unique(classes.astype(str), return_inverse=True)
        hashes = row_hashes(pa.record_batch({"name": pa.array(names, pa.string())}))
        numbers = np.where(names == "", -1, (hashes >> np.uint64(1)).astype(np.int64))
        self.names |= dict(zip(numbers.tolist(), names.tolist()))
        return numbers[places]

    def _column(self, rows: Rows, name: str) -> pa.Array | None:
        column = self._columns[name]
        if column in rows.columns:
            held = rows.columns[column]
            if is_list(held.type) or isinstance(held, pa.FixedShapeTensorArray):
                return held
            raise DataError(
                f"detection: the column {column!r} is of type {held.type}, not a list with an entry an object"
            )
        if name in OPTIONAL:
            return None
        raise DataError(
            f"detection: the data has no column {column!r}, which holds the {name.replace('_', ' ')}; "
            f"{nearest(column, rows.columns)}"
        )

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
        """Return boxes as left, top, width and height, float64 (n, 4)."""
        if not len(boxes):
            return np.zeros((0, 4))
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise DataError(f"detection: the column {self._columns[name]!r} does not hold lists of 4 numbers")
        boxes = boxes.astype(np.float64)
        if self._boxes == "xywh":
            return boxes
        boxes = corners(boxes, self._boxes)
        return np.hstack([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]])


def corners(boxes: np.ndarray, form: str) -> np.ndarray:
    """Return boxes of a form of `BOX_FORMATS`, (n, 4), as left, top, right and bottom."""
    first, last = boxes[:, :2], boxes[:, 2:]
    if form == "yxyx":
        return boxes[:, [1, 0, 3, 2]]
    if form == "xywh":
        return np.hstack([first, first + last])
    return np.hstack([first - last / 2, first + last / 2]) if form == "center_xywh" else boxes


def _entries(lists: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """Return the row of each entry of the lists, int64 (n,), and the entries, (n,) or (n, m)."""
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


def is_object(kind: int | str | bytes) -> bool:
    """Return whether an entry of the classes is that of an object, and not padding."""
    return kind >= 0 if isinstance(kind, int) else len(kind) > 0


def _numbers(entries: pa.Array) -> np.ndarray:
    """Return numbers, or texts as an array of objects."""
    if entries.null_count:
        raise DataError(f"detection: {entries.null_count} entries in lists of objects are null")
    if not pa.types.is_primitive(entries.type):
        return as_texts(entries).to_numpy(zero_copy_only=False)
    return entries.to_numpy(zero_copy_only=False)
