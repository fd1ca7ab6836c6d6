"""Dividing a CSV file into byte ranges of complete rows, so that several workers can read it.

A line break ends a row unless it is inside quotes. This holds as long as every opening quote follows a delimiter or a
line break, and every closing quote is followed by one. A doubled quote, an escape, closes and opens again. Then a line
break is inside quotes if and only if the number of quotes before it is odd. If a quote stands elsewhere
(`5" pipe`), the parity is no evidence, and the file is not divided. See `csv_scan.QuoteParity`.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from kerasline.components.data.sources.csv_format import CsvFormat
from kerasline.components.data.sources.csv_scan import QuoteParity

BLOCK_BYTES = 4 << 20
_NEWLINE = ord("\n")
# Encodings in which a byte below 128 is always an ASCII character.
_ASCII_BASED = ("utf8", "ascii", "latin", "iso8859", "cp125")


class Range(NamedTuple):
    """The bytes of a file from `start` up to but not including `end`. The range that starts at 0 has the header."""

    file: Path
    start: int
    end: int


class RangeReader(io.RawIOBase):
    """Reads the bytes of a range as if they were a file."""

    def __init__(self, place: Range) -> None:
        self._file = open(place.file, "rb", buffering=0)
        self._file.seek(place.start)
        self._left = place.end - place.start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._file.readinto(memoryview(buffer)[: self._left])
        self._left -= count
        return count

    def close(self) -> None:
        self._file.close()
        super().close()


def row_ranges(file: Path, form: CsvFormat, max_bytes: int) -> list[Range]:
    """Divide a file into ranges of complete rows and nearly equal length.

    Args:
        file: an uncompressed file.
        max_bytes: approximate length of the longest range. It determines the number of ranges.

    Returns:
        The ranges in order. A file that cannot be divided is one range.
    """
    size = file.stat().st_size
    count = -(-size // max_bytes)
    cuts: list[int] = []
    if count > 1 and form.encoding.lower().replace("-", "").replace("_", "").startswith(_ASCII_BASED):
        cuts = _cuts(file, form, [size * number // count for number in range(1, count)]) or []
    ends = [*(cut for cut in cuts if cut < size), size]
    return [Range(file, start, end) for start, end in zip([0, *ends], ends)]


def _cuts(file: Path, form: CsvFormat, targets: list[int]) -> list[int] | None:
    """Return the first start of a row at or after each target offset, or None if quotes do not delimit fields."""
    found: list[int] = []
    parity = QuoteParity(form.delimiter, form.quote)
    for offset, data in _blocks(file):
        quotes, block = parity.quotes, np.frombuffer(data, np.uint8)
        at = parity.feed(data)
        if not parity.regular:
            return None
        while len(found) < len(targets):
            start = max(targets[len(found)] - offset, 0)
            if start >= len(block):
                break
            breaks = np.flatnonzero(block[start:] == _NEWLINE) + start
            row_ends = breaks[(np.searchsorted(at, breaks) + quotes) % 2 == 0]
            if not len(row_ends):
                break
            found.append(offset + int(row_ends[0]) + 1)
    return sorted(set(found))


def _blocks(file: Path) -> Iterator[tuple[int, bytes]]:
    offset = 0
    with file.open("rb", buffering=0) as stream:
        while data := stream.read(BLOCK_BYTES):
            yield offset, data
            offset += len(data)
