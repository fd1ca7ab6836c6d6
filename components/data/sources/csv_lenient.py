"""Reading CSV files with quarantine for bad rows: every field is read as text, then converted to its type."""

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
from kerasline.components.data.sources.compressed_files import open_stream, unreadable
from kerasline.components.data.sources.csv_files import (
    BLOCK_BYTES,
    check_names,
    different_columns,
    wider_type,
)
from kerasline.components.data.sources.source import SchemaChanged

# A column is numeric if at least this share of its first values are numbers. The others are bad rows.
MIN_TYPED_SHARE = 0.9

# Replaces bytes that the encoding does not allow. Unicode reserves this code point as a non-character.
_UNDECODABLE = "\ufdd0"

# Text that Arrow reads as a value of the type.
_PATTERNS = {
    "int64": r"^\s*[+-]?\d{1,18}\s*$",
    "double": r"(?i)^\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?|nan)\s*$",
    "bool": r"(?i)^\s*(true|false|0|1)\s*$",
}


class LenientCsvSource:
    """Like `CsvSource`, but bad rows are put into quarantine.

    A row is bad if it has too many or too few fields, text that the encoding does not allow, or a value of another type
    than its column. The first block of the first file decides the types.
    """

    def __init__(
        self,
        column_types: Mapping[str, pa.DataType],
        encoding: str,
        delimiter: str,
        quarantine: Quarantine,
    ) -> None:
        self._encoding, self._delimiter = encoding, delimiter
        self._quarantine = quarantine
        self._types = dict(column_types)
        self._first: tuple[Path, list[str]] | None = None
        self.rows_read = 0

    def batches(self, files: Sequence[Path]) -> Iterator[pa.RecordBatch]:
        """Return all good rows of the files; see `Source`."""
        for file in files:
            names = self._names(file)
            if self._first is None:
                check_names(file, names, self._types)
                self._first = file, names
            if names != self._first[1]:
                raise different_columns(file, names, *self._first)
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
            raise DataError(f"{file}: the file is empty; expected a header and rows")
        return names

    def _file_batches(self, file: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        ragged: list[int] = []

        def handle_invalid(row: pcsv.InvalidRow) -> str:
            reason = f"expected {row.expected_columns} fields as in the header, received {row.actual_columns}"
            where = f"{file}, row {row.number}" if row.number is not None else str(file)
            ragged.append(row.number or 0)
            self.rows_read += 1
            self._quarantine.put(where, reason, row.text.replace(_UNDECODABLE, "\ufffd"))
            return "skip"

        # `_ToUtf8` has marked undecodable bytes, so that every field can be read as text.
        text_types = dict.fromkeys(names, pa.string())
        done = 0
        with open_stream(file) as stream:
            reader = pcsv.open_csv(
                pa.TransformInputStream(stream, _ToUtf8(self._encoding)),
                read_options=pcsv.ReadOptions(block_size=BLOCK_BYTES, use_threads=False),
                parse_options=pcsv.ParseOptions(
                    delimiter=self._delimiter, newlines_in_values=True, invalid_row_handler=handle_invalid
                ),
                convert_options=pcsv.ConvertOptions(strings_can_be_null=True, column_types=text_types),
            )
            for raw in reader:
                self.rows_read += raw.num_rows
                self._infer_types(raw)
                batch, bad = self._convert(raw)
                for row, reason in sorted(bad.items()):
                    line = done + row + 2
                    line += sum(number <= line for number in ragged)
                    fields = [column[row].as_py() or "" for column in raw.columns]
                    text = self._delimiter.join(fields).replace(_UNDECODABLE, "\ufffd")
                    self._quarantine.put(f"{file}, row {line}", reason, text)
                if bad:
                    good = np.setdiff1d(np.arange(raw.num_rows), list(bad))
                    batch = batch.take(pa.array(good))
                done += raw.num_rows
                yield batch

    def _infer_types(self, raw: pa.RecordBatch) -> None:
        for name, column in zip(raw.schema.names, raw.columns):
            if name not in self._types:
                self._types[name] = _infer_type(column.drop_null())

    def _convert(self, raw: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[int, str]]:
        """Return the batch in its types, with null for values that do not fit, and the reason for each bad row."""
        bad: dict[int, str] = {}
        arrays = []
        for name, column in zip(raw.schema.names, raw.columns):
            kind = self._types[name]
            marked = np.flatnonzero(pc.match_substring(column, _UNDECODABLE).fill_null(False))
            bad |= dict.fromkeys(marked.tolist(), f"column {name!r}: not {self._encoding} text")
            array, misfits = _cast(column, kind)
            for row in np.setdiff1d(misfits, marked).tolist():
                value = column[row].as_py()
                wider = wider_type(kind, value)
                if wider is not None:
                    self._types[name] = wider
                    raise SchemaChanged
                bad.setdefault(row, f"column {name!r}: expected {kind} as in the rows before, received {value!r}")
            arrays.append(array)
        return pa.RecordBatch.from_arrays(arrays, names=raw.schema.names), bad


class _ToUtf8:
    """Converts text to UTF-8 and marks every byte that the encoding does not allow."""

    def __init__(self, encoding: str) -> None:
        self._decoder = codecs.getincrementaldecoder(encoding)("kerasline-mark")

    def __call__(self, data: pa.Buffer) -> bytes:
        return self._decoder.decode(data, not len(data)).encode()


def _mark(error: UnicodeError) -> tuple[str, int]:
    assert isinstance(error, UnicodeDecodeError)
    return _UNDECODABLE, error.end


codecs.register_error("kerasline-mark", _mark)


def _infer_type(values: pa.Array) -> pa.DataType:
    """Return the type that nearly all of a column's first values have, or text."""
    if not len(values):
        return pa.null()
    for kind in (pa.int64(), pa.float64(), pa.bool_()):
        share = pc.mean(pc.match_substring_regex(values, _PATTERNS[str(kind)])).as_py()
        if share >= MIN_TYPED_SHARE:
            return kind
    return pa.string()


def _cast(text: pa.Array, kind: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """Convert text to another type. Return the column, with null for misfits, and the rows of the misfits."""
    if pa.types.is_string(kind):
        return text, np.empty(0, np.int64)
    if pa.types.is_null(kind):
        return pa.nulls(len(text)), np.flatnonzero(text.is_valid())
    pattern = _PATTERNS.get(str(kind))
    trimmed = pc.utf8_trim_whitespace(text)
    try:
        return trimmed.cast(kind), np.empty(0, np.int64)
    except pa.ArrowInvalid:
        if pattern is None:
            raise
    fits = pc.match_substring_regex(trimmed, pattern)
    misfits = np.flatnonzero(pc.invert(fits).fill_null(False))
    return pc.if_else(fits, trimmed, None).cast(kind), misfits
