"""The Arrow types that an Examples artifact uses: conversion of other types to them, and merging of schemas."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.core.errors import DataError, ParameterError, one_line

EXACT_INTEGERS = 2**53  # float64 holds all integers up to this size


def types_named(names: Mapping[str, str]) -> dict[str, pa.DataType]:
    """Return the types that `ExampleGen.column_types` names, by column.

    Raises:
        ParameterError: Arrow has no such type.
    """
    types = {}
    for column, name in names.items():
        try:
            types[column] = pa.type_for_alias(name)
        except ValueError:
            raise ParameterError(
                f"ExampleGen.column_types.{column}: expected the name of an Arrow type, such as string, int64, double "
                f"or bool, received {name!r}"
            ) from None
    return types


def is_list(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds lists, in any of Arrow's layouts."""
    return (
        pa.types.is_list(kind)
        or pa.types.is_large_list(kind)
        or pa.types.is_fixed_size_list(kind)
        or pa.types.is_list_view(kind)
        or pa.types.is_large_list_view(kind)
    )


def is_text(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds texts."""
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def is_bytes(kind: pa.DataType) -> bool:
    """Return whether a column of this type holds bytes, such as the content of files."""
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def has_length(kind: pa.DataType) -> bool:
    """Return whether values of this type have a length, lists and texts, or can be one, integers."""
    return is_list(kind) or is_text(kind) or is_bytes(kind) or pa.types.is_integer(kind)


class UnfitValueError(DataError):
    """A value does not survive the conversion to the type that its column would get.

    Attributes:
        column: name of the column.
    """

    def __init__(self, column: str, problem: str) -> None:
        super().__init__(f"column {column!r}: {problem}")
        self.column = column


def normalize(batch: pa.RecordBatch, column_types: Mapping[str, pa.DataType] | None = None) -> pa.RecordBatch:
    """Convert a batch to the types that an Examples artifact uses.

    A struct becomes columns named `outer.inner`, at any depth and inside lists. A map becomes two columns of lists,
    `.key` and `.value`. Decimals become floats. Dates and times become ISO 8601 text, as in a CSV file, and durations
    nanoseconds. Equal ones are equal in every unit. Dictionary encoding is removed.

    Args:
        column_types: declared types by the name of the resulting column. Those of lists are of their values.

    Raises:
        UnfitValueError: a value does not survive, such as an integer over 2**63 or a decimal with too many digits.
        DataError: two columns get the same name, or one has none.
    """
    columns: dict[str, pa.Array] = {}
    fields = []
    for number, (field, column) in enumerate(zip(batch.schema, batch.columns), 1):
        if not field.name:
            raise DataError(f"column {number} has no name; name it")
        # Arrow's from_arrays takes no mask together with an offset.
        whole = pa.concat_arrays([column]) if column.offset else column
        for name, array in _flatten(field.name, whole):
            if name in columns:
                raise DataError(f"two columns are named {name!r}; rename one of them")
            columns[name] = _normalize_column(name, array, (column_types or {}).get(name))
            metadata = field.metadata if name == field.name else None
            fields.append(pa.field(name, columns[name].type, metadata=metadata))
    if not columns:  # rows without columns still count
        return pa.RecordBatch.from_struct_array(pa.array([{}] * batch.num_rows, pa.struct([])))
    return pa.RecordBatch.from_arrays(list(columns.values()), schema=pa.schema(fields))


def conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Cast a normalized batch to a merged schema. Columns that the batch lacks are null.

    Raises:
        UnfitValueError: an integer has no exact float64, which the column needs for other rows.
    """
    if batch.schema.equals(schema):
        return batch
    names = set(batch.schema.names)
    arrays = [
        _widen(field.name, batch.column(field.name), field.type)
        if field.name in names
        else pa.nulls(batch.num_rows, field.type)
        for field in schema
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def exact_doubles(name: str, column: pa.Array) -> pa.Array:
    """Cast integers or decimals to float64.

    Raises:
        UnfitValueError: a value cannot be recovered from the float64 nearest to it.
    """
    try:
        if pa.types.is_decimal(column.type):
            # By text, because Arrow's own conversions between decimals and floats are not correctly rounded.
            doubles = column.cast(pa.string()).cast(pa.float64())
            changed = pc.not_equal(column, doubles.cast(pa.string()).cast(column.type))
        else:
            doubles = column.cast(pa.float64(), safe=False)
            # 2**63 itself is the float64 nearest to the largest integers. Casting it back is undefined.
            back = doubles.cast(pa.int64(), safe=False)
            changed = pc.or_(pc.not_equal(column, back), pc.greater_equal(doubles, 2.0**63))
    except pa.ArrowInvalid:  # some float64 has more digits than the decimal type
        changed = pa.array([value is not None and Decimal(repr(float(value))) != value for value in column.to_pylist()])
    if pc.any(changed).as_py():
        value = column.filter(changed)[0].as_py()
        raise UnfitValueError(name, f"{value} has no exact float64, which the column needs")
    return doubles


def _flatten(name: str, column: pa.Array) -> Iterator[tuple[str, pa.Array]]:
    """Yield the columns without structs that make up a column."""
    kind = column.type
    if pa.types.is_map(kind):
        for part, values in (("key", column.keys), ("value", column.items)):
            for inner, flat in _flatten(f"{name}.{part}", values):
                yield inner, _to_lists(column, column.offsets, flat)
    elif pa.types.is_struct(kind):
        for position, part in enumerate(column.flatten()):
            yield from _flatten(f"{name}.{kind.field(position).name}", part)
    elif is_list(kind) and _has_struct(kind):
        column = column.cast(pa.large_list(kind.value_type))
        for inner, flat in _flatten(name, column.values):
            yield inner, _to_lists(column, column.offsets, flat)
    else:
        yield name, column


def _has_struct(kind: pa.DataType) -> bool:
    """Return whether lists of this type hold structs or maps, at any depth of lists."""
    while is_list(kind):
        kind = kind.value_type
    return pa.types.is_struct(kind) or pa.types.is_map(kind)


def _to_lists(column: pa.Array, offsets: pa.Array, values: pa.Array) -> pa.Array:
    mask = column.is_null() if column.null_count else None
    return pa.LargeListArray.from_arrays(offsets.cast(pa.int64()), values, mask=mask)


def _normalize_column(name: str, column: pa.Array, declared: pa.DataType | None) -> pa.Array:
    try:
        if declared is not None:
            column = _declared(column, declared)
        return _normalize_values(name, column)
    except pa.ArrowException as error:
        raise UnfitValueError(name, one_line(error)) from error


def _declared(column: pa.Array, declared: pa.DataType) -> pa.Array:
    """Cast the values of a column, or of its lists, to the declared type. Numbers may be rounded to floats."""
    if not is_list(column.type):
        return column.cast(declared, safe=not pa.types.is_floating(declared))
    column = column.cast(pa.large_list(column.type.value_type))
    return _to_lists(column, column.offsets, _declared(column.values, declared))


def _normalize_values(name: str, column: pa.Array) -> pa.Array:
    kind = column.type
    if isinstance(kind, pa.FixedShapeTensorType):
        return column
    if isinstance(column, pa.ExtensionArray):
        if kind.extension_name.startswith("pandas."):  # the numbers that represent periods have no meaning of their own
            raise UnfitValueError(name, f"values of type {kind.extension_name} have no counterpart")
        return _normalize_values(name, column.storage)
    if is_list(kind):
        column = column.cast(pa.large_list(kind.value_type))
        return _to_lists(column, column.offsets, _normalize_values(name, column.values))
    if pa.types.is_dictionary(kind):
        return _normalize_values(name, column.dictionary_decode())
    if pa.types.is_decimal(kind):
        return exact_doubles(name, column)
    if pa.types.is_duration(kind):
        return column.cast(pa.duration("ns")).cast(pa.int64())
    if pa.types.is_temporal(kind):
        return _iso_text(column)
    return column.cast(_normalized_type(kind))


def _iso_text(column: pa.Array) -> pa.Array:
    """Return dates and times as text. Seconds have 6 decimals, in every unit, or 9 if there are nanoseconds."""
    kind = column.type
    if pa.types.is_timestamp(kind) and kind.unit in ("s", "ms"):
        column = column.cast(pa.timestamp("us", kind.tz))
    elif pa.types.is_time32(kind):
        column = column.cast(pa.time64("us"))
    text = column.cast(pa.string())
    if pa.types.is_date(kind):
        return text
    return pc.replace_substring_regex(text, r"(\.\d{6})000(\D.*)?$", r"\1\2")


def _normalized_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_boolean(kind) or pa.types.is_null(kind):
        return kind
    if pa.types.is_integer(kind):
        return pa.int64()
    if pa.types.is_floating(kind):
        return pa.float32() if kind.bit_width <= 32 else pa.float64()
    if is_text(kind) or kind == pa.string_view():
        return pa.string()
    return pa.binary()


def merge_schemas(ours: pa.Schema, theirs: pa.Schema) -> pa.Schema:
    """Return a schema with the columns of both. A column of different types gets the type that holds all values.

    Raises:
        DataError: a column has types of which none holds the values of both, such as int64 and string or bool.
    """
    found = {field.name: field for field in ours}
    for field in theirs:
        known = found.get(field.name)
        if known is None:
            found[field.name] = field
        elif known.type != field.type:
            wider = _wider_type(field.name, known.type, field.type)
            found[field.name] = pa.field(field.name, wider, metadata=known.metadata or field.metadata)
    return pa.schema(list(found.values()))


def _wider_type(name: str, one: pa.DataType, other: pa.DataType) -> pa.DataType:
    """Return the type that holds the values of both types."""
    if pa.types.is_null(one) or one == other:
        return other
    if pa.types.is_null(other):
        return one
    if is_list(one) or is_list(other):
        inner = [kind.value_type if is_list(kind) else kind for kind in (one, other)]
        return pa.large_list(_wider_type(name, *inner))
    if all(pa.types.is_floating(k) or pa.types.is_integer(k) for k in (one, other)):
        floating = pa.types.is_floating(one) or pa.types.is_floating(other)
        return pa.float64() if floating else pa.int64()
    if all(pa.types.is_string(k) or pa.types.is_binary(k) for k in (one, other)):
        return pa.binary()
    raise DataError(
        f"column {name!r}: {one} in some rows, {other} in others; convert them to one type, "
        f"such as with --set ExampleGen.column_types.{name}=string"
    )


def _widen(name: str, column: pa.Array, kind: pa.DataType) -> pa.Array:
    if column.type == kind:
        return column
    if pa.types.is_null(column.type):
        return pa.nulls(len(column), kind)
    if not is_list(kind):
        exact = pa.types.is_integer(column.type) and pa.types.is_floating(kind)
        return exact_doubles(name, column) if exact else column.cast(kind)
    if is_list(column.type):
        return _to_lists(column, column.offsets, _widen(name, column.values, kind.value_type))
    # A single value becomes a list with one element. Null stays null.
    counts = pc.cast(column.is_valid(), pa.int64())
    offsets = pa.concat_arrays([pa.array([0], pa.int64()), pc.cumulative_sum(counts)])
    return _to_lists(column, offsets, _widen(name, column.drop_null(), kind.value_type))


def table_digest(data: Any) -> str:
    """Return the SHA-256 of a table, or of anything that Arrow takes for one, independent of its chunks."""
    table = pa.table(data)
    digest = _Sha256File()
    with pa.ipc.new_stream(pa.PythonFile(digest, "w"), table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return digest.sha256.hexdigest()


class _Sha256File:
    """A file that keeps only the digest of what is written to it."""

    closed = False

    def __init__(self) -> None:
        self.sha256 = hashlib.sha256()

    def write(self, data: Any) -> None:
        self.sha256.update(data)

    def flush(self) -> None: ...

    def close(self) -> None: ...
