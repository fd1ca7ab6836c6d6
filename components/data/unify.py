"""One schema for batches that differ: plain columns, widened where a later batch needs it."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.core.errors import DataError
from kerasline.components.data.quarantine import Quarantine
from kerasline.components.data.sources import ReadAgain
from kerasline.components.data.sources.dividing import divided

# Batches are held back until so many bytes have settled the schema: most columns that begin with
# nulls, or whole numbers, have shown what they are by then.
LOOK_AHEAD_BYTES = 16 << 20


class Unified:
    """Batches whose schema shows only as they are read, brought to one.

    At the first batch that does not fit what was given out before, the rest is read for its
    schemas alone, so that one more pass is enough.
    """

    def __init__(self) -> None:
        self._schema: pa.Schema | None = None  # what all batches so far fit in
        self._given: pa.Schema | None = None  # what batches are given out with

    def batches(self, read: Iterable[tuple[str, pa.RecordBatch]]) -> Iterator[pa.RecordBatch]:
        """The batches with plain columns (see `plain`), all of one schema.

        Args:
            read: where each batch stood, for messages, and the batch.

        Raises:
            ReadAgain: the schema has grown; begin again.
            DataError: a column has values of kinds that do not go together.
        """
        held: list[pa.RecordBatch] = []
        for where, batch in read:
            try:
                batch = plain(batch)
                self._schema = _joined(self._schema or batch.schema, batch.schema)
            except DataError as error:
                raise DataError(f"{where}: {error}") from error
            held.append(batch)
            if self._given is None and sum(b.nbytes for b in held) < LOOK_AHEAD_BYTES:
                continue
            self._given = self._given or self._schema
            if self._given == self._schema:
                yield from (conformed(b, self._given) for b in held)
            held.clear()
        if self._given not in (None, self._schema):
            self._given = self._schema
            raise ReadAgain
        self._given = self._schema
        yield from (conformed(b, self._given) for b in held)

    @property
    def schema(self) -> pa.Schema | None:
        """What all batches so far fit in."""
        return self._schema

    def learn(self, schemas: Iterable[pa.Schema | None]) -> bool:
        """Takes the schema of batches that others read; tells whether any of theirs is narrower than all together.

        Raises:
            DataError: a column has values of kinds that do not go together.
        """
        known = [schema for schema in schemas if schema is not None]
        if known:  # else there were no rows
            self._schema = self._given = functools.reduce(_joined, known)
        return any(schema != self._schema for schema in known)


class UnifiedSource:
    """What sources share whose schema shows only as they are read; see `Source`.

    Args:
        quarantine: takes rows that cannot be used, in sources that have such.
    """

    def __init__(self, quarantine: Quarantine | None = None) -> None:
        self._quarantine = quarantine
        self._unified = Unified()
        self.rows_read = 0

    def batches(self, part: Any) -> Iterator[pa.RecordBatch]:
        """The rows of a part, in order, in batches of one schema."""
        return self._unified.batches(self._read(part))

    def pieces(self, files: Sequence[Path]) -> list[list[Path]]:
        """Parts that can be read side by side; of sources of files."""
        return divided((file, file.stat().st_size) for file in files)

    @property
    def knowledge(self) -> pa.Schema | None:
        return self._unified.schema

    def learn(self, knowledge: Sequence[pa.Schema | None]) -> bool:
        return self._unified.learn(knowledge)

    def _read(self, part: Any) -> Iterator[tuple[str, pa.RecordBatch]]:
        """The batches as they are, each with where it stood, and counts `rows_read`."""
        raise NotImplementedError


def plain(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch in the types that an Examples artifact has.

    Structs become columns named `outer.inner`; maps, two lists named `.key` and `.value`; decimals,
    floats; dates and times, ISO 8601 text, as they stand in a CSV file; dictionaries, their values.

    Raises:
        DataError: a value does not fit, such as an integer over 2**63.
    """
    columns: dict[str, pa.Array] = {}
    fields = []
    for field, column in zip(batch.schema, batch.columns):
        whole = pa.concat_arrays([column]) if column.offset else column  # masks want no offset
        for name, array in _flat(field.name, whole):
            if name in columns:
                raise DataError(f"two columns are named {name!r}; rename one")
            try:
                columns[name] = _plain_values(array)
            except pa.ArrowInvalid as error:
                raise DataError(f"column {name!r}: {error}") from error
            metadata = field.metadata if name == field.name else None
            fields.append(pa.field(name, columns[name].type, metadata=metadata))
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(fields))


