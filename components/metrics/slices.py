"""Slices: assign the rows of a batch to groups, by a column, a cross of columns, buckets of a number, or a function."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.data.arrow_types import is_bytes, is_list
from kerasline.components.data.multivalent import combinations, labels_by_function, to_lists

MISSING = "(missing)"


@dataclass(frozen=True)
class Slicer:
    """Assigns a slice of one slicing to each row, or several where a column holds several values.

    Attributes:
        name: name of the slicing, such as `payment_type*fare`.
        parts: columns that are crossed.
        function: the user's function, instead of parts.
    """

    name: str
    parts: tuple[ColumnSlices, ...] = ()
    function: Callable | None = None

    @property
    def columns(self) -> list[str]:
        """Raw columns that are read. Empty if a function needs all columns."""
        return [part.column for part in self.parts]

    def labels(self, batch: pa.RecordBatch) -> pa.Array:
        """Return the slice of each row, strings (rows,), null for no slice; or lists of strings, for several."""
        if self.function is None:
            columns = [batch.column(name) for name in self.columns]
            if not any(is_list(column.type) for column in columns):
                return self._joined(columns)
            rows, values = combinations(columns)
            rows, (labels,) = combinations([to_lists(rows, self._joined(values), batch.num_rows)])  # buckets may repeat
            return to_lists(rows, labels, batch.num_rows)
        return labels_by_function(self.function, batch)

    def _joined(self, columns: Sequence[pa.Array]) -> pa.Array:
        labels = [part.labels(column) for part, column in zip(self.parts, columns)]
        return labels[0] if len(labels) == 1 else pc.binary_join_element_wise(*labels, ", ")


@dataclass(frozen=True)
class ColumnSlices:
    """Slices of a column: one per value or, with `edges`, one per interval."""

    column: str
    edges: tuple[float, ...] = ()

    def labels(self, column: pa.Array) -> pa.Array:
        column = column.cast(column.type.value_type) if pa.types.is_dictionary(column.type) else column
        if pa.types.is_floating(column.type):
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        if self.edges:
            values = column.cast(pa.float64(), safe=False).fill_null(np.nan).to_numpy(zero_copy_only=False)
            places = np.where(np.isnan(values), -1, np.searchsorted(self.edges, values, side="right"))
            column = pa.array(_bucket_names(self.edges)).take(pa.array(places, mask=places < 0))
        elif is_bytes(column.type):
            column = pa.array([_text(value.as_py()) for value in column], pa.string())
        labels = column.cast(pa.string()).fill_null(MISSING)
        return pc.if_else(pc.equal(labels, ""), MISSING, labels)  # `feed` treats an empty string as missing


@dataclass(frozen=True)
class SliceTable:
    """The slices that are measured, numbered as groups: 0 is all rows, then the slices of each slicing.

    Attributes:
        slices: labels of the slices by name of the slicing.
        left_out: number of slices that are not measured, by name of the slicing.
    """

    slices: Mapping[str, tuple[str, ...]]
    left_out: Mapping[str, int]

    @property
    def names(self) -> list[tuple[str, str]]:
        """Slicing and label of each group."""
        return [("", ""), *((slicing, label) for slicing, labels in self.slices.items() for label in labels)]

    def groups(self, labels: Mapping[str, pa.Array], rows: int) -> list[np.ndarray]:
        """Return groups of the rows, int64 (rows,), -1 for none. The first are all rows, then those of each slicing.

        A slicing by a column of lists has an array for the first value of each row, one for the second, and so on.
        """
        found, first = [np.zeros(rows, np.int64)], 1
        for slicing, known in self.slices.items():
            for one in _by_position(labels[slicing]):
                places = pc.index_in(one, pa.array(known, pa.string()))
                places = places.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
                found.append(np.where(places < 0, -1, places + first))
            first += len(known)
        return found


def _by_position(labels: pa.Array) -> Iterator[pa.Array]:
    """Yield the first label of each row, then the second, and so on."""
    if not is_list(labels.type):
        yield labels
        return
    lengths = pc.list_value_length(labels)
    for position in range(pc.max(lengths).as_py() or 0):
        present = pc.greater(lengths, position)
        index = pc.if_else(present, pc.add(labels.offsets[:-1], position), None)
        yield labels.values.take(index)


def _bucket_names(edges: Sequence[float]) -> list[str]:
    # Use enough digits to distinguish all edges.
    names = next(t for d in range(6, 18) if len(set(t := [f"{e:.{d}g}" for e in edges])) == len(set(edges)))
    between = [f"{low} to {high}" for low, high in zip(names, names[1:])]
    return [f"below {names[0]}", *between, f"{names[-1]} or more"]


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "backslashreplace")
