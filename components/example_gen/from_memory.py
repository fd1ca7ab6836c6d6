"""InMemoryExampleGen: takes tables that the user's code builds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasline.components.core.component import Context
from kerasline.components.core.errors import DataError
from kerasline.components.example_gen.component import ExampleGen, Parts

if TYPE_CHECKING:
    from kerasline.components.data.quarantine import Quarantine
    from kerasline.components.data.sources.source import Source


class InMemoryExampleGen(ExampleGen):
    """Takes a table that the pipeline's file builds.

    Args:
        input: a pandas or polars DataFrame, an Arrow table, a dict of columns, or a function without arguments that
            returns one of these. The function is called only when the stage runs. If `splits` has locations, `input` is
            a dict of tables, and the locations are its keys.
        splits, split_by, split_key, stratify: see `ExampleGen`.

    Raises:
        DataError: the data cannot be converted to a table, or has no table that `splits` names.

    Example:

    >>> kl.InMemoryExampleGen({"x": [1.0, 2.0]}, splits={"train": 1}).execute(folder / "examples").metrics
    {'train': 2, 'columns': 1}
    """

    def external_inputs(self) -> Sequence[Path | str]:
        if callable(self.settings.input):
            return []  # the code of a function is part of the fingerprint
        from kerasline.components.data.arrow_types import table_digest

        return [f"table {table_digest(table)}" for _, table in self._parts(None)]

    def _source(self, quarantine: Quarantine, context: Context) -> Source:
        from kerasline.components.data.sources.memory import MemorySource

        return MemorySource()

    def _parts(self, source: Any) -> Parts:
        from kerasline.components.data.sources.memory import as_table

        settings = self.settings
        data = settings.input() if callable(settings.input) else settings.input
        if not settings.splits_are_locations:
            return [(None, as_table(data))]
        for key in settings.splits.values():
            if not isinstance(data, Mapping) or key not in data:
                raise DataError(f"ExampleGen.input: no table {key!r}, which ExampleGen.splits names")
        return [(name, as_table(data[key])) for name, key in settings.splits.items()]

    def _data_name(self) -> str:
        return "the table"
