"""Rows on disk that TensorFlow reads in any order, without Python.

A row is a record of fixed length. It holds the row's numbers, and for texts and lists their place in other files.
The files are memory-mapped tensors, and reading rows is `tf.gather`. Only the operating system's file cache, which it
reclaims on demand, takes memory.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from kerasline.components.data.missing import missing_value
from kerasline.components.data.model_inputs import InputColumn

META = "rows.json"
# Keep a column's distinct texts in memory up to this number and size; else read them from the file.
MAX_CACHED_STRINGS = 1 << 16
MAX_CACHED_BYTES = 8 << 20
BLOCK = 64  # bytes of text in one read


class RowStoreWriter:
    """Writes rows to a folder, which appears complete at the end. Use as a context manager.

    Args:
        folder: the folder. If it exists at the end, another process was faster, and its rows are kept.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unfinished = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.unfinished")
        self._columns: dict[str, _ColumnWriter] = {}
        self._rows = 0

    def __enter__(self) -> RowStoreWriter:
        self._unfinished.mkdir(parents=True)
        self._records: BinaryIO = (self._unfinished / "records").open("wb")
        return self

    def write(self, columns: Mapping[str, InputColumn], rows: int) -> None:
        """Append rows. All calls must pass the same columns, of the same dtypes and shapes."""
        if not self._columns:
            self._columns = {
                name: _ColumnWriter(self._unfinished, number, column)
                for number, (name, column) in enumerate(columns.items())
            }
        parts = [self._columns[name].write(column, rows) for name, column in columns.items()]
        self._records.write(np.concatenate(parts, axis=1).tobytes())
        self._rows += rows

    def __exit__(self, kind: Any, *_error: Any) -> None:
        self._records.close()
        columns = {name: column.close() for name, column in self._columns.items()}
        if kind is None:
            width = sum(column["bytes"] for column in columns.values())
            meta = {"rows": self._rows, "bytes_a_row": width, "columns": columns}
            (self._unfinished / META).write_text(json.dumps(meta, indent=1), encoding="utf-8")
            try:
                os.rename(self._unfinished, self._folder)
            except OSError:
                if not (self._folder / META).exists():
                    raise
        shutil.rmtree(self._unfinished, ignore_errors=True)


class RowStore:
    """Rows that a `RowStoreWriter` wrote.

    Args:
        folder: the folder. It may be removed once this object exists.
    """

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        self.rows: int = meta["rows"]
        self._facts = meta["columns"]
        self._records = _mapped(folder / "records", tf.uint8, (self.rows, meta["bytes_a_row"]))
        self._columns = {name: _ColumnReader(folder, facts) for name, facts in self._facts.items()}

    @property
    def bytes_a_row(self) -> int:
        """The average size of a row in bytes, texts and lists included."""
        file_bytes = sum(facts["file_bytes"] for facts in self._facts.values())
        return self._records.shape[1] + file_bytes // max(self.rows, 1)

    @property
    def varies(self) -> bool:
        """Whether some column's rows vary in length."""
        return any(facts["varies"] for facts in self._facts.values())

    def gather(self, rows: tf.Tensor) -> dict[str, tf.Tensor]:
        """Return rows as tensors by column.

        Args:
            rows: int64 (n,), indices of rows.

        Returns:
            Tensors (n, ...) of the dtypes that were written. Rows that vary in length are padded to the longest of them
            with the value that stands for a missing one.
        """
        records, start, tensors = tf.gather(self._records, rows), 0, {}
        for name, column in self._columns.items():
            tensors[name] = column.values(records[:, start : start + column.bytes])
            start += column.bytes
        return tensors


