"""Reading the results of SQL queries."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa

from kerasline.components.core.errors import DataError
from kerasline.components.data.sources.source import UnifyingSource

ROWS_PER_BATCH = 8192


class SqlSource(UnifyingSource):
    """Reads the rows that queries return, streamed through SQLAlchemy.

    Args:
        url: SQLAlchemy URL of the database, such as `sqlite:///trips.db` or `postgresql+psycopg://user@host/name`.
    """

    ADVICE = "cast the column in ExampleGen.query, for example with CAST(... AS TEXT)"

    def __init__(self, url: str) -> None:
        import sqlalchemy
        from sqlalchemy.exc import ArgumentError, NoSuchModuleError

        super().__init__()
        try:
            self._engine = sqlalchemy.create_engine(url)
        except (ArgumentError, NoSuchModuleError, ImportError) as error:
            raise DataError(f"ExampleGen.input: {_short(error)}; give the SQLAlchemy URL of a database") from error

    def _read(self, query: str) -> Iterator[tuple[str, pa.RecordBatch]]:
        from sqlalchemy.exc import SQLAlchemyError

        try:
            # yield_per also requests a server-side cursor from drivers that have one. Colons and percent signs are
            # ordinary characters of a query, because it has no parameters.
            options = {"yield_per": ROWS_PER_BATCH, "no_parameters": True}
            with self._engine.connect().execution_options(**options) as connection:
                result = connection.exec_driver_sql(query)
                names = list(result.keys())
                for rows in result.partitions(ROWS_PER_BATCH):
                    where = f"{self._engine.url!r}, from row {self.rows_read}"
                    self.rows_read += len(rows)
                    arrays = [_to_array(where, name, v) for name, v in zip(names, zip(*rows))]
                    yield where, pa.RecordBatch.from_arrays(arrays, names=names)
        except SQLAlchemyError as error:
            raise DataError(f"{self._engine.url!r}: {_short(error)}; see ExampleGen.query") from error


def _to_array(where: str, name: str, values: tuple) -> pa.Array:
    try:
        return pa.array(values)
    except (pa.ArrowException, OverflowError) as error:
        raise DataError(f"{where}: column {name!r}: {_reason(values, error)}; {SqlSource.ADVICE}") from error


def _reason(values: tuple, error: Exception) -> str:
    """Return why Arrow cannot convert values, with the first value that does not fit those before."""
    present = [value for value in values if value is not None]
    for value in present:
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            return f"{value} is over the range of int64"
        if type(value) is not type(present[0]):
            return f"{value!r} after {present[0]!r} ({_short(error)})"
    return _short(error)


def _short(error: Exception) -> str:
    return str(error).splitlines()[0][:200]
