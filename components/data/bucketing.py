"""Batches of rows of similar length, so that little of a batch is padding.

Rows are sorted once by bucket, a range of lengths. The borders between the batches of this order are the same in every
epoch. What is shuffled in each epoch are the rows of each bucket, and the batches.
"""

from __future__ import annotations

import functools
import os
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from kerasline.components.core.artifacts import Examples, Preprocessing
from kerasline.components.core.errors import DataError
from kerasline.components.data.arrow_types import is_list
from kerasline.components.data.label_columns import LabelReader
from kerasline.components.data.shuffling import shuffled

# Lengths of a bucket differ by less than this factor, so that some 4% of a batch of it is padding.
BUCKET_GROWTH = 1.08


@dataclass(frozen=True)
class Bucketing:
    """How rows are batched by length.

    Attributes:
        by: names of features, labels or raw columns. A row is as long as the longest of them.
        most_steps: largest number of steps (tokens or frames) of a batch, padding included: its rows times its longest
            row. None for batches of equal numbers of rows.
        parameter: the parameter that sets `most_steps`, for messages.
    """

    by: tuple[str, ...]
    most_steps: int | None = None
    parameter: str = ""


@dataclass(frozen=True, eq=False)
class LengthBatches:
    """The batches of an epoch.

    Attributes:
        order: int64 (rows,), the rows, sorted by bucket.
        bucket_ends: int64 (buckets,), the place in `order` where each bucket ends.
        batch_ends: int64 (batches,), the place in `order` where each batch ends.
        padding: the share of the steps of all batches that is padding, if no rows are shuffled.
    """

    order: np.ndarray
    bucket_ends: np.ndarray
    batch_ends: np.ndarray
    padding: float

    def __len__(self) -> int:
        return len(self.batch_ends)

    @property
    def sizes(self) -> np.ndarray:
        """Number of rows of each batch, int64 (batches,)."""
        return np.diff(self.batch_ends, prepend=0)

    def places(self, step: tf.Tensor, seed: int | None, epoch: tf.Tensor) -> tf.Tensor:
        """Return the places in `order` of the batch of a step, int64 (n,)."""
        batch = batches_of(tf.reshape(step, [1]), len(self), seed, epoch)[0]
        starts, ends = self._tensors["batch_starts"], self._tensors["batch_ends"]
        return tf.range(starts[batch], ends[batch])

    def rows(self, places: tf.Tensor, seed: int | None, epoch: tf.Tensor) -> tf.Tensor:
        """Return the rows at some places, int64 (n,). With a seed, the rows of each bucket are shuffled."""
        order, ends = self._tensors["order"], self._tensors["bucket_ends"]
        if seed is not None:
            bucket = tf.searchsorted(ends, places, side="right", out_type=tf.int64)
            start = tf.gather(self._tensors["bucket_starts"], bucket)
            size = tf.gather(ends, bucket) - start
            places = start + shuffled(places - start, size, tf.constant(seed, tf.int64), epoch)
        return tf.gather(order, places)

    @functools.cached_property
    def _tensors(self) -> Mapping[str, tf.Tensor]:
        arrays = {
            "order": self.order,
            "bucket_ends": self.bucket_ends,
            "bucket_starts": _starts(self.bucket_ends),
            "batch_ends": self.batch_ends,
            "batch_starts": _starts(self.batch_ends),
        }
        with tf.init_scope():
            return {name: tf.constant(array, tf.int64) for name, array in arrays.items()}


def batches_of(steps: tf.Tensor, batches: int, seed: int | None, epoch: tf.Tensor) -> tf.Tensor:
    """Return the numbers of the batches of some steps, int64 (n,). With a seed, batches are shuffled in each epoch."""
    if seed is None:
        return steps
    # Another order than that of the rows of a bucket that has as many rows as there are batches.
    return shuffled(steps, batches, tf.constant(~seed, tf.int64), epoch)


