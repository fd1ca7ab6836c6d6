"""A vectorized 64-bit hash of rows that is the same on every machine and in every version."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.data.arrow_types import is_bytes, is_text

_NULL = np.uint64(0x9E3779B97F4A7C15)
_BASE = np.uint64(0x100000001B3)


def row_hashes(batch: pa.RecordBatch, columns: Sequence[str] | None = None) -> np.ndarray:
    """Return a hash of each row's values in `columns`, by default in all columns.

    Equal rows have equal hashes, in whichever batch they are. An integer and a float of equal value have equal hashes,
    because type inference may differ between files.

    Returns:
        uint64 array of shape (rows,).
    """
    total = np.zeros(batch.num_rows, np.uint64)
    for name in columns if columns is not None else batch.schema.names:
        total = mix(total * _BASE + _column_hashes(batch.column(name)))
    return total


def _column_hashes(column: pa.Array) -> np.ndarray:
    kind, nulls = column.type, column.is_null() if column.null_count else None
    if isinstance(kind, pa.BaseExtensionType):
        return _column_hashes(column.storage)
    if pa.types.is_dictionary(kind):
        return _column_hashes(column.cast(kind.value_type))
    if pa.types.is_null(kind):
        return np.full(len(column), _NULL)
    if pa.types.is_fixed_size_list(kind):
        values = _column_hashes(column.flatten() if not column.null_count else column.values)
        if column.null_count:
            values = values[column.offset * kind.list_size :][: len(column) * kind.list_size]
        powers = _powers(kind.list_size)
        hashes = (values.reshape(len(column), kind.list_size) * powers).sum(axis=1, dtype=np.uint64)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.list_value_length(column).fill_null(0).to_numpy().astype(np.int64)
        hashes = _segment_hashes(_column_hashes(column.flatten()), lengths)
    elif is_text(kind) or is_bytes(kind):
        if column.null_count == len(column):
            return np.full(len(column), _NULL)
        encoded = column.dictionary_encode()
        hashes = _text_hashes(encoded.dictionary)[encoded.indices.fill_null(0).to_numpy()]
    else:
        if pa.types.is_boolean(kind) or pa.types.is_float16(kind):
            column = column.cast(pa.float32())
        elif not pa.types.is_integer(kind) and not pa.types.is_floating(kind):
            column = column.cast(pa.int64())  # dates, times, durations
        column = column.cast(pa.float64(), safe=False)
        numbers = column.fill_null(0).to_numpy() + 0.0  # -0.0 becomes 0.0
        hashes = mix(numbers.view(np.uint64))
    return hashes if nulls is None else np.where(nulls.to_numpy(zero_copy_only=False), _NULL, hashes)


def _text_hashes(values: pa.Array) -> np.ndarray:
    """Return the hashes of distinct text or bytes without nulls."""
    values = values.cast(pa.large_binary())
    offsets = np.frombuffer(values.buffers()[1], np.int64)[values.offset :][: len(values) + 1]
    data = values.buffers()[2]
    characters = np.frombuffer(data, np.uint8)[offsets[0] : offsets[-1]] if data else np.empty(0, np.uint8)
    return _segment_hashes(characters.astype(np.uint64) + np.uint64(1), np.diff(offsets))


def _segment_hashes(values: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return the polynomial sum(value[i] * BASE**i) modulo 2**64 of each segment of the values."""
    hashes = np.zeros(len(lengths), np.uint64)
    filled = lengths > 0
    if filled.any():
        starts = np.cumsum(lengths) - lengths
        positions = np.arange(len(values)) - np.repeat(starts, lengths)
        weighted = values * _powers(int(lengths.max()))[positions]
        hashes[filled] = np.add.reduceat(weighted, starts[filled])
    return mix(hashes + lengths.astype(np.uint64))


def _powers(count: int) -> np.ndarray:
    powers = np.full(max(count, 1), _BASE, np.uint64)
    powers[0] = 1
    return np.multiply.accumulate(powers)


def mix(values: np.ndarray) -> np.ndarray:
    """Apply the finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): each bit affects every bit."""
    values = values ^ (values >> np.uint64(30))
    values *= np.uint64(0xBF58476D1CE4E5B9)
    values ^= values >> np.uint64(27)
    values *= np.uint64(0x94D049BB133111EB)
    values ^= values >> np.uint64(31)
    return values
