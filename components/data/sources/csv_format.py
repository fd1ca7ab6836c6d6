"""The format of CSV files: delimiter, quotes, header and missing values."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from kerasline.components.core.errors import DataError
from kerasline.components.data.sources.compressed_files import open_stream, unreadable

BLOCK_BYTES = 2 << 20

# Spellings of a missing number or boolean: those of pandas and Arrow. In text they are values: NA is Namibia.
MISSING_NUMBERS = tuple(pcsv.ConvertOptions().null_values)

_DELIMITERS = {",": "','", ";": "';'", "\t": r"'\t'", "|": "'|'"}
_NUMBER = r"(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"
_SEPARATED = r"\d{1,3}([,' \x{a0}\x{202f}]\d{3})+(\.\d+)?|\d+,\d+|\d{1,3}(\.\d{3})+,\d+"


@dataclass(frozen=True)
class CsvFormat:
    """How CSV files are written. CsvExampleGen documents the attributes."""

    encoding: str = "utf-8"
    delimiter: str = ","
    quote: str = '"'
    column_names: Sequence[str] | None = None
    null_values: Sequence[str] = ()

    def parse_options(self, **options: Any) -> pcsv.ParseOptions:
        quote = {"quote_char": self.quote} if self.quote else {"quote_char": False, "double_quote": False}
        return pcsv.ParseOptions(delimiter=self.delimiter, newlines_in_values=bool(self.quote), **quote, **options)

    @property
    def missing_numbers(self) -> list[str]:
        return [*MISSING_NUMBERS, *self.null_values]

    def reader(self, text: Iterable[str], *, strict: bool = False) -> Any:
        """Return Python's reader of the format."""
        if not self.quote:
            return csv.reader(text, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, strict=strict)
        return csv.reader(text, delimiter=self.delimiter, quotechar=self.quote, strict=strict)

    def with_nulls(self, text: pa.StringArray) -> pa.StringArray:
        """Return text without nulls with null instead of empty values and of `null_values`."""
        if self.null_values:
            return pc.if_else(pc.is_in(text, value_set=pa.array(["", *self.null_values])), None, text)
        present = pc.not_equal(text, "")
        if pc.all(present, min_count=0).as_py():
            return text
        if text.offset:
            return pc.if_else(present, text, None)
        _, offsets, characters = text.buffers()
        return pa.StringArray.from_buffers(len(text), offsets, characters, present.buffers()[1])

    def header(self, file: Path, declared: Iterable[str]) -> list[str]:
        """Return the names of a file's columns.

        Args:
            declared: columns with declared types.

        Raises:
            DataError: the file is empty, a column has no name or the name of another one, a declared column does not
                exist, or the file seems to have another delimiter.
        """
        declared = set(declared)
        names = list(self.column_names) if self.column_names else self._first_row(file)
        if len(names) == 1 and names[0] not in declared and not self.column_names:
            other = max((d for d in _DELIMITERS if d != self.delimiter), key=names[0].count)
            if other in names[0]:
                raise DataError(
                    f"{file}: one column named {names[0]!r}; if {_DELIMITERS[other]} delimits the fields, set "
                    f"ExampleGen.delimiter={_DELIMITERS[other]}"
                )
        for number, name in enumerate(names, 1):
            if not name.strip():
                raise DataError(
                    f"{file}: column {number} has no name in the header; name it, or set ExampleGen.column_names if "
                    "the file has no header"
                )
        duplicates = sorted({name for name in names if names.count(name) > 1})
        if duplicates:
            raise DataError(f"{file}: two columns are named {duplicates[0]!r}; rename one of them")
        unknown = sorted(declared - set(names))
        if unknown:
            raise DataError(
                f"{file}: no column {unknown[0]!r}, which ExampleGen.column_types names; the columns are "
                f"{', '.join(names)}"
            )
        return names

    def _first_row(self, file: Path) -> list[str]:
        try:
            with open_stream(file) as stream:
                start = stream.read(BLOCK_BYTES)
            text = io.StringIO(start.decode(self.encoding, "replace").lstrip("\ufeff"), newline="")
        except LookupError:
            raise DataError(f"{file}: unknown encoding {self.encoding!r}; set ExampleGen.encoding") from None
        except OSError as error:
            raise unreadable(file, error) from error
        names = next((row for row in self.reader(text) if row), None)
        if not names:
            raise DataError(f"{file}: the file is empty; expected a header and rows")
        return names

    def check_quotes(self, file: Path, *, up_to_line: int | None = None) -> None:
        """Raise a DataError if text follows a closing quote, or if a quote is never closed.

        Readers of CSV drop such quotes, or join the rows between them.

        Args:
            up_to_line: do not report quotes after this line.
        """
        before = csv.field_size_limit(1 << 30)
        try:
            with open_stream(file) as stream:
                reader = self.reader(io.TextIOWrapper(stream, self.encoding, "replace", newline=""), strict=True)
                for _ in reader:
                    if up_to_line is not None and reader.line_num > up_to_line:
                        return
        except csv.Error as error:
            raise DataError(
                f"{file}, line {reader.line_num}: {error}: a quote that neither opens nor closes a field; double the "
                "quotes inside fields, or set ExampleGen.quote='' if quotes are ordinary characters"
            ) from error
        finally:
            csv.field_size_limit(before)


def check_separators(where: str, name: str, values: pa.StringArray) -> None:
    """Raise a DataError if a column of text consists of numbers, some with thousands separators or decimal commas.

    Args:
        where: the file.
        values: the first values of the column, after the header.
    """
    separated = pc.match_substring_regex(values, rf"^\s*[+-]?({_SEPARATED})\s*$").fill_null(False)
    numbers = pc.match_substring_regex(values, rf"^\s*[+-]?({_NUMBER})\s*$").fill_null(False)
    missing = pc.is_in(values, value_set=pa.array([*MISSING_NUMBERS, None], pa.string()))
    if pc.any(separated).as_py() and pc.all(pc.or_(pc.or_(separated, numbers), missing)).as_py():
        row = separated.index(True).as_py()
        raise DataError(
            f"{where}, row {row + 2}, column {name!r}: {values[row].as_py()!r} is a number with a thousands separator "
            "or a decimal comma; write numbers like 1234.5, or read the column as text with --set "
            f"ExampleGen.column_types.{name}=string"
        )
