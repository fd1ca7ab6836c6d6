"""Reading JSON Lines files."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json as pj

from kerasline.components.core.errors import DataError, one_line
from kerasline.components.data.arrow_types import EXACT_INTEGERS, is_list
from kerasline.components.data.quarantine import Quarantine
from kerasline.components.data.sources.compressed_files import open_stream
from kerasline.components.data.sources.source import UnifyingSource

BLOCK_BYTES = 4 << 20
_PARSE_ERRORS = (pa.ArrowInvalid, UnicodeDecodeError)  # the latter for column names
_TEXT = (pa.string(), pa.large_string())
_Lines = list[tuple[int, bytes]]  # with their numbers in the file


class JsonSource(UnifyingSource):
    """Reads files with one JSON object per line. Empty lines are skipped. Files may be compressed.

    Nested objects become columns named `outer.inner`, arrays become lists. Text that looks like a date stays text.
    An integer that its column cannot hold exactly is an error.

    Args:
        quarantine: receives lines that are not JSON objects, or whose values have another type than those before.
        column_types: declared types by column. Values of any type can be read as text, numbers as they are spelled.
    """

    def __init__(
        self, quarantine: Quarantine | None = None, column_types: Mapping[str, pa.DataType] | None = None
    ) -> None:
        super().__init__(quarantine, column_types)
        self._text_columns = [name for name, kind in self._column_types.items() if kind in _TEXT]
        self._dates = pa.schema([])  # columns that Arrow would read as timestamps, as text

    def _read(self, files: Sequence[Path]) -> Iterator[tuple[str, pa.RecordBatch]]:
        for path in files:
            line = 1
            for block in _blocks(path):
                where = f"{path}, from line {line}"
                for batch in self._parse_block(path, line, block).combine_chunks().to_batches():
                    yield where, batch
                line += block.count(b"\n")

    def _parse_block(self, path: Path, first: int, block: bytes) -> pa.Table:
        if not self._text_columns:
            try:
                table = self._parse(block)
                if table.num_rows == block.count(b"\n"):
                    self.rows_read += table.num_rows
                    self._check_integers(path, table, enumerate(block.split(b"\n"), first))
                    return table
            except _PARSE_ERRORS:
                pass
        # The block has text columns, empty lines, a last line without a line break, or bad lines: check each line.
        lines = [(first + i, text) for i, text in enumerate(block.split(b"\n")) if text.strip()]
        self.rows_read += len(lines)
        good = self._consistent(path, self._well_formed(path, lines))
        if not good:
            return pa.table({})
        table = self._parse(b"\n".join(text for _, text in good))
        self._check_integers(path, table, good)
        return table

    def _parse(self, block: bytes) -> pa.Table:
        table = _parse(block, self._dates)
        dates = _map_types(table.schema, lambda kind: pa.string() if pa.types.is_timestamp(kind) else None)
        if not len(dates):
            return table
        self._dates = pa.unify_schemas([self._dates, dates], promote_options="permissive")
        return _parse(block, self._dates)

    def _check_integers(self, path: Path, table: pa.Table, lines: Iterator[tuple[int, bytes]] | _Lines) -> None:
        """Raise a DataError if an integer was rounded, because its column has fractions or it is over int64."""
        if not any(_has_large_floats(column) for column in table.columns):
            return
        for number, text in lines:
            for name, value in _integers(json.loads(text)) if text.strip() else ():
                if name not in self._column_types and abs(value) > EXACT_INTEGERS and not _is_exact(value):
                    raise DataError(
                        f"{path}, line {number}: column {name!r}: {value} is over 64 bits or beside a fraction, and "
                        f"has no exact float64; {self.ADVICE.format(column=name)}"
                    )

    def _well_formed(self, path: Path, lines: _Lines) -> _Lines:
        """Return the lines that are JSON objects, with text in text columns. Put the others into quarantine."""
        good = []
        for number, text in lines:
            try:
                row = json.loads(text, parse_float=_SpelledFloat)
                if not isinstance(row, dict):
                    raise ValueError("a JSON value, but not an object")
                if self._text_columns:
                    for name in self._text_columns:
                        row = _as_text(row, name)
                    text = json.dumps(row, ensure_ascii=False).encode()
                good.append((number, text))
            except (ValueError, RecursionError) as error:
                self._quarantine.put(f"{path}, line {number}", one_line(error), text)
        return good

    def _consistent(self, path: Path, lines: _Lines) -> _Lines:
        """Return the lines whose values have the types of the lines before. Put the others into quarantine."""
        good: _Lines = []
        known = self._dates
        pending = [lines]
        while pending:  # a part that fits the types so far is taken whole, any other is halved
            part = pending.pop()
            if not part:
                continue
            try:
                table = _parse(b"\n".join(text for _, text in part), known)
                known = _map_types(table.schema, _loosest)
                good += part
            except _PARSE_ERRORS as error:
                if len(part) == 1:
                    number, text = part[0]
                    self._quarantine.put(f"{path}, line {number}", _describe(error), text)
                else:
                    half = len(part) // 2
                    pending += [part[half:], part[:half]]
        return good


class _SpelledFloat(float):
    """A float that knows its spelling in the file."""

    spelling: str

    def __new__(cls, spelling: str) -> _SpelledFloat:
        self = super().__new__(cls, spelling)
        self.spelling = spelling
        return self


def _as_text(value: Any, column: str) -> Any:
    """Return a JSON value with everything in a column, named `outer.inner`, converted to text."""
    if isinstance(value, list):
        return [_as_text(item, column) for item in value]
    if not column:
        if value is None or isinstance(value, str):
            return value
        return value.spelling if isinstance(value, _SpelledFloat) else json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict):
        return value
    changed = dict(value)
    for key in value:
        if column == key or column.startswith(f"{key}."):
            changed[key] = _as_text(value[key], column[len(key) + 1 :])
    return changed


def _integers(value: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Yield the integers in a JSON value with the names of their columns."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _integers(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list):
        for inner in value:
            yield from _integers(inner, name)
    elif isinstance(value, int):
        yield name, value


def _is_exact(value: int) -> bool:
    """Return whether a float64 is equal to an integer."""
    try:
        return int(float(value)) == value
    except OverflowError:
        return False


def _has_large_floats(column: pa.ChunkedArray | pa.Array) -> bool:
    """Return whether a column has a float64 that may be a rounded integer."""
    kind = column.type
    if is_list(kind):
        return _has_large_floats(pc.list_flatten(column))
    if pa.types.is_struct(kind):
        names = [kind.field(position).name for position in range(kind.num_fields)]
        return any(_has_large_floats(pc.struct_field(column, name)) for name in names)
    if not pa.types.is_floating(kind):
        return False
    return bool(pc.any(pc.greater_equal(pc.abs(column), float(EXACT_INTEGERS))).as_py())


def _map_types(schema: pa.Schema, change: Callable[[pa.DataType], pa.DataType | None]) -> pa.Schema:
    """Return a schema with all scalar types changed, at any depth. Those that become None are left out."""

    def mapped(kind: pa.DataType) -> pa.DataType | None:
        if pa.types.is_struct(kind):
            inner = fields(kind.field(position) for position in range(kind.num_fields))
            return pa.struct(inner) if inner else None
        if is_list(kind):
            item = mapped(kind.value_type)
            return pa.list_(item) if item is not None else None
        return change(kind)

    def fields(known: Iterator[pa.Field] | pa.Schema) -> list[pa.Field]:
        return [pa.field(one.name, kind) for one in known if (kind := mapped(one.type)) is not None]

    return pa.schema(fields(schema))


def _loosest(kind: pa.DataType) -> pa.DataType | None:
    """Return the type of a column's further values, given the type of its first ones."""
    if pa.types.is_null(kind):
        return None
    if pa.types.is_timestamp(kind):
        return pa.string()
    return pa.float64() if pa.types.is_integer(kind) else kind


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield blocks of complete lines, a few megabytes each."""
    rest = b""
    with open_stream(path) as stream:
        while data := stream.read(max(BLOCK_BYTES, len(rest))):  # so that a very long line is not copied too often
            block, newline, after = data.rpartition(b"\n")
            if newline:
                yield rest + block + b"\n"
                rest = after
            else:
                rest += data
    if rest:
        yield rest


def _parse(block: bytes, types: pa.Schema) -> pa.Table:
    table = _parse_as(block, types)
    try:
        table.validate(full=True)  # above all that the text is UTF-8
    except pa.ArrowInvalid:
        # Arrow loses the nulls at the beginning of a column's first list, unless it knows the type of the items.
        known = _map_types(table.schema, lambda kind: pa.float64() if pa.types.is_null(kind) else kind)
        table = _parse_as(block, known)
        table.validate(full=True)
    return table


def _parse_as(block: bytes, types: pa.Schema) -> pa.Table:
    read_options = pj.ReadOptions(block_size=len(block) + 1, use_threads=False)
    parse_options = pj.ParseOptions(newlines_in_values=False, explicit_schema=types)
    return pj.read_json(io.BytesIO(block), read_options, parse_options)


def _describe(error: Exception) -> str:
    changed = re.search(r"Column\(/(.*?)\) changed from (\w+) to (\w+)", str(error))
    if changed:
        column = changed[1].replace("/[]", "").replace("/", ".")
        return f"column {column!r} changed from {changed[2]} to {changed[3]}"
    return one_line(error)
