"""The one rule by which raw columns become the inputs of a Keras model.

Training and evaluation feed through here; a request to the exported model arrives in the same
form. A missing number is NaN in a float input and -1 in an integer one; a missing text is "".
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from components.errors import DataError, nearest


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
    if isinstance(column, pa.FixedShapeTensorArray):
        return column.to_numpy_ndarray().astype(dtype, copy=False)
    kind = column.type
    if pa.types.is_fixed_size_list(kind) or pa.types.is_list(kind) or pa.types.is_large_list(kind):
        if column.null_count:
            raise ValueError("a list is missing in some rows")
        flat = _values(column.flatten(), dtype)
        if len(flat) % max(len(column), 1):
            raise ValueError("its lists vary in length")
        return flat.reshape(len(column), -1)
    if dtype == "string":
        return column.cast(pa.string()).fill_null("").to_numpy(zero_copy_only=False)
    if dtype.startswith("float") or dtype == "bfloat16":
        column = column.cast(pa.float64(), safe=False)
        return column.to_numpy(zero_copy_only=False).astype("float32" if dtype == "bfloat16" else dtype)
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        raise ValueError("text where numbers are wanted")
    return column.cast(pa.int64()).fill_null(-1).to_numpy(zero_copy_only=False).astype(dtype)