def conformed(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the columns of a schema that `plain` and widening made of its own."""
    if batch.schema.equals(schema):
        return batch
    names = set(batch.schema.names)
    arrays = [
        _widened(batch.column(field.name), field.type) if field.name in names else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def _flat(name: str, column: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    kind = column.type
    if pa.types.is_map(kind):
        offsets = column.offsets
        for part, values in (("key", column.keys), ("value", column.items)):
            yield from _flat(f"{name}.{part}", _listed(column, offsets, values))
    elif pa.types.is_struct(kind):
        for place, part in enumerate(column.flatten()):
            yield from _flat(f"{name}.{kind.field(place).name}", part)
    elif is_list(kind) and pa.types.is_struct(kind.value_type):
        column = column.cast(pa.large_list(kind.value_type))
        for place, part in enumerate(column.values.flatten()):
            inner = kind.value_type.field(place).name
            yield from _flat(f"{name}.{inner}", _listed(column, column.offsets, part))
    else:
        yield name, column


def _listed(column: pa.Array, offsets: pa.Array, values: pa.Array) -> pa.Array:
    mask = column.is_null() if column.null_count else None
    return pa.LargeListArray.from_arrays(offsets.cast(pa.int64()), values, mask=mask)


def _plain_values(column: pa.Array) -> pa.Array:
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        return column
    if isinstance(column, pa.ExtensionArray):
        return _plain_values(column.storage)
    if is_list(kind):
        column = column.cast(pa.large_list(kind.value_type))
        mask = column.is_null() if column.null_count else None
        return pa.LargeListArray.from_arrays(column.offsets, _plain_values(column.values), mask=mask)
    if pa.types.is_dictionary(kind):
        return _plain_values(column.dictionary_decode())
    if pa.types.is_temporal(kind) and not pa.types.is_duration(kind):
        return column.cast(pa.string())
    return column.cast(_plain_type(kind))


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return kind
    if pa.types.is_integer(kind) or pa.types.is_duration(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float32() if kind.bit_width <= 32 else pa.float64()
    if pa.types.is_decimal(kind):
        return pa.float64()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or kind == pa.string_view():
        return pa.string()
    return pa.binary()


def _joined(ours: pa.Schema, theirs: pa.Schema) -> pa.Schema:
    found = {field.name: field for field in ours}
    for field in theirs:
        known = found.get(field.name)
        if known is None:
            found[field.name] = field
        elif known.type != field.type:
            wider = _wider(field.name, known.type, field.type)
            found[field.name] = pa.field(field.name, wider, metadata=known.metadata or field.metadata)
    return pa.schema(list(found.values()))


def _wider(name: str, one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """The type that holds the values of both."""
    if pa.types.is_null(one) or one == other:
        return other
    if pa.types.is_null(other):
        return one
    if is_list(one) or is_list(other):
        inner = [kind.value_type if is_list(kind) else kind for kind in (one, other)]
        return pa.large_list(_wider(name, *inner))
    if all(pa.types.is_floating(k) or pa.types.is_integer(k) or pa.types.is_boolean(k) for k in (one, other)):
        floating = pa.types.is_floating(one) or pa.types.is_floating(other)
        return pa.float64() if floating else pa.int64()
    if all(pa.types.is_string(k) or pa.types.is_binary(k) for k in (one, other)):
        return pa.binary()
    raise DataError(f"column {name!r}: {one} in some rows, {other} in others; give all of them one type")


def _widened(column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), kind)
    if not is_list(kind):
        return column.cast(kind)
    if is_list(column.type):
        mask = column.is_null() if column.null_count else None
        values = _widened(column.values, kind.value_type)
        return pa.LargeListArray.from_arrays(column.offsets, values, mask=mask)
    # A single value becomes a list of one; a null stays a null.
    counts = pc.cast(column.is_valid(), pa.int64())
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(counts)])
    mask = column.is_null() if column.null_count else None
    values = _widened(column.drop_null(), kind.value_type)
    return pa.LargeListArray.from_arrays(offsets, values, mask=mask)


def is_list(kind: pa.DataType) -> bool:
    """Whether a column of this type holds lists, of any of Arrow's layouts."""
    return (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )
