"""Reading CSV files: in blocks, with inferred column types, and with errors that name the line."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from kerasline.components.core.errors import DataError
from kerasline.components.data.arrow_types import EXACT_INTEGERS, UnfitValueError, normalize
from kerasline.components.data.sources import source
from kerasline.components.data.sources.compressed_files import compression_of, unreadable
from kerasline.components.data.sources.csv_format import BLOCK_BYTES, CsvFormat, check_separators
from kerasline.components.data.sources.csv_ranges import Range, RangeReader, row_ranges
from kerasline.components.data.sources.csv_scan import ScanningReader
from kerasline.components.data.sources.source import SchemaChanged

_CANONICAL_INTEGER = r"^(-?[1-9]\d*|0)$"
# Largest block, which a row must fit in. Arrow counts its bytes in 32 bits.
MAX_BLOCK_BYTES = 512 << 20
_INFERRED = (pa.null(), pa.int64(), pa.float64(), pa.bool_(), pa.string())


@dataclass
class InferredColumns:
    """What is known about the columns of CSV files.

    Attributes:
        types: type of each column. Null as long as it has no values.
        words: an example, such as NA, from each column without values that has spellings of missing numbers. If it gets
            no other values, it is text.
        spellings: an example from each column whose values do not show the text that they are read from, such as `007`.
    """

    types: dict[str, pa.DataType]
    words: dict[str, str] = field(default_factory=dict)
    spellings: dict[str, str] = field(default_factory=dict)


class CsvSource:
    """Reads the rows of CSV files that have the same columns. Implements `DivisibleSource`.

    Column types are inferred from the first block. If a later block has fractions in a column of integers, or values
    in a column that was empty, the type is widened and reading starts again. Text in a numeric column is an error, and
    so is an integer that its column would round. Empty fields are null. Dates and times stay text.

    Args:
        column_types: declared types by column, instead of inferred types.
        form: how the files are written.
    """

    def __init__(self, column_types: Mapping[str, pa.DataType], form: CsvFormat) -> None:
        self._form = form
        self._declared = dict(column_types)
        self.inferred = InferredColumns(dict(column_types))
        self._first: tuple[Path, list[str]] | None = None  # the first file and its columns
        self._block_bytes = BLOCK_BYTES
        self.rows_read = 0

    def batches(self, files: Sequence[Path | Range]) -> Iterator[pa.RecordBatch]:
        """Return all rows of the files. Compressed files are recognized by their suffix. See `Source`."""
        for place in files:
            before = self.rows_read
            yield from self._batches(place)
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
        for file in {place.file: None for piece in pieces for place in piece if isinstance(place, Range)}:
            self._check_columns(file)
        return pieces

    def merge_inferred(self, inferred: Sequence[InferredColumns]) -> bool:
        """Combine what was inferred from pieces; see `DivisibleSource`.

        The result is that of reading all pieces in their order: the first type of a column that began empty counts.
        """
        types, words = self.inferred.types, dict[str, str]()
        for one in inferred:
            words = {**one.words, **words}
            self.inferred.spellings = {**one.spellings, **self.inferred.spellings}
        known = [dict(one.types) for one in inferred]
        for column in types:
            kinds = [types[column] for types in known if not pa.types.is_null(types[column])]
            if kinds:
                whole = pa.types.is_int64(kinds[0])
                types[column] = pa.float64() if whole and pa.float64() in kinds else kinds[0]
            elif column in words:
                types[column] = pa.string()
        return any(one != types for one in known)

    @property
    def spellings(self) -> dict[str, str]:
        """An example of the text in the files for each column whose values do not show it."""
        texts = {name for name, kind in self.inferred.types.items() if pa.types.is_string(kind)}
        return {name: text for name, text in self.inferred.spellings.items() if name not in texts}

    def _ranges(self, file: Path) -> Iterator[tuple[Path | Range, int]]:
        if compression_of(file) is None:
            ranges = row_ranges(file, self._form, source.PIECE_BYTES)
            if len(ranges) > 1:
                yield from ((one, one.end - one.start) for one in ranges)
                return
        yield file, file.stat().st_size

    def _batches(self, place: Path | Range) -> Iterator[pa.RecordBatch]:
        file = place.file if isinstance(place, Range) else place
        with self._errors_of(file):
            if self._first is None:
                self._infer_types(file)
            if not isinstance(place, Range):
                self._check_columns(file)
            stream = self._stream(place)
            exact: set[str] = set()  # columns of floats in which this place has no rounded integers
            for batch in self._open(place, stream):
                for name in self._large_floats(batch):
                    if name not in exact:
                        self._check_integers(place, file, name)
                        exact.add(name)
                self.rows_read += batch.num_rows
                yield self._finish(file, batch)
            if stream.irregular_quotes:
                self._form.check_quotes(file)
            if stream.unusual_integers or not self._ascii_based:
                self._note_spellings(place)

    @property
    def _ascii_based(self) -> bool:
        return "16" not in self._form.encoding and "32" not in self._form.encoding

    @contextlib.contextmanager
    def _errors_of(self, file: Path) -> Iterator[None]:
        """Convert the errors of reading a file to messages that say how to fix them."""
        try:
            yield
        except (pa.ArrowInvalid, UnicodeError, LookupError) as error:
            self._explain(file, str(error))
        except pa.ArrowNotImplementedError as error:
            raise DataError(f"{file}: {error}; declare another type in ExampleGen.column_types") from error
        except OSError as error:
            raise unreadable(file, error) from error

    def _stream(self, place: Path | Range) -> ScanningReader:
        stream = RangeReader(place) if isinstance(place, Range) else _decompressed(place)
        return ScanningReader(stream, self._form.delimiter, self._form.quote, integers=bool(self._unexamined_integers))

    def _open(
        self,
        place: Path | Range,
        stream: Any,
        *,
        threads: bool = True,
        texts: Sequence[str] | None = None,
    ) -> pcsv.CSVStreamingReader:
        """Open a file, or a range of it.

        Args:
            texts: read only these columns, as text.
        """
        names = self._form.column_names
        if self._first is not None and isinstance(place, Range) and place.start:
            names = self._first[1]  # only the range at the start of a file has the header
        types = {name: pa.string() if pa.types.is_null(kind) else kind for name, kind in self.inferred.types.items()}
        return pcsv.open_csv(
            stream,
            read_options=pcsv.ReadOptions(
                block_size=self._block_bytes,
                encoding=self._form.encoding,
                use_threads=threads,
                column_names=list(names) if names else None,
            ),
            parse_options=self._form.parse_options(),
            convert_options=pcsv.ConvertOptions(
                null_values=self._form.missing_numbers,
                column_types=dict.fromkeys(texts, pa.string()) if texts else types,
                include_columns=list(texts) if texts else None,
            ),
        )

    def _check_columns(self, file: Path) -> None:
        if self._first is None or file == self._first[0]:
            return
        names = self._form.header(file, ())
        if names != self._first[1]:
            raise different_columns(file, names, *self._first)

    def _infer_types(self, file: Path) -> None:
        """Infer the type of every column from the first block of the first file. A header alone gives no types."""
        names = self._form.header(file, self._declared)
        self._first = file, names
        reader = self._open(file, _decompressed(file), threads=False)
        try:
            schema, first = reader.schema, reader.read_next_batch()
        except StopIteration:
            self._first = None
            return
        if schema.names != names:  # such as a line break in a name
            raise DataError(f"{file}: the header cannot be read; expected the columns {', '.join(names)}")
        typed = []
        for name, kind, column in zip(names, schema.types, first.columns):
            if name in self._declared:
                continue
            if pa.types.is_binary(kind):
                raise self._wrong_encoding(file, name)
            if pa.types.is_temporal(kind):
                kind = pa.string()
            elif pa.types.is_string(kind):
                check_separators(str(file), name, column)
                kind = self._numeric_type_of_first_half(column) or kind
            elif pa.types.is_boolean(kind) or pa.types.is_floating(kind):
                typed.append(name)
            self.inferred.types[name] = kind
        if typed:
            texts = self._open(file, _decompressed(file), threads=False, texts=typed).read_next_batch()
            for name, column in zip(typed, texts.columns):
                value = column.filter(pc.invert(self._is_missing(column)))[0].as_py()
                self.inferred.spellings.setdefault(name, value)

    def _numeric_type_of_first_half(self, values: pa.StringArray) -> pa.DataType | None:
        """Return the numeric type of the first half of a text column, or None if it is not numeric.

        Such a column changes its type half way. Read with the numeric type, the first line that breaks it is reported.
        """
        values = values.filter(pc.invert(self._is_missing(values)))
        if len(values) < 2:
            return None
        for kind in (pa.int64(), pa.float64()):
            try:
                values[: len(values) // 2].cast(kind)
                return kind
            except pa.ArrowInvalid:
                continue
        return None

    def _is_missing(self, values: pa.StringArray) -> pa.BooleanArray:
        return pc.is_in(values, value_set=pa.array([*self._form.missing_numbers, None], pa.string()))

    def _finish(self, file: Path, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Return a batch with nulls in text, and in the types that examples have."""
        arrays = []
        for name, column in zip(batch.schema.names, batch.columns):
            kind = self.inferred.types[name]
            if pa.types.is_null(kind):
                column = self._without_values(name, self._form.with_nulls(column))
            elif pa.types.is_string(kind):
                column = self._form.with_nulls(column)
            arrays.append(column)
        finished = pa.RecordBatch.from_arrays(arrays, names=batch.schema.names)
        if all(kind in _INFERRED for kind in self._declared.values()):
            return finished
        try:
            return normalize(finished)
        except UnfitValueError as error:
            raise DataError(f"{file}: {error}; declare another type in ExampleGen.column_types") from error

    def _without_values(self, name: str, column: pa.StringArray) -> pa.Array:
        """Return nulls for a column that had no values so far, or widen its type."""
        values = column.filter(pc.invert(self._is_missing(column)))
        if len(values):
            self._widen(name, pa.null(), values[0].as_py())
        if column.null_count < len(column):
            self.inferred.words.setdefault(name, column.drop_null()[0].as_py())
        return pa.nulls(len(column))

    def _widen(self, name: str, kind: pa.DataType, value: str) -> None:
        """Give a column of type `kind` the type that it needs to hold `value` too, if there is one."""
        wider = wider_type(kind, value)
        if wider is not None:
            self.inferred.types[name] = wider
            if pa.types.is_floating(wider):
                self.inferred.spellings.setdefault(name, value)
            raise SchemaChanged

    def _large_floats(self, batch: pa.RecordBatch) -> Iterator[str]:
        """Yield the columns with floats that may be rounded integers."""
        for field_, column in zip(batch.schema, batch.columns):
            if pa.types.is_float64(field_.type) and field_.name not in self._declared:
                numbers = np.abs(column.to_numpy(zero_copy_only=False))
                if np.fmax.reduce(numbers, initial=0) >= EXACT_INTEGERS:
                    yield field_.name

    def _check_integers(self, place: Path | Range, file: Path, name: str) -> None:
        """Raise a DataError if a column of floats has an integer that has no exact float."""
        row = 1 if self._form.column_names else 2
        for batch in self._open(place, self._stream(place), texts=[name]):
            index = first_inexact(batch.column(0))
            if index is not None:
                where = f"{file}, row {row + index}" if isinstance(place, Path) or not place.start else str(file)
                raise rounded(where, name, batch.column(0)[index].as_py())
            row += batch.num_rows

    @property
    def _unexamined_integers(self) -> list[str]:
        """The columns of integers whose spelling is not known to differ."""
        return [
            name
            for name, kind in self.inferred.types.items()
            if pa.types.is_int64(kind) and name not in self._declared and name not in self.inferred.spellings
        ]

    def _note_spellings(self, place: Path | Range) -> None:
        """Find columns of integers that are spelled otherwise than integers are written, such as 007."""
        names = self._unexamined_integers
        if not names:
            return
        for batch in self._open(place, self._stream(place), texts=names):
            for name, column in zip(names, batch.columns):
                if name not in self.inferred.spellings:
                    note_spelling(name, column.filter(pc.invert(self._is_missing(column))), self.inferred.spellings)

    def _explain(self, file: Path, message: str) -> None:
        """Widen the column that an error of the reader is about, or raise an error that says how to fix the file."""
        if "codec can't decode" in message or "unknown encoding" in message:
            raise DataError(f"{file}: {message}; set ExampleGen.encoding, for example to latin-1")
        self._enlarge_blocks(file, message)
        message = self._serial_message(file) or message
        line = re.search(r"Row #(\d+): ", message)
        if line:
            self._form.check_quotes(file, up_to_line=int(line.group(1)))
        where = f"{file}, line {line.group(1)}" if line else str(file)
        ragged = re.search(r"Expected (\d+) columns, got (\d+)", message)
        if ragged:
            expected, received = ragged.groups()
            names = "ExampleGen.column_names" if self._form.column_names else "the header"
            raise DataError(
                f"{where}: expected {expected} fields as in {names}, received {received}; fix the line, "
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
        if column not in self._declared:
            self._widen(column, pa.type_for_alias(kind), value)
        raise misfit(f"{where}, column {column!r}", column, kind, value, declared=column in self._declared)

    def _enlarge_blocks(self, file: Path, message: str) -> None:
        """Begin again with larger blocks if the error of the reader is that a row is longer than one.

        Raises:
            DataError: the row is that long because of a quote that is never closed, or longer than `MAX_BLOCK_BYTES`.
        """
        if "straddling object" not in message:
            return
        self._form.check_quotes(file)
        if self._block_bytes >= MAX_BLOCK_BYTES:
            raise DataError(
                f"{file}: a row of over {MAX_BLOCK_BYTES >> 20} MiB; keep such values in files of their own"
            )
        self._block_bytes *= 4
        if self._first is not None and any(name not in self.inferred.types for name in self._first[1]):
            self._first = None  # it was the first block, which decides the types
        raise SchemaChanged

    def _serial_message(self, file: Path) -> str | None:
        """Return the same error with its line number, which only the single-threaded reader reports."""
        try:
            for _ in self._open(file, _decompressed(file), threads=False):
                pass
        except (pa.ArrowInvalid, UnicodeError) as error:
            return str(error)
        return None

    def _wrong_encoding(self, where: object, column: str) -> DataError:
        return DataError(
            f"{where}, column {column!r}: not {self._form.encoding} text; set ExampleGen.encoding, for example to "
            "latin-1"
        )


def _decompressed(file: Path) -> pa.NativeFile:
    return pa.input_stream(str(file), compression=compression_of(file))


def misfit(where: str, column: str, kind: str, value: str, *, declared: bool) -> DataError:
    """Return the error for a value of another type than its column, which was inferred or declared."""
    expected = {"int64": "a number", "double": "a number", "bool": "true or false"}.get(kind, kind)
    if kind == "int64" and (declared or re.fullmatch(r"-?\d+", value)):
        expected = "an integer of at most 64 bits"
    return DataError(
        f"{where}: expected {expected} as {type_source(declared=declared)}, received {value!r}; fix the line, read the "
        f"column as text with --set ExampleGen.column_types.{column}=string, or put such rows into quarantine with "
        "--set ExampleGen.bad_rows=quarantine"
    )


def type_source(*, declared: bool) -> str:
    """Return where the type of a column is from, for messages."""
    return "declared" if declared else "in the rows before"


def rounded(where: str, column: str, value: str) -> DataError:
    """Return the error for a number in a column of floats that float64 does not hold."""
    is_integer = re.fullmatch(r"\s*[+-]?\d+\s*", value)
    reason = (
        "is over 64 bits or beside a fraction, and has no exact float64" if is_integer else "is over float64's range"
    )
    return DataError(
        f"{where}, column {column!r}: {value} {reason}; {source.UnifyingSource.ADVICE.format(column=column)}"
    )


def different_columns(file: Path, names: Sequence[str], first: Path, expected: Sequence[str]) -> DataError:
    """Return the error for a file whose columns differ from those of the first file."""
    missing = [name for name in expected if name not in names]
    additional = [name for name in names if name not in expected]
    difference = "they have another order"
    if missing or additional:
        difference = f"{missing[0]!r} is missing" if missing else f"{additional[0]!r} is additional"
    return DataError(f"{file}: the columns differ from those of {first}: {difference}")


def first_inexact(values: pa.StringArray) -> int | None:
    """Return the index of the first integer that float64 does not hold exactly, or fraction over its range, or None."""
    large = pc.match_substring_regex(values, r"^\s*[+-]?(\d{16,}|[\d.]+[eE]\+?\d{3,})\s*$").fill_null(False)
    for index in pc.indices_nonzero(large).to_pylist():
        text = values[index].as_py().strip()
        number = float(text)
        if math.isinf(number) or (text.lstrip("+-").isdigit() and int(number) != int(text)):
            return index
    return None


def note_spelling(name: str, integers: pa.StringArray, spellings: dict[str, str]) -> None:
    """Add an example of text that is spelled otherwise than integers are written, if there is one."""
    others = integers.filter(pc.invert(pc.match_substring_regex(integers, _CANONICAL_INTEGER)))
    if len(others):
        spellings.setdefault(name, others[0].as_py())


def wider_type(kind: pa.DataType, value: str) -> pa.DataType | None:
    """Return the type that a column of type `kind` needs to hold `value` too, or None if there is none."""
    integer = re.fullmatch(r"\s*-?\d+\s*", value, re.ASCII)
    if pa.types.is_int64(kind) and integer:  # over 64 bits: floats would round it, and others
        return None
    if not pa.types.is_null(kind) and not pa.types.is_int64(kind):
        return None
    if integer and -(2**63) <= int(value) < 2**63:
        return pa.int64()
    try:
        float(value)
        return pa.float64()
    except ValueError:
        return pa.string() if pa.types.is_null(kind) else None
