"""Reading TFRecord files of tf.Example into Arrow batches."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from kerasline.components.data.sources.streams import open_stream
from kerasline.components.data.sources.tf_example import decode
from kerasline.components.data.unify import UnifiedSource

BLOCK_BYTES = 4 << 20
_HEADER, _FOOTER = 12, 4


class TfRecordSource(UnifiedSource):
    """The rows of TFRecord files that hold tf.Example messages.

    A record is its length (uint64), the length's CRC, the message, and the message's CRC
    (tensorflow.org/tutorials/load_data/tfrecord). A record whose message is damaged is set aside;
    where a length is, nothing after it can be found, and the rest of the file is set aside as one.
    Compression is known by the first bytes.

    Args:
        quarantine: takes damaged records.
    """

    def _read(self, files: Sequence[Path]) -> Iterator[tuple[str, pa.RecordBatch]]:
        for path in files:
            place = 0
            for block, starts, ends in self._blocks(path):
                batch, good = decode(block, starts, ends)
                for row in np.flatnonzero(~good):
                    self._quarantine.put(
                        f"{path}, byte {place + starts[row] - _HEADER}",
                        "a record that is not a tf.Example, or a feature of another kind than in others",
                        block[starts[row] : ends[row]].tobytes(),
                    )
                batch = batch if good.all() else batch.filter(pa.array(good))
                yield f"{path}, from byte {place}", batch
                place += int(ends[-1]) + _FOOTER if len(ends) else 0

    def _blocks(self, path: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Some megabytes of whole records at a time: the bytes, and where the messages lie."""
        place, kept = 0, b""
        with open_stream(path, by_content=True) as stream:
            while data := stream.read(BLOCK_BYTES):
                data = kept + data
                starts, ends, used, broken = self._records(path, place, data)
                self.rows_read += len(starts)
                yield np.frombuffer(data, np.uint8), np.array(starts, np.int64), np.array(ends, np.int64)
                if broken:
                    return
                place, kept = place + used, data[used:]
        if kept:
            self._lose_rest(path, place, "the file ends within a record", kept)

    def _records(self, path: Path, place: int, data: bytes) -> tuple[list[int], list[int], int, bool]:
        """The whole records that data begin with: starts, ends, bytes used, and whether it breaks."""
        import google_crc32c

        checksum, header, unsigned = google_crc32c.value, struct.Struct("<QI"), struct.Struct("<I")
        starts, ends, at = [], [], 0
        while at + _HEADER <= len(data):
            length, length_crc = header.unpack_from(data, at)
            if _masked(checksum(data[at : at + 8])) != length_crc:
                self._lose_rest(path, place + at, "not a TFRecord, or a damaged length", data[at:])
                return starts, ends, at, True
            end = at + _HEADER + length
            if end + _FOOTER > len(data):
                break
            message = data[at + _HEADER : end]
            if _masked(checksum(message)) == unsigned.unpack_from(data, end)[0]:
                starts.append(at + _HEADER)
                ends.append(end)
            else:
                self.rows_read += 1
                self._quarantine.put(f"{path}, byte {place + at}", "a damaged record", message, "get the file anew")
            at = end + _FOOTER
        return starts, ends, at, False

    def _lose_rest(self, path: Path, place: int, reason: str, data: bytes) -> None:
        self.rows_read += 1
        where = f"{path}, from byte {place} to its end"
        self._quarantine.put(where, reason, data[:1024], "get the file anew")


def _masked(crc: int) -> int:
    """TFRecord's mask (tensorflow/core/lib/hash/crc32c.h)."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
