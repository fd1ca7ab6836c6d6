"""Ranges of a CSV file's bytes that hold whole rows, so that several readers may share the file.

A line break ends a row unless it is quoted. A quote opens a field or closes one wherever it stands, as long as
each one that opens follows a delimiter or a line break, and each one that closes is followed by one; a doubled
quote, an escape, closes and opens again. Then the number of quotes before a line break, odd or even, tells whether
it is quoted. Where a quote stands elsewhere (`5" pipe`), that does not tell, and the file is not divided.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

BLOCK_BYTES = 4 << 20
_QUOTE, _NEWLINE, _RETURN = b'"\n\r'
# Text in which a byte below 128 is an ASCII character and nothing else.
_ASCII_BASED = ("utf8", "ascii", "latin", "iso8859", "cp125")


class Range(NamedTuple):
    """Bytes of a file from `start` to before `end`; the header is in the range that starts at 0."""

    file: Path
    start: int
    end: int


class RangeReader(io.RawIOBase):
    """The bytes of a range, as a file."""

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


def row_ranges(file: Path, encoding: str, delimiter: str, most_bytes: int) -> list[Range]:
    """The file in ranges of equal length, as near as its rows allow; one where it cannot be divided.

    Args:
        file: not compressed.
        most_bytes: about the length of the longest; the number of ranges is the least that allows it.
    """
    size = file.stat().st_size
    count = -(-size // most_bytes)
    cuts: list[int] = []
    if count > 1 and encoding.lower().replace("-", "").replace("_", "").startswith(_ASCII_BASED):
        cuts = _cuts(file, ord(delimiter), [size * number // count for number in range(1, count)]) or []
    ends = [*(cut for cut in cuts if cut < size), size]
    return [Range(file, start, end) for start, end in zip([0, *ends], ends)]


def _cuts(file: Path, delimiter: int, wanted: list[int]) -> list[int] | None:
    """The first beginning of a row at or after each of the wanted places; None where quotes do not tell rows."""
    before_quote = np.array([delimiter, _NEWLINE, _RETURN, _QUOTE], np.uint8)
    found: list[int] = []
    quotes, last = 0, _NEWLINE  # how many so far, and the byte before the block
    for place, block in _blocks(file):
        at = np.flatnonzero(block == _QUOTE)
        opens = (np.arange(len(at)) + quotes) % 2 == 0
        before = np.where(at[opens] > 0, block[at[opens] - 1], last)
        closes = at[~opens]
        after = block[closes[closes + 1 < len(block)] + 1]
        if quotes and quotes % 2 == 0 and last == _QUOTE:  # one that closes ended the last block
            after = np.append(after, block[0])
        if not (np.isin(before, before_quote).all() and np.isin(after, before_quote).all()):
            return None
        while len(found) < len(wanted):
            start = max(wanted[len(found)] - place, 0)
            if start >= len(block):
                break
            breaks = np.flatnonzero(block[start:] == _NEWLINE) + start
            plain = breaks[(np.searchsorted(at, breaks) + quotes) % 2 == 0]
            if not len(plain):
                break
            found.append(place + int(plain[0]) + 1)
        quotes, last = quotes + len(at), int(block[-1])
    return sorted(set(found))


def _blocks(file: Path) -> Iterator[tuple[int, np.ndarray]]:
    place = 0
    with file.open("rb", buffering=0) as stream:
        while data := stream.read(BLOCK_BYTES):
            yield place, np.frombuffer(data, np.uint8)
            place += len(data)
