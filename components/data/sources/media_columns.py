"""Columns of a table that hold the contents of image and audio files."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.core.errors import DataError, nearest
from kerasline.components.data.arrow_types import is_bytes, is_list
from kerasline.components.data.media_decoding import SoundForm, UndecodableError, decode
from kerasline.components.data.multivalent import to_lists
from kerasline.components.data.quarantine import Quarantine


@dataclass
class CommonRate:
    """The sampling rate that all sound must have: that of the first one, whose place is remembered."""

    _first: tuple[int, str] | None = None

    def check(self, rate: int | None, at: str) -> None:
        """Raise a DataError if the rate of a sound differs from that of the first one. Images have none."""
        if rate is None:
            return
        self._first = self._first or (rate, at)
        if rate != self._first[0]:
            raise DataError(
                f"{at}: its sampling rate is {rate} samples per second, that of {self._first[1]} is {self._first[0]}; "
                f"resample all with --set ExampleGen.sample_rate={min(rate, self._first[0])}"
            )


@dataclass
class MediaColumns:
    """Decodes every image and sound of some columns, as `MediaExampleGen` does with files.

    Attributes:
        names: the columns: bytes, or lists of bytes. Null is no file.
        rate: the sampling rate of all sound. By default that of the first one.
    """

    names: Sequence[str]
    rate: int | None = None
    _common: CommonRate = field(default_factory=CommonRate, init=False)

    def checked(self, batch: pa.RecordBatch, where: str, quarantine: Quarantine) -> pa.RecordBatch:
        """Return the rows whose files can be decoded, with sound as 16-bit WAV. Put the others into quarantine.

        Args:
            where: location of the batch, for messages.

        Raises:
            DataError: a column is missing or holds no bytes, or sounds have different rates.
        """
        good = np.full(batch.num_rows, True)
        for name in self.names:
            if name not in batch.schema.names:
                raise DataError(f"ExampleGen.media: no column {name!r}; {nearest(name, batch.schema.names)}")
            place, column = batch.schema.names.index(name), batch.column(name)
            values = column.flatten() if is_list(column.type) else column
            if not is_bytes(values.type):
                if values.null_count == len(values) or not len(values):
                    continue
                raise DataError(
                    f"ExampleGen.media: expected a column of bytes, received {name!r} of type {column.type}"
                )
            row_of = pc.list_parent_indices(column).to_numpy() if is_list(column.type) else np.arange(len(column))
            contents = values.to_pylist()
            with ThreadPoolExecutor() as threads:  # Pillow and libsndfile release Python's lock
                for number, found in enumerate(threads.map(self._decoded, contents)):
                    row = int(row_of[number])
                    at = f"{where}, row {row}: column {name!r}"
                    if isinstance(found, UndecodableError):
                        if good[row]:
                            quarantine.put(at, found.reason, (contents[number] or b"")[:256], found.advice)
                        good[row] = False
                    elif found is not None:
                        contents[number], rate = found
                        self._common.check(rate, at)
            decoded = pa.array(contents, values.type)
            if is_list(column.type):
                decoded = to_lists(row_of, decoded, len(column), mask=column.is_null())
            batch = batch.set_column(place, batch.schema.field(place), decoded)
        return batch if good.all() else batch.filter(pa.array(good))

    def _decoded(self, content: bytes | None) -> tuple[bytes, int | None] | UndecodableError | None:
        if content is None:
            return None
        try:
            return decode(content, SoundForm(self.rate))[1:]
        except UndecodableError as error:
            return error
