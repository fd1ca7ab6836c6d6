"""Writing an Examples artifact: batches of rows become Parquet shards of each split."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.errors import DataError

ROW_GROUP_ROWS = 65536
SHARD_GROUPS = 8
ROW_GROUP_BYTES = 64 << 20  # bounds row groups of wide rows, such as images
BATCH_BYTES = 4 << 20


class ExamplesWriter:
    """Writes the splits of an Examples artifact, with at most one row group per split in memory.

    Use it as a context manager. The manifest is written at the end, unless an exception was raised.

    Args:
        examples: the artifact to write. Its folder is empty.
        splits: names of all splits, in order.
        columns: names in the batches of the columns to write, by the names to write. By default all.

    Attributes:
        facts: further entries of the manifest.
    """

    def __init__(self, examples: Examples, splits: Sequence[str], columns: Mapping[str, str] | None = None) -> None:
        self._examples = examples
        self.columns = columns
        self._splits = {name: _SplitWriter(examples, name) for name in splits}
        self.facts: dict[str, Any] = {}

    def __enter__(self) -> ExamplesWriter:
        return self

    def __exit__(self, kind: Any, *_error: Any) -> None:
        for split in self._splits.values():
            split.close()
        if kind is None:
            splits = {name: split.shards for name, split in self._splits.items()}
            self._examples.write_json(Examples.MANIFEST, {"splits": splits, **self.facts})

    def write(self, split: str, batch: pa.RecordBatch) -> None:
        """Add rows to a split. All batches have the same schema."""
        if self.columns:
            batch = batch.select(list(self.columns.values())).rename_columns(list(self.columns))
        self._splits[split].write(batch)

    def move_shard(self, split: str, shard: Path, rows: int) -> None:
        """Add a shard that was written elsewhere by moving its file."""
        self._splits[split].move_shard(shard, rows)

    def shards(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the split and the manifest entry of each shard written so far."""
        for name, split in self._splits.items():
            yield from ((name, shard) for shard in split.shards)

    def end_shards(self) -> None:
        """Start new shards with the next rows."""
        for split in self._splits.values():
            split.close()

    @property
    def rows(self) -> dict[str, int]:
        return {name: split.rows for name, split in self._splits.items()}

    def check_row_counts(self, read: int, quarantined: int) -> None:
        """Raise a RuntimeError if rows were lost, which is a bug of this package."""
        written = sum(self.rows.values())
        if read != written + quarantined:
            raise RuntimeError(f"{read} rows read, but {written} written and {quarantined} put into quarantine")

    def check_no_empty_split(self, source: str) -> None:
        """Raise a DataError if a split has no rows."""
        empty = [name for name, rows in self.rows.items() if not rows]
        if empty:
            counts = ", ".join(f"{name} {rows}" for name, rows in self.rows.items())
            raise DataError(
                f"{source}: split {empty[0]!r} has no rows ({counts}); "
                "give more rows, or change the sizes with --set ExampleGen.splits"
            )


def rows_per_batch(metadata: pq.FileMetaData) -> int:
    """Return the number of rows to read from a Parquet file at a time, so that wide rows take no more memory."""
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return max(256, min(ROW_GROUP_ROWS, BATCH_BYTES * metadata.num_rows // max(size, 1)))


class _SplitWriter:
    def __init__(self, examples: Examples, name: str) -> None:
        self._examples, self._name = examples, name
        self._file: pq.ParquetWriter | None = None
        self._groups = 0  # written to that file
        self._buffer: list[pa.RecordBatch] = []
        self._buffered_rows = self._buffered_bytes = 0
        self.shards: list[dict[str, Any]] = []
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        self._buffer.append(batch)
        self._buffered_rows += batch.num_rows
        self._buffered_bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._buffered_bytes >= ROW_GROUP_BYTES:
            self._write_buffer()
        elif self._buffered_rows >= ROW_GROUP_ROWS:
            table = pa.Table.from_batches(self._buffer)
            whole = table.num_rows - table.num_rows % ROW_GROUP_ROWS
            for start in range(0, whole, ROW_GROUP_ROWS):
                self._write_group(table.slice(start, ROW_GROUP_ROWS))
            self._buffer = table.slice(whole).to_batches()
            self._buffered_rows = table.num_rows - whole
            self._buffered_bytes = sum(batch.nbytes for batch in self._buffer)

    def move_shard(self, shard: Path, rows: int) -> None:
        self.close()
        shutil.move(shard, self._new_shard())
        self.shards[-1]["rows"] = rows
        self.rows += rows

    def close(self) -> None:
        self._write_buffer()
        self._close_file()

    def _write_buffer(self) -> None:
        if self._buffered_rows:
            self._write_group(pa.Table.from_batches(self._buffer))
            self._buffer, self._buffered_rows, self._buffered_bytes = [], 0, 0

    def _write_group(self, group: pa.Table) -> None:
        file = self._file = self._file or self._open_file(group.schema)
        file.write_table(group, row_group_size=ROW_GROUP_ROWS)
        self.shards[-1]["rows"] += group.num_rows
        self._groups += 1
        if self._groups == SHARD_GROUPS:
            self._close_file()

    def _open_file(self, schema: pa.Schema) -> pq.ParquetWriter:
        return pq.ParquetWriter(self._new_shard(), schema, compression="zstd")

    def _new_shard(self) -> Path:
        path = f"{self._name}/{len(self.shards):05d}.parquet"
        (self._examples.path / self._name).mkdir(exist_ok=True)
        self.shards.append({"path": path, "rows": 0})
        return self._examples.path / path

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file, self._groups = None, 0