class _ColumnWriter:
    """One column: its part of the records, and its own files."""

    def __init__(self, folder: Path, number: int, first: InputColumn) -> None:
        self._path = folder / f"column-{number}"
        is_text = isinstance(first.values, pa.Array)
        self._dtype = np.dtype("int64") if is_text else first.values.dtype
        varies = first.lengths is not None
        self._shape = first.shape[1:] if varies else first.shape
        self._strings = _StringWriter(self._path) if is_text else None
        self._values: BinaryIO | None = self._path.with_suffix(".values").open("wb") if varies else None
        self._count = 0

    def write(self, column: InputColumn, rows: int) -> np.ndarray:
        """Return the column's part of the records, uint8 (rows, bytes)."""
        values = self._strings.codes(column.values) if self._strings else np.ascontiguousarray(column.values)
        if self._values is None or column.lengths is None:
            return values.view(np.uint8).reshape(rows, -1)
        values.tofile(self._values)
        starts = self._count // column.step_size + np.cumsum(column.lengths) - column.lengths
        self._count += len(values)
        return np.stack([starts, column.lengths], axis=1).astype(np.int64).view(np.uint8)

    def close(self) -> dict[str, Any]:
        file_bytes = self._count * self._dtype.itemsize
        if self._values is not None:
            _pad(self._values, file_bytes, math.prod(size or 1 for size in self._shape) * self._dtype.itemsize)
        if self._strings is not None:
            file_bytes += self._strings.close()
        size = 16 if self._values is not None else math.prod(size or 1 for size in self._shape) * self._dtype.itemsize
        return {
            "file": self._path.name,
            "dtype": self._dtype.name,
            "text": self._strings is not None,
            "shape": self._shape,
            "varies": self._values is not None,
            "bytes": size,
            "values": self._count,
            "file_bytes": file_bytes,
        }


