"""Reading a split by its row groups, and reading rows by their positions in the split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kerasline.components.core.artifacts import Examples


class RowGroup(NamedTuple):
    """A row group: its shard, its number in the shard, the position of its first row in the split, and its size."""

    shard: str
    number: int
    first: int
    rows: int


def row_groups(examples: Examples, split: str) -> Iterator[RowGroup]:
    """Yield all row groups of a split, in order. Only the footers of the shards are read."""
    first = 0
    for shard in examples.whole_shards(split):
        metadata = pq.read_metadata(shard)
        for number in range(metadata.num_row_groups):
            rows = metadata.row_group(number).num_rows
            yield RowGroup(str(shard), number, first, rows)
            first += rows


def rows_at(
    examples: Examples, split: str, positions: np.ndarray, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Yield the rows at ascending positions of a split, a table per row group, with one row group in memory.

    Args:
        positions: int64 (n,), ascending.
        columns: columns to read, by default all.
    """
    for shard, number, first, rows in row_groups(examples, split):
        inside = positions[np.searchsorted(positions, first) : np.searchsorted(positions, first + rows)] - first
        if len(inside):
            with pq.ParquetFile(shard) as file:
                table = file.read_row_group(number, columns=None if columns is None else list(columns))
            yield table if len(inside) == rows else table.take(pa.array(inside))