def length_batches(lengths: np.ndarray, batch_size: int, most_steps: int | None) -> LengthBatches:
    """Return batches of rows of similar length.

    Args:
        lengths: int (rows, n): the lengths of each row by all measures.
        batch_size: number of rows of a batch, if `most_steps` is None.
        most_steps: largest number of steps of a batch. No row is longer.
    """
    lengths = np.maximum(lengths, 1)
    buckets = np.floor(np.log(lengths) / np.log(BUCKET_GROWTH)).astype(np.int64)
    keys = [buckets[:, 0]]
    for column in range(1, lengths.shape[1]):  # up and down by turns, so that neighbouring buckets are similar
        is_odd = buckets[:, :column].sum(axis=1) % 2 == 1
        keys.append(np.where(is_odd, -buckets[:, column], buckets[:, column]))
    order = np.lexsort(keys[::-1])
    is_last = np.append((np.diff(buckets[order], axis=0) != 0).any(axis=1), True)
    bucket_ends = np.flatnonzero(is_last) + 1
    if most_steps is None:
        batch_ends = np.append(np.arange(batch_size, len(order), batch_size), len(order))
    else:
        longest = np.maximum.reduceat(lengths.max(axis=1)[order], _starts(bucket_ends))
        batch_ends = _batch_ends(bucket_ends, longest, most_steps)
    padded = np.maximum.reduceat(lengths[order], _starts(batch_ends), axis=0) * np.diff(batch_ends, prepend=0)[:, None]
    return LengthBatches(order, bucket_ends, batch_ends, 1 - float(lengths.sum() / padded.sum()))


def _batch_ends(bucket_ends: np.ndarray, longest: np.ndarray, most_steps: int) -> np.ndarray:
    """Return where batches end: each has as many rows as fit, if all are as long as the longest of their buckets."""
    ends: list[int] = []
    start = place = reach = 0
    for bucket_end, length in zip(bucket_ends.tolist(), longest.tolist()):
        while place < bucket_end:
            reach = max(reach, length)
            if (fits := start + most_steps // reach) <= place:
                ends.append(place)
                start, reach = place, 0
            else:
                place = min(fits, bucket_end)
    return np.array([*ends, place], np.int64)


def _starts(ends: np.ndarray) -> np.ndarray:
    return np.append(0, ends[:-1])


def row_lengths(
    examples: Examples, split: str, preprocessing: Preprocessing, names: Sequence[str], work_dir: Path
) -> np.ndarray:
    """Return the lengths of all rows of a split, int32 (rows, names).

    An output of the preprocessing or a column that has one integer per row is the length itself. Otherwise the length
    is that of the list, the number of bytes of the text, or the number of steps of the output without those at its end
    that are padding (NaN, -1, 0 or "").
    """
    file = work_dir / f"lengths-{split}-{'-'.join(names)}.npy".replace("/", "_")
    if not file.exists():
        unfinished = file.with_name(f"{uuid.uuid4().hex}.npy")
        np.save(unfinished, _row_lengths(examples, split, preprocessing, names))
        os.replace(unfinished, file)
    return np.load(file)


def _row_lengths(examples: Examples, split: str, preprocessing: Preprocessing, names: Sequence[str]) -> np.ndarray:
    model = preprocessing.load()
    computed = [name for name in names if name in model.output]
    reader = LabelReader.of(preprocessing, model, computed)
    columns = [*reader.inputs, *(name for name in names if name not in computed)]
    found = []
    for batch in examples.batches(split, list(dict.fromkeys(columns)), reader.rows_per_batch):
        values = reader.values(batch)
        lengths = [_steps(values[n]) if n in values else _column_lengths(batch.column(n)) for n in names]
        found.append(np.stack(lengths, axis=1).astype(np.int32))
    if not found:
        raise DataError(f"{examples.path}: split {split!r} has no rows")
    return np.concatenate(found)


def _steps(values: np.ndarray) -> np.ndarray:
    if values.size == len(values) and values.dtype.kind in "iu":
        return values.reshape(len(values))
    if values.ndim < 2:
        return np.ones(len(values), np.int64)
    steps = values.reshape(len(values), values.shape[1], -1)
    if steps.dtype == object:
        is_padding = steps == b""
    else:
        is_padding = (steps == 0) | ((steps == -1) if steps.dtype.kind == "i" else np.isnan(steps.astype(float)))
    return steps.shape[1] - np.logical_and.accumulate(is_padding.all(axis=2)[:, ::-1], axis=1).sum(axis=1)


def _column_lengths(column: pa.Array) -> np.ndarray:
    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if is_list(column.type):
        lengths = pc.list_value_length(column)
    elif pa.types.is_integer(column.type):
        lengths = column
    else:
        lengths = pc.binary_length(column)
    return pc.fill_null(lengths, 0).to_numpy(zero_copy_only=False).astype(np.int64)


def check_longest(lengths: np.ndarray, bucketing: Bucketing, split: str) -> None:
    """Raise a DataError if a row alone is longer than a batch may be."""
    most = bucketing.most_steps
    if most is not None and lengths.max(initial=0) > most:
        row = int(lengths.max(axis=1).argmax())
        raise DataError(
            f"row {row} of split {split!r} has {lengths[row].max():,} steps, more than the {most:,} of a batch; "
            f"raise {bucketing.parameter}, or shorten such rows"
        )
