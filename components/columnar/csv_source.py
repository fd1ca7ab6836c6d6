"""Reading CSV files into Arrow batches: streaming, typed by what is in them, with errors to act on."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pc

from components.errors import DataError

BLOCK_BYTES = 4 << 20


def find_files(pattern: str) -> list[Path]:
    """The files that a path or glob names, sorted.

    Raises:
        DataError: there are none, or it is a folder.
    """
    path = Path(pattern)
    if path.is_dir():
        raise DataError(f"{pattern}: a folder; name its files, for instance {pattern.rstrip('/')}/*.csv")
    found = [path] if path.is_file() else [Path(p) for p in sorted(glob.glob(pattern, recursive=True))]
    if not found:
        raise DataError(f"{pattern}: no such file; set ExampleGen.input to a path or a glob")
    return found


class ColumnNeedsType(Exception):
    """A later block does not fit the type inferred from the first: read again with a wider one."""

    def __init__(self, column: str, type_name: str) -> None:
        super().__init__(column, type_name)
        self.column, self.type_name = column, type_name


class CsvSource:
    """The rows of CSV files that have the same columns.

    Types are inferred from the first block. Where a later block has fractions in a column of whole
    numbers, or values in a column that was empty, the column is widened and reading begins again;
    text in a column of numbers is an error. Empty fields are nulls; dates and times stay text.

    Args:
        files: the files, in order; compressed ones by their ending.
        column_types: types by column, by Arrow's names (`string`, `int64`, `double`, ...).
        encoding: of the text, such as `utf-8` or `latin-1`.
        delimiter: one character.
    """

    def __init__(
        self, files: Sequence[Path], column_types: Mapping[str, str], encoding: str, delimiter: str
    ) -> None:
        self._files = files
        self._encoding, self._delimiter = encoding, delimiter
        self._types = {name: _arrow_type(name, kind) for name, kind in column_types.items()}
        self._columns: list[str] | None = None

    def widen(self, need: ColumnNeedsType) -> None:
        self._types[need.column] = _arrow_type(need.column, need.type_name)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Every row of every file, in batches of one schema.

        Raises:
            ColumnNeedsType: call `widen` with it and begin again.
            DataError: naming file, line and column.
        """
        self._columns = None
        for file in self._files:
            rows = 0
            for batch in self._file_batches(file):
                rows += batch.num_rows
                yield batch
            if not rows:
                raise DataError(f"{file}: a header and no rows; give a file with data")

    def _file_batches(self, file: Path) -> Iterator[pa.RecordBatch]:
        try:
            reader = self._open(file)
            if self._columns is None:
                self._settle_types(file, reader.schema, reader.read_next_batch())
                reader = self._open(file)
            elif reader.schema.names != self._columns:
                raise self._other_columns(file, reader.schema.names)
            while True:
                yield reader.read_next_batch()
        except StopIteration:
            return
        except (pa.ArrowInvalid, UnicodeError, LookupError) as error:
            self._explain(file, str(error))
        except PermissionError as error:
            raise DataError(f"{file}: {error.strerror}; mend the file's permissions") from error

    def _open(self, file: Path, *, threads: bool = True) -> pc.CSVStreamingReader:
        return pc.open_csv(
            str(file),
            read_options=pc.ReadOptions(
                block_size=BLOCK_BYTES, encoding=self._encoding, use_threads=threads
            ),
            parse_options=pc.ParseOptions(delimiter=self._delimiter, newlines_in_values=True),
            convert_options=pc.ConvertOptions(strings_can_be_null=True, column_types=self._types),
        )

    def _settle_types(self, file: Path, schema: pa.Schema, first: pa.RecordBatch) -> None:
        """Fixes every column's type after the first file's first block, for all that follows."""
        double = sorted({name for name in schema.names if schema.names.count(name) > 1})
        if double:
            raise DataError(f"{file}: two columns are named {double[0]!r}; rename one")
        unknown = sorted(set(self._types) - set(schema.names))
        if unknown:
            raise DataError(
                f"{file}: no column {unknown[0]!r}, which column_types names; "
                f"it has {', '.join(schema.names)}"
            )
        self._columns = schema.names
        for field in schema:
            if pa.types.is_binary(field.type):
                raise self._wrong_encoding(file, field.name)
            kept = field.type
            if pa.types.is_temporal(kept) or pa.types.is_string(kept):
                kept = _type_of_first_half(first.column(field.name)) or pa.string()
            self._types.setdefault(field.name, kept)

    def _other_columns(self, file: Path, names: list[str]) -> DataError:
        missing = [name for name in self._columns if name not in names]
        more = [name for name in names if name not in self._columns]
        what = "orders them otherwise"
        if missing or more:
            what = f"lacks {missing[0]!r}" if missing else f"also has {more[0]!r}"
        return DataError(f"{file}: other columns than {self._files[0]}: it {what}")

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
            raise DataError(f"{where}: {got} fields where the header has {wanted}; mend the line, "
                            "or quote fields that hold the delimiter")  # fmt: skip
        number = re.search(r"In CSV column #(\d+)", message)
        column = (self._columns or [])[int(number.group(1))] if number and self._columns else "?"
        if "UTF8" in message:
            raise self._wrong_encoding(where, column)
        clash = re.search(r"conversion error to ([\w\[\]]+): invalid value '(.*)'", message, re.S)
        if not clash:
            raise DataError(f"{where}: {message}")
        kind, value = clash.groups()
        wider = _wider(kind, value)
        if wider:
            raise ColumnNeedsType(column, wider)
        raise DataError(
            f"{where}, column {column!r}: {value!r} is not {_called(kind)} as above it; mend the "
            f"line, or read the column as text with --set ExampleGen.column_types.{column}=string"
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
        return DataError(f"{where}, column {column!r}: not {self._encoding} text; "
                         "set ExampleGen.encoding, for instance to latin-1")  # fmt: skip


def _type_of_first_half(values: pa.Array) -> pa.DataType | None:
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


def _wider(kind: str, value: str) -> str | None:
    """The type to read a column with whose value does not fit `kind`; None where there is none."""
    if kind not in ("null", "int64"):
        return None
    if kind == "null" and re.fullmatch(r"\s*[+-]?\d{1,18}\s*", value):
        return "int64"
    try:
        float(value)
        return "double"
    except ValueError:
        return "string" if kind == "null" else None


def _called(kind: str) -> str:
    return {"int64": "a number", "double": "a number", "bool": "true or false"}.get(kind, kind)


def _arrow_type(column: str, name: str | pa.DataType) -> pa.DataType:
    if isinstance(name, pa.DataType):
        return name
    try:
        return pa.type_for_alias(name)
    except ValueError:
        raise DataError(f"ExampleGen.column_types.{column}: {name!r} is no type; "
                        "string, int64, double, bool and Arrow's other names are") from None  # fmt: skip
