"""The row groups of a split's shards, and rows by where they stand in the split."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from kerasline.components.core.artifacts import Examples


class RowGroup(NamedTuple):
    """A row group of a shard: its number there, the place of its first row among all of the split, and its rows."""

    shard: str
    number: int
    first: int
    rows: int


def row_groups(examples: Examples, split: str) -> Iterator[RowGroup]:
    """All of a split, in order; only the shards' footers are read."""
    first = 0
    for shard in examples.whole_shards(split):
        metadata = pq.read_metadata(shard)
        for number in range(metadata.num_row_groups):
            rows = metadata.row_group(number).num_rows
            yield RowGroup(str(shard), number, first, rows)
            first += rows


def rows_at(
    examples: Examples, split: str, places: np.ndarray, columns: Sequence[str] | None = None
) -> Iterator[pa.Table]:
    """Rows of a split by their places among all, in rising order; row group by row group, memory stays flat."""
    for shard, number, first, rows in row_groups(examples, split):
        wanted = places[np.searchsorted(places, first) : np.searchsorted(places, first + rows)] - first
        if len(wanted):
            with pq.ParquetFile(shard) as file:
                table = file.read_row_group(number, columns=None if columns is None else list(columns))
            yield table if len(wanted) == rows else table.take(pa.array(wanted))
