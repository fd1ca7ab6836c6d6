"""Reading tables in memory: Arrow, pandas, polars, dicts of columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from kerasline.components.core.errors import DataError
from kerasline.components.data.sources.source import UnifyingSource


class MemorySource(UnifyingSource):
    """Reads the rows of Arrow tables."""

    ADVICE = "convert the column, for example to text"

    def _read(self, table: pa.Table) -> Iterator[tuple[str, pa.RecordBatch]]:
        self.rows_read += table.num_rows
        for batch in table.to_batches(max_chunksize=65536):
            yield "ExampleGen.input", batch


def as_table(data: Any) -> pa.Table:
    """Convert data to an Arrow table.

    Args:
        data: a pandas or polars DataFrame, any other object with Arrow's stream interface, or a dict of columns.

    Raises:
        DataError: the data cannot be converted.
    """
    try:
        return data if isinstance(data, pa.Table) else pa.table(data)
    except (TypeError, ValueError, AttributeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"ExampleGen.input: expected a pandas or polars DataFrame, an Arrow table or a dict of columns, "
            f"received {type(data).__name__} ({reason})"
        ) from error
