"""Which split each row belongs to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.core.errors import DataError, nearest
from kerasline.components.data.hashing import row_hashes
from kerasline.components.data.shards import ExamplesWriter

_GOLDEN = (5**0.5 - 1) / 2


class Splitter:
    """Writes each row to the split that it belongs to.

    Args:
        by: `hash`: the same row, or the same values of the key columns, always land in the same
            split, whatever else the data holds; shares are met in the long run. `ratio`: rows are
            dealt out in turn, so that the shares are met to within a few rows. `column`: the key
            column holds the split's name.
        shares: relative sizes by name, such as `{"train": 8, "eval": 1, "test": 1}`; of the
            names alone if by column.
        key: the columns that are hashed (all by default), or the one that names the split.
        told: what to call the data in messages.

    Raises:
        DataError: the data has no such column, or a value of it names no split.
    """

    def __init__(self, by: str, shares: Mapping[str, float], key: Sequence[str] | None, told: str) -> None:
        self._by, self._key, self._told = by, key, told
        self._names = list(shares)
        bounds = np.cumsum(np.array(list(shares.values()), float))
        self._bounds = bounds[:-1] / bounds[-1]
        self._dealt = 0

    def write(self, batch: pa.RecordBatch, writer: ExamplesWriter) -> None:
        self._check_key(batch.schema.names)
        chosen = self._chosen(batch)
        for index, name in enumerate(self._names):
            rows = np.flatnonzero(chosen == index)
            if len(rows):
                writer.write(name, batch.take(pa.array(rows)))

    def _check_key(self, columns: Sequence[str]) -> None:
        for name in self._key or ():
            if name not in columns:
                raise DataError(
                    f"{self._told}: no column {name!r}, which ExampleGen.split_key names; {nearest(name, columns)}"
                )

    def _chosen(self, batch: pa.RecordBatch) -> np.ndarray:
        """The place of each row's split among the names, shape (rows,)."""
        if self._by == "column":
            return self._named(batch)
        if self._by == "ratio":
            # Multiples of the golden ratio fill [0, 1) as evenly as any sequence (Knuth, TAOCP 3, 6.4).
            place = np.arange(self._dealt, self._dealt + batch.num_rows) * _GOLDEN % 1
            self._dealt += batch.num_rows
        else:
            # The upper 53 bits as a number in [0, 1): a float holds no more without rounding.
            place = (row_hashes(batch, self._key) >> np.uint64(11)) * 2.0**-53
        return np.searchsorted(self._bounds, place, side="right")

    def _named(self, batch: pa.RecordBatch) -> np.ndarray:
        column = batch.column(self._key[0]).cast(pa.string())
        chosen = pc.index_in(column, value_set=pa.array(self._names))
        if chosen.null_count:
            strange = column.filter(chosen.is_null())[0].as_py()
            raise DataError(
                f"column {self._key[0]!r}: {strange!r} names no split; ExampleGen.splits has {', '.join(self._names)}"
            )
        return chosen.to_numpy()
