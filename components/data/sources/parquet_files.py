"""Reading Parquet files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from kerasline.components.core.errors import DataError, one_line
from kerasline.components.data.shards import rows_per_batch
from kerasline.components.data.sources.source import UnifyingSource


class ParquetSource(UnifyingSource):
    """Reads the rows of Parquet files. A column that a file lacks is null in its rows.

    The unread rows of a damaged row group are put into quarantine together, as one entry with their number.

    Args:
        quarantine: receives the row groups that cannot be read.
    """

    def _read(self, files: Sequence[Path]) -> Iterator[tuple[str, pa.RecordBatch]]:
        for path in files:
            try:
                file = pq.ParquetFile(path, page_checksum_verification=True)
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"{path}: not a complete Parquet file ({one_line(error)})") from error
            with file:
                rows = rows_per_batch(file.metadata)
                for group in range(file.num_row_groups):
                    self.rows_read += file.metadata.row_group(group).num_rows
                    yield from self._group(path, file, group, rows)

    def _group(self, path: Path, file: pq.ParquetFile, group: int, rows: int) -> Iterator[tuple[str, pa.RecordBatch]]:
        done = 0
        try:
            for batch in file.iter_batches(batch_size=rows, row_groups=[group]):
                yield f"{path}, row group {group}{f', from row {done}' if done else ''}", batch
                done += batch.num_rows
        except (pa.ArrowException, OSError) as error:
            lost = file.metadata.row_group(group).num_rows - done
            reason = f"unreadable ({one_line(error)})"
            where = f"{path}, row group {group}, from row {done}"
            self._quarantine.put(where, reason, "", "write the file again", rows=lost)
