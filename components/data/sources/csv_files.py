"""Reading CSV files into Arrow batches: streaming, typed by what is in them, with errors to act on."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc

from kerasline.components.core.errors import DataError
from kerasline.components.data.sources import ReadAgain, dividing
from kerasline.components.data.sources.csv_ranges import Range, RangeReader, row_ranges
from kerasline.components.data.sources.streams import compression_of, unreadable

BLOCK_BYTES = 2 << 20


class CsvSource:
    """The rows of CSV files that have the same columns.

    Types are inferred from the first block. Where a later block has fractions in a column of whole
    numbers, or values in a column that was empty, the column is widened and reading begins again;
    text in a column of numbers is an error. Empty fields are nulls; dates and times stay text.

    Args:
        column_types: types by column, by Arrow's names (`string`, `int64`, `double`, ...).
        encoding: of the text, such as `utf-8` or `latin-1`.
        delimiter: one character.
    """

    def __init__(self, column_types: Mapping[str, str], encoding: str, delimiter: str) -> None:
        self._encoding, self._delimiter = encoding, delimiter
        self._types = {name: arrow_type(name, kind) for name, kind in column_types.items()}
        self._columns: list[str] | None = None
        self._first: Path | None = None
        self.rows_read = 0

    def batches(self, files: Sequence[Path | Range]) -> Iterator[pa.RecordBatch]:
        """Every row of the files, compressed ones by their ending; see `Source`."""
        for place in files:
            before = self.rows_read
            for batch in self._batches(place):
                self.rows_read += batch.num_rows
                yield batch
            if self.rows_read == before and isinstance(place, Path):
                raise DataError(f"{place}: a header and no rows; give a file with data")

    def pieces(self, files: Sequence[Path]) -> list[list[Path | Range]]:
        """Parts that can be read side by side. The very first file's first block settles the types for all of them.

        Of a file in ranges the columns are checked here: the header is in its first range alone.
        """
        if self._columns is None:
            with self._told(files[0]):
                self._settle_types(files[0])
        found = dividing.divided(sized for file in files for sized in self._ranges(file))
        ranged = {place.file: None for piece in found for place in piece if isinstance(place, Range)}
        for file in ranged:
            if file == self._first:
                continue
            with contextlib.suppress(pa.ArrowInvalid, UnicodeError):  # who reads the range tells it, with the line
                self._check_columns(file, self._open(file).schema.names)
        return found

    @property
    def knowledge(self) -> dict[str, pa.DataType]:
        """What is known of the columns' types."""
        return self._types

    def learn(self, knowledge: Sequence[Mapping[str, pa.DataType]]) -> bool:
        """Takes the types that others found in pieces; tells whether any of them read with narrower ones.

        As if one had read all pieces in their order: what an empty column first turns out to be counts.
        """
        for column in self._types:
            kinds = [types[column] for types in knowledge if not pa.types.is_null(types[column])]
            if kinds:
                whole = pa.types.is_int64(kinds[0])
                self._types[column] = pa.float64() if whole and pa.float64() in kinds else kinds[0]
        return any(types != self._types for types in knowledge)

    def _ranges(self, file: Path) -> Iterator[tuple[Path | Range, int]]:
        if compression_of(file) is None:
            ranges = row_ranges(file, self._encoding, self._delimiter, dividing.PIECE_BYTES)
            if len(ranges) > 1:
                yield from ((one, one.end - one.start) for one in ranges)
                return
        yield file, file.stat().st_size

    def _batches(self, place: Path | Range) -> Iterator[pa.RecordBatch]:
        file = place.file if isinstance(place, Range) else place
        with self._told(file):
            if self._columns is None:
                self._settle_types(file)
            reader = self._open(place)
            self._check_columns(file, reader.schema.names)
            yield from reader

    @contextlib.contextmanager
    def _told(self, file: Path) -> Iterator[None]:
        """What goes wrong with a file, as what to do about it."""
        try:
            yield
        except (pa.ArrowInvalid, UnicodeError, LookupError) as error:
            self._explain(file, str(error))
        except OSError as error:
            raise unreadable(file, error) from error

    def _open(self, place: Path | Range, *, threads: bool = True) -> pc.CSVStreamingReader:
        ranged = isinstance(place, Range)
        # The header is in the range at the file's beginning alone.
        names = self._columns if ranged and place.start else None
        return pc.open_csv(
            RangeReader(place) if ranged else str(place),
            read_options=pc.ReadOptions(
                block_size=BLOCK_BYTES, encoding=self._encoding, use_threads=threads, column_names=names
            ),
            parse_options=pc.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
            convert_options=pc.ConvertOptions(strings_can_be_null=True, column_types=self._types),
        )

    def _check_columns(self, file: Path, names: Sequence[str]) -> None:
        if self._columns is not None and names != self._columns:
            raise other_columns(file, names, self._first, self._columns)

    def _settle_types(self, file: Path) -> None:
        """Fixes every column's type after the first file's first block, for all that follows; of a header alone none."""
        reader = self._open(file, threads=False)
        try:
            schema, first = reader.schema, reader.read_next_batch()
        except StopIteration:
            return
        check_names(file, schema.names, self._types)
        self._columns, self._first = schema.names, file
        for field in schema:
            if pa.types.is_binary(field.type):
                raise self._wrong_encoding(file, field.name)
            kept = field.type
            if pa.types.is_temporal(kept) or pa.types.is_string(kept):
                kept = type_of_first_half(first.column(field.name)) or pa.string()
            self._types.setdefault(field.name, kept)

    def _explain(self, file: Path, message: str) -> None:
        """Turns a reader's error into what to do: widening a column, or mending the file."""
        if "Empty CSV" in message:
            raise DataError(f"{file}: the file is empty; a header and rows are wanted")
        if "codec can't decode" in message or "unknown encoding" in message:
            raise DataError(f"{file}: {message}; set ExampleGen.encoding, for instance to latin-1")
        message = self._serial_message(file) or message
        line = re.search(r"Row #(\d+): ", message)
        where = f"{file}, line {line.group(1)}" if line else str(file)
        ragged = re.search(r"Expected (\d+) columns, got (\d+)", message)
        if ragged:
            wanted, got = ragged.groups()
            raise DataError(
                f"{where}: {got} fields where the header has {wanted}; mend the line, "
                "or quote fields that hold the delimiter"
            )
        number = re.search(r"In CSV column #(\d+)", message)
        column = (self._columns or [])[int(number.group(1))] if number and self._columns else "?"
        if "UTF8" in message:
            raise self._wrong_encoding(where, column)
        clash = re.search(r"conversion error to ([\w\[\]]+): invalid value '(.*)'", message, re.S)
        if not clash:
            raise DataError(f"{where}: {message}")
        kind, value = clash.groups()
        wider = wider_type(pa.type_for_alias(kind), value)
        if wider:
            self._types[column] = wider
            raise ReadAgain
        raise DataError(
            f"{where}, column {column!r}: {value!r} is not {_called(kind)} as above it; mend the "
            f"line, read the column as text with --set ExampleGen.column_types.{column}=string, or set "
            "such rows aside with --set ExampleGen.bad_rows=quarantine"
        )

    def _serial_message(self, file: Path) -> str | None:
        """The same error with its line number, which only the reader without threads counts."""
        try:
            for _ in self._open(file, threads=False):
                pass
        except (pa.ArrowInvalid, UnicodeError) as error:
            return str(error)
        return None

    def _wrong_encoding(self, where: object, column: str) -> DataError:
        return DataError(
            f"{where}, column {column!r}: not {self._encoding} text; set ExampleGen.encoding, for instance to latin-1"
        )


