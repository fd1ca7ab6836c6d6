"""Rows of a batch that cannot be fed to a model, found by checking whole columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.data.arrow_types import is_list
from kerasline.components.data.missing import has_missing_value


def unfeedable(batch: pa.RecordBatch, inputs: Mapping[str, Any]) -> list[tuple[int, str]]:
    """Return the index of each row that cannot be fed, with the first reason, in order.

    Args:
        inputs: Keras tensors by name.
    """
    found: dict[int, str] = {}
    for name, tensor in inputs.items():
        for wrong, reason in _wrong(batch.column(name), str(tensor.dtype), tuple(tensor.shape[1:])):
            for place in np.flatnonzero(wrong):
                found.setdefault(int(place), f"column {name!r}: {reason(int(place))}")
    return sorted(found.items())


def _wrong(
    column: pa.Array, dtype: str, shape: tuple[int | None, ...]
) -> Iterator[tuple[np.ndarray, Callable[[int], str]]]:
    """Yield a mask of rows for each possible mistake, and a function that describes it for a row."""
    if isinstance(column, pa.ExtensionArray):
        return
    if is_list(column.type):
        if len(shape) == 1 and shape[0] is not None:
            lengths = pc.fill_null(pc.list_value_length(column), 0).to_numpy(zero_copy_only=False)
            yield lengths > shape[0], lambda place: f"a list of {lengths[place]} values, expected at most {shape[0]}"
        return
    if not has_missing_value(dtype):
        missing = column.is_null().to_numpy(zero_copy_only=False)
        yield missing, lambda place: f"missing, and {dtype} has no missing value"
    if dtype.startswith(("int", "uint")) and pa.types.is_integer(column.type):
        bounds = np.iinfo(dtype)
        held = np.iinfo(column.type.to_pandas_dtype())
        if held.min < bounds.min or held.max > bounds.max:
            low, high = max(held.min, bounds.min), min(held.max, bounds.max)
            low, high = pa.scalar(low, column.type), pa.scalar(high, column.type)
            outside = pc.or_(pc.less(column, low), pc.greater(column, high))
            mask = pc.fill_null(outside, False).to_numpy(zero_copy_only=False)
            yield mask, lambda place: f"{column[place].as_py()} is out of range for {dtype}"
    if dtype.startswith(("int", "uint")) and pa.types.is_floating(column.type):
        values = column.to_numpy(zero_copy_only=False)
        valid = column.is_valid().to_numpy(zero_copy_only=False)
        whole = np.isfinite(values) & (np.trunc(values) == values)
        yield valid & ~whole, lambda place: f"{values[place]} is not an integer, expected {dtype}"
