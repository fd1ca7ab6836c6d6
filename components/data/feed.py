"""The one rule by which raw columns become the inputs of a Keras model.

Adaptation, training and evaluation feed through here; a request to the exported model arrives in the
same form. docs/PREPROCESSING.md states the rule for people.

| the column holds | float input | integer input | string input |
|---|---|---|---|
| a null | NaN | -1 | "" |
| a list, for an input of shape (n,): shorter ones | filled up with NaN | with -1 | with "" |
| a list, for an input of shape (None,) | filled up so to the longest of the batch |
| a null instead of a list | the empty list |

Booleans and unsigned integers have no value that says "missing": a null is an error there. Texts and
bytes arrive as they are, whether UTF-8 or not.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.core.errors import DataError, nearest
from kerasline.components.data.missing import missing_value
from kerasline.components.data.unify import is_list

MOST_NUMBERS = 1 << 22  # 16 MB as float32


@dataclass(frozen=True)
class Column:
    """A column as an input takes it.

    Attributes:
        values: of all rows in a row; numbers of the input's dtype, or texts (`large_binary`).
        shape: of one row; (None,) where rows vary in length.
        lengths: how many values each row has, shape (rows,), where rows vary.
    """

    values: np.ndarray | pa.Array
    shape: tuple[int | None, ...]
    lengths: np.ndarray | None = None

    def dense(self) -> np.ndarray:
        """The array (rows, ...), rows that vary filled up to the longest; texts as objects of bytes."""
        if self.lengths is None:
            return _as_numpy(self.values).reshape(-1, *self.shape)
        longest = int(self.lengths.max(initial=0))
        filled = _filled(self.values, self.lengths, longest)
        return _as_numpy(filled).reshape(len(self.lengths), longest)


def feed(batch: pa.RecordBatch | pa.Table, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """The arrays for a model's inputs.

    Args:
        batch: rows with a column for each input; other columns are left alone.
        inputs: Keras tensors by name. Of shape () a column becomes (rows,), of shape (1,)
            (rows, 1); lists become (rows, n), tensors (rows, *shape).

    Returns:
        Arrays of the inputs' dtypes; texts as objects of bytes.

    Raises:
        DataError: a column is missing, or its values cannot be the input's.
    """
    return {name: column(batch, name, tensor).dense() for name, tensor in inputs.items()}


def column(batch: pa.RecordBatch | pa.Table, name: str, tensor: Any) -> Column:
    """One column for one input; see `feed`."""
    if name not in batch.schema.names:
        raise DataError(
            f"the data has no column {name!r}, which the preprocessing wants; {nearest(name, batch.schema.names)}"
        )
    held = batch.column(name)
    held = held.combine_chunks() if isinstance(held, pa.ChunkedArray) else held
    dtype, shape = str(tensor.dtype), tuple(tensor.shape[1:])
    try:
        return _column(held, dtype, shape)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError) as error:
        raise DataError(
            f"column {name!r} of type {held.type} cannot be fed to an input of dtype {dtype} and shape {shape}: {error}"
        ) from error


def rows_a_batch(inputs: Mapping[str, Any]) -> int:
    """Rows to take at once: 65,536, or where rows are wide, as many as hold `MOST_NUMBERS`."""
    width = sum(math.prod(size or 1 for size in tensor.shape[1:]) for tensor in inputs.values())
    return max(64, min(65536, MOST_NUMBERS // max(width, 1)))


def _column(held: pa.Array, dtype: str, shape: tuple[int | None, ...]) -> Column:
    if shape == (None,):
        return _varying(held, dtype)
    values, found = _uniform(held, dtype, shape)
    if len(shape) == len(found) + 1 and shape[-1] in (1, None):  # (rows,) for an input of shape (1,)
        found = (*found, 1)
    if len(shape) != len(found) or any(a not in (None, b) for a, b in zip(shape, found)):
        raise ValueError(f"its values are of shape {found}")
    return Column(values, found)


def _varying(held: pa.Array, dtype: str) -> Column:
    missing_value(dtype)  # there must be one to fill up with
    held = held.storage if isinstance(held, pa.ExtensionArray) else held
    if not is_list(held.type):
        return Column(_values(held, dtype), (None,), np.ones(len(held), np.int64))
    if is_list(held.type.value_type):
        raise ValueError("its lists hold lists, where an input of shape (None,) takes values")
    return Column(_values(held.flatten(), dtype), (None,), _lengths(held))


def _uniform(
    held: pa.Array, dtype: str, shape: tuple[int | None, ...]
) -> tuple[np.ndarray | pa.Array, tuple[int, ...]]:
    """All values, and the shape that each row has."""
    if isinstance(held, pa.FixedShapeTensorArray):
        values, _ = _uniform(held.storage, dtype, (math.prod(held.type.shape),))
        return values, tuple(held.type.shape)
    if not is_list(held.type):
        return _values(held, dtype), ()
    lengths, wanted = _lengths(held), shape[0] if shape else None
    longest = int(lengths.max(initial=0)) if len(lengths) else (wanted or 0)
    size = longest if wanted is None else wanted
    if longest > size:
        raise ValueError(f"it has lists of up to {longest} values")
    values, inner = _uniform(held.flatten(), dtype, shape[1:])
    if (lengths != size).any():
        if wanted is None:
            raise ValueError(f"its lists vary in length, from {lengths.min()} to {longest}")
        values = _filled(values, lengths * math.prod(inner), size * math.prod(inner))
    return values, (size, *inner)


def _values(held: pa.Array, dtype: str) -> np.ndarray | pa.Array:
    """Scalars, with what stands for the missing ones."""
    kind = held.type
    if dtype == "string":
        if not pa.types.is_binary(kind) and not pa.types.is_large_binary(kind):
            held = held.cast(pa.large_string())
        return held.cast(pa.large_binary()).fill_null(b"")
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_binary(kind):
        raise ValueError("text where numbers are wanted")
    if dtype.startswith("float") or dtype == "bfloat16":
        if held.null_count or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            held = held.cast(pa.float64(), safe=False)
        wanted = "float32" if dtype == "bfloat16" else dtype
        return held.to_numpy(zero_copy_only=False).astype(wanted, copy=False)
    if held.null_count:
        held = held.cast(pa.int64()).fill_null(missing_value(dtype))
    return held.cast(pa.from_numpy_dtype(np.dtype(dtype))).to_numpy(zero_copy_only=False)


def _filled(values: np.ndarray | pa.Array, lengths: np.ndarray, size: int) -> np.ndarray | pa.Array:
    """Values of rows that vary in length, each row filled up to `size` with missing ones."""
    there = np.arange(size) < lengths[:, np.newaxis]
    place = np.full(there.shape, len(values))  # that of the missing value, put behind all others
    place[there] = np.arange(len(values))
    if isinstance(values, pa.Array):
        return pa.concat_arrays([values, pa.array([b""], pa.large_binary())]).take(pa.array(place.reshape(-1)))
    if there.all():
        return values
    return np.append(values, np.array(missing_value(str(values.dtype)), values.dtype))[place.reshape(-1)]


def _lengths(lists: pa.Array) -> np.ndarray:
    """How many values each list has; a missing one none."""
    if pa.types.is_fixed_size_list(lists.type):
        lengths = np.full(len(lists), lists.type.list_size)
        return np.where(lists.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _as_numpy(values: np.ndarray | pa.Array) -> np.ndarray:
    return values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values
