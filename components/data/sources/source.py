"""What a source of rows is, and what most sources share: one schema for all batches, and division into pieces."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import pyarrow as pa

from kerasline.components.core.errors import DataError, nearest
from kerasline.components.data.arrow_types import UnfitValueError, conform, merge_schemas, normalize
from kerasline.components.data.quarantine import Quarantine
from kerasline.components.data.sources.media_columns import MediaColumns

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


@runtime_checkable
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
        """Combine what this source or copies of it inferred, each from one piece, in the order of the pieces.

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
        column_types: declared types by column, instead of those of the data.
        media: columns of images and sounds to decode.

    Attributes:
        ADVICE: what to do about a value that its column's type cannot hold.
    """

    ADVICE = (
        "read the column as text with --set ExampleGen.column_types.{column}=string, or as rounded numbers with "
        "ExampleGen.column_types.{column}=double"
    )

    def __init__(
        self,
        quarantine: Quarantine | None = None,
        column_types: Mapping[str, pa.DataType] | None = None,
        media: MediaColumns | None = None,
    ) -> None:
        self._quarantine = quarantine or Quarantine()
        self._media = media
        self._column_types = column_types or {}
        self._schema: pa.Schema | None = None  # fits all batches read so far
        self._returned: pa.Schema | None = None  # schema of the batches returned so far
        self.rows_read = 0

    def batches(self, part: Any) -> Iterator[pa.RecordBatch]:
        """Return the rows of a part in normalized types (see `arrow_types.normalize`) and one schema; see `Source`."""
        held: list[tuple[str, pa.RecordBatch]] = []
        held_bytes = 0
        for where, batch in self._read(part):
            with self._errors_at(where):
                batch = normalize(batch, self._column_types)
                self._schema = merge_schemas(self._schema or batch.schema, batch.schema)
            held.append((where, batch))
            held_bytes += batch.nbytes
            if self._returned is None and held_bytes < LOOK_AHEAD_BYTES:
                continue
            self._returned = self._returned or self._schema
            if self._returned == self._schema:
                yield from self._conform(held)
            held.clear()
        if self._returned not in (None, self._schema):
            self._returned = self._schema
            raise SchemaChanged
        self._returned = self._schema
        yield from self._conform(held)

    def _conform(self, held: Sequence[tuple[str, pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
        for where, batch in held:
            with self._errors_at(where):
                conformed = conform(batch, self._schema)
            yield self._media.checked(conformed, where, self._quarantine) if self._media else conformed

    @contextlib.contextmanager
    def _errors_at(self, where: str) -> Iterator[None]:
        """Add the location, and the advice if a value does not survive, to errors of conversion."""
        try:
            yield
        except UnfitValueError as error:
            raise DataError(f"{where}: {error}; {self.ADVICE.format(column=error.column)}") from error
        except DataError as error:
            raise DataError(f"{where}: {error}") from error

    def pieces(self, files: Sequence[Path]) -> list[list[Path]]:
        """Return groups of files that can be read in parallel. Only sources of files call it."""
        return group_by_size((file, file.stat().st_size) for file in files)

    @property
    def inferred(self) -> pa.Schema | None:
        return self._schema

    def merge_inferred(self, inferred: Sequence[pa.Schema | None]) -> bool:
        """Merge the schemas of pieces; see `DivisibleSource`.

        Raises:
            DataError: a column has types that cannot be combined, or `column_types` names a column that no piece has.
        """
        known = [schema for schema in inferred if schema is not None]
        if known:  # otherwise no piece had rows
            self._schema = self._returned = functools.reduce(merge_schemas, known)
            for name in self._column_types:
                if name not in self._schema.names:
                    raise DataError(
                        f"no column {name!r}, which ExampleGen.column_types names; {nearest(name, self._schema.names)}"
                    )
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
