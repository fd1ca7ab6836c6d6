"""Scanning the bytes of a CSV file while it is read, for what its typed columns cannot show.

An integer does not show the leading zeros of its text, and a text not the quotes around it.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np

_LONGEST_INTEGER = 24  # characters, sign and leading zeros included
_CACHED_BYTES = 1 << 17  # arrays of this size stay in the processor's cache
_NEWLINE, _RETURN, _ZERO, _MINUS = b"\n\r0-"


class QuoteParity:
    """Checks, block by block, that quotes only open and close fields.

    Every opening quote must follow a delimiter or a line break, and every closing quote precede one. A doubled quote,
    an escape, closes and opens again. As long as this holds, a position is inside quotes if and only if the number of
    quotes before it is odd.

    Attributes:
        regular: whether all quotes so far are like this.
        quotes: number of quotes so far.
    """

    def __init__(self, delimiter: str, quote: str) -> None:
        self._quote = ord(quote) if quote else None
        self._neighbours = np.zeros(256, bool)
        self._neighbours[[ord(delimiter), _NEWLINE, _RETURN, *([ord(quote)] if quote else [])]] = True
        self._last = _NEWLINE  # the byte before the block
        self.regular = True
        self.quotes = 0

    def feed(self, data: bytes) -> np.ndarray:
        """Add a block of bytes, and return the positions of the quotes in it."""
        block = np.frombuffer(data, np.uint8)
        if self._quote is None or not data:
            return np.empty(0, np.int64)
        # Most files have no quotes, and a search of bytes takes a fraction of the time of comparing an array.
        has_quotes = self._quote in data
        at = np.flatnonzero(block == self._quote) if has_quotes else np.empty(0, np.int64)
        if self.quotes % 2 == 0 and self.quotes and self._last == self._quote:
            self.regular &= bool(self._neighbours[block[0]])  # after a closing quote at the end of the last block
        if len(at):
            opens = (np.arange(len(at)) + self.quotes) % 2 == 0
            before = np.where(at[opens] > 0, block[at[opens] - 1], self._last)
            closes = at[~opens]
            after = block[closes[closes + 1 < len(block)] + 1]
            self.regular &= bool(self._neighbours[before].all() and self._neighbours[after].all())
        self.quotes += len(at)
        self._last = int(block[-1])
        return at


class ScanningReader(io.RawIOBase):
    """Reads a stream, and notes what its bytes show.

    Attributes:
        leading_zeros: whether a field may be an integer in another spelling than an integer is written, such as 007 or
            0x1F.
        irregular_quotes: whether a quote may stand elsewhere than around a field.
    """

    def __init__(self, stream: Any, delimiter: str, quote: str) -> None:
        self._stream = stream
        self._parity = QuoteParity(delimiter, quote)
        self._delimiter, self._quote = ord(delimiter), ord(quote) if quote else None
        self._ends = np.zeros(256, bool)  # bytes at the ends of a field
        self._ends[[ord(delimiter), _NEWLINE, _RETURN, *([ord(quote)] if quote else [])]] = True
        self._integer = np.zeros(256, bool)  # bytes of an integer, decimal or hexadecimal
        self._integer[list(b"0123456789abcdefxABCDEFX")] = True
        self._tail = np.array([_NEWLINE], np.uint8)  # end of the last block
        self.leading_zeros = False

    @property
    def irregular_quotes(self) -> bool:
        return not self._parity.regular or self._parity.quotes % 2 == 1

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        block = np.frombuffer(data, np.uint8)
        self._parity.feed(data)
        for start in range(0, len(block), _CACHED_BYTES):
            if not self.leading_zeros:
                self._find_zeros(block[start : start + _CACHED_BYTES])
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()

    def _find_zeros(self, block: np.ndarray) -> None:
        window = np.concatenate([self._tail, block])
        # Comparisons of whole arrays take less time than choosing the few bytes to compare.
        before, middle, after = window[:-2], window[1:-1], window[2:]
        starts = (before == self._delimiter) | (before == _MINUS) | (before <= _RETURN)
        if self._parity.quotes:
            starts |= before == self._quote
        zeros = np.flatnonzero(starts & (middle == _ZERO) & (after >= _ZERO) & (after != self._delimiter)) + 1
        signed = window[zeros - 1] == _MINUS
        zeros = zeros[~signed | self._ends[window[np.maximum(zeros - 2, 0)]]]
        for step in range(1, _LONGEST_INTEGER):
            zeros = zeros[zeros + step < len(window)]
            following = window[zeros + step]
            if self._ends[following].any():
                self.leading_zeros = True
                return
            zeros = zeros[self._integer[following]]
        # A field may continue in the next block. It is read again with it.
        self._tail = window[-_LONGEST_INTEGER - 2 :]
