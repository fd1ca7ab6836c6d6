"""What a model is trained and evaluated on: shards become batches of preprocessed tensors.

Rows are drawn in super-batches of many batches at once: one gather, one call of the preprocessing,
then cut into batches. Raw rows lie in a memory-mapped Arrow file, so that any order can be read
while memory stays flat.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from components.artifacts import Examples, Preprocessing
from components.columnar.feed import feed

SUPER_BATCH_ROWS = 1024
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
        DataError: a column is missing or of the wrong kind.
    """
    import keras
    import tensorflow as tf

    model = preprocessing.load()
    facts = preprocessing.facts
    label, raw_label = facts["label"], None if facts["label_is_output"] else facts["label"]
    inputs = dict(model.input)
    if raw_label is not None:
        inputs[raw_label] = keras.KerasTensor((None,), _label_dtype(examples, raw_label))
    table = _mapped(examples, split, list(inputs), work_dir)
    rows = max(batch_size, SUPER_BATCH_ROWS // batch_size * batch_size)

    def super_batches(epoch: int) -> Iterator[dict[str, np.ndarray]]:
        for order in _orders(table.num_rows, rows, seed, int(epoch)):
            yield feed(table.take(order) if seed is not None else table.slice(order[0], len(order)), inputs)

    def prepared(raw: dict[str, Any]) -> tuple[dict[str, Any], Any]:
        features = dict(model({name: raw[name] for name in model.input}))
        target = raw[raw_label] if raw_label is not None else features.pop(label)
        return features, target

    signature = {n: tf.TensorSpec((None, *t.shape[1:]), t.dtype) for n, t in inputs.items()}

    def one_epoch(epoch: Any) -> Any:
        raw = tf.data.Dataset.from_generator(super_batches, output_signature=signature, args=(epoch,))
        return raw.map(prepared).rebatch(batch_size)

    if seed is None and epochs == 1:
        data = one_epoch(0).apply(
            tf.data.experimental.assert_cardinality(steps_per_epoch(examples, split, batch_size))
        )
        kept = _bytes_of(model.output.values(), table.num_rows) <= MOST_BYTES_KEPT
        return data.cache() if kept else data.prefetch(PREFETCHED)
    last = tf.int64.max if epochs is None else first_epoch + epochs
    return tf.data.Dataset.range(first_epoch, last).flat_map(one_epoch).prefetch(PREFETCHED)


def _bytes_of(tensors: Iterable[Any], rows: int) -> int:
    """The memory that so many rows of the tensors take, at 4 bytes a number."""
    return rows * sum(4 * math.prod(size or 1 for size in tensor.shape[1:]) for tensor in tensors)


def _orders(total: int, rows: int, seed: int | None, epoch: int) -> Iterator[np.ndarray]:
    order = np.arange(total)
    if seed is not None:
        order = np.random.default_rng((seed, epoch)).permutation(total)
    for start in range(0, total, rows):
        yield order[start : start + rows]


def _mapped(examples: Examples, split: str, columns: list[str], work_dir: Path) -> pa.Table:
    """The split's rows as one memory-mapped table."""
    have = set(examples.schema().names)
    path = work_dir / f"rows-{split}.arrow"
    writer = None
    for batch in examples.batches(split, [name for name in columns if name in have]):
        writer = writer or pa.ipc.new_file(str(path), batch.schema)
        writer.write(batch)
    writer.close()
    return pa.ipc.open_file(pa.memory_map(str(path))).read_all()


def _label_dtype(examples: Examples, name: str) -> str:
    kind = examples.schema().field(name).type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return "int64"
    return "float32" if pa.types.is_floating(kind) else "string"
