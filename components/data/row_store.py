"""Rows laid out on disk so that TensorFlow itself reads any of them, in any order, without Python.

A row is a record of fixed length: its numbers, and for texts and lists the places where they lie in
files beside it. The files are memory-mapped tensors; reading rows is `tf.gather`. What is in memory is
the operating system's cache of the files, which it takes back when it needs to.
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

from kerasline.components.data.feed import Column
from kerasline.components.data.missing import missing_value

META = "rows.json"
# Texts of a column that differ are kept in memory if they are no more than this; others are read.
MOST_KNOWN = 1 << 16
MOST_KNOWN_BYTES = 8 << 20
BLOCK = 64  # bytes of text that are read at a time


class RowStoreWriter:
    """Lays rows out in a folder, which appears whole when all are written.

    Use as a context manager.

    Args:
        folder: where; if it is there at the end, another process was faster, and its rows stay.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._unfinished = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}.unfinished")
        self._records: BinaryIO | None = None
        self._columns: dict[str, _ColumnWriter] = {}
        self._rows = 0

    def __enter__(self) -> RowStoreWriter:
        self._unfinished.mkdir(parents=True)
        self._records = (self._unfinished / "records").open("wb")
        return self

    def write(self, columns: Mapping[str, Column], rows: int) -> None:
        """Adds rows; all calls give the same columns of the same dtypes and shapes."""
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
    """Rows that a `RowStoreWriter` laid out.

    Args:
        folder: it may be removed once this is made.
    """

    def __init__(self, folder: Path) -> None:
        meta = json.loads((folder / META).read_text(encoding="utf-8"))
        self.rows: int = meta["rows"]
        self._facts = meta["columns"]
        self._records = _mapped(folder / "records", tf.uint8, (self.rows, meta["bytes_a_row"]))
        self._columns = {name: _ColumnReader(folder, facts) for name, facts in self._facts.items()}

    @property
    def bytes_a_row(self) -> int:
        """What a row takes on average, its texts and lists with it."""
        beside = sum(facts["beside_bytes"] for facts in self._facts.values())
        return self._records.shape[1] + beside // max(self.rows, 1)

    @property
    def varies(self) -> bool:
        """Whether rows vary in length."""
        return any(facts["varies"] for facts in self._facts.values())

    def gather(self, places: tf.Tensor) -> dict[str, tf.Tensor]:
        """Rows as tensors by column.

        Args:
            places: int64 (n,).

        Returns:
            Tensors (n, ...) of the dtypes that were written; rows that vary are filled up to the
            longest of these, with what stands for a missing value.
        """
        records, start, found = tf.gather(self._records, places), 0, {}
        for name, column in self._columns.items():
            found[name] = column.values(records[:, start : start + column.bytes])
            start += column.bytes
        return found


class _ColumnWriter:
    """One column: what of it is in the record, and what lies beside."""

    def __init__(self, folder: Path, number: int, first: Column) -> None:
        self._path = folder / f"column-{number}"
        self._is_text = isinstance(first.values, pa.Array)
        self._dtype = np.dtype("int64") if self._is_text else first.values.dtype
        self._varies = first.lengths is not None
        self._shape = () if self._varies else first.shape
        self._texts = _TextWriter(self._path) if self._is_text else None
        self._values = self._path.with_suffix(".values").open("wb") if self._varies else None
        self._count = 0

    def write(self, column: Column, rows: int) -> np.ndarray:
        """The column's part of the records, uint8 (rows, bytes)."""
        values = self._texts.codes(column.values) if self._is_text else np.ascontiguousarray(column.values)
        if not self._varies:
            return values.view(np.uint8).reshape(rows, -1)
        values.tofile(self._values)
        starts = self._count + np.cumsum(column.lengths) - column.lengths
        self._count += len(values)
        return np.stack([starts, column.lengths], axis=1).astype(np.int64).view(np.uint8)

    def close(self) -> dict[str, Any]:
        beside = self._count * self._dtype.itemsize
        if self._varies:
            _pad(self._values, beside, self._dtype.itemsize)
        if self._is_text:
            beside += self._texts.close()
        size = 16 if self._varies else math.prod(self._shape) * self._dtype.itemsize
        return {
            "file": self._path.name,
            "dtype": self._dtype.name,
            "text": self._is_text,
            "shape": self._shape,
            "varies": self._varies,
            "bytes": size,
            "values": self._count,
            "beside_bytes": beside,
        }


