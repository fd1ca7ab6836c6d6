"""Reading CSV files with quarantine for bad rows: every field is read as text, then converted to its type."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from kerasline.components.core.errors import DataError
from kerasline.components.data.quarantine import Quarantine
from kerasline.components.data.sources.compressed_files import open_stream
from kerasline.components.data.sources.csv_files import CsvSource, first_inexact, note_spelling, rounded, type_source
from kerasline.components.data.sources.csv_format import CsvFormat, check_separators
from kerasline.components.data.sources.csv_ranges import Range
from kerasline.components.data.sources.csv_scan import ScanningReader

# A column is numeric if at least this share of its first values are numbers. The others are bad rows.
MIN_TYPED_SHARE = 0.9

# Replaces bytes that the encoding does not allow. Unicode reserves this code point as a non-character.
_UNDECODABLE = "\ufdd0"

# Text that Arrow reads as a value of the type.
_PATTERNS = {
    "int64": r"^\s*-?\d{1,19}\s*$",
    "double": r"(?i)^\s*[+-]?((\d+\.?\d*|\.\d+)(e[+-]?\d+)?|inf(inity)?|nan)\s*$",
    "bool": r"(?i)^\s*(true|false|0|1)\s*$",
}


class LenientCsvSource(CsvSource):
    """Like `CsvSource`, but bad rows are put into quarantine.

    A row is bad if it has too many or too few fields, text that the encoding does not allow, or a value of another type
    than its column. The first block of the first file decides the types.
    """

    def __init__(self, column_types: Mapping[str, pa.DataType], form: CsvFormat, quarantine: Quarantine) -> None:
        super().__init__(column_types, form)
        self._quarantine = quarantine

    def _batches(self, place: Path | Range) -> Iterator[pa.RecordBatch]:
        file = place.file if isinstance(place, Range) else place  # only whole files are read with quarantine
        if self._first is None:
            self._first = file, self._form.header(file, self._declared)
        self._check_columns(file)
        with self._errors_of(file):
            yield from self._file_batches(file, self._first[1])

    def _explain(self, file: Path, message: str) -> None:
        self._enlarge_blocks(file, message)
        raise DataError(f"{file}: {message}")

    def _file_batches(self, file: Path, names: Sequence[str]) -> Iterator[pa.RecordBatch]:
        ragged: list[int] = []
        header = "ExampleGen.column_names" if self._form.column_names else "the header"

        def handle_invalid(row: pcsv.InvalidRow) -> str:
            reason = f"expected {row.expected_columns} fields as in {header}, received {row.actual_columns}"
            where = f"{file}, row {row.number}" if row.number is not None else str(file)
            ragged.append(row.number or 0)
            self.rows_read += 1
            self._quarantine.put(where, reason, row.text.replace(_UNDECODABLE, "\ufffd"))
            return "skip"

        done = 0
        with open_stream(file) as stream:
            # `_ToUtf8` has marked undecodable bytes, so that every field can be read as text.
            text = pa.TransformInputStream(stream, _ToUtf8(self._form.encoding))
            scanned = ScanningReader(text, self._form.delimiter, self._form.quote, integers=False)
            reader = pcsv.open_csv(
                scanned,
                read_options=pcsv.ReadOptions(
                    block_size=self._block_bytes, use_threads=False, column_names=self._form.column_names
                ),
                parse_options=self._form.parse_options(invalid_row_handler=handle_invalid),
                convert_options=pcsv.ConvertOptions(column_types=dict.fromkeys(names, pa.string())),
            )
            for raw in reader:
                self.rows_read += raw.num_rows
                self._infer_column_types(file, raw)
                batch, bad = self._convert(file, raw)
                for row, reason in sorted(bad.items()):
                    line = done + row + (1 if self._form.column_names else 2)
                    line += sum(number <= line for number in ragged)
                    fields = [column[row].as_py() for column in raw.columns]
                    content = self._form.delimiter.join(fields).replace(_UNDECODABLE, "\ufffd")
                    self._quarantine.put(f"{file}, row {line}", reason, content)
                if bad:
                    good = np.setdiff1d(np.arange(raw.num_rows), list(bad))
                    batch = batch.take(pa.array(good))
                done += raw.num_rows
                yield batch
            if scanned.irregular_quotes:
                self._form.check_quotes(file)

    def _infer_column_types(self, file: Path, raw: pa.RecordBatch) -> None:
        for name, column in zip(raw.schema.names, raw.columns):
            if name not in self.inferred.types:
                check_separators(str(file), name, column)
                self.inferred.types[name] = _infer_type(column.filter(pc.invert(self._is_missing(column))))

    def _convert(self, file: Path, raw: pa.RecordBatch) -> tuple[pa.RecordBatch, dict[int, str]]:
        """Return the batch in its types, with null for values that do not fit, and the reason for each bad row."""
        bad: dict[int, str] = {}
        arrays = []
        for name, column in zip(raw.schema.names, raw.columns):
            kind = self.inferred.types[name]
            marked = np.flatnonzero(pc.match_substring(column, _UNDECODABLE))
            bad |= dict.fromkeys(marked.tolist(), f"column {name!r}: not {self._form.encoding} text")
            if pa.types.is_null(kind) or pa.types.is_string(kind):
                arrays.append(column)
                continue
            text = pc.if_else(self._is_missing(column), None, column)
            array, misfits = _cast(text, kind)
            for row in np.setdiff1d(misfits, marked).tolist():
                value = column[row].as_py()
                if name not in self._declared:
                    self._widen(name, kind, value)
                source_of_type = type_source(declared=name in self._declared)
                bad.setdefault(row, f"column {name!r}: expected {kind} as {source_of_type}, received {value!r}")
            if name not in self._declared:
                self._check_spelling(file, name, kind, text.filter(array.is_valid()))
            arrays.append(array)
        return self._finish(file, pa.RecordBatch.from_arrays(arrays, names=raw.schema.names)), bad

    def _check_spelling(self, file: Path, name: str, kind: pa.DataType, text: pa.StringArray) -> None:
        """Note how values are spelled, and raise a DataError if an integer would be rounded."""
        if pa.types.is_int64(kind):
            note_spelling(name, text, self.inferred.spellings)
        elif len(text):
            self.inferred.spellings.setdefault(name, text[0].as_py())
        inexact = first_inexact(text) if pa.types.is_floating(kind) else None
        if inexact is not None:
            raise rounded(str(file), name, text[inexact].as_py())


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
        if pc.mean(_fits(pc.utf8_trim_whitespace(values), kind)).as_py() >= MIN_TYPED_SHARE:
            return kind
    return pa.string()


def _cast(text: pa.Array, kind: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """Convert text to another type. Return the column, with null for misfits, and the rows of the misfits."""
    trimmed = pc.utf8_trim_whitespace(text)
    try:
        return trimmed.cast(kind), np.empty(0, np.int64)
    except pa.ArrowInvalid:
        if str(kind) not in _PATTERNS:
            raise
    fits = _fits(trimmed, kind)
    misfits = np.flatnonzero(pc.invert(fits).fill_null(False))
    return pc.if_else(fits, trimmed, None).cast(kind), misfits


def _fits(trimmed: pa.Array, kind: pa.DataType) -> pa.Array:
    """Return whether text is a value of a type, null for null."""
    fits = pc.match_substring_regex(trimmed, _PATTERNS[str(kind)])
    if not pa.types.is_int64(kind):
        return fits
    integers = pc.if_else(fits, trimmed, "0").cast(pa.decimal128(20, 0))
    smallest, largest = (pa.scalar(Decimal(bound), pa.decimal128(20, 0)) for bound in (-(2**63), 2**63 - 1))
    return pc.and_(fits, pc.and_(pc.greater_equal(integers, smallest), pc.less_equal(integers, largest)))
