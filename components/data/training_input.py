"""The input of training and evaluation: shards become batches of preprocessed tensors.

The rows are written once to a row store. From then on only TensorFlow's operations run: several batches are gathered
and preprocessed together, then cut. No Python runs on the way, and memory does not grow with the data.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.artifacts import Examples, Preprocessing
from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.core.keras_compat import with_rank
from kerasline.components.data.bucketing import (
    Bucketing,
    LengthBatches,
    batches_of,
    check_longest,
    length_batches,
    row_lengths,
)
from kerasline.components.data.label_columns import check_no_nulls, raw_label_columns, without_padding
from kerasline.components.data.model_inputs import check_missing_integers, check_spellings, feed_column, rows_per_batch
from kerasline.components.data.row_store import RowStore, RowStoreWriter
from kerasline.components.data.shuffling import shuffled
from kerasline.components.preprocessing.packing import packed_shapes
from kerasline.components.preprocessing.row_seeds import RowSeeds, row_seeds
from kerasline.components.preprocessing.training_mode import PartPositions, call_with_seed, is_random, rows_at

SUPER_BATCH_ROWS = 4096
# Number of batches to prefetch, reduced if they would take more than `CACHE_BYTES`.
PREFETCHED = 16
# Largest preprocessed split that is kept in memory if it is read more than once.
CACHE_BYTES = 64 << 20
# Bounds on one super-batch: its numbers, and its bytes of texts and lists.
SUPER_BATCH_NUMBERS = 1 << 21
SUPER_BATCH_BYTES = 32 << 20
# Number of concurrent calls of the preprocessing.
PARALLEL_CALLS = min(os.cpu_count() or 1, 8)

# AutoGraph takes seconds to rewrite functions, and these have TensorFlow's loops and conditions already, as Keras has.
_without_autograph = tf.autograph.experimental.do_not_convert


def dataset(
    examples: Examples,
    split: str,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    work_dir: Path,
    features: Sequence[str] | None = None,
    target: str | Mapping[str, str] | None = None,
    weight_ranks: Any = None,
    seed: int | None = None,
    epochs: int | None = 1,
    first_epoch: int = 0,
    bucketing: Bucketing | None = None,
) -> tf.data.Dataset:
    """Return batches of (features by name, label), or (features, label, weight) if rows have a weight.

    Without a target, batches are the features alone.

    Args:
        features: names of the features that the model takes. By default all.
        target: what the label is: the name of a label or feature, or a dict of such names. By default the label of the
            preprocessing, or a dict of its labels.
        weight_ranks: rank of the weights, or a structure of ranks for a structure of weights. By default the weights
            have the shape that the preprocessing gives them.
        batch_size: number of rows in a batch. The last batch of an epoch has the remaining rows.
        work_dir: folder for the row store. It may be removed while the dataset is in use.
        seed: for training. Shuffles the rows in each epoch, turns random layers on, and gives the rows that layers were
            adapted on their out-of-fold encodings. Deterministic for each seed. None, for evaluation, keeps the order.
        epochs: number of epochs. None repeats without end.
        first_epoch: number of the first epoch, which decides its order.
        bucketing: batches rows of similar length. Without a seed, they are sorted by length.

    Raises:
        DataError: a column is missing or has the wrong type, a label is missing in some rows, the split has no rows, or
            rows have a weight but no label.
    """
    training = seed is not None
    source = _source(examples, split, preprocessing, work_dir, features, target, weight_ranks, training)
    by_length = _by_length(examples, split, preprocessing, batch_size, work_dir, bucketing)
    batches = _Batches(source, batch_size, seed, by_length=by_length)
    prefetched = batches.prefetchable(batch_size, PREFETCHED)
    if seed is None and epochs == 1:
        data = batches.one_by_one(tf.constant(0, tf.int64))
        data = data.apply(tf.data.experimental.assert_cardinality(batches.an_epoch))
        data = data.cache() if batches.fit_in_memory else data.prefetch(prefetched)
    else:
        last = tf.int64.max if epochs is None else first_epoch + epochs
        numbers = tf.data.Dataset.range(first_epoch, last)
        data = numbers.flat_map(batches.one_by_one).prefetch(prefetched)
    return data.with_options(_without_rewriting())


class Chunks:
    """The endless input of a training: chunks of several consecutive batches of a split.

    Args:
        batch_size: number of rows in a batch, over all workers.
        features, target, weight_ranks, bucketing: see `dataset`.
        shuffle: whether to shuffle the rows in each epoch.
        worker, workers: this worker's index, and the number of workers. Each worker gets an equal, consecutive share of
            the rows of each batch. Shares of an epoch's last, smaller batch differ by at most one row. If it has fewer
            rows than there are workers, each worker gets all of them.

    Attributes:
        an_epoch: number of batches in an epoch.
        at_once: number of batches in a chunk. The last chunk of an epoch has the remaining batches.
        share: number of rows of a batch that this worker gets, of the largest one if they are bucketed.
        padding: the share of padding in the batches if they are bucketed, else None.

    Raises:
        ParameterError: the batch size is not a multiple of the number of workers.
        DataError: as for `dataset`.
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
        features: Sequence[str] | None = None,
        target: str | Mapping[str, str] | None = None,
        weight_ranks: Any = None,
        shuffle: bool = True,
        worker: int = 0,
        workers: int = 1,
        bucketing: Bucketing | None = None,
    ) -> None:
        if batch_size % workers and not bucketing:
            raise ParameterError(f"batch_size: {batch_size} rows cannot be shared by {workers} workers evenly")
        source = _source(examples, split, preprocessing, work_dir, features, target, weight_ranks, training=True)
        by_length = _by_length(examples, split, preprocessing, batch_size, work_dir, bucketing)
        self._batches = _Batches(source, batch_size, seed, shuffle, worker, workers, by_length)
        self.an_epoch, self.at_once = self._batches.an_epoch, self._batches.at_once
        largest = batch_size if by_length is None else int(by_length.sizes.max())
        self.share = -(-largest // workers)
        self.padding = None if by_length is None else by_length.padding

    def starting(self, epoch: int, step: int) -> tf.data.Dataset:
        """Return the chunks from a step of an epoch on: the batches of `dataset`, several at a time."""
        return self._from_start if epoch == step == 0 else self._starting(epoch, step)

    @functools.cached_property
    def _from_start(self) -> tf.data.Dataset:
        return self._starting(0, 0)

    def _starting(self, epoch: int, step: int) -> tf.data.Dataset:
        later = tf.data.Dataset.range(epoch + 1, tf.int64.max).map(lambda later: (later, tf.constant(0, tf.int64)))
        epochs = tf.data.Dataset.from_tensors((tf.constant(epoch, tf.int64), tf.constant(step, tf.int64)))
        prefetched = self._batches.prefetchable(self.share * self.at_once, most=4)
        chunks = epochs.concatenate(later).flat_map(self._batches.several)
        return chunks.prefetch(prefetched).with_options(_without_rewriting())

    def rows_of(self, epoch: int, step: int) -> int:
        """Return the number of rows of a batch, over all workers."""
        return int(self._batches.sizes(epoch)[step])


@dataclass(frozen=True)
class _Batches:
    """The batches of a split, in the order that a seed decides."""

    source: _Source
    batch_size: int
    seed: int | None
    shuffle: bool = True
    worker: int = 0
    workers: int = 1
    by_length: LengthBatches | None = None

    @property
    def rows(self) -> int:
        return self.source.store.rows

    @property
    def an_epoch(self) -> int:
        return -(-self.rows // self.batch_size) if self.by_length is None else len(self.by_length)

    def sizes(self, epoch: int) -> np.ndarray:
        """Return the number of rows of each batch of an epoch, over all workers."""
        if self.by_length is None:
            starts = np.arange(0, self.rows, self.batch_size)
            return np.minimum(self.rows - starts, self.batch_size)
        return _shuffled_sizes(self.by_length, self.shuffle_seed, epoch)

    @property
    def shuffle_seed(self) -> int | None:
        return self.seed if self.shuffle else None

    @property
    def random(self) -> bool:
        model = self.source.model
        is_augmented = self.source.augmentation is not None
        return self.seed is not None and (is_augmented or (model is not None and is_random(model)))

    @functools.cached_property
    def at_once(self) -> int:
        """Number of batches that are prepared together: one if layers are random or rows vary in length."""
        alone = self.random or self.source.varies or self.by_length is not None
        return 1 if alone else min(self.source.batches_at_once(self.batch_size), self.an_epoch)

    @property
    def fit_in_memory(self) -> bool:
        return _bytes_of(self.source.outputs.values(), self.rows) <= CACHE_BYTES

    def prefetchable(self, rows: int, most: int) -> int:
        """Return how many elements of this number of rows to prefetch."""
        return max(1, min(most, CACHE_BYTES // max(_bytes_of(self.source.outputs.values(), rows), 1)))

    @_without_autograph
    def several(self, epoch: tf.Tensor, first: tf.Tensor | int = 0) -> tf.data.Dataset:
        """Return an epoch from its step `first` on, `at_once` batches at a time."""
        starts = tf.data.Dataset.range(first, self.an_epoch, self.at_once)
        return starts.map(functools.partial(self._prepared, epoch), PARALLEL_CALLS, deterministic=True)

    @_without_autograph
    def one_by_one(self, epoch: tf.Tensor) -> tf.data.Dataset:
        data = self.several(epoch)
        return data if self.at_once == 1 else data.rebatch(self.batch_size)

    @_without_autograph
    def _prepared(self, epoch: tf.Tensor, step: tf.Tensor) -> Any:
        seeds = (self.seed, epoch, step) if self.random else None
        return self.source.prepared(self._rows_of(epoch, step), seeds)

    def _rows_of(self, epoch: tf.Tensor, step: tf.Tensor) -> tf.Tensor:
        """Return the rows of this worker in the batches from a step on, int64 (n,)."""
        seed = self.shuffle_seed
        if self.by_length is not None:
            places = self.by_length.places(step, seed, epoch)
            return self.by_length.rows(_share(places, self.worker, self.workers), seed, epoch)
        rows = _places(step, self.at_once, self.rows, self.batch_size, self.worker, self.workers)
        return rows if seed is None else shuffled(rows, self.rows, tf.constant(seed, tf.int64), epoch)


@functools.lru_cache(maxsize=2)
def _shuffled_sizes(batches: LengthBatches, seed: int | None, epoch: int) -> np.ndarray:
    steps, epoch_tensor = tf.range(len(batches), dtype=tf.int64), tf.constant(epoch, tf.int64)
    return batches.sizes[batches_of(steps, len(batches), seed, epoch_tensor).numpy()]


def _without_rewriting() -> tf.data.Options:
    """Turn off tf.data's graph rewriting, which would serialise the graph and copy every memory-mapped file into it.

    None of its rewrites applies to these pipelines.
    """
    options = tf.data.Options()
    options.experimental_optimization.apply_default_optimizations = False
    return options


def _places(first: tf.Tensor, batches: int, rows: int, batch_size: int, worker: int, workers: int) -> tf.Tensor:
    """Return the places, in the order of an epoch, of this worker's rows in some batches from `first` on."""
    starts = tf.range(first * batch_size, tf.minimum((first + batches) * batch_size, rows), batch_size)
    sizes = tf.minimum(rows - starts, batch_size)
    shared = sizes >= workers
    mine = tf.where(shared, sizes * worker // workers, 0)
    ends = tf.where(shared, sizes * (worker + 1) // workers, sizes)
    return tf.ragged.range(starts + mine, starts + ends).flat_values


def _share(rows: tf.Tensor, worker: int, workers: int) -> tf.Tensor:
    """Return a worker's consecutive share of a batch, or all of its rows if there are fewer than workers."""
    count = tf.size(rows)
    first, last = count * worker // workers, count * (worker + 1) // workers
    return rows if workers == 1 else tf.cond(count >= workers, lambda: rows[first:last], lambda: rows)


@dataclass(frozen=True)
class _Source:
    """Rows on disk, and how they become features, label and weight.

    Attributes:
        store: columns by name: raw, or preprocessed if they were materialized.
        model: the preprocessing. None if the store has its outputs.
        features: names of the model's outputs that are features.
        target: the name of the label, among the model's outputs or the store's columns, a dict of such names, or None.
        weight: a name likewise, or None.
        weight_ranks: see `dataset`.
        outputs: the model's outputs, symbolic tensors by name.
        positions: for rows whose encodings must be out-of-fold, or None.
        augmentation: changes outputs at random, or None.
    """

    store: RowStore
    model: keras.Model | None
    features: Sequence[str]
    target: str | Mapping[str, str] | None
    weight: str | None
    weight_ranks: Any
    outputs: Mapping[str, Any]
    positions: PartPositions | None
    augmentation: keras.Model | None

    def prepared(self, rows: tf.Tensor, seeds: tuple[Any, ...] | None) -> Any:
        """Return features by name, the label or labels by name, and the weight if there is one.

        Without a label, return the features alone.

        Args:
            rows: int64 (n,), indices in the store.
            seeds: seed, epoch and step, for random layers. None turns them off.
        """
        columns = self.store.gather(rows)
        entering = self.outputs if self.model is None else self.model.input
        outputs = {name: tf.cast(columns[name], tensor.dtype) for name, tensor in entering.items()}
        by_row = contextlib.nullcontext() if seeds is None else row_seeds(RowSeeds(seeds[0], seeds[1], rows))
        with by_row, rows_at(None if self.positions is None else self.positions.of(rows)):
            if self.model is not None and seeds is not None and is_random(self.model):
                outputs = dict(call_with_seed(self.model, outputs, seeds))
            elif self.model is not None:
                outputs = dict(self.model(outputs, training=False))
            if self.augmentation is not None and seeds is not None:
                inputs = {name: outputs[name] for name in self.augmentation.input}
                outputs |= call_with_seed(self.augmentation, inputs, seeds)
        found = columns | outputs
        features = {name: outputs[name] for name in self.features}
        if self.target is None:
            return features
        if isinstance(self.target, str):
            label = found[self.target]
        else:
            label = {output: found[name] for output, name in self.target.items()}
        if self.weight is None:
            return features, label
        weight = without_padding(found[self.weight])
        if self.weight_ranks is not None:
            weight = tf.nest.map_structure(functools.partial(with_rank, weight), self.weight_ranks)
        return features, label, weight

    @property
    def varies(self) -> bool:
        """Whether rows vary in length, before or after preprocessing. Rows are padded to the longest of their batch."""
        return self.store.varies or any(None in tensor.shape[1:] for tensor in self.outputs.values())

    def batches_at_once(self, batch_size: int) -> int:
        entering = [] if self.model is None else self.model.input.values()
        width = _numbers_a_row([*entering, *self.outputs.values()])
        rows = min(SUPER_BATCH_ROWS, SUPER_BATCH_NUMBERS // width, SUPER_BATCH_BYTES // self.store.bytes_a_row)
        return max(1, rows // batch_size)


def _source(
    examples: Examples,
    split: str,
    preprocessing: Preprocessing,
    work_dir: Path,
    features: Sequence[str] | None,
    target: str | Mapping[str, str] | None,
    weight_ranks: Any,
    training: bool,
) -> _Source:
    labels, weight = preprocessing.labels, preprocessing.facts["sample_weight"]
    if target is None and labels:
        target = labels[0] if len(labels) == 1 else {name: name for name in labels}
    if target is None and weight:
        raise DataError("rows have a weight but no label; set Transform.label, or remove Transform.sample_weight")
    model, stored = preprocessing.load(), preprocessing.materialized(examples)
    check_spellings(examples, model.input)
    check_missing_integers(examples, model.input)
    out_of_fold = preprocessing.facts.get("out_of_fold") == split
    is_stored = stored is not None and split in stored.splits and (training or not out_of_fold)
    beside = raw_label_columns(preprocessing, model)
    outputs = packed_shapes(model.output, preprocessing.facts.get("packed") if is_stored else None)
    columns = dict(outputs if is_stored else model.input) | beside
    held = stored if stored is not None and is_stored else examples
    store = _row_store(held, split, columns, list(beside), work_dir)
    positions = PartPositions(examples.shards(split)) if training and out_of_fold and not is_stored else None
    entering = None if is_stored else model
    augmentation = preprocessing.load_augmentation() if training else None
    features = preprocessing.features if features is None else features
    return _Source(store, entering, features, target, weight, weight_ranks, outputs, positions, augmentation)


def _by_length(
    examples: Examples,
    split: str,
    preprocessing: Preprocessing,
    batch_size: int,
    work_dir: Path,
    bucketing: Bucketing | None,
) -> LengthBatches | None:
    if bucketing is None:
        return None
    lengths = row_lengths(examples, split, preprocessing, bucketing.by, work_dir)
    check_longest(lengths, bucketing, split)
    return length_batches(lengths, batch_size, bucketing.most_steps)


def _bytes_of(tensors: Iterable[Any], rows: int) -> int:
    """Return the memory that a number of rows takes, at 4 bytes a number."""
    return 4 * rows * _numbers_a_row(tensors)


def _numbers_a_row(tensors: Iterable[Any]) -> int:
    return sum(math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors) or 1


def _row_store(
    examples: Examples, split: str, columns: Mapping[str, Any], complete: Sequence[str], work_dir: Path
) -> RowStore:
    """Return the split's rows as a row store, written on first use.

    All rows are checked here, because an error inside a TensorFlow graph would lose its message.

    Args:
        columns: Keras tensors by name: the dtype and shape of each column.
        complete: the columns that must not be missing in any row: labels and weights.
    """
    forms = [(name, str(tensor.dtype), tuple(tensor.shape)) for name, tensor in columns.items()]
    key = hashlib.sha256(repr((str(examples.path), split, forms)).encode()).hexdigest()[:16]
    folder = work_dir / f"rows-{key}"
    if not folder.exists():  # never overwritten: another dataset may be reading it
        if not examples.rows(split):
            raise DataError(f"{examples.path}: split {split!r} has no rows")
        names = [name for name in columns if name in set(examples.schema().names)]
        with RowStoreWriter(folder) as writer:
            for batch in examples.batches(split, names, rows_per_batch(columns)):
                check_no_nulls(batch, complete)
                writer.write({n: feed_column(batch, n, tensor) for n, tensor in columns.items()}, batch.num_rows)
    return RowStore(folder)
