"""Assigning rows to splits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.core.errors import DataError, nearest
from kerasline.components.data.hashing import row_hashes
from kerasline.components.data.shards import ExamplesWriter

_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class SplitRule:
    """How rows are assigned to splits.

    Attributes:
        by: `hash`: by a hash of the row or of the key columns, so that equal rows are always in the same split,
            whatever the other data; the sizes are met in the long run. `ratio`: in turn, so that the sizes are exact to
            a few rows. `column`: by the key column, which names the split.
        sizes: relative sizes by split, such as `{"train": 8, "eval": 1, "test": 1}`. By column, only the names count.
        key: the columns to hash, by default all, or the one column that names the split.
        data_name: what to call the data in messages.
    """

    by: str
    sizes: Mapping[str, float]
    key: Sequence[str] | None
    data_name: str

    def new_splitter(self) -> Splitter:
        """Return a splitter that starts at the first row of a part of the data."""
        return Splitter(self)


class Splitter:
    """Writes each row to its split, in the order of the rows.

    Raises:
        DataError: the data has no such key column, or one of its values names no split.
    """

    def __init__(self, rule: SplitRule) -> None:
        self._rule, self._key = rule, rule.key or ()
        self._names = list(rule.sizes)
        ends = np.cumsum(np.array(list(rule.sizes.values()), float))
        self._bounds = ends[:-1] / ends[-1:]
        self._rows = 0  # number of rows written, by ratio

    def write(self, batch: pa.RecordBatch, writer: ExamplesWriter) -> None:
        """Write the rows of the next batch to their splits."""
        self._check_key(batch.schema.names)
        assigned = self._assign(batch)
        for index, name in enumerate(self._names):
            rows = np.flatnonzero(assigned == index)
            if len(rows):
                writer.write(name, batch.take(pa.array(rows)))

    def _check_key(self, columns: Sequence[str]) -> None:
        for name in self._key:
            if name not in columns:
                raise DataError(
                    f"{self._rule.data_name}: no column {name!r}, which ExampleGen.split_key names; "
                    f"{nearest(name, columns)}"
                )

    def _assign(self, batch: pa.RecordBatch) -> np.ndarray:
        """Return the index of each row's split, shape (rows,)."""
        if self._rule.by == "column":
            return self._assign_by_column(batch)
        if self._rule.by == "ratio":
            # Multiples of the golden ratio fill [0, 1) as evenly as any sequence (Knuth, TAOCP 3, 6.4).
            fraction: np.ndarray = np.arange(self._rows, self._rows + batch.num_rows) * _GOLDEN % 1
            self._rows += batch.num_rows
        else:
            # The upper 53 bits as a number in [0, 1): a float64 holds no more without rounding.
            fraction = (row_hashes(batch, self._rule.key) >> np.uint64(11)) * 2.0**-53
        return np.searchsorted(self._bounds, fraction, side="right")

    def _assign_by_column(self, batch: pa.RecordBatch) -> np.ndarray:
        column = batch.column(self._key[0]).cast(pa.string())
        index = pc.index_in(column, value_set=pa.array(self._names))
        if index.null_count:
            unknown = column.filter(index.is_null())[0].as_py()
            raise DataError(
                f"column {self._key[0]!r}: expected the name of a split in ExampleGen.splits, received {unknown!r}; "
                f"the splits are {', '.join(self._names)}"
            )
        return index.to_numpy()
