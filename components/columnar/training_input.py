"""What a model is trained and evaluated on: shards become batches of preprocessed tensors.

Rows are drawn in super-batches of many batches at once: one gather, one call of the preprocessing,
then cut into batches. Raw rows lie in a memory-mapped Arrow file, so that any order can be read
while memory stays flat.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.artifacts import Examples, Preprocessing
from components.columnar.feed import feed, rows_a_batch
from components.errors import DataError, nearest

SUPER_BATCH_ROWS = 1024
# Batches made ahead; fewer where they would take more than `MOST_BYTES_KEPT`.
PREFETCHED = 16
# What is gone through more than once is kept preprocessed in memory if it takes no more than this.
MOST_BYTES_KEPT = 64 << 20


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
) -> Any:
    """A `tf.data.Dataset` of (features by name, label) batches.

    Args:
        batch_size: rows a batch; the last batch of an epoch has what is left.
        work_dir: where the raw rows are laid out while the dataset is used.
        seed: shuffles all rows anew in each epoch, the same way for the same seed; None keeps
            their order.
        epochs: None repeats for ever.
        first_epoch: the number of the first epoch, which decides its order.

    Raises:
        DataError: a column is missing or of the wrong kind, a label is missing in some rows, the
            split has no rows, or the preprocessing has no label.
    """
    import tensorflow as tf

    model = preprocessing.load()
    facts = preprocessing.facts
    label, raw_label = facts["label"], None if facts["label_is_output"] else facts["label"]
    if label is None:
        raise DataError("there is nothing to learn: name an output or a column as Transform.label")
    inputs = dict(model.input)
    if raw_label is not None:
        inputs[raw_label] = _label_input(examples, raw_label)
    table = _mapped(examples, split, inputs, raw_label, work_dir)
    most = min(SUPER_BATCH_ROWS, rows_a_batch(inputs))
    rows = max(batch_size, most // batch_size * batch_size)

    def super_batches(epoch: int) -> Iterator[dict[str, np.ndarray]]:
        for order in _orders(table.num_rows, rows, seed, int(epoch)):
            in_order = seed is None
            part = table.slice(order[0], len(order)) if in_order else _gather(table, order)
            yield feed(part, inputs)

    def prepared(raw: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        features = dict(model({name: raw[name] for name in model.input}))
        target = raw[raw_label] if raw_label is not None else features.pop(label)
        return features, target

    signature = {n: tf.TensorSpec((None, *t.shape[1:]), t.dtype) for n, t in inputs.items()}

    def one_epoch(epoch: Any) -> Any:
        raw = tf.data.Dataset.from_generator(super_batches, output_signature=signature, args=(epoch,))
        return raw.map(prepared).rebatch(batch_size)

    a_batch = _bytes_of(model.output.values(), batch_size)
    prefetched = max(1, min(PREFETCHED, MOST_BYTES_KEPT // max(a_batch, 1)))
    if seed is None and epochs == 1:
        data = one_epoch(0).apply(
            tf.data.experimental.assert_cardinality(steps_per_epoch(examples, split, batch_size))
        )
        kept = _bytes_of(model.output.values(), table.num_rows) <= MOST_BYTES_KEPT
        return data.cache() if kept else data.prefetch(prefetched)
    last = tf.int64.max if epochs is None else first_epoch + epochs
    return tf.data.Dataset.range(first_epoch, last).flat_map(one_epoch).prefetch(prefetched)


def _bytes_of(tensors: Iterable[Any], rows: int) -> int:
    """The memory that so many rows of the tensors take, at 4 bytes a number."""
    return rows * sum(4 * math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors)


def _orders(total: int, rows: int, seed: int | None, epoch: int) -> Iterator[np.ndarray]:
    order = np.arange(total)
    if seed is not None:
        order = np.random.default_rng((seed, epoch)).permutation(total)
    for start in range(0, total, rows):
        yield order[start : start + rows]


def _gather(table: pa.Table, order: np.ndarray) -> pa.Table:
    """Rows in that order; reads no others. Arrow's `take` alone would first join all chunks of a
    nested column, tensors among them, in memory."""
    nested = [field.name for field in table.schema if pa.types.is_nested(_storage(field.type))]
    taken = table.drop_columns(nested).take(order)
    for name in nested:
        column = _gather_chunked(table.column(name), order)
        taken = taken.append_column(table.schema.field(name), column)
    return taken


def _gather_chunked(column: pa.ChunkedArray, order: np.ndarray) -> pa.Array:
    by_place = np.argsort(order, kind="stable")
    places = order[by_place]
    starts = np.cumsum([0, *map(len, column.chunks)])
    cuts = np.searchsorted(places, starts)
    parts = [
        chunk.take(pa.array(places[first:last] - start))
        for chunk, start, first, last in zip(column.chunks, starts, cuts, cuts[1:])
        if last > first
    ]
    back = np.empty_like(by_place)
    back[by_place] = np.arange(len(order))
    return pa.concat_arrays(parts).take(pa.array(back))


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _mapped(
    examples: Examples, split: str, inputs: Mapping[str, Any], label: str | None, work_dir: Path
) -> pa.Table:
    """The split's rows as one memory-mapped table, written when it is first asked for.

    All rows are checked on the way: what fails later, inside tf.data, is no longer told as it is.
    """
    names = [name for name in inputs if name in set(examples.schema().names)]
    key = hashlib.sha256(repr((str(examples.path), split, names)).encode()).hexdigest()[:16]
    path = work_dir / f"rows-{key}.arrow"
    if not path.exists():  # another dataset may be reading it: never written over
        if not examples.rows(split):
            raise DataError(f"{examples.path}: split {split!r} has no rows")
        unfinished = path.with_suffix(".unfinished")
        schema = pa.schema([examples.schema().field(name) for name in names])
        with pa.ipc.new_file(str(unfinished), schema) as writer:
            for batch in examples.batches(split, names, rows_a_batch(inputs)):
                _check(batch, inputs, label)
                writer.write(batch.select(names))
        os.replace(unfinished, path)
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _check(batch: pa.RecordBatch, inputs: Mapping[str, Any], label: str | None) -> None:
    if label is not None and batch.column(label).null_count:
        raise DataError(
            f"column {label!r}, the label, is missing in {batch.column(label).null_count} of "
            f"{batch.num_rows} rows; leave such rows out of the data"
        )
    texts = {field.name for field in batch.schema if pa.types.is_string(field.type)}
    feed(batch, {n: t for n, t in inputs.items() if n not in texts or t.dtype != "string"})


def _label_input(examples: Examples, name: str) -> Any:
    """The label as an input of the model's would be: numbers stay of their kind."""
    import keras

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
