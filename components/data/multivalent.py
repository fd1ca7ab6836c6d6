"""Columns that hold several values in a row, such as tags: each value counts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.core.errors import UserCodeError
from kerasline.components.core.user_code import call, name_of
from kerasline.components.data.arrow_types import is_list


def combinations(columns: Sequence[pa.Array]) -> tuple[np.ndarray, list[pa.Array]]:
    """Return all combinations of the values that each row has in some columns.

    A column of scalars has one value in each row. Of lists, the distinct values count, and a list without values counts
    as null.

    Returns:
        The row of each combination, int64 (combinations,), and its values in each column.
    """
    rows = np.arange(len(columns[0]) if columns else 0)
    found: list[pa.Array] = []
    for column in columns:
        owner, values = _distinct_values(column)
        counts = np.bincount(owner, minlength=len(column))
        times = counts[rows]
        before = np.cumsum(times) - times
        place = np.repeat((np.cumsum(counts) - counts)[rows] - before, times) + np.arange(times.sum())
        kept = pa.array(np.repeat(np.arange(len(rows)), times))
        rows = rows[kept]
        found = [*(values.take(kept) for values in found), values.take(pa.array(place))]
    return rows, found


def to_lists(rows: np.ndarray, values: pa.Array, count: int, mask: pa.Array | None = None) -> pa.Array:
    """Return lists of the values of each of `count` rows.

    Args:
        rows: the row of each value, sorted.
        mask: rows that are null.
    """
    offsets = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=count))])
    return pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), values, mask=mask)


def labels_by_function(function: Callable, batch: pa.RecordBatch) -> pa.Array:
    """Return the slices that a user's function assigns to each row: strings (rows,), or lists of distinct strings.

    Args:
        function: takes a `pyarrow.RecordBatch` and returns, for each row, a string, a list of strings, or None.

    Raises:
        UserCodeError: the function raised, or returned something else.
    """
    given = call(function, batch)
    try:
        labels = given if isinstance(given, (pa.Array, pa.ChunkedArray)) else pa.array(given)
        labels = labels.combine_chunks() if isinstance(labels, pa.ChunkedArray) else labels
        labels = labels.cast(pa.large_list(pa.string()) if is_list(labels.type) else pa.string())
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, TypeError) as error:
        raise UserCodeError(
            f"{name_of(function)}: expected a string, a list of strings or None per row: {error}"
        ) from error
    if len(labels) != batch.num_rows:
        raise UserCodeError(f"{name_of(function)} returned {len(labels)} slices for {batch.num_rows} rows")
    return to_lists(*_distinct_values(labels), len(labels)) if is_list(labels.type) else labels


def is_nested_list(kind: pa.DataType) -> bool:
    """Return whether a column holds lists of lists, or tensors, whose values are no separate values of a row."""
    return isinstance(kind, pa.BaseExtensionType) or (is_list(kind) and is_list(kind.value_type))


def _distinct_values(column: pa.Array) -> tuple[np.ndarray, pa.Array]:
    """Return the distinct values of each row, with their rows, which are sorted. A row without values has one null."""
    if not is_list(column.type):
        return np.arange(len(column)), column
    values = column.flatten()
    owner = pc.list_parent_indices(column).to_numpy()
    codes = values.dictionary_encode().indices.fill_null(-1).to_numpy()
    pairs = np.stack([owner, codes], axis=1)[codes >= 0]
    first = np.flatnonzero(codes >= 0)[np.unique(pairs, axis=0, return_index=True)[1]]
    empty = np.setdiff1d(np.arange(len(column)), owner[first])
    every = np.concatenate([owner[first], empty])
    order = np.argsort(every, kind="stable")
    index = np.concatenate([first, np.full(len(empty), -1)])[order]
    return every[order], values.take(pa.array(index, mask=index < 0))
