"""Decoding tf.Example and tf.SequenceExample messages into Arrow columns, all rows at once.

The decoder walks protobuf's wire format (protobuf.dev/programming-guides/encoding) in lockstep: every row has a
position, and one NumPy step reads the next field of all rows. The number of steps is the number of features of the row
that has most. The messages are those of tensorflow/core/example/example.proto and feature.proto::

    Example { Features features = 1; }
    Features { map<string, Feature> feature = 1; }      // entries { string key = 1; Feature value = 2; }
    Feature { oneof { BytesList bytes_list = 1; FloatList float_list = 2; Int64List int64_list = 3; } }
    BytesList { repeated bytes value = 1; }  FloatList, Int64List { repeated ... value = 1 [packed]; }
    SequenceExample { Features context = 1; FeatureLists feature_lists = 2; }
    FeatureLists { map<string, FeatureList> feature_list = 1; }  FeatureList { repeated Feature feature = 1; }

A tf.Example has the wire format of a tf.SequenceExample without feature lists.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from kerasline.components.core.errors import DataError
from kerasline.components.data.multivalent import to_lists

_BYTES, _FLOATS, _INTS = 1, 2, 3
_KINDS = {_BYTES: "bytes", _FLOATS: "float", _INTS: "int64"}
_MALFORMED = "not a tf.Example or tf.SequenceExample"
_VARINT, _FIXED64, _LENGTH, _FIXED32 = 0, 1, 2, 5


@dataclass
class _Fields:
    """Fields of the wire format, sorted by owner.

    Attributes:
        owner: index of the message that contains the field.
        number: field number.
        wire: wire type.
        start, end: range of the payload.
    """

    owner: np.ndarray
    number: np.ndarray
    wire: np.ndarray
    start: np.ndarray
    end: np.ndarray

    def where(self, chosen: np.ndarray) -> _Fields:
        return _Fields(*(getattr(self, name)[chosen] for name in self.__dataclass_fields__))

    def last_of_each_owner(self) -> _Fields:
        """Return the last field of each message. In protobuf the last of repeated singular fields counts."""
        return self.where(np.append(self.owner[1:] != self.owner[:-1], True)[: len(self.owner)])


def decode(data: np.ndarray, start: np.ndarray, end: np.ndarray) -> tuple[pa.RecordBatch, dict[int, str]]:
    """Decode serialized tf.Example or tf.SequenceExample messages.

    Args:
        data: uint8, the bytes that contain the messages.
        start, end: int64 of shape (rows,), the start and end of each message.

    Returns:
        A pair. First the rows, with a column for each feature, sorted by name: int64, float32, string (binary if not
        UTF-8), or lists of these if a row has more than one value. A feature that a row lacks is null. A feature list
        is a column of lists with an item for each step: a value, or a list of values if a step has more than one.
        Second the messages that are not well-formed, by row, and why. All features of these rows are null.

    Raises:
        DataError: a feature and a feature list have the same name.
    """
    reader = _Reader(data, len(start))
    parts = reader.fields(np.arange(len(start)), start, end)
    reader.refuse(parts.owner[(parts.number > 2) | (parts.wire != _LENGTH)])
    arrays = {}
    for number, decode_column in ((1, _column), (2, _sequence_column)):
        for name, rows, values in _features(reader, parts.where(parts.number == number)):
            if name in arrays:
                raise DataError(f"feature {name!r} is also the name of a feature list; rename one of them")
            arrays[name] = decode_column(reader, name, rows, values, len(start))
    bad = {row: reader.problems.get(row, _MALFORMED) for row in np.flatnonzero(~reader.good).tolist()}
    if not arrays:
        return pa.RecordBatch.from_struct_array(pa.array([{}] * len(start), pa.struct([]))), bad
    names = sorted(arrays)
    return pa.RecordBatch.from_arrays([arrays[name] for name in names], names=names), bad


def _features(reader: _Reader, maps: _Fields) -> Iterator[tuple[str, np.ndarray, _Fields]]:
    """Yield for each key of some maps its name, the rows that have it, and the ranges of their values."""
    entries = reader.fields(maps.owner, maps.start, maps.end)
    reader.refuse(entries.owner[(entries.number != 1) | (entries.wire != _LENGTH)])
    parts = reader.fields(np.arange(len(entries.owner)), entries.start, entries.end, rows=entries.owner)
    keys = parts.where(parts.number == 1).last_of_each_owner()
    values = parts.where(parts.number == 2).last_of_each_owner()
    both = np.intersect1d(keys.owner, values.owner, assume_unique=True)
    keys = keys.where(np.isin(keys.owner, both, assume_unique=True))
    values = values.where(np.isin(values.owner, both, assume_unique=True))
    rows = entries.owner[values.owner]
    encoded = reader.texts(keys.start, keys.end).dictionary_encode()
    codes = encoded.indices.to_numpy()
    for code, name in enumerate(encoded.dictionary.to_pylist()):
        mine = np.flatnonzero(codes == code)
        last = np.append(np.diff(rows[mine]) > 0, True)  # of a repeated key the last one counts
        yield name.decode("utf-8", "replace"), rows[mine[last]], values.where(mine[last])


def _column(reader: _Reader, name: str, rows: np.ndarray, values: _Fields, count: int) -> pa.Array:
    """Decode one feature, from the rows that have it and the ranges of their Feature messages."""
    lists = reader.fields(np.arange(len(rows)), values.start, values.end, rows=rows)
    reader.refuse(rows[lists.owner[(lists.number > 3) | (lists.wire != _LENGTH)]])
    lists = lists.last_of_each_owner()
    kinds = np.unique(lists.number[reader.good[rows[lists.owner]]])
    if len(kinds) > 1:  # refuse the rows of the rarer kinds
        sizes = [(lists.number == kind).sum() for kind in kinds]
        most = np.argmax(sizes)
        for kind in np.delete(kinds, most):
            problem = f"feature {name!r} is {_KINDS[kind]}, but {_KINDS[kinds[most]]} in other records"
            reader.refuse(rows[lists.owner[lists.number == kind]], problem)
        kinds = kinds[[most]]
    if not len(kinds):
        return pa.nulls(count)
    lists = lists.where(lists.number == kinds[0])
    owners = rows[lists.owner]
    chunks = reader.fields(owners, lists.start, lists.end)
    read = {_BYTES: reader.byte_values, _FLOATS: reader.float_values, _INTS: reader.int_values}
    owner, flat = read[kinds[0]](chunks)
    return _assemble(owner, flat, count)


def _sequence_column(reader: _Reader, name: str, rows: np.ndarray, values: _Fields, count: int) -> pa.Array:
    """Decode one feature list, from the rows that have it and the ranges of their FeatureList messages."""
    steps = reader.fields(np.arange(len(rows)), values.start, values.end, rows=rows)
    owners = rows[steps.owner]
    reader.refuse(owners[(steps.number != 1) | (steps.wire != _LENGTH)])
    step_reader = reader.of_items(len(owners))
    items = _column(step_reader, name, np.arange(len(owners)), steps, len(owners))
    reader.refuse(owners[~step_reader.good], next(iter(step_reader.problems.values()), None))
    return to_lists(owners, items, count, mask=pa.array(np.isin(np.arange(count), rows, invert=True)))


def _assemble(owner: np.ndarray, flat: pa.Array, count: int) -> pa.Array:
    """Return a column from values and their rows: of lists if a row has more than one value."""
    order = np.argsort(owner, kind="stable")
    if not (order == np.arange(len(order))).all():
        owner, flat = owner[order], flat.take(pa.array(order))
    lengths = np.bincount(owner, minlength=count)
    if len(lengths) and lengths.max() > 1:
        return to_lists(owner, flat, count, mask=pa.array(lengths == 0))
    indices = np.full(count, -1)
    indices[owner] = np.arange(len(owner))
    return flat.take(pa.array(indices, mask=indices < 0))


class _Reader:
    """Reads fields from bytes.

    Attributes:
        good: whether each row is well-formed.
        problems: what is wrong with some of the others.
    """

    def __init__(self, data: np.ndarray, rows: int) -> None:
        self._data = np.concatenate([data, np.zeros(16, np.uint8)])  # reads may go beyond the end
        self.good = np.ones(rows, bool)
        self.problems: dict[int, str] = {}

    def of_items(self, items: int) -> _Reader:
        """Return a reader of the same bytes that keeps track of parts of rows."""
        reader = copy.copy(self)
        reader.good, reader.problems = np.ones(items, bool), {}
        return reader

    def refuse(self, rows: np.ndarray, problem: str | None = None) -> None:
        self.good[rows] = False
        if problem is not None:
            self.problems |= dict.fromkeys(rows.tolist(), problem)

    def fields(self, owner: np.ndarray, start: np.ndarray, end: np.ndarray, rows: np.ndarray | None = None) -> _Fields:
        """Read the fields of messages. Each step reads one field of every message.

        Args:
            owner, start, end: index and range of each message.
            rows: row of each message, `owner` by default. A malformed message marks its row as not well-formed.
        """
        rows = owner if rows is None else rows
        found: list[tuple[np.ndarray, ...]] = []
        position = start.copy()
        active = np.flatnonzero((position < end) & self.good[rows])
        while len(active):
            tag, at = self._varints(position[active])
            wire, number = tag & 7, tag >> 3
            size, after = self._varints(at)
            begin = np.where(wire == _LENGTH, after, at)
            stop = np.select(
                [wire == _LENGTH, wire == _VARINT, wire == _FIXED32, wire == _FIXED64],
                [after + size, after, at + 4, at + 8],
                -1,
            )
            fits = (stop >= begin) & (stop <= end[active]) & (number > 0)
            self.refuse(rows[active[~fits]])
            active, wire, number = active[fits], wire[fits], number[fits]
            begin, stop = begin[fits], stop[fits]
            found.append((active, number, wire, begin, stop))
            position[active] = stop
            active = active[stop < end[active]]
        if not found:
            return _Fields(*(np.empty(0, np.int64) for _ in range(5)))
        message, number, wire, begin, stop = (np.concatenate(column) for column in zip(*found))
        order = np.argsort(message, kind="stable")
        return _Fields(owner[message[order]], number[order], wire[order], begin[order], stop[order])

    def texts(self, start: np.ndarray, end: np.ndarray) -> pa.Array:
        """Return the bytes of ranges as a large_binary array."""
        lengths = end - start
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        data = self._data[self._indices(start, lengths)]
        buffers = [None, pa.py_buffer(offsets), pa.py_buffer(data)]
        return pa.Array.from_buffers(pa.large_binary(), len(start), buffers)

    def byte_values(self, chunks: _Fields) -> tuple[np.ndarray, pa.Array]:
        self.refuse(chunks.owner[(chunks.number != 1) | (chunks.wire != _LENGTH)])
        values = self.texts(chunks.start, chunks.end).cast(pa.binary())
        try:
            return chunks.owner, values.cast(pa.string())
        except pa.ArrowInvalid:
            return chunks.owner, values

    def float_values(self, chunks: _Fields) -> tuple[np.ndarray, pa.Array]:
        lengths = chunks.end - chunks.start
        wrong = (chunks.number != 1) | (lengths % 4 != 0)
        wrong |= (chunks.wire != _LENGTH) & (chunks.wire != _FIXED32)
        self.refuse(chunks.owner[wrong])
        chunks, lengths = chunks.where(~wrong), lengths[~wrong]
        data = self._data[self._indices(chunks.start, lengths)]
        return np.repeat(chunks.owner, lengths // 4), pa.array(data.view("<f4"))

    def int_values(self, chunks: _Fields) -> tuple[np.ndarray, pa.Array]:
        wrong = (chunks.number != 1) | ((chunks.wire != _LENGTH) & (chunks.wire != _VARINT))
        last = self._data[np.maximum(chunks.end - 1, 0)]
        wrong |= (chunks.end > chunks.start) & (last >= 0x80)  # the payload ends within a number
        self.refuse(chunks.owner[wrong])
        chunks = chunks.where(~wrong)
        lengths = chunks.end - chunks.start
        data = self._data[self._indices(chunks.start, lengths)]
        owner = np.repeat(chunks.owner, lengths)
        ends = np.flatnonzero(data < 0x80)
        if not len(ends):
            return np.empty(0, np.int64), pa.array([], pa.int64())
        starts = np.concatenate([[0], ends[:-1] + 1])
        shift = np.arange(len(data)) - np.repeat(starts, ends - starts + 1)
        self.refuse(owner[shift > 9])
        parts = (data & np.uint64(0x7F)) << np.minimum(7 * shift, 63).astype(np.uint64)
        values = np.bitwise_or.reduceat(parts, starts)
        return owner[ends], pa.array(values.view(np.int64))

    def _varints(self, position: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the varint at each position (int64, -1 if malformed) and the position after it."""
        byte = self._data[np.minimum(position, len(self._data) - 1)].astype(np.int64)
        value, after = byte & 0x7F, position + 1
        more = np.flatnonzero(byte >= 0x80)
        for shift in range(7, 63, 7):
            if not len(more):
                return value, after
            byte = self._data[np.minimum(after[more], len(self._data) - 1)].astype(np.int64)
            value[more] |= (byte & 0x7F) << shift
            after[more] += 1
            more = more[byte >= 0x80]
        value[more] = -1
        return value, after

    @staticmethod
    def _indices(start: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """Return the indices of all bytes of ranges, range by range."""
        before = np.cumsum(lengths) - lengths
        return np.repeat(start - before, lengths) + np.arange(int(lengths.sum()))
