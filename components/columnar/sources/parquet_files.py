"""Reading Parquet files into Arrow batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from components.columnar.quarantine import Quarantine
from components.columnar.shards import rows_a_batch
from components.columnar.unify import Unified
from components.errors import DataError


class ParquetSource:
    """The rows of Parquet files; a column that one file lacks is null in its rows.

    A row group that cannot be read is set aside whole, as one entry that counts its rows.

    Args:
        quarantine: takes what cannot be read.
    """

    def __init__(self, quarantine: Quarantine) -> None:
        self._quarantine = quarantine
        self._unified = Unified()
        self.rows_read = 0

    def batches(self, files: Sequence[Path]) -> Iterator[pa.RecordBatch]:
        """The rows of files, in order; see `Source`."""
        return self._unified.batches(self._read(files))

    def _read(self, files: Sequence[Path]) -> Iterator[tuple[str, pa.RecordBatch]]:
        for path in files:
            try:
                file = pq.ParquetFile(path, page_checksum_verification=True)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path}: not a whole Parquet file ({_short(error)})") from error
            with file:
                rows = rows_a_batch(file.metadata)
                for group in range(file.num_row_groups):
                    self.rows_read += file.metadata.row_group(group).num_rows
                    yield from self._group(path, file, group, rows)

    def _group(
        self, path: Path, file: pq.ParquetFile, group: int, rows: int
    ) -> Iterator[tuple[str, pa.RecordBatch]]:
        done = 0
        try:
            for batch in file.iter_batches(batch_size=rows, row_groups=[group]):
                yield f"{path}, row group {group}", batch
                done += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            lost = file.metadata.row_group(group).num_rows - done
            reason = f"unreadable ({_short(error)})"
            where = f"{path}, row group {group}, from row {done}"
            self._quarantine.put(where, reason, "", "write the file anew", rows=lost)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:150]
