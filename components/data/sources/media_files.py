"""Reading folders of images or audio with their labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv

from kerasline.components.core.errors import DataError
from kerasline.components.data.media import sniff
from kerasline.components.data.quarantine import Quarantine

BATCH_BYTES = 16 << 20


class MediaSource:
    """Reads one row per file: its `path` within the folder, its `content` (the unchanged bytes) and its labels.

    Args:
        labels: CSV file. Its first column has the paths or the names of the media files, the others are their labels.
            If None, the `label` of a file is the name of its folder.
        quarantine: receives files that are neither images nor audio, and files without a label.
    """

    def __init__(self, labels: Path | None, quarantine: Quarantine) -> None:
        self._labels = None if labels is None else _read_labels(labels)
        self._quarantine = quarantine
        self.rows_read = 0

    def batches(self, files: tuple[Path, Sequence[Path]]) -> Iterator[pa.RecordBatch]:
        """Return the rows of the files of a folder, received as (folder, files); see `Source`."""
        folder, paths = files
        names: list[str] = []
        contents: list[bytes] = []
        size_bytes = 0
        for path in paths:
            content = self._read(path)
            if content is None:
                continue
            if size_bytes + len(content) > BATCH_BYTES and names:
                yield from self._batch(folder, names, contents)
                names, contents, size_bytes = [], [], 0
            names.append(path.relative_to(folder).as_posix())
            contents.append(content)
            size_bytes += len(content)
        if names:
            yield from self._batch(folder, names, contents)

    def _read(self, path: Path) -> bytes | None:
        self.rows_read += 1
        content = path.read_bytes()
        if sniff(content) is None:
            self._quarantine.put(str(path), "neither an image nor audio", content[:256], "remove the file")
            return None
        return content

    def _batch(self, folder: Path, names: list[str], contents: list[bytes]) -> Iterator[pa.RecordBatch]:
        columns = {"path": pa.array(names), "content": pa.array(contents, pa.binary())}
        if self._labels is None:
            yield pa.record_batch({**columns, "label": pa.array([Path(n).parent.name for n in names])})
            return
        keys = self._labels.column(0)
        rows = pc.index_in(columns["path"], value_set=keys)
        by_name = pc.index_in(pa.array([Path(n).name for n in names]), value_set=keys)
        rows = pc.coalesce(rows, by_name)
        for row in pc.indices_nonzero(rows.is_null()).to_pylist():
            self._quarantine.put(str(folder / names[row]), "the labels file has no row for it", "", "add one")
        batch = pa.record_batch(columns).filter(rows.is_valid())
        labels = self._labels.drop_columns([self._labels.column_names[0]]).take(rows.drop_null())
        for name, column in zip(labels.column_names, labels.columns):
            batch = batch.append_column(name, column.combine_chunks())
        if batch.num_rows:
            yield batch


def media_files(folder: Path) -> list[Path]:
    """Return all files below a folder, sorted, without hidden files and tables."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and path.name[0] != "."]
    return [path for path in found if path.suffix.lower() not in (".csv", ".tsv", ".txt", ".md")]


def _read_labels(path: Path) -> pa.Table:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    try:
        table = pcsv.read_csv(path, parse_options=pcsv.ParseOptions(delimiter=delimiter))
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path}: the labels file cannot be read ({str(error).splitlines()[0]})") from error
    if table.num_columns < 2:
        raise DataError(
            f"{path}: expected a column of paths and at least one of labels, received {table.num_columns} columns"
        )
    keys = table.column(0).cast(pa.string())
    counts = pc.value_counts(keys)
    duplicates = counts.filter(pc.greater(counts.field("counts"), 1))
    if len(duplicates):
        raise DataError(f"{path}: {duplicates[0]['values'].as_py()!r} has more than one row; keep one of them")
    return table.set_column(0, table.column_names[0], keys)
