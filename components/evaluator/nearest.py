"""The training pictures that generated pictures resemble most, to find out whether a model copies them."""

from __future__ import annotations

import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.component import Context
from kerasline.components.data.fold import fold
from kerasline.components.data.row_groups import RowGroup, row_groups
from kerasline.components.evaluator.settings import NEAREST_SPLIT

ROWS_AT_ONCE = 1024
# Larger pictures are compared at this size.
MOST_SIDE = 64


@dataclass
class Nearest:
    """For each of some pictures, the nearest one among the rows read so far.

    Attributes:
        distance: float64 (n,), root of the mean square difference of the pixels, from 0 to 255.
        row: int64 (n,), its place in the split.
    """

    distance: np.ndarray
    row: np.ndarray

    def merge(self, other: Nearest) -> Nearest:
        is_nearer = other.distance < self.distance
        return Nearest(*(np.where(is_nearer, *pair) for pair in zip(vars(other).values(), vars(self).values())))


def nearest_pictures(pictures: Sequence[bytes], examples: Examples, column: str, context: Context) -> Nearest:
    """Find the nearest pictures of the training split.

    Args:
        pictures: encoded images, at least one. All are compared at the size of the first.
        examples: the data.
        column: raw column of encoded images.
        context: context of the stage.
    """
    image = Image.open(io.BytesIO(pictures[0]))
    scale = min(1.0, MOST_SIDE / max(image.size))
    size = max(1, round(image.height * scale)), max(1, round(image.width * scale))
    of_group = functools.partial(_of_group, pixels=_pixels(pictures, size), size=size, column=column)
    found = fold(row_groups(examples, NEAREST_SPLIT), of_group, Nearest.merge, context)
    assert found is not None  # a training split has rows
    return found


def _of_group(group: RowGroup, *, pixels: np.ndarray, size: tuple[int, int], column: str) -> Nearest:
    count, first = len(pixels), group.first
    nearest = Nearest(np.full(count, np.inf), np.full(count, -1))
    with pq.ParquetFile(group.shard) as file:
        for batch in file.iter_batches(ROWS_AT_ONCE, row_groups=[group.number], columns=[column]):
            theirs = _pixels(batch.column(0).to_pylist(), size)
            best = (np.square(theirs).sum(axis=1) - 2 * pixels @ theirs.T).argmin(axis=1)
            distance = np.sqrt(np.square(pixels - theirs[best]).mean(axis=1, dtype=np.float64))
            nearest = nearest.merge(Nearest(distance, first + best))
            first += len(theirs)
    return nearest


def _pixels(files: Sequence[bytes | None], size: tuple[int, int]) -> np.ndarray:
    """Return images as float32 (n, numbers)."""
    from kerasline.components.preprocessing.layers.image import ImageDecoding

    decoded = ImageDecoding(size)(np.array([file or b"" for file in files], object))
    return decoded.numpy().reshape(len(files), -1).astype(np.float32)