def check_names(file: Path, names: Sequence[str], typed: Iterable[str]) -> None:
    """Refuses columns of one name, and types for columns that are not there."""
    double = sorted({name for name in names if names.count(name) > 1})
    if double:
        raise DataError(f"{file}: two columns are named {double[0]!r}; rename one")
    unknown = sorted(set(typed) - set(names))
    if unknown:
        raise DataError(f"{file}: no column {unknown[0]!r}, which column_types names; it has {', '.join(names)}")


def other_columns(file: Path, names: Sequence[str], first: Path, wanted: Sequence[str]) -> DataError:
    """Why a file does not go with the first one."""
    missing = [name for name in wanted if name not in names]
    more = [name for name in names if name not in wanted]
    what = "orders them otherwise"
    if missing or more:
        what = f"lacks {missing[0]!r}" if missing else f"also has {more[0]!r}"
    return DataError(f"{file}: other columns than {first}: it {what}")


def type_of_first_half(values: pa.Array) -> pa.DataType | None:
    """The number type of a text column that begins as numbers: it changes its type half way.

    Read with that type, the first line that breaks it is found and named.
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
    """The type to read a column with whose value does not fit `kind`; None where there is none."""
    if not pa.types.is_null(kind) and not pa.types.is_int64(kind):
        return None
    if pa.types.is_null(kind) and re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value):
        return pa.int64()
    try:
        float(value)
        return pa.float64()
    except ValueError:
        return pa.string() if pa.types.is_null(kind) else None


def _called(kind: str) -> str:
    return {"int64": "a number", "double": "a number", "bool": "true or false"}.get(kind, kind)


def arrow_type(column: str, name: str) -> pa.DataType:
    """The type that ExampleGen.column_types names."""
    try:
        return pa.type_for_alias(name)
    except ValueError:
        raise DataError(
            f"ExampleGen.column_types.{column}: {name!r} is no type; "
            "string, int64, double, bool and Arrow's other names are"
        ) from None
