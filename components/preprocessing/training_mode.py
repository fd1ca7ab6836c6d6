"""Preprocessing as training calls it: with reproducible random layers, and with out-of-fold encodings."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.core.keras_compat import flatten_layers, seed_states
from kerasline.components.data.partial_results import split_into_parts
from kerasline.components.data.shuffling import mix

_POSITIONS: contextvars.ContextVar[Any] = contextvars.ContextVar("row positions", default=None)


def is_random(model: keras.Model) -> bool:
    """Return whether a layer of the model draws random numbers in training."""
    return bool(_seed_states(model))


def call_with_seed(model: keras.Model, inputs: dict[str, Any], seeds: tuple[Any, ...]) -> dict[str, Any]:
    """Call the model in training mode, with random layers that depend on the seeds alone.

    Args:
        model: functional, with inputs and outputs by name.
        inputs: tensors by name.
        seeds: integers or integer tensors, such as seed, epoch and step.

    Returns:
        The outputs by name. The same seeds give the same outputs.
    """
    states = _seed_states(model)
    new = tf.random.experimental.stateless_split(_combined(seeds), len(states))
    replaced = {id(state): new[number] for number, state in enumerate(states)}
    values = [
        tf.cast(replaced[id(variable)], variable.dtype) if id(variable) in replaced else variable.value
        for variable in model.non_trainable_variables
    ]
    trainable = [variable.value for variable in model.trainable_variables]
    outputs, _ = model.stateless_call(trainable, values, inputs, training=True)
    return outputs


@contextlib.contextmanager
def rows_at(positions: Any | None) -> Iterator[None]:
    """Declare the rows on which layers are called within the context as training rows.

    Layers that were adapted on the label, such as `TargetEncoding`, then leave out what they learned from the row
    itself.

    Args:
        positions: int64 tensor (rows,): the index of each row in the part of the data in which adaptation read it, see
            `PartPositions`. None declares nothing.
    """
    token = _POSITIONS.set(positions)
    try:
        yield
    finally:
        _POSITIONS.reset(token)


def current_positions() -> Any | None:
    """Return the positions declared by the innermost `rows_at`, or None outside of training."""
    return _POSITIONS.get()


def fold_of(positions: Any, folds: int) -> tf.Tensor:
    """Return the fold of each row, from 0 to `folds` - 1: a stable hash of its position, int64 (rows,)."""
    mixed = mix(tf.cast(positions, tf.uint64))
    return tf.cast(tf.bitwise.right_shift(mixed, tf.constant(1, tf.uint64)), tf.int64) % folds


class PartPositions:
    """The positions of rows within the parts in which adaptation reads them.

    A position does not depend on the other parts, so a part's cached state stays valid when data are added.

    Args:
        shards: Parquet files, in the order of the rows.
    """

    def __init__(self, shards: Sequence[Path]) -> None:
        import pyarrow.parquet as pq

        sizes = []
        for part in split_into_parts(shards):
            metadata = pq.read_metadata(part.shard)
            sizes.append(sum(metadata.row_group(number).num_rows for number in part.groups))
        self._starts = np.cumsum([0, *sizes])[:-1]

    def of(self, rows: Any) -> tf.Tensor:
        """Return the positions of rows, int64 (n,).

        Args:
            rows: int64 (n,): indices in all shards together.
        """
        starts = tf.constant(self._starts, tf.int64)
        return rows - tf.gather(starts, tf.searchsorted(starts, rows, side="right", out_type=tf.int64) - 1)


def _seed_states(model: keras.Model) -> list[keras.Variable]:
    """Return the variables that hold the states of random number generators."""
    return [state for layer in flatten_layers(model, include_self=True) for state in seed_states(layer)]


def _combined(seeds: tuple[Any, ...]) -> tf.Tensor:
    seed = tf.zeros(2, tf.int64)
    for number in seeds:
        seed = tf.random.experimental.stateless_fold_in(seed, tf.cast(number, tf.int64))
    return seed
