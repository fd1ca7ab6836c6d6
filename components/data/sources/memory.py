"""Taking rows from objects in memory: Arrow, pandas, polars, dicts of columns."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pyarrow as pa

from kerasline.components.core.errors import DataError
from kerasline.components.data.unify import UnifiedSource


class MemorySource(UnifiedSource):
    """The rows of tables in memory."""

    def _read(self, table: pa.Table) -> Iterator[tuple[str, pa.RecordBatch]]:
        self.rows_read += table.num_rows
        for batch in table.to_batches(max_chunksize=65536):
            yield "ExampleGen.input", batch


def as_table(data: Any) -> pa.Table:
    """An Arrow table of a DataFrame of pandas or polars, of any other object with Arrow's stream
    interface, or of a dict of columns.

    Raises:
        DataError: it is none of these.
    """
    try:
        return data if isinstance(data, pa.Table) else pa.table(data)
    except (TypeError, ValueError, AttributeError, pa.ArrowException) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            f"ExampleGen.input: {type(data).__name__} is not a table ({reason}); give a DataFrame of "
            "pandas or polars, an Arrow table, or a dict of columns"
        ) from error
