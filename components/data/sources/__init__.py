"""Where rows come from: each source turns one kind of data into Arrow batches of one schema."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import pyarrow as pa


class ReadAgain(Exception):
    """A later row showed that a column is wider than the first ones told; begin again.

    The source knows better now: at the next attempt its batches have the wider schema.
    """


class Source(Protocol):
    """Rows in batches, all of one schema.

    Attributes:
        rows_read: how many rows were read so far, as the format itself counts them: those in
            batches and those set aside.
    """

    rows_read: int

    def batches(self, part: Any) -> Iterator[pa.RecordBatch]:
        """The rows of a part of the data, in an order that is always the same.

        Args:
            part: files, a query, a slice: whatever names rows to this kind of source.

        Raises:
            ReadAgain: throw away what was read of all parts, and begin again.
            DataError: the data cannot be used; names file, position and column.
        """


class DivisibleSource(Source, Protocol):
    """A source whose parts can be read in pieces, side by side; it can be pickled.

    Attributes:
        knowledge: what it found out about the schema, as far as it has read.
    """

    knowledge: Any

    def pieces(self, part: Any) -> Sequence[Any]:
        """Parts that make up a part, in order. They depend on the data alone."""

    def learn(self, knowledge: Sequence[Any]) -> bool:
        """Takes what copies of this source found out, each in a piece, in the order of the pieces.

        Returns:
            Whether pieces must be read again, because not all of them knew what all together know.
        """
