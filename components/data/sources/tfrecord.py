"""Reading TFRecord files of tf.Example and tf.SequenceExample messages."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from kerasline.components.data.sources.compressed_files import open_stream
from kerasline.components.data.sources.source import UnifyingSource
from kerasline.components.data.sources.tf_example import decode

BLOCK_BYTES = 4 << 20
_HEADER, _FOOTER = 12, 4


class TfRecordSource(UnifyingSource):
    """Reads the rows of TFRecord files that hold tf.Example or tf.SequenceExample messages.

    A record is its length (uint64), the CRC of the length, the message, and the CRC of the message
    (tensorflow.org/tutorials/load_data/tfrecord). A record with a damaged message is put into quarantine. After a
    damaged length no other record can be found, so the rest of the file is put into quarantine as one row. Compression
    is detected from the first bytes.

    Args:
        quarantine: receives damaged records.
    """

    def _read(self, files: Sequence[Path]) -> Iterator[tuple[str, pa.RecordBatch]]:
        for path in files:
            offset = 0
            for block, starts, ends in self._blocks(path):
                with self._errors_at(f"{path}, from byte {offset}"):
                    batch, bad = decode(block, starts, ends)
                for row, problem in bad.items():
                    where = f"{path}, byte {offset + starts[row] - _HEADER}"
                    self._quarantine.put(where, problem, block[starts[row] : ends[row]].tobytes())
                if bad:
                    batch = batch.take(np.setdiff1d(np.arange(len(starts)), list(bad)))
                yield f"{path}, from byte {offset}", batch
                offset += int(ends[-1]) + _FOOTER if len(ends) else 0

    def _blocks(self, path: Path) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Yield blocks of complete records: the bytes, and the start and end of each message."""
        offset, rest = 0, b""
        with open_stream(path, by_content=True) as stream:
            while data := stream.read(max(BLOCK_BYTES, len(rest))):  # so that a long record is not copied too often
                data = rest + data
                starts, ends, used, broken = self._records(path, offset, data)
                self.rows_read += len(starts)
                yield np.frombuffer(data, np.uint8), np.array(starts, np.int64), np.array(ends, np.int64)
                if broken:
                    return
                offset, rest = offset + used, data[used:]
        if rest:
            self._discard_rest(path, offset, "the file ends within a record", rest)

    def _records(self, path: Path, offset: int, data: bytes) -> tuple[list[int], list[int], int, bool]:
        """Find complete records: their starts, their ends, the bytes used, and whether a length is damaged."""
        import google_crc32c

        checksum, header, unsigned = google_crc32c.value, struct.Struct("<QI"), struct.Struct("<I")
        starts: list[int] = []
        ends: list[int] = []
        at = 0
        while at + _HEADER <= len(data):
            length, length_crc = header.unpack_from(data, at)
            if _masked(checksum(data[at : at + 8])) != length_crc:
                self._discard_rest(path, offset + at, "not a TFRecord, or a damaged length", data[at:])
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
                self._quarantine.put(f"{path}, byte {offset + at}", "damaged record", message, "obtain the file again")
            at = end + _FOOTER
        return starts, ends, at, False

    def _discard_rest(self, path: Path, offset: int, reason: str, data: bytes) -> None:
        self.rows_read += 1
        where = f"{path}, from byte {offset} to its end"
        self._quarantine.put(where, reason, data[:1024], "obtain the file again")


def _masked(crc: int) -> int:
    """Apply the mask of TFRecord (tensorflow/core/lib/hash/crc32c.h)."""
    return (((crc >> 15) | (crc << 17)) + 0xA282EAD8) & 0xFFFFFFFF
