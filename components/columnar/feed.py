"""The one rule by which raw columns become the inputs of a Keras model.

Training and evaluation feed through here; a request to the exported model arrives in the same
form. A missing number is NaN in a float input and -1 in an integer one; a missing text is "".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from components.errors import DataError, nearest

MOST_NUMBERS = 1 << 22  # 16 MB as float32


def feed(batch: pa.RecordBatch | pa.Table, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays for a model's inputs.

    Args:
        batch: rows with a column for each input; other columns are left alone.
        inputs: Keras tensors by name. Of shape () a column becomes (rows,), of shape (1,)
            (rows, 1); lists of one length n become (rows, n), tensors (rows, *shape).

    Returns:
        Arrays of the inputs' dtypes; texts as objects.

    Raises:
        DataError: a column is missing, or its values cannot be the input's.
    """
    return {name: _array(batch, name, tensor) for name, tensor in inputs.items()}


def rows_a_batch(inputs: Mapping[str, Any]) -> int:
    """Rows to take at once: 65,536, or where rows are wide, as many as hold `MOST_NUMBERS`."""
    width = sum(math.prod(size or 1 for size in tensor.shape[1:]) for tensor in inputs.values())
    return max(64, min(65536, MOST_NUMBERS // max(width, 1)))


def _array(batch: pa.RecordBatch | pa.Table, name: str, tensor: Any) -> np.ndarray:
    if name not in batch.schema.names:
        raise DataError(f"the data has no column {name!r}, which the preprocessing wants; "
                        f"{nearest(name, batch.schema.names)}")  # fmt: skip
    column = batch.column(name)
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    try:
        values = _values(column, str(tensor.dtype))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError) as error:
        raise DataError(f"column {name!r} of type {column.type} cannot be fed to an input of dtype "
                        f"{tensor.dtype}: {error}") from error  # fmt: skip
    shape = tuple(size for size in tensor.shape[1:])
    if len(shape) == values.ndim:  # (rows,) for an input of shape (1,)
        values = values[..., np.newaxis]
    wanted = [a is None or a == b for a, b in zip(shape, values.shape[1:])]
    if values.ndim != len(shape) + 1 or not all(wanted):
        raise DataError(f"column {name!r} has values of shape {values.shape[1:]}, "
                        f"the preprocessing's input is of shape {shape}")  # fmt: skip
    return values


def _values(column: pa.Array, dtype: str) -> np.ndarray:
    kind = column.type
    if isinstance(column, pa.FixedShapeTensorArray):
        return _values(_flattened(column.storage), dtype).reshape(len(column), *kind.shape)
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = _values(_flattened(column), dtype)
        return inner.reshape(len(column), _length(column), *inner.shape[1:])
    if dtype == "string":
        return column.cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        raise ValueError("text where numbers are wanted")
    if dtype.startswith("float") or dtype == "bfloat16":
        if column.null_count or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            column = column.cast(pa.float64(), safe=False)
        wanted = "float32" if dtype == "bfloat16" else dtype
        return column.to_numpy(zero_copy_only=False).astype(wanted, copy=False)
    if column.null_count and dtype == "bool":
        raise ValueError("values are missing, and a boolean has none that says so")
    if column.null_count:
        column = column.cast(pa.int64()).fill_null(-1)
    return column.cast(pa.from_numpy_dtype(np.dtype(dtype))).to_numpy(zero_copy_only=False)


def _flattened(lists: pa.Array) -> pa.Array:
    if lists.null_count:
        raise ValueError("the whole value is missing in some rows")
    return lists.flatten()


def _length(lists: pa.Array) -> int:
    """The one length of all lists."""
    if pa.types.is_fixed_size_list(lists.type):
        return lists.type.list_size
    found = pc.min_max(pc.list_value_length(lists)).as_py()
    if found["min"] != found["max"]:
        raise ValueError(f"its lists vary in length, from {found['min']} to {found['max']}")
    return found["min"] or 0
