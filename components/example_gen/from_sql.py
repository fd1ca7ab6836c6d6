"""SqlExampleGen: reads the result of a SQL query."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasline.components.core.component import Context, Parameters
from kerasline.components.core.errors import ParameterError
from kerasline.components.example_gen.component import ExampleGen, ExampleGenSettings, Parts

if TYPE_CHECKING:
    from kerasline.components.data.quarantine import Quarantine
    from kerasline.components.data.sources.source import Source


@dataclass(frozen=True, kw_only=True)
class SqlExampleGenSettings(ExampleGenSettings):
    """The parameters of SqlExampleGen, which documents them."""

    input: str
    query: str | None = None


class SqlExampleGen(ExampleGen):
    """Reads the result of a SQL query.

    The data of a database server are read again in each run. If they have not changed, later stages stay cached.

    Args:
        input: SQLAlchemy URL of the database (`sqlite:///trips.db`).
        splits, split_by, split_key, stratify: see `ExampleGen`. If `splits` has locations, they are queries.
        query: the query, unless `splits` has queries. Use `ORDER BY` to make runs reproducible.

    Raises:
        DataError: the database cannot be opened, or the query fails.

    Example:

    >>> import sqlite3
    >>> with sqlite3.connect(folder / "trips.db") as database:
    ...     _ = database.execute("CREATE TABLE trips AS SELECT 1.5 AS miles, 7 AS fare")
    >>> stage = kl.SqlExampleGen(f"sqlite:///{folder}/trips.db", query="SELECT * FROM trips", splits={"train": 1})
    >>> stage.execute(folder / "out").examples.read("train").to_pydict()
    {'miles': [1.5], 'fare': [7]}
    """

    LIBRARIES = ("pyarrow", "sqlalchemy")

    settings: Parameters[SqlExampleGenSettings]

    def external_inputs(self) -> Sequence[Path | str]:
        from sqlalchemy.engine import make_url
        from sqlalchemy.exc import ArgumentError

        try:
            url = make_url(self.settings.input)
        except ArgumentError as error:
            raise ParameterError(f"ExampleGen.input: {error}") from error
        if url.get_backend_name() == "sqlite" and url.database and Path(url.database).is_file():
            return [Path(url.database)]
        return [f"read at this run: {uuid.uuid4()}"]

    def _source(self, quarantine: Quarantine, context: Context) -> Source:
        from kerasline.components.data.sources.sql import SqlSource

        return SqlSource(self.settings.input)

    def _parts(self, source: Any) -> Parts:
        if self.settings.splits_are_locations:
            return list(self.settings.splits.items())
        if not self.settings.query:
            raise ParameterError("ExampleGen.query: no query given; pass a SELECT statement")
        return [(None, self.settings.query)]

    def _data_name(self) -> str:
        return "the query"
