"""Selecting rows and columns while data are read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa

from kerasline.components.core.errors import DataError, nearest
from kerasline.components.data.row_expressions import RowExpression


class SelectedSource:
    """A source that leaves out the rows that do not fulfil a condition.

    Args:
        source: the source of all rows.
        rows: the condition on rows, see `RowExpression`, or None to keep all.
        columns: names of the columns that will be written. The others are still returned, because a split key may be
            among them. Empty for all.

    Attributes:
        left_out: number of rows left out so far.
    """

    def __init__(self, source: Any, rows: str | None, columns: Sequence[str]) -> None:
        self.source = source
        self._condition = RowExpression(rows, "ExampleGen.rows") if rows else None
        self._columns = columns
        self.left_out = 0

    def batches(self, part: Any) -> Iterator[pa.RecordBatch]:
        """Return the selected rows of a part; see `Source`."""
        for batch in self.source.batches(part):
            for name in self._columns:
                if name not in batch.schema.names:
                    raise DataError(f"ExampleGen.columns: no column {name!r}; {nearest(name, batch.schema.names)}")
            kept = self._condition.filter(batch) if self._condition else batch
            self.left_out += batch.num_rows - kept.num_rows
            yield kept
