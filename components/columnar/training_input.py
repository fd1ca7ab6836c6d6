"""What a model is trained and evaluated on: shards become batches of preprocessed tensors.

The rows are laid out once in a row store; from then on TensorFlow alone is at work. Batches are drawn
several at once: one gather, one call of the preprocessing, then cut. No Python runs on the way, and
memory stays flat.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import pyarrow as pa
import tensorflow as tf

from components.artifacts import Examples, Preprocessing
from components.columnar.feed import column, rows_a_batch
from components.columnar.random_layers import called_at_random, is_random
from components.columnar.row_store import RowStore, RowStoreWriter
from components.columnar.shuffling import shuffled
from components.errors import DataError, ParameterError, nearest

SUPER_BATCH_ROWS = 4096
# Batches made ahead; fewer where they would take more than `MOST_BYTES_KEPT`.
PREFETCHED = 16
# What is gone through more than once is kept preprocessed in memory if it takes no more than this.
MOST_BYTES_KEPT = 64 << 20
# Numbers, and bytes of texts and lists, that are taken at once.
MOST_NUMBERS_AT_ONCE = 1 << 20
MOST_BYTES_GATHERED = 32 << 20
# Calls of the preprocessing at once.
SIDE_BY_SIDE = min(os.cpu_count() or 1, 8)


def steps_per_epoch(examples: Examples, split: str, batch_size: int) -> int:
    """Batches an epoch; the last may be smaller."""
    return -(-examples.rows(split) // batch_size)


def dataset(
    examples: Examples,
    split: str,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    work_dir: Path,
    seed: int | None = None,
    epochs: int | None = 1,
    first_epoch: int = 0,
    worker: int = 0,
    workers: int = 1,
) -> tf.data.Dataset:
    """Batches of (features by name, label).

    Args:
        batch_size: rows a batch, of all workers together; the last of an epoch has what is left.
        work_dir: where the rows are laid out; it may be removed while the dataset is used.
        seed: shuffles all rows anew in each epoch, the same way for the same seed; None keeps
            their order. With a seed, layers that are random in training are: the same way too.
        epochs: None repeats for ever.
        first_epoch: the number of the first epoch, which decides its order.
        worker, workers: of each batch, this worker gets its share of the rows, one after the
            other: together the workers see the batches that one alone would see.

    Raises:
        DataError: a column is missing or of the wrong kind, a label is missing in some rows, the
            split has no rows, or the preprocessing has no label.
        ParameterError: the workers cannot share a batch evenly.
    """
    if batch_size % workers:
        raise ParameterError(f"batch_size: {batch_size} rows cannot be shared by {workers} workers evenly")
    source = _source(examples, split, preprocessing, work_dir)
    store, rows = source.store, source.store.rows
    random = seed is not None and source.model is not None and is_random(source.model)
    # What is random, or filled up to the longest, is made batch by batch.
    at_once = 1 if random or store.varies else source.batches_at_once(batch_size)
    per_epoch = -(-rows // batch_size)

    def some_batches(epoch: tf.Tensor, first: tf.Tensor) -> Any:
        places = _places(first, at_once, rows, batch_size, worker, workers)
        if seed is not None:
            places = shuffled(places, rows, tf.constant(seed, tf.int64), epoch)
        return source.prepared(store.gather(places), (seed, epoch, first) if random else None)

    def one_epoch(epoch: tf.Tensor) -> tf.data.Dataset:
        starts = tf.data.Dataset.range(0, per_epoch, at_once)
        data = starts.map(
            lambda first: some_batches(epoch, first), num_parallel_calls=SIDE_BY_SIDE, deterministic=True
        )
        return data if at_once == 1 else data.rebatch(batch_size // workers)

    a_batch = _bytes_of(source.outputs.values(), batch_size)
    prefetched = max(1, min(PREFETCHED, MOST_BYTES_KEPT // max(a_batch, 1)))
    if seed is None and epochs == 1:
        data = one_epoch(tf.constant(0, tf.int64)).apply(tf.data.experimental.assert_cardinality(per_epoch))
        kept = _bytes_of(source.outputs.values(), rows) <= MOST_BYTES_KEPT
        return (data.cache() if kept else data.prefetch(prefetched)).with_options(_without_copies())
    last = tf.int64.max if epochs is None else first_epoch + epochs
    data = tf.data.Dataset.range(first_epoch, last).flat_map(one_epoch).prefetch(prefetched)
    return data.with_options(_without_copies())


def _without_copies() -> tf.data.Options:
    """tf.data optimises a pipeline by way of a serialised graph, with a copy of every mapped file in it;
    none of its rewritings has anything to do here."""
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _places(
    first: tf.Tensor, batches: int, rows: int, batch_size: int, worker: int, workers: int
) -> tf.Tensor:
    """The places in the order of the rows of some batches from the first on, of this worker."""
    starts = tf.range(first * batch_size, tf.minimum((first + batches) * batch_size, rows), batch_size)
    sizes = tf.minimum(rows - starts, batch_size)
    mine, next_ones = sizes * worker // workers, sizes * (worker + 1) // workers
    return tf.ragged.range(starts + mine, starts + next_ones).flat_values


@dataclass(frozen=True)
class _Source:
    """Rows on disk, and how they become features and label.

    Attributes:
        store: columns by name: raw ones, or preprocessed ones where they were materialised.
        model: the preprocessing; None where the store has what it gives.
        label: the name of the label among the model's outputs or the store's columns.
        outputs: what the model gives, symbolic tensors by name.
    """

    store: RowStore
    model: keras.Model | None
    label: str
    outputs: Mapping[str, Any]

    def prepared(self, columns: dict[str, Any], moment: tuple[Any, ...] | None) -> tuple[dict[str, Any], Any]:
        """Features by name, and the label.

        Args:
            moment: seeds what is random in training; None for evaluation.
        """
        wanted = self.outputs if self.model is None else self.model.input
        features = {name: tf.cast(columns[name], tensor.dtype) for name, tensor in wanted.items()}
        if self.model is not None and moment is None:
            features = dict(self.model(features, training=False))
        elif self.model is not None:
            features = dict(called_at_random(self.model, features, moment))
        return features, features.pop(self.label) if self.label in self.outputs else columns[self.label]

    def batches_at_once(self, batch_size: int) -> int:
        taken = [] if self.model is None else self.model.input.values()
        width = _numbers_a_row([*taken, *self.outputs.values()])
        rows = min(
            SUPER_BATCH_ROWS, MOST_NUMBERS_AT_ONCE // width, MOST_BYTES_GATHERED // self.store.bytes_a_row
        )
        return max(1, rows // batch_size)


def _source(examples: Examples, split: str, preprocessing: Preprocessing, work_dir: Path) -> _Source:
    facts = preprocessing.facts
    label, is_output = facts["label"], facts["label_is_output"]
    if label is None:
        raise DataError("there is nothing to learn: name an output or a column as Transform.label")
    model, stored = preprocessing.load(), preprocessing.materialized(examples)
    is_stored = stored is not None and split in stored.splits
    columns = dict(model.output if is_stored else model.input)
    if not is_output:
        columns[label] = _label_input(examples, label)
    store = _laid_out(
        stored if is_stored else examples, split, columns, None if is_output else label, work_dir
    )
    return _Source(store, None if is_stored else model, label, dict(model.output))


def _bytes_of(tensors: Iterable[Any], rows: int) -> int:
    """The memory that so many rows of the tensors take, at 4 bytes a number."""
    return 4 * rows * _numbers_a_row(tensors)


def _numbers_a_row(tensors: Iterable[Any]) -> int:
    return sum(math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors) or 1


def _laid_out(
    examples: Examples, split: str, columns: Mapping[str, Any], label: str | None, work_dir: Path
) -> RowStore:
    """The split's rows as a row store, made when it is first asked for.

    All rows are checked on the way: what fails later, inside TensorFlow, is no longer told as it is.

    Args:
        columns: Keras tensors by name: the form in which each column is wanted.
        label: the column that must not be missing in any row, if one.
    """
    forms = [(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in columns.items()]
    key = hashlib.sha256(repr((str(examples.path), split, forms)).encode()).hexdigest()[:16]
    folder = work_dir / f"rows-{key}"
    if not folder.exists():  # another dataset may be reading it: never written over
        if not examples.rows(split):
            raise DataError(f"{examples.path}: split {split!r} has no rows")
        names = [name for name in columns if name in set(examples.schema().names)]
        with RowStoreWriter(folder) as writer:
            for batch in examples.batches(split, names, rows_a_batch(columns)):
                _check_label(batch, label)
                writer.write({n: column(batch, n, tensor) for n, tensor in columns.items()}, batch.num_rows)
    return RowStore(folder)


def _check_label(batch: pa.RecordBatch, label: str | None) -> None:
    if label is not None and batch.column(label).null_count:
        raise DataError(
            f"column {label!r}, the label, is missing in {batch.column(label).null_count} of "
            f"{batch.num_rows} rows; leave such rows out of the data"
        )


def _label_input(examples: Examples, name: str) -> Any:
    """The label as an input of the model's would be: numbers stay of their kind."""
    schema = examples.schema()
    if name not in schema.names:
        hint = nearest(name, schema.names)
        raise DataError(f"the data has no column {name!r}, the label; {hint}")
    kind, shape = schema.field(name).type, ()
    if isinstance(kind, pa.FixedShapeTensorType):
        kind, shape = kind.value_type, tuple(kind.shape)
    while pa.types.is_nested(kind) and not pa.types.is_struct(kind):
        kind, shape = kind.value_type, (*shape, None)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return keras.KerasTensor((None, *shape), "int64")
    return keras.KerasTensor((None, *shape), "float32" if pa.types.is_floating(kind) else "string")
