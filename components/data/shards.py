"""Writing an Examples artifact: rows come in batches, leave as Parquet shards of each split."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.errors import DataError

ROW_GROUP_ROWS = 65536
SHARD_GROUPS = 8
ROW_GROUP_BYTES = 64 << 20  # where rows are wide, such as images
BATCH_BYTES = 4 << 20


class ExamplesWriter:
    """Writes splits of an Examples artifact; memory stays at one row group a split.

    Use as a context manager; the manifest is written at the end, if nothing was raised.

    Args:
        examples: the artifact to fill; its folder is empty.
        splits: the names of all splits, in order.
    """

    def __init__(self, examples: Examples, splits: Sequence[str]) -> None:
        self._examples = examples
        self._splits = {name: _SplitWriter(examples, name) for name in splits}
        self.facts: dict[str, Any] = {}  # for the manifest, beside the splits

    def __enter__(self) -> ExamplesWriter:
        return self

    def __exit__(self, kind: Any, *_error: Any) -> None:
        for split in self._splits.values():
            split.close()
        if kind is None:
            splits = {name: split.shards for name, split in self._splits.items()}
            self._examples.write_json(Examples.MANIFEST, {"splits": splits, **self.facts})

    def write(self, split: str, batch: pa.RecordBatch) -> None:
        """Adds rows to a split; all batches have one schema."""
        self._splits[split].write(batch)

    def adopt(self, split: str, shard: Path, rows: int) -> None:
        """Adds a shard that was written elsewhere, and moves it here."""
        self._splits[split].adopt(shard, rows)

    def shards(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Every shard so far, with its split, as the manifest has it."""
        for name, split in self._splits.items():
            yield from ((name, shard) for shard in split.shards)

    def end_shards(self) -> None:
        """Begins new shards with the next rows."""
        for split in self._splits.values():
            split.close()

    @property
    def rows(self) -> dict[str, int]:
        return {name: split.rows for name, split in self._splits.items()}

    def check_whole(self, read: int, set_aside: int) -> None:
        """Raises a RuntimeError where rows were lost: a mistake of ours."""
        written = sum(self.rows.values())
        if read != written + set_aside:
            raise RuntimeError(f"{read} rows read, {written} written and {set_aside} set aside")

    def check_filled(self, source: str) -> None:
        """Raises a DataError where a split got no row."""
        empty = [name for name, rows in self.rows.items() if not rows]
        if empty:
            counts = ", ".join(f"{name} {rows}" for name, rows in self.rows.items())
            raise DataError(
                f"{source}: split {empty[0]!r} got no rows ({counts}); "
                "give more rows, or other shares with --set ExampleGen.splits"
            )


def rows_a_batch(metadata: pq.FileMetaData) -> int:
    """Rows to read of a Parquet file at a time: wide rows take no more memory than narrow ones."""
    size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
    return max(256, min(ROW_GROUP_ROWS, BATCH_BYTES * metadata.num_rows // max(size, 1)))


class _SplitWriter:
    def __init__(self, examples: Examples, name: str) -> None:
        self._examples, self._name = examples, name
        self._file: pq.ParquetWriter | None = None
        self._groups = 0  # in that file
        self._waiting: list[pa.RecordBatch] = []
        self._waiting_rows = self._waiting_bytes = 0
        self.shards: list[dict[str, Any]] = []
        self.rows = 0

    def write(self, batch: pa.RecordBatch) -> None:
        self._waiting.append(batch)
        self._waiting_rows += batch.num_rows
        self._waiting_bytes += batch.nbytes
        self.rows += batch.num_rows
        if self._waiting_bytes >= ROW_GROUP_BYTES:
            self._write_waiting()
        elif self._waiting_rows >= ROW_GROUP_ROWS:
            table = pa.Table.from_batches(self._waiting)
            whole = table.num_rows - table.num_rows % ROW_GROUP_ROWS
            for start in range(0, whole, ROW_GROUP_ROWS):
                self._write_group(table.slice(start, ROW_GROUP_ROWS))
            self._waiting = table.slice(whole).to_batches()
            self._waiting_rows = table.num_rows - whole
            self._waiting_bytes = sum(batch.nbytes for batch in self._waiting)

    def adopt(self, shard: Path, rows: int) -> None:
        self.close()
        shutil.move(shard, self._new_shard())
        self.shards[-1]["rows"] = rows
        self.rows += rows

    def close(self) -> None:
        self._write_waiting()
        self._close_file()

    def _write_waiting(self) -> None:
        if self._waiting_rows:
            self._write_group(pa.Table.from_batches(self._waiting))
            self._waiting, self._waiting_rows, self._waiting_bytes = [], 0, 0

    def _write_group(self, group: pa.Table) -> None:
        if self._file is None:
            self._open_file(group.schema)
        self._file.write_table(group, row_group_size=ROW_GROUP_ROWS)
        self.shards[-1]["rows"] += group.num_rows
        self._groups += 1
        if self._groups == SHARD_GROUPS:
            self._close_file()

    def _open_file(self, schema: pa.Schema) -> None:
        self._file = pq.ParquetWriter(self._new_shard(), schema, compression="zstd")

    def _new_shard(self) -> Path:
        path = f"{self._name}/{len(self.shards):05d}.parquet"
        (self._examples.path / self._name).mkdir(exist_ok=True)
        self.shards.append({"path": path, "rows": 0})
        return self._examples.path / path

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file, self._groups = None, 0
