"""Selecting rows and columns while data are read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from kerasline.components.core.errors import DataError, nearest
from kerasline.components.data.hashing import row_hashes
from kerasline.components.data.row_expressions import RowExpression


class SelectedSource:
    """A source that leaves out the rows that do not fulfil a condition.

    Args:
        source: the source of all rows.
        rows: the condition on rows, see `RowExpression`, or None to keep all.
        columns: names of the columns that will be written. The others are still returned, because a split key may be
            among them. Empty for all.
        row_hash: name of a further column, see `ExampleGen`, or None.
        constants: values of further columns by name, see `ExampleGen`.

    Attributes:
        left_out: number of rows left out so far.
    """

    def __init__(
        self,
        source: Any,
        rows: str | None,
        columns: Sequence[str],
        row_hash: str | None = None,
        constants: Mapping[str, Any] | None = None,
    ) -> None:
        self.source = source
        self._condition = RowExpression(rows, "ExampleGen.rows") if rows else None
        self._columns, self._row_hash, self._constants = columns, row_hash, dict(constants or {})
        self.left_out = 0

    def batches(self, part: Any) -> Iterator[pa.RecordBatch]:
        """Return the selected rows of a part; see `Source`."""
        for batch in self.source.batches(part):
            for name in self._columns:
                if name not in batch.schema.names:
                    raise DataError(f"ExampleGen.columns: no column {name!r}; {nearest(name, batch.schema.names)}")
            kept = self._condition.filter(batch) if self._condition else batch
            self.left_out += batch.num_rows - kept.num_rows
            yield self._with_constants(kept if self._row_hash is None else self._with_hash(kept, self._row_hash))

    def _with_hash(self, batch: pa.RecordBatch, name: str) -> pa.RecordBatch:
        hashes = row_hashes(batch, self._columns or None) >> np.uint64(33)
        return _with_column(batch, name, pa.array(hashes.astype(np.int64)), "row_hash")

    def _with_constants(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        for name, value in self._constants.items():
            batch = _with_column(batch, name, pa.repeat(pa.scalar(value), batch.num_rows), "constants")
        return batch


def _with_column(batch: pa.RecordBatch, name: str, values: pa.Array, parameter: str) -> pa.RecordBatch:
    if name in batch.schema.names:
        raise DataError(f"ExampleGen.{parameter}: the data has a column {name!r} already; choose another name")
    return batch.append_column(name, values)
