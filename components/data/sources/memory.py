"""Reading tables in memory: Arrow, pandas, polars, dicts of columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from kerasline.components.core.errors import DataError
from kerasline.components.data.arrow_arrays import as_arrow
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
        data: a pandas or polars DataFrame, any other object with Arrow's stream interface, or a dict of columns, among
            them arrays of NumPy of any rank. An index of pandas becomes a column if it has a name.

    Raises:
        DataError: the data cannot be converted.
    """
    try:
        if isinstance(data, pa.Table):
            return data
        if isinstance(data, Mapping):
            return pa.table({str(name): _as_column(name, values) for name, values in data.items()})
        if type(data).__module__.partition(".")[0] == "pandas":
            named = any(name is not None for name in data.index.names)
            return pa.Table.from_pandas(data, preserve_index=named)
        return pa.table(data)
    except _UNFIT as error:
        raise DataError(
            f"ExampleGen.input: expected a pandas or polars DataFrame, an Arrow table or a dict of columns, "
            f"received {type(data).__name__} ({_reason(error)})"
        ) from error


_UNFIT = (TypeError, ValueError, AttributeError, OverflowError, pa.ArrowException)


def _as_column(name: Any, values: Any) -> Any:
    if isinstance(values, (pa.Array, pa.ChunkedArray)):
        return values
    try:
        if isinstance(values, np.ndarray) and values.ndim > 1:
            return as_arrow(values)
        return pa.array(values)
    except _UNFIT as error:
        raise DataError(f"ExampleGen.input: column {name!r}: {_reason(error)}; {MemorySource.ADVICE}") from error


def _reason(error: Exception) -> str:
    return "; ".join(str(part).splitlines()[0] for part in error.args if str(part))