class _ColumnReader:
    def __init__(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self._dtype = tf.as_dtype(facts["dtype"])
        self._varies, self._shape = facts["varies"], facts["shape"]
        self.bytes: int = facts["bytes"]
        path = folder / facts["file"]
        self._texts = _TextReader(path) if facts["text"] else None
        self._missing = missing_value("string" if facts["text"] else facts["dtype"]) if self._varies else None
        if self._varies:
            self._values = _mapped(path.with_suffix(".values"), self._dtype, (max(facts["values"], 1),))

    def values(self, part: tf.Tensor) -> tf.Tensor:
        """The column's values, of its part of some records."""
        if not self._varies:
            numbers = _as(self._dtype, part, [-1, *self._shape])
            return numbers if self._texts is None else self._texts.texts(numbers)
        places = _as(tf.int64, part, [-1, 2])
        starts, lengths = places[:, 0], places[:, 1]
        flat = tf.gather(self._values, tf.ragged.range(starts, starts + lengths).flat_values)
        if self._texts is not None:
            flat = self._texts.texts(flat)
        missing = tf.constant(self._missing, flat.dtype)
        return tf.RaggedTensor.from_row_lengths(flat, lengths, validate=False).to_tensor(missing)


class _TextWriter:
    """Texts by number: one that recurs is kept once, while there are not too many."""

    def __init__(self, path: Path) -> None:
        self._bytes = path.with_suffix(".bytes").open("wb")
        self._places = path.with_suffix(".places").open("wb")  # start and length of each text
        self._known = pa.array([], pa.large_binary())
        self._size = self._count = 0

    def codes(self, texts: pa.Array) -> np.ndarray:
        """The number of each text, int64 (n,)."""
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
        # Numbers are places among all texts, so none is known any more once one was left out.
        fits = self._count + len(new) <= MOST_KNOWN and self._size <= MOST_KNOWN_BYTES
        if fits and len(self._known) == self._count:
            self._known = pa.concat_arrays([self._known, new])
        self._count += len(new)
        self._size += int(lengths.sum())

    def close(self) -> int:
        _pad(self._bytes, self._size, BLOCK)
        _pad(self._places, self._count * 16, 16)
        return self._size


class _TextReader:
    """Texts by number, from memory where they are few."""

    def __init__(self, path: Path) -> None:
        places, data = path.with_suffix(".places"), path.with_suffix(".bytes")
        count, size = places.stat().st_size // 16, data.stat().st_size
        self._places = _mapped(places, tf.int64, (count, 2))
        self._blocks = _mapped(data, tf.uint8, (size // BLOCK, BLOCK))
        self._known = None
        if count <= MOST_KNOWN and size <= MOST_KNOWN_BYTES:
            with tf.device("CPU"):
                self._known = self._read(tf.range(count, dtype=tf.int64))

    def texts(self, numbers: tf.Tensor) -> tf.Tensor:
        """Texts of the shape of their numbers."""
        if self._known is not None:
            return tf.gather(self._known, numbers)
        return tf.reshape(self._read(tf.reshape(numbers, [-1])), tf.shape(numbers))

    def _read(self, numbers: tf.Tensor) -> tf.Tensor:
        places = tf.gather(self._places, numbers)
        start, length = places[:, 0], places[:, 1]
        first = start // BLOCK
        count = tf.where(length > 0, (start + length - 1) // BLOCK - first + 1, 0)
        blocks = tf.gather(self._blocks, tf.ragged.range(first, first + count).flat_values)
        # Bytes become texts by way of a serialised tensor, whose content stands at its end.
        content = tf.io.serialize_tensor(tf.reshape(blocks, [-1]))
        header = tf.cast(tf.strings.length(content), tf.int64) - tf.size(blocks, tf.int64)
        at = header + tf.cumsum(count, exclusive=True) * BLOCK + start % BLOCK
        return tf.strings.substr(content, tf.where(length > 0, at, 0), length)


def _pad(file: BinaryIO, size: int, unit: int) -> None:
    """Fills a file of this size up to whole units, at least one: an empty file cannot be mapped."""
    file.write(b"\0" * (max(-(-size // unit), 1) * unit - size))
    file.close()


def _as(dtype: tf.DType, part: tf.Tensor, shape: list[int]) -> tf.Tensor:
    """Bytes (rows, ...) as numbers of a shape."""
    if dtype == tf.bool:
        return tf.reshape(part != 0, shape)
    if dtype.size == 1:
        return tf.reshape(tf.bitcast(part, dtype), shape)
    return tf.bitcast(tf.reshape(part, [*shape, dtype.size]), dtype)


def _mapped(path: Path, dtype: tf.DType, shape: tuple[int, ...]) -> tf.Tensor:
    """A file as a tensor, without a copy. (TensorFlow's own ImmutableConst copies it at times.)"""
    # Copy on write, as NumPy lends nothing that is read-only; nothing is ever written.
    array = np.memmap(path, dtype.as_numpy_dtype, mode="c", shape=shape)
    return tf.experimental.dlpack.from_dlpack(np.asarray(array).__dlpack__())
