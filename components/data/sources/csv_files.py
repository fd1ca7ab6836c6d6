"""Reading CSV files: in blocks, with inferred column types, and with errors that name the line."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc

from kerasline.components.core.errors import DataError
from kerasline.components.data.sources import source
from kerasline.components.data.sources.compressed_files import compression_of, unreadable
from kerasline.components.data.sources.csv_ranges import Range, RangeReader, row_ranges
from kerasline.components.data.sources.source import SchemaChanged

BLOCK_BYTES = 2 << 20


class CsvSource:
    """Reads the rows of CSV files that have the same columns. Implements `DivisibleSource`.

    Column types are inferred from the first block. If a later block has fractions in a column of integers, or values
    in a column that was empty, the type is widened and reading starts again. Text in a numeric column is an error.
    Empty fields are null. Dates and times stay text.

    Args:
        column_types: declared types by column, instead of inferred types.
        encoding: text encoding, such as `utf-8` or `latin-1`.
        delimiter: one character.
    """

    def __init__(self, column_types: Mapping[str, pa.DataType], encoding: str, delimiter: str) -> None:
        self._encoding, self._delimiter = encoding, delimiter
        self._types = dict(column_types)
        self._first: tuple[Path, list[str]] | None = None  # the first file and its columns
        self.rows_read = 0

    def batches(self, files: Sequence[Path | Range]) -> Iterator[pa.RecordBatch]:
        """Return all rows of the files. Compressed files are recognized by their suffix. See `Source`."""
        for place in files:
            before = self.rows_read
            for batch in self._batches(place):
                self.rows_read += batch.num_rows
                yield batch
            if self.rows_read == before and isinstance(place, Path):
                raise DataError(f"{place}: the file has a header and no rows; give a file with data")

    def pieces(self, files: Sequence[Path]) -> list[list[Path | Range]]:
        """Return parts that can be read in parallel. The first block of the first file decides the types of all.

        The columns of files that are divided into ranges are checked here, because only the first range has the header.
        """
        if self._first is None:
            with self._errors_of(files[0]):
                self._infer_types(files[0])
        pieces = source.group_by_size(sized for file in files for sized in self._ranges(file))
        divided = {place.file: None for piece in pieces for place in piece if isinstance(place, Range)}
        for file in divided:
            if self._first is not None and file == self._first[0]:
                continue
            with contextlib.suppress(pa.ArrowInvalid, UnicodeError):  # reported with the line when the range is read
                self._check_columns(file, self._open(file).schema.names)
        return pieces

    @property
    def inferred(self) -> dict[str, pa.DataType]:
        """The types of the columns, as far as they are known."""
        return self._types

    def merge_inferred(self, inferred: Sequence[Mapping[str, pa.DataType]]) -> bool:
        """Combine the types that copies inferred from pieces; see `DivisibleSource`.

        The result is that of reading all pieces in their order: the first type of a column that began empty counts.
        """
        for column in self._types:
            kinds = [types[column] for types in inferred if not pa.types.is_null(types[column])]
            if kinds:
                whole = pa.types.is_int64(kinds[0])
                self._types[column] = pa.float64() if whole and pa.float64() in kinds else kinds[0]
        return any(types != self._types for types in inferred)

    def _ranges(self, file: Path) -> Iterator[tuple[Path | Range, int]]:
        if compression_of(file) is None:
            ranges = row_ranges(file, self._encoding, self._delimiter, source.PIECE_BYTES)
            if len(ranges) > 1:
                yield from ((one, one.end - one.start) for one in ranges)
                return
        yield file, file.stat().st_size

    def _batches(self, place: Path | Range) -> Iterator[pa.RecordBatch]:
        file = place.file if isinstance(place, Range) else place
        with self._errors_of(file):
            if self._first is None:
                self._infer_types(file)
            reader = self._open(place)
            self._check_columns(file, reader.schema.names)
            yield from reader

    @contextlib.contextmanager
    def _errors_of(self, file: Path) -> Iterator[None]:
        """Convert the errors of reading a file to messages that say how to fix them."""
        try:
            yield
        except (pa.ArrowInvalid, UnicodeError, LookupError) as error:
            self._explain(file, str(error))
        except OSError as error:
            raise unreadable(file, error) from error

    def _open(self, place: Path | Range, *, threads: bool = True) -> pc.CSVStreamingReader:
        # Only the range at the start of a file has the header.
        names = self._first[1] if self._first and isinstance(place, Range) and place.start else None
        return pc.open_csv(
            RangeReader(place) if isinstance(place, Range) else str(place),
            read_options=pc.ReadOptions(
                block_size=BLOCK_BYTES, encoding=self._encoding, use_threads=threads, column_names=names
            ),
            parse_options=pc.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
            convert_options=pc.ConvertOptions(strings_can_be_null=True, column_types=self._types),
        )

    def _check_columns(self, file: Path, names: Sequence[str]) -> None:
        if self._first is not None and names != self._first[1]:
            raise different_columns(file, names, *self._first)

    def _infer_types(self, file: Path) -> None:
        """Infer the type of every column from the first block of the first file. A header alone gives no types."""
        reader = self._open(file, threads=False)
        try:
            schema, first = reader.schema, reader.read_next_batch()
        except StopIteration:
            return
        check_names(file, schema.names, self._types)
        self._first = file, schema.names
        for field in schema:
            if pa.types.is_binary(field.type):
                raise self._wrong_encoding(file, field.name)
            kept = field.type
            if pa.types.is_temporal(kept) or pa.types.is_string(kept):
                kept = numeric_type_of_first_half(first.column(field.name)) or pa.string()
            self._types.setdefault(field.name, kept)

    def _explain(self, file: Path, message: str) -> None:
        """Widen the column that an error of the reader is about, or raise an error that says how to fix the file."""
        if "Empty CSV" in message:
            raise DataError(f"{file}: the file is empty; expected a header and rows")
        if "codec can't decode" in message or "unknown encoding" in message:
            raise DataError(f"{file}: {message}; set ExampleGen.encoding, for example to latin-1")
        message = self._serial_message(file) or message
        line = re.search(r"Row #(\d+): ", message)
        where = f"{file}, line {line.group(1)}" if line else str(file)
        ragged = re.search(r"Expected (\d+) columns, got (\d+)", message)
        if ragged:
            expected, received = ragged.groups()
            raise DataError(
                f"{where}: expected {expected} fields as in the header, received {received}; fix the line, "
                "or quote fields that contain the delimiter"
            )
        number = re.search(r"In CSV column #(\d+)", message)
        column = self._first[1][int(number.group(1))] if number and self._first else "?"
        if "UTF8" in message:
            raise self._wrong_encoding(where, column)
        mismatch = re.search(r"conversion error to ([\w\[\]]+): invalid value '(.*)'", message, re.S)
        if not mismatch:
            raise DataError(f"{where}: {message}")
        kind, value = mismatch.groups()
        wider = wider_type(pa.type_for_alias(kind), value)
        if wider:
            self._types[column] = wider
            raise SchemaChanged
        expected = {"int64": "a number", "double": "a number", "bool": "true or false"}.get(kind, kind)
        raise DataError(
            f"{where}, column {column!r}: expected {expected} as in the rows before, received {value!r}; fix the "
            f"line, read the column as text with --set ExampleGen.column_types.{column}=string, or put such rows "
            "into quarantine with --set ExampleGen.bad_rows=quarantine"
        )

    def _serial_message(self, file: Path) -> str | None:
        """Return the same error with its line number, which only the single-threaded reader reports."""
        try:
            for _ in self._open(file, threads=False):
                pass
        except (pa.ArrowInvalid, UnicodeError) as error:
            return str(error)
        return None

    def _wrong_encoding(self, where: object, column: str) -> DataError:
        return DataError(
            f"{where}, column {column!r}: not {self._encoding} text; set ExampleGen.encoding, for example to latin-1"
        )


def check_names(file: Path, names: Sequence[str], typed: Iterable[str]) -> None:
    """Raise a DataError if two columns have the same name, or if a typed column does not exist."""
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates:
        raise DataError(f"{file}: two columns are named {duplicates[0]!r}; rename one of them")
    unknown = sorted(set(typed) - set(names))
    if unknown:
        raise DataError(
            f"{file}: no column {unknown[0]!r}, which ExampleGen.column_types names; the columns are {', '.join(names)}"
        )


def different_columns(file: Path, names: Sequence[str], first: Path, expected: Sequence[str]) -> DataError:
    """Return the error for a file whose columns differ from those of the first file."""
    missing = [name for name in expected if name not in names]
    additional = [name for name in names if name not in expected]
    difference = "they have another order"
    if missing or additional:
        difference = f"{missing[0]!r} is missing" if missing else f"{additional[0]!r} is additional"
    return DataError(f"{file}: the columns differ from those of {first}: {difference}")


def numeric_type_of_first_half(values: pa.Array) -> pa.DataType | None:
    """Return the numeric type of the first half of a text column, or None if it is not numeric.

    Such a column changes its type half way. Read with the numeric type, the first line that breaks it is reported.
    """
    values = values.drop_null()
    if not pa.types.is_string(values.type) or len(values) < 2:
        return None
    for kind in (pa.int64(), pa.float64()):
        try:
            values[: len(values) // 2].cast(kind)
            return kind
        except pa.ArrowInvalid:
            continue
    return None


def wider_type(kind: pa.DataType, value: str) -> pa.DataType | None:
    """Return the type that a column of type `kind` needs to hold `value` too, or None if there is none."""
    if not pa.types.is_null(kind) and not pa.types.is_int64(kind):
        return None
    if pa.types.is_null(kind) and re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value):
        return pa.int64()
    try:
        float(value)
        return pa.float64()
    except ValueError:
        return pa.string() if pa.types.is_null(kind) else None
