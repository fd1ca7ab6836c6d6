"""What a model is trained and evaluated on: shards become batches of preprocessed tensors.

The rows are laid out once in a row store; from then on TensorFlow alone is at work. Batches are drawn
several at once: one gather, one call of the preprocessing, then cut. No Python runs on the way, and
memory stays flat.
"""

from __future__ import annotations

import functools
import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.artifacts import Examples, Preprocessing
from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.data.feed import column, rows_a_batch
from kerasline.components.data.row_store import RowStore, RowStoreWriter
from kerasline.components.data.shuffling import shuffled
from kerasline.components.data.targets import check_complete, columns_beside
from kerasline.components.preprocessing.random_layers import called_at_random, is_random

SUPER_BATCH_ROWS = 4096
# Batches made ahead; fewer where they would take more than `MOST_BYTES_KEPT`.
PREFETCHED = 16
# What is gone through more than once is kept preprocessed in memory if it takes no more than this.
MOST_BYTES_KEPT = 64 << 20
# Numbers, and bytes of texts and lists, that are taken at once.
MOST_NUMBERS_AT_ONCE = 1 << 21
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
) -> tf.data.Dataset:
    """Batches of (features by name, label), or (features, label, weight) where rows have a weight.

    Several labels are a dict by name.

    Args:
        batch_size: rows a batch; the last of an epoch has what is left.
        work_dir: where the rows are laid out; it may be removed while the dataset is used.
        seed: shuffles all rows anew in each epoch, the same way for the same seed; None keeps
            their order. With a seed, layers that are random in training are: the same way too.
        epochs: None repeats for ever.
        first_epoch: the number of the first epoch, which decides its order.

    Raises:
        DataError: a column is missing or of the wrong kind, a label is missing in some rows, the
            split has no rows, or the preprocessing has no label.
    """
    made = _Batches(_source(examples, split, preprocessing, work_dir), batch_size, seed)
    prefetched = made.ahead(batch_size, PREFETCHED)
    if seed is None and epochs == 1:
        data = made.one_by_one(tf.constant(0, tf.int64))
        data = data.apply(tf.data.experimental.assert_cardinality(made.an_epoch))
        data = data.cache() if made.fit_in_memory else data.prefetch(prefetched)
    else:
        last = tf.int64.max if epochs is None else first_epoch + epochs
        numbers = tf.data.Dataset.range(first_epoch, last)
        data = numbers.flat_map(made.one_by_one).prefetch(prefetched)
    return data.with_options(_without_copies())


class Chunks:
    """What training takes: the batches of a split, several at a time, without end.

    Args:
        batch_size: rows a batch, of all workers together.
        shuffle: else the rows keep their order in every epoch.
        worker, workers: of each batch, this worker gets its share of the rows, one after the other:
            as many as any other, or in the last of an epoch, which may have fewer rows, as many to
            within one; of one with less than a row for each worker it gets all.

    Attributes:
        rows: rows an epoch.
        an_epoch: batches an epoch.
        at_once: batches a chunk; the last of an epoch has what is left.
        share: rows of a batch that this worker gets.

    Raises:
        ParameterError: the workers cannot share a batch evenly.
        DataError: as `dataset`.
    """

    def __init__(
        self,
        examples: Examples,
        split: str,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        work_dir: Path,
        seed: int,
        shuffle: bool = True,
        worker: int = 0,
        workers: int = 1,
    ) -> None:
        if batch_size % workers:
            raise ParameterError(f"batch_size: {batch_size} rows cannot be shared by {workers} workers evenly")
        source = _source(examples, split, preprocessing, work_dir)
        self._batches = _Batches(source, batch_size, seed, shuffle, worker, workers)
        self.rows, self.an_epoch = self._batches.rows, self._batches.an_epoch
        self.at_once, self.share = self._batches.at_once, batch_size // workers

    def starting(self, epoch: int, step: int) -> tf.data.Dataset:
        """Chunks from any step of any epoch on: what `dataset` gives, several batches in a row."""
        begun = self._batches.several(tf.constant(epoch, tf.int64), step)
        rest = tf.data.Dataset.range(epoch + 1, tf.int64.max).flat_map(self._batches.several)
        ahead = self._batches.ahead(self.share * self.at_once, most=4)
        return begun.concatenate(rest).prefetch(ahead).with_options(_without_copies())