class _ColumnReader:
    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._dtype = tf.as_dtype(facts["dtype"])
        self._varies, self._shape = facts["varies"], facts["shape"]
        self.bytes: int = facts["bytes"]
        path = folder / facts["file"]
        self._strings = _StringReader(path) if facts["text"] else None
        self._missing = missing_value("string" if facts["text"] else facts["dtype"]) if self._varies else None
        if self._varies:
            steps = max(facts["values"] // math.prod(self._shape), 1)
            self._values = _mapped(path.with_suffix(".values"), self._dtype, (steps, *self._shape))

    def values(self, part: tf.Tensor) -> tf.Tensor:
        """Return the column's values, decoded from its part of some records."""
        if not self._varies:
            numbers = _as(self._dtype, part, [-1, *self._shape])
            return numbers if self._strings is None else self._strings.strings(numbers)
        ranges = _as(tf.int64, part, [-1, 2])
        starts, lengths = ranges[:, 0], ranges[:, 1]
        flat = tf.gather(self._values, tf.ragged.range(starts, starts + lengths).flat_values)
        if self._strings is not None:
            flat = self._strings.strings(flat)
        missing = tf.constant(self._missing, flat.dtype)
        return tf.RaggedTensor.from_row_lengths(flat, lengths, validate=False).to_tensor(missing)


class _StringWriter:
    """Writes numbered texts. A recurring text is written once while the number of distinct texts is small."""

    def __init__(self, path: Path) -> None:
        self._bytes = path.with_suffix(".bytes").open("wb")
        self._places = path.with_suffix(".places").open("wb")  # start and length of each string
        self._known = pa.array([], pa.large_binary())
        self._size = self._count = 0

    def codes(self, texts: pa.Array) -> np.ndarray:
        """Return the number of each text, int64 (n,)."""
        found = texts.dictionary_encode()
        distinct = found.dictionary
        code = pc.index_in(distinct, self._known).cast(pa.int64())
        new = distinct.filter(code.is_null())
        numbers = np.arange(self._count, self._count + len(new))
        code = pc.replace_with_mask(code, code.is_null(), pa.array(numbers, pa.int64()))
        self._keep(new)
        return code.to_numpy()[found.indices.to_numpy()]

    def _keep(self, new: pa.Array) -> None:
        new = pa.concat_arrays([new])
        lengths = pc.binary_length(new).to_numpy().astype(np.int64)
        starts = self._size + np.cumsum(lengths) - lengths
        np.stack([starts, lengths], axis=1).tofile(self._places)
        if len(new) and lengths.sum():
            offsets = np.frombuffer(new.buffers()[1], np.int64)[new.offset :]
            self._bytes.write(new.buffers()[2][int(offsets[0]) : int(offsets[len(new)])])
        # Numbers index all texts, so once one was left out the later ones cannot be known either.
        fits = self._count + len(new) <= MAX_CACHED_STRINGS and self._size <= MAX_CACHED_BYTES
        if fits and len(self._known) == self._count:
            self._known = pa.concat_arrays([self._known, new])
        self._count += len(new)
        self._size += int(lengths.sum())

    def close(self) -> int:
        _pad(self._bytes, self._size, BLOCK)
        _pad(self._places, self._count * 16, 16)
        return self._size


class _StringReader:
    """Reads texts by number, from memory if they are few."""

    def __init__(self, path: Path) -> None:
        places, data = path.with_suffix(".places"), path.with_suffix(".bytes")
        count, size = places.stat().st_size // 16, data.stat().st_size
        self._places = _mapped(places, tf.int64, (count, 2))
        self._blocks = _mapped(data, tf.uint8, (size // BLOCK, BLOCK))
        self._known = None
        if count <= MAX_CACHED_STRINGS and size <= MAX_CACHED_BYTES:
            with tf.device("CPU"):
                self._known = self._read(tf.range(count, dtype=tf.int64))

    def strings(self, numbers: tf.Tensor) -> tf.Tensor:
        """Return texts, in the shape of their numbers."""
        if self._known is not None:
            return tf.gather(self._known, numbers)
        return tf.reshape(self._read(tf.reshape(numbers, [-1])), tf.shape(numbers))

    def _read(self, numbers: tf.Tensor) -> tf.Tensor:
        places = tf.gather(self._places, numbers)
        start, length = places[:, 0], places[:, 1]
        first = start // BLOCK
        count = tf.where(length > 0, (start + length - 1) // BLOCK - first + 1, 0)
        blocks = tf.gather(self._blocks, tf.ragged.range(first, first + count).flat_values)
        # TensorFlow has no cast from bytes to texts: a serialized tensor ends with its content.
        content = tf.io.serialize_tensor(tf.reshape(blocks, [-1]))
        header = tf.cast(tf.strings.length(content), tf.int64) - tf.size(blocks, tf.int64)
        at = header + tf.cumsum(count, exclusive=True) * BLOCK + start % BLOCK
        return tf.strings.substr(content, tf.where(length > 0, at, 0), length)


def _pad(file: BinaryIO, size: int, unit: int) -> None:
    """Pad a file to a multiple of `unit`, at least one unit, as an empty file cannot be mapped. Close it."""
    file.write(b"\0" * (max(-(-size // unit), 1) * unit - size))
    file.close()


def _as(dtype: tf.DType, part: tf.Tensor, shape: list[int]) -> tf.Tensor:
    """Return bytes (rows, ...) as numbers of a shape."""
    if dtype == tf.bool:
        return tf.reshape(part != 0, shape)
    if dtype.size == 1:
        return tf.reshape(tf.bitcast(part, dtype), shape)
    return tf.bitcast(tf.reshape(part, [*shape, dtype.size]), dtype)


def _mapped(path: Path, dtype: tf.DType, shape: tuple[int, ...]) -> tf.Tensor:
    """Return a file as a tensor without copying it, which TensorFlow's own ImmutableConst does at times."""
    # Copy-on-write mode because NumPy does not export read-only arrays. Nothing is written.
    array = np.memmap(path, dtype.as_numpy_dtype, mode="c", shape=shape)
    return tf.experimental.dlpack.from_dlpack(np.asarray(array).__dlpack__())
