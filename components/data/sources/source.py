"""What a source of rows is, and what most sources share: one schema for all batches, and division into pieces."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pyarrow as pa

from kerasline.components.core.errors import DataError
from kerasline.components.data.arrow_types import conform, merge_schemas, normalize
from kerasline.components.data.quarantine import Quarantine

# Reading this much CSV takes about a second. Larger data are divided into pieces that workers read in parallel.
PIECE_BYTES = 48 << 20

# This many bytes are read before the first batch is returned. By then most columns that begin with nulls or integers
# have shown their type.
LOOK_AHEAD_BYTES = 16 << 20

Item = TypeVar("Item")


class SchemaChanged(Exception):
    """A row needs a wider type than the batches before it. Read again from the start.

    The source remembers the wider type, so that all batches of the next attempt have it.
    """


class Source(Protocol):
    """Reads one kind of data as Arrow batches that all have the same schema.

    Attributes:
        rows_read: number of rows read so far, as the format counts them, including rows put into quarantine.
    """

    rows_read: int

    def batches(self, part: Any) -> Iterator[pa.RecordBatch]:
        """Return the rows of a part of the data, always in the same order.

        Args:
            part: files, a query, a slice: whatever selects rows for this kind of source.

        Raises:
            SchemaChanged: discard everything read so far, of all parts, and begin again.
            DataError: the data cannot be used. The message names the file, the position and the column.
        """
        ...


class DivisibleSource(Source, Protocol):
    """A source whose parts can be divided into pieces that workers read in parallel. It can be pickled.

    Attributes:
        inferred: what the source has inferred about the schema so far.
    """

    @property
    def inferred(self) -> Any: ...

    def pieces(self, part: Any) -> Sequence[Any]:
        """Return the parts that make up a part, in order. They depend on the data alone."""
        ...

    def merge_inferred(self, inferred: Sequence[Any]) -> bool:
        """Combine what copies of this source inferred, each from one piece, in the order of the pieces.

        Returns:
            Whether the pieces must be read again, because some were read with narrower types than all together need.
        """
        ...


class UnifyingSource:
    """Base class of sources that learn the schema while they read. Implements `DivisibleSource`.

    At the first batch that does not fit the schema of the batches returned before, only the schemas of the remaining
    batches are read. So one more pass is enough.

    Args:
        quarantine: receives rows that cannot be used. By default they are errors.
    """

    def __init__(self, quarantine: Quarantine | None = None) -> None:
        self._quarantine = quarantine or Quarantine()
        self._schema: pa.Schema | None = None  # fits all batches read so far
        self._returned: pa.Schema | None = None  # schema of the batches returned so far
        self.rows_read = 0

    def batches(self, part: Any) -> Iterator[pa.RecordBatch]:
        """Return the rows of a part in normalized types (see `arrow_types.normalize`) and one schema; see `Source`."""
        held: list[pa.RecordBatch] = []
        for where, batch in self._read(part):
            try:
                batch = normalize(batch)
                self._schema = merge_schemas(self._schema or batch.schema, batch.schema)
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
            held.append(batch)
            if self._returned is None and sum(b.nbytes for b in held) < LOOK_AHEAD_BYTES:
                continue
            self._returned = self._returned or self._schema
            if self._returned == self._schema:
                yield from (conform(b, self._returned) for b in held)
            held.clear()
        if self._returned not in (None, self._schema):
            self._returned = self._schema
            raise SchemaChanged
        self._returned = self._schema
        yield from (conform(b, self._returned) for b in held)

    def pieces(self, files: Sequence[Path]) -> list[list[Path]]:
        """Return groups of files that can be read in parallel. Only sources of files call it."""
        return group_by_size((file, file.stat().st_size) for file in files)

    @property
    def inferred(self) -> pa.Schema | None:
        return self._schema

    def merge_inferred(self, inferred: Sequence[pa.Schema | None]) -> bool:
        """Merge the schemas of pieces; see `DivisibleSource`.

        Raises:
            DataError: a column has types that cannot be combined.
        """
        known = [schema for schema in inferred if schema is not None]
        if known:  # otherwise no piece had rows
            self._schema = self._returned = functools.reduce(merge_schemas, known)
        return any(schema != self._schema for schema in known)

    def _read(self, part: Any) -> Iterator[tuple[str, pa.RecordBatch]]:
        """Yield each batch as stored, with its location for error messages, and count `rows_read`."""
        raise NotImplementedError


def group_by_size(items: Iterable[tuple[Item, int]]) -> list[list[Item]]:
    """Group neighbouring items while each group has at most `PIECE_BYTES`.

    Args:
        items: pairs of an item and its size in bytes.
    """
    groups: list[list[Item]] = []
    total = PIECE_BYTES
    for item, size_bytes in items:
        if not groups or total + size_bytes > PIECE_BYTES:
            groups.append([])
            total = 0
        groups[-1].append(item)
        total += size_bytes
    return groups
