"""Scanning the bytes of a CSV file while it is read, for what its typed columns cannot show.

An integer does not show the zeros or the space before its digits, and a text not the quotes around it.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

_LONGEST_INTEGER = 24  # characters, sign, space and leading zeros included
_CACHED_BYTES = 1 << 17  # arrays of this size stay in the processor's cache
_NEWLINE, _RETURN, _SPACE, _ZERO, _MINUS = b"\n\r 0-"


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
        self._neighbours = _bytes([*(delimiter + quote).encode(), _NEWLINE, _RETURN])
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

    Args:
        integers: whether to look for unusual integers.

    Attributes:
        unusual_integers: whether a field may be an integer in another spelling than an integer is written, such as 007,
            0x1F or a space and 7.
        irregular_quotes: whether a quote may stand elsewhere than around a field.
    """

    def __init__(self, stream: Any, delimiter: str, quote: str, *, integers: bool = True) -> None:
        self._stream = stream
        self._parity = QuoteParity(delimiter, quote)
        ends = [*(delimiter + quote).encode(), _NEWLINE, _RETURN]
        self._ends = _bytes(ends)
        self._starts = _bytes([*ends, _MINUS])
        self._above_minus = [end for end in ends if end > _MINUS]
        self._integer = _bytes(b"0123456789abcdefxABCDEFX")  # decimal or hexadecimal
        self._tail = np.array([_NEWLINE], np.uint8)  # end of the last block
        self._integers = integers
        self.unusual_integers = False

    @property
    def irregular_quotes(self) -> bool:
        return not self._parity.regular or self._parity.quotes % 2 == 1

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._stream.read(size)
        self._parity.feed(data)
        if self._integers and not self.unusual_integers:
            self._find_integers(np.concatenate([self._tail, np.frombuffer(data, np.uint8)]))
        return data

    def close(self) -> None:
        self._stream.close()
        super().close()

    def _find_integers(self, window: np.ndarray) -> None:
        at = np.concatenate([*self._candidates(window), np.empty(0, np.int64)])
        at = at[self._starts[window[at - 1]] & self._integer[window[at + 1]]]
        signed = window[at - 1] == _MINUS
        at = at[~signed | self._ends[window[np.maximum(at - 2, 0)]]]
        for step in range(2, _LONGEST_INTEGER):
            at = at[at + step < len(window)]
            following = window[at + step]
            if self._ends[following].any():
                self.unusual_integers = True
                return
            at = at[self._integer[following]]
        # A field may continue in the next block. It is read again with it.
        self._tail = window[-_LONGEST_INTEGER - 2 :]

    def _candidates(self, window: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the positions of zeros and spaces that probably begin a field and are followed by more of it.

        Few comparisons of whole arrays take less time than looking up every byte.
        """
        for start in range(0, len(window), _CACHED_BYTES):
            part = window[start : start + _CACHED_BYTES + 2]
            before, middle, after = part[:-2], part[1:-1], part[2:]
            starts = before <= _MINUS
            for end in self._above_minus:
                starts |= before == end
            yield np.flatnonzero(starts & ((middle | (_SPACE ^ _ZERO)) == _ZERO) & (after >= _ZERO)) + (start + 1)


def _bytes(values: Iterable[int]) -> np.ndarray:
    """Return whether each of the 256 bytes is among some."""
    members = np.zeros(256, bool)
    members[list(values)] = True
    return members