@dataclass(frozen=True)
class _Batches:
    """The batches of a split, in the order of a seed."""

    source: _Source
    batch_size: int
    seed: int | None
    shuffle: bool = True
    worker: int = 0
    workers: int = 1

    @property
    def rows(self) -> int:
        return self.source.store.rows

    @property
    def an_epoch(self) -> int:
        return -(-self.rows // self.batch_size)

    @property
    def random(self) -> bool:
        model = self.source.model
        return self.seed is not None and model is not None and is_random(model)

    @functools.cached_property
    def at_once(self) -> int:
        """Batches that are made in one go: what is random, or filled up to the longest, one by one."""
        alone = self.random or self.source.store.varies
        return 1 if alone else min(self.source.batches_at_once(self.batch_size), self.an_epoch)

    @property
    def fit_in_memory(self) -> bool:
        return _bytes_of(self.source.outputs.values(), self.rows) <= MOST_BYTES_KEPT

    def ahead(self, rows: int, most: int) -> int:
        """How many elements of so many rows may wait to be used."""
        return max(1, min(most, MOST_BYTES_KEPT // max(_bytes_of(self.source.outputs.values(), rows), 1)))

    def several(self, epoch: tf.Tensor, first: int = 0) -> tf.data.Dataset:
        """An epoch from its step `first` on, `at_once` batches at a time."""
        starts = tf.data.Dataset.range(first, self.an_epoch, self.at_once)
        return starts.map(lambda step: self._made(epoch, step), num_parallel_calls=SIDE_BY_SIDE, deterministic=True)

    def one_by_one(self, epoch: tf.Tensor) -> tf.data.Dataset:
        data = self.several(epoch)
        return data if self.at_once == 1 else data.rebatch(self.batch_size)

    def _made(self, epoch: tf.Tensor, step: tf.Tensor) -> Any:
        places = _places(step, self.at_once, self.rows, self.batch_size, self.worker, self.workers)
        if self.seed is not None and self.shuffle:
            places = shuffled(places, self.rows, tf.constant(self.seed, tf.int64), epoch)
        moment = (self.seed, epoch, step) if self.random else None
        return self.source.prepared(self.source.store.gather(places), moment)


def _without_copies() -> tf.data.Options:
    """tf.data optimises a pipeline by way of a serialised graph, with a copy of every mapped file in it;
    none of its rewritings has anything to do here."""
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _places(first: tf.Tensor, batches: int, rows: int, batch_size: int, worker: int, workers: int) -> tf.Tensor:
    """The places in the order of the rows of some batches from the first on, of this worker."""
    starts = tf.range(first * batch_size, tf.minimum((first + batches) * batch_size, rows), batch_size)
    sizes = tf.minimum(rows - starts, batch_size)
    shared = sizes >= workers
    mine = tf.where(shared, sizes * worker // workers, 0)
    ends = tf.where(shared, sizes * (worker + 1) // workers, sizes)
    return tf.ragged.range(starts + mine, starts + ends).flat_values


@dataclass(frozen=True)
class _Source:
    """Rows on disk, and how they become features, label and weight.

    Attributes:
        store: columns by name: raw ones, or preprocessed ones where they were materialised.
        model: the preprocessing; None where the store has what it gives.
        labels: their names among the model's outputs or the store's columns.
        weight: likewise, or None.
        outputs: what the model gives, symbolic tensors by name.
    """

    store: RowStore
    model: keras.Model | None
    labels: Sequence[str]
    weight: str | None
    outputs: Mapping[str, Any]

    def prepared(self, columns: dict[str, Any], moment: tuple[Any, ...] | None) -> tuple[Any, ...]:
        """Features by name, the label or labels by name, and the weight where there is one.

        Args:
            moment: seeds what is random in training; None for evaluation.
        """
        wanted = self.outputs if self.model is None else self.model.input
        features = {name: tf.cast(columns[name], tensor.dtype) for name, tensor in wanted.items()}
        if self.model is not None and moment is None:
            features = dict(self.model(features, training=False))
        elif self.model is not None:
            features = dict(called_at_random(self.model, features, moment))

        def taken(name: str) -> tf.Tensor:
            return features.pop(name) if name in self.outputs else columns[name]

        labels = {name: taken(name) for name in self.labels}
        label = labels if len(labels) > 1 else labels[self.labels[0]]
        return (features, label) if self.weight is None else (features, label, taken(self.weight))

    def batches_at_once(self, batch_size: int) -> int:
        taken = [] if self.model is None else self.model.input.values()
        width = _numbers_a_row([*taken, *self.outputs.values()])
        rows = min(SUPER_BATCH_ROWS, MOST_NUMBERS_AT_ONCE // width, MOST_BYTES_GATHERED // self.store.bytes_a_row)
        return max(1, rows // batch_size)


def _source(examples: Examples, split: str, preprocessing: Preprocessing, work_dir: Path) -> _Source:
    labels, weight = preprocessing.labels, preprocessing.facts["sample_weight"]
    if not labels:
        raise DataError("there is nothing to learn: name an output or a column as Transform.label")
    model, stored = preprocessing.load(), preprocessing.materialized(examples)
    is_stored = stored is not None and split in stored.splits
    beside = columns_beside(preprocessing, model, examples)
    columns = dict(model.output if is_stored else model.input) | beside
    store = _laid_out(stored if is_stored else examples, split, columns, list(beside), work_dir)
    return _Source(store, None if is_stored else model, labels, weight, dict(model.output))


def _bytes_of(tensors: Iterable[Any], rows: int) -> int:
    """The memory that so many rows of the tensors take, at 4 bytes a number."""
    return 4 * rows * _numbers_a_row(tensors)


def _numbers_a_row(tensors: Iterable[Any]) -> int:
    return sum(math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors) or 1


def _laid_out(
    examples: Examples, split: str, columns: Mapping[str, Any], complete: Sequence[str], work_dir: Path
) -> RowStore:
    """The split's rows as a row store, made when it is first asked for.

    All rows are checked on the way: what fails later, inside TensorFlow, is no longer told as it is.

    Args:
        columns: Keras tensors by name: the form in which each column is wanted.
        complete: the columns that must not be missing in any row: labels and weights.
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
                check_complete(batch, complete)
                writer.write({n: column(batch, n, tensor) for n, tensor in columns.items()}, batch.num_rows)
    return RowStore(folder)
