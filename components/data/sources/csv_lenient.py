"""Reading CSV files whose bad rows are set aside: every field as text first, then as its type."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from kerasline.components.core.errors import DataError
from kerasline.components.data.quarantine import Quarantine
from kerasline.components.data.sources import ReadAgain
from kerasline.components.data.sources.csv_files import BLOCK_BYTES, arrow_type, check_names, other_columns, wider_type
from kerasline.components.data.sources.streams import open_stream, unreadable

# So many of a column's first values must be numbers for the others to be taken as mistakes.
NEARLY_ALL = 0.9

# Stands for bytes that are no text: a code point that Unicode keeps out of all text.
_NOT_TEXT = "\ufdd0"

# What a text must look like for Arrow to read it as a number.
_LOOKS = {
    "int64": r"^\s*[+-]?\d{1,18}\s*$",
    "double": r"(?i)^\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?|nan)\s*$",
    "bool": r"(?i)^\s*(true|false|0|1)\s*$",
}


class LenientCsvSource:
    """As `CsvSource`, but rows that do not fit are set aside.

    Those are rows with too many or too few fields, with text that is not of the encoding, and with
    a value of another type than its column, which is settled by the first block of the first file.
    """

    def __init__(
        self,
        column_types: Mapping[str, str],
        encoding: str,
        delimiter: str,
        quarantine: Quarantine,
    ) -> None:
        self._encoding, self._delimiter = encoding, delimiter
        self._quarantine = quarantine
        self._types = {name: arrow_type(name, kind) for name, kind in column_types.items()}
        self._first: tuple[Path, list[str]] | None = None
        self.rows_read = 0

    def batches(self, files: Sequence[Path]) -> Iterator[pa.RecordBatch]:
        """Every good row of the files; see `Source`."""
        for file in files:
            names = self._names(file)
            if self._first is None:
                check_names(file, names, self._types)
                self._first = file, names
            if names != self._first[1]:
                raise other_columns(file, names, *self._first)
            try:
                yield from self._file_batches(file, names)
            except (pa.ArrowInvalid, UnicodeError, LookupError) as error:
                raise DataError(f"{file}: {error}") from error
            except OSError as error:
                raise unreadable(file, error) from error

    def _names(self, file: Path) -> list[str]:
        with open_stream(file) as stream:
            start = stream.read(BLOCK_BYTES)
        try:
            text = io.StringIO(start.decode(self._encoding, "replace").lstrip("\ufeff"), newline="")
        except LookupError:
            raise DataError(f"{file}: unknown encoding {self._encoding!r}; set ExampleGen.encoding") from None
        names = next((row for row in csv.reader(text, delimiter=self._delimiter) if row), None)
        if not names:
            raise DataError(f"{file}: the file is empty; a header and rows are wanted")
        return names

    def _file_batches(self, file: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        ragged: list[int] = []

        def set_aside(row: pcsv.InvalidRow) -> str:
            reason = f"{row.actual_columns} fields where the header has {row.expected_columns}"
            where = f"{file}, row {row.number}" if row.number is not None else str(file)
            ragged.append(row.number or 0)
            self.rows_read += 1
            self._quarantine.put(where, reason, row.text.replace(_NOT_TEXT, "\ufffd"))
            return "skip"

        # One column type for all: what is not text was marked by `_AsUtf8`.
        texts = dict.fromkeys(names, pa.string())
        done = 0
        with open_stream(file) as stream:
            reader = pcsv.open_csv(
                pa.TransformInputStream(stream, _AsUtf8(self._encoding)),
                read_options=pcsv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
                parse_options=pcsv.ParseOptions(
                    delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=set_aside
                ),
                convert_options=pcsv.ConvertOptions(strings_can_be_null=True, column_types=texts),
            )
            for raw in reader:
                self.rows_read += raw.num_rows
                self._settle_types(raw)
                batch, wrong = self._typed(raw)
                for row, reason in sorted(wrong.items()):
                    line = done + row + 2
                    line += sum(number <= line for number in ragged)
                    fields = [column[row].as_py() or "" for column in raw.columns]
                    text = self._delimiter.join(fields).replace(_NOT_TEXT, "\ufffd")
                    self._quarantine.put(f"{file}, row {line}", reason, text)
                if wrong:
                    good = np.setdiff1d(np.arange(raw.num_rows), list(wrong))
                    batch = batch.take(pa.array(good))
                done += raw.num_rows
                yield batch

    def _settle_types(self, raw: pa.RecordBatch) -> None:
        for name, column in zip(raw.schema.names, raw.columns):
            if name not in self._types:
                self._types[name] = _type_of(column.drop_null())

    def _typed(self, raw: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[int, str]]:
        """The batch in its types, null where a value does not fit; and why, by row."""
        wrong: dict[int, str] = {}
        arrays = []
        for name, column in zip(raw.schema.names, raw.columns):
            kind = self._types[name]
            marked = np.flatnonzero(pc.match_substring(column, _NOT_TEXT).fill_null(False))
            wrong |= dict.fromkeys(marked.tolist(), f"column {name!r}: not {self._encoding} text")
            array, bad = _cast(column, kind)
            for row in np.setdiff1d(bad, marked).tolist():
                value = column[row].as_py()
                wider = wider_type(kind, value)
                if wider is not None:
                    self._types[name] = wider
                    raise ReadAgain
                wrong.setdefault(row, f"column {name!r}: {value!r} is not {kind} as the rows before")
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, names=raw.schema.names), wrong


class _AsUtf8:
    """Decodes bytes, with a mark for each that is not of the encoding, and gives UTF-8."""

    def __init__(self, encoding: str) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)("kerasline-mark")

    def __call__(self, data: pa.Buffer) -> bytes:
        return self._decoder.decode(data, not len(data)).encode()


codecs.register_error("kerasline-mark", lambda error: (_NOT_TEXT, error.end))


def _type_of(values: pa.Array) -> pa.DataType:
    """The type of a column by its first values: that of nearly all of them, else text."""
    if not len(values):
        return pa.null()
    for kind in (pa.int64(), pa.float64(), pa.bool_()):
        fitting = pc.mean(pc.match_substring_regex(values, _LOOKS[str(kind)])).as_py()
        if fitting >= NEARLY_ALL:
            return kind
    return pa.string()


def _cast(text: pa.Array, kind: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """Text as another type, null where it does not fit; and the rows where that is so."""
    if pa.types.is_string(kind):
        return text, np.empty(0, np.int64)
    if pa.types.is_null(kind):
        return pa.nulls(len(text)), np.flatnonzero(text.is_valid())
    looks = _LOOKS.get(str(kind))
    trimmed = pc.utf8_trim_whitespace(text)
    try:
        return trimmed.cast(kind), np.empty(0, np.int64)
    except pa.ArrowInvalid:
        if looks is None:
            raise
    fits = pc.match_substring_regex(trimmed, looks)
    bad = np.flatnonzero(pc.invert(fits).fill_null(False))
    return pc.if_else(fits, trimmed, None).cast(kind), bad
