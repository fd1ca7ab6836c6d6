"""Seeds of the rows that training augments."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from kerasline.components.data.shuffling import mix, of_epoch

_SEEDS: contextvars.ContextVar[RowSeeds | None] = contextvars.ContextVar("row seeds", default=None)


class RowSeeds:
    """Seeds of rows, from which each draw of a layer gets its own.

    Args:
        seed, epoch: integers or int64 scalars.
        rows: int64 (n,), the index of each row in the data.
    """

    def __init__(self, seed: Any, epoch: Any, rows: Any) -> None:
        self._seeds = mix(of_epoch(seed, epoch) + tf.cast(rows, tf.uint64))
        self._draws = 0

    def next(self) -> tf.Tensor:
        """Return the seeds of the next draw, uint64 (n,)."""
        self._draws += 1
        return mix(self._seeds + mix(tf.constant(self._draws, tf.uint64)))


@contextlib.contextmanager
def row_seeds(seeds: RowSeeds) -> Iterator[None]:
    """Let the random layers that are called within the context draw by row."""
    token = _SEEDS.set(seeds)
    try:
        yield
    finally:
        _SEEDS.reset(token)


def current_row_seeds() -> RowSeeds | None:
    return _SEEDS.get()
