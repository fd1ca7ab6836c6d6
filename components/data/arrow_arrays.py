"""Arrays of NumPy, (rows, ...), as Arrow columns."""

from __future__ import annotations

import math

import numpy as np
import pyarrow as pa

from kerasline.components.data.arrow_types import is_list


def as_arrow(values: np.ndarray) -> pa.Array:
    """Return numbers or bytes as a column of these, of tensors, or, for several bytes a row, of lists."""
    if not len(values):  # Arrow's tensors need a row
        nothing = b"" if values.dtype == object else 0
        return as_arrow(np.full((1, *values.shape[1:]), nothing, values.dtype)).slice(0, 0)
    if values.dtype == object:
        texts = pa.array(values.reshape(-1), pa.binary())
        return texts if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(texts, values[0].size)
    if values.dtype.name == "bfloat16":
        values = values.astype(np.float32)
    if values.ndim == 1:
        return pa.array(values)
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))


def as_lists(values: np.ndarray) -> pa.Array:
    """Return an array as a column of nested lists."""
    column = as_arrow(values.reshape(-1))
    for axis in range(values.ndim - 1, 0, -1):
        offsets = np.arange(math.prod(values.shape[:axis]) + 1, dtype=np.int32) * values.shape[axis]
        column = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), column)
    return column


def as_texts(column: pa.Array) -> pa.Array:
    """Convert bytes, in lists of any depth, to strings. Bytes that are not UTF-8 become U+FFFD."""
    if is_list(column.type):
        lists = column.cast(pa.list_(column.type.value_type))
        return pa.ListArray.from_arrays(lists.offsets, as_texts(lists.values))
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid:
        return pa.array([value.decode("utf-8", "replace") for value in column.to_pylist()], pa.string())
