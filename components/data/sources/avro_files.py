"""Reading Avro files (avro.apache.org/docs/1.12.0/specification)."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

import fastavro
import pyarrow as pa

from kerasline.components.core.errors import DataError, one_line
from kerasline.components.data.sources.source import UnifyingSource

# Blocks of an Avro file have some 16 KB. Rows of several blocks make a batch.
BATCH_BYTES = 4 << 20
_TYPES = {
    "null": pa.null(),
    "boolean": pa.bool_(),
    "int": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "bytes": pa.binary(),
    "fixed": pa.binary(),
    "string": pa.string(),
    "enum": pa.string(),
}
# The logical types that fastavro decodes. It leaves others as what they are stored as.
_LOGICAL_TYPES = {
    "date": pa.date32(),
    "time-millis": pa.time32("ms"),
    "time-micros": pa.time64("us"),
    "timestamp-millis": pa.timestamp("ms", "UTC"),
    "timestamp-micros": pa.timestamp("us", "UTC"),
    "local-timestamp-millis": pa.timestamp("ms"),
    "local-timestamp-micros": pa.timestamp("us"),
}
_CONVERSIONS: dict[pa.DataType | None, Callable[[Any], Any]] = {pa.string(): str, pa.float64(): float}
_NUMBERS = ("int", "long", "float", "double")
# Exceptions that damaged bytes cause in fastavro's decoders.
_DAMAGED = (ValueError, EOFError, IndexError, KeyError, TypeError, OverflowError, ArithmeticError, OSError)


class AvroSource(UnifyingSource):
    """Reads the rows of Avro files. Records within records become columns named `outer.inner`.

    The rows of a damaged block are put into quarantine together. After a damaged head of a block no other block can be
    found, so the rest of the file is put into quarantine as one row.

    Args:
        quarantine: receives the blocks that cannot be read.
    """

    def _read(self, files: Sequence[Path]) -> Iterator[tuple[str, pa.RecordBatch]]:
        for path in files:
            with open(path, "rb") as stream:
                try:
                    blocks = fastavro.block_reader(stream)
                    schema = fastavro.schema.expand_schema(blocks.writer_schema)
                except (*_DAMAGED, fastavro.schema.SchemaParseException) as error:
                    raise DataError(f"{path}: not an Avro file ({one_line(error)})") from error
                yield from self._batches_of(path, blocks, _columns(path, schema))

    def _batches_of(
        self, path: Path, blocks: fastavro.block_reader, columns: Mapping[str, pa.DataType]
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        first, rows, size_bytes = 0, list[Mapping[str, Any]](), 0
        for number, found, block_bytes in self._blocks(path, blocks):
            if size_bytes + block_bytes > BATCH_BYTES and rows:
                yield self._batch(path, first, rows, columns)
                rows, size_bytes = [], 0
            first = first if rows else number
            rows += found
            size_bytes += block_bytes
        yield self._batch(path, first, rows, columns)

    def _batch(
        self, path: Path, first: int, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, pa.DataType]
    ) -> tuple[str, pa.RecordBatch]:
        where = f"{path}, from row {first}"
        if not columns:
            return where, pa.RecordBatch.from_struct_array(pa.array([{}] * len(rows), pa.struct([])))
        arrays = {}
        for name, kind in columns.items():
            values: Iterator[Any] = map(itemgetter(name), rows)
            convert = _CONVERSIONS.get(self._column_types.get(name)) if kind == pa.float64() else None
            if convert is not None:  # a union of integers and fractions
                kind = self._column_types[name]
                values = (value if value is None else convert(value) for value in values)
            try:
                arrays[name] = pa.array(values, kind, size=len(rows))
            except pa.ArrowException as error:
                advice = self.ADVICE.format(column=name)
                raise DataError(f"{where}: column {name!r}: {one_line(error)}; {advice}") from error
        return where, pa.record_batch(arrays)

    def _blocks(self, path: Path, blocks: fastavro.block_reader) -> Iterator[tuple[int, list[Any], int]]:
        """Yield for each good block the number of its first row, its rows, and its size."""
        row = 0
        has_uuids = "'logicalType': 'uuid'" in str(blocks.writer_schema)
        while True:
            try:
                block = next(blocks, None)
            except _DAMAGED as error:
                if "codec" in str(error):
                    raise DataError(f"{path}: {one_line(error)}; pip install 'kerasline[avro]'") from error
                self.rows_read += 1
                where = f"{path}, from row {row} to its end"
                self._quarantine.put(where, f"damaged ({one_line(error)})", "", "obtain the file again")
                return
            if block is None:
                return
            self.rows_read += block.num_records
            try:
                yield row, [_plain(one) for one in block] if has_uuids else list(block), block.size
            except _DAMAGED as error:
                where, reason = f"{path}, from row {row}", f"damaged block ({one_line(error) or 'it ends early'})"
                self._quarantine.put(where, reason, "", "obtain the file again", rows=block.num_records)
            row += block.num_records


def _columns(path: Path, schema: Any) -> dict[str, pa.DataType]:
    if not isinstance(schema, dict) or schema["type"] != "record":
        raise DataError(f"{path}: expected rows that are records, received a schema of {_name(schema)}")
    return {field["name"]: _type(path, field["name"], field["type"]) for field in schema["fields"]}


def _type(path: Path, place: str, schema: Any) -> pa.DataType:
    """Return the Arrow type of a schema in which the definitions of named types are written out."""
    if isinstance(schema, list):
        return _union(path, place, schema)
    kind = _name(schema)
    details = schema if isinstance(schema, dict) else {}
    logical = details.get("logicalType")
    if logical == "decimal" and kind in ("bytes", "fixed"):
        precision, scale = details["precision"], details.get("scale", 0)
        return pa.decimal128(precision, scale) if precision <= 38 else pa.decimal256(precision, scale)
    if kind in ("int", "long") and logical in _LOGICAL_TYPES:
        return _LOGICAL_TYPES[logical]
    if kind == "array":
        return pa.list_(_type(path, f"{place}[]", details["items"]))
    if kind == "map":
        return pa.map_(pa.string(), _type(path, f"{place}.value", details["values"]))
    if kind in ("record", "error"):
        fields = details["fields"]
        return pa.struct({one["name"]: _type(path, f"{place}.{one['name']}", one["type"]) for one in fields})
    if kind not in _TYPES:
        raise DataError(f"{path}: column {place!r} has the type {kind!r} within itself; columns cannot be recursive")
    return _TYPES[kind]


def _union(path: Path, place: str, schemas: Sequence[Any]) -> pa.DataType:
    """Return the type of a union: null and one more type, or numbers, or texts and bytes."""
    kinds = [schema for schema in schemas if _name(schema) != "null"]
    names = {_name(schema) for schema in kinds}
    if len(kinds) <= 1:
        return _type(path, place, kinds[0]) if kinds else pa.null()
    if names <= set(_NUMBERS):
        return pa.int64() if names == {"int", "long"} else pa.float64()
    raise DataError(
        f"{path}: column {place!r} is a union of {', '.join(sorted(names))}; expected one type, besides null"
    )


def _plain(value: Any) -> Any:
    """Return a value with the UUIDs in it as text. fastavro decodes them to objects that Arrow does not take."""
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, list):
        return [_plain(one) for one in value]
    return str(value) if isinstance(value, uuid.UUID) else value


def _name(schema: Any) -> str:
    return _name(schema["type"]) if isinstance(schema, dict) else "union" if isinstance(schema, list) else schema
