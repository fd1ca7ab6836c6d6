"""Conversion of raw columns to the inputs of a Keras model.

Adaptation, training and evaluation all convert here, and requests to the exported model have the same form.
docs/PREPROCESSING.md explains the rule to users.

| value of the column | float input | integer input | string input |
|---|---|---|---|
| null | NaN | -1 | "" |
| list that is too short for an input of shape (n,) | padded with NaN | with -1 | with "" |
| list, for an input of shape (None,) or (None, n) | padded likewise to the longest list of the batch |
| null instead of a list | as an empty list |

Booleans and unsigned integers cannot represent a missing value, so null is an error there. Strings and bytes stay
unchanged, whether they are UTF-8 or not.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from kerasline.components.core.artifacts import Examples
from kerasline.components.core.errors import DataError, nearest
from kerasline.components.data.arrow_types import is_bytes, is_list, is_text
from kerasline.components.data.missing import has_missing_value, missing_value

MAX_NUMBERS_PER_BATCH = 1 << 22  # 16 MB as float32
ASSUMED_LENGTH = 256  # of the longest row of a batch, where rows vary in length


@dataclass(frozen=True)
class InputColumn:
    """A column in the form that a model input takes.

    Attributes:
        values: flat values of all rows: numbers of the input's dtype, or strings (`large_binary`).
        shape: shape of one row. If rows vary in length, the first dimension is None, as in (None,) or (None, 4).
        lengths: length of the first dimension of each row, shape (rows,), if rows vary in length. Otherwise None.
    """

    values: np.ndarray | pa.Array
    shape: tuple[int | None, ...]
    lengths: np.ndarray | None = None

    def dense(self) -> np.ndarray:
        """Return the array (rows, ...). Rows are padded to the longest. Strings are bytes objects."""
        if self.lengths is None:
            return _as_numpy(self.values).reshape(-1, *self.shape)
        longest, step = int(self.lengths.max(initial=0)), self.step_size
        padded = _pad(self.values, self.lengths * step, longest * step)
        return _as_numpy(padded).reshape(len(self.lengths), longest, *self.shape[1:])

    @property
    def step_size(self) -> int:
        """Number of values in one step of a row that varies in length."""
        return math.prod(size or 1 for size in self.shape[1:])


def check_spellings(examples: Examples, inputs: Mapping[str, Any]) -> None:
    """Raise a DataError if a string input reads a column whose values have lost the text of the source.

    ZIP codes that ExampleGen read as integers would come as `1234`, where a client of the model sends `01234`.

    Args:
        inputs: Keras tensors by name.
    """
    for name, text in examples.spellings.items():
        if name in inputs and str(inputs[name].dtype) == "string":
            kind = examples.schema().field(name).type
            raise DataError(
                f"column {name!r}: a string input reads it, but ExampleGen read text such as {text!r} as {kind}; keep "
                f"the text with --set ExampleGen.column_types.{name}=string"
            )


def check_missing_integers(examples: Examples, inputs: Mapping[str, Any], complete: Collection[str] = ()) -> None:
    """Raise a DataError if an integer input reads a column with both missing values and -1, which stands for them.

    Only columns whose statistics in the files allow both are read.

    Args:
        inputs: Keras tensors by name.
        complete: inputs in which -1 is an ordinary integer, so that no value may be missing.
    """
    schema = examples.schema()
    read = [name for name, tensor in inputs.items() if str(tensor.dtype).startswith("int") and name in schema.names]
    names = {name for name in read if pa.types.is_integer(_innermost(schema.field(name).type))}
    missing, candidates = set[str](), set[str]()
    for split in examples.splits:
        for shard in examples.whole_shards(split):
            for name, statistics in _column_statistics(shard, names):
                if statistics is None or statistics.null_count:
                    missing.add(name)
                if statistics is None or (statistics.has_min_max and statistics.min <= -1 <= statistics.max):
                    candidates.add(name)
    for name in sorted(names & set(complete)):
        if name in missing or is_list(schema.field(name).type):
            _check_complete(examples, name)
    for name in sorted(missing & candidates):
        for split in examples.splits:
            for batch in examples.batches(split, [name]):
                values = batch.column(name)
                while is_list(values.type):
                    values = values.flatten()
                if pc.any(pc.equal(values, -1)).as_py():
                    raise DataError(
                        f"column {name!r} has missing values and also -1, which stands for them in an integer input; "
                        "take it as a float or string input, or replace one of the two in the data"
                    )


def _check_complete(examples: Examples, name: str) -> None:
    """Raise a DataError if a column of integers has missing values, or lists that would be padded."""
    lengths: set[tuple[int, int]] = set()  # of lists, by depth
    for split in examples.splits:
        for batch in examples.batches(split, [name]):
            values, depth = batch.column(name), 0
            while is_list(values.type) and not values.null_count:
                lengths |= {(depth, length) for length in np.unique(_lengths(values)).tolist()}
                values, depth = values.flatten(), depth + 1
            if values.null_count or len({depth for depth, _ in lengths}) < len(lengths):
                found = "missing values" if values.null_count else "lists of varying length"
                raise DataError(
                    f"column {name!r} has {found}, which would be filled with -1, an ordinary integer for a layer with "
                    "may_be_missing=False; take it as a float or string input, or fill them in the data"
                )


def _innermost(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values in lists at any depth."""
    return _innermost(kind.value_type) if is_list(kind) else kind


def _column_statistics(shard: Path, names: Collection[str]) -> Iterator[tuple[str, Any]]:
    """Yield the statistics of each chunk of the named columns, from the footer of a file."""
    metadata = pq.read_metadata(shard)
    for group in range(metadata.num_row_groups):
        for number in range(metadata.num_columns):
            chunk = metadata.row_group(group).column(number)
            name = metadata.schema.column(number).path.split(".list.")[0]
            if name in names:
                yield name, chunk.statistics


def feed(batch: pa.RecordBatch | pa.Table, inputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Convert a batch to arrays for a model's inputs.

    Args:
        batch: rows with a column for each input. Other columns are ignored.
        inputs: Keras tensors by name. A scalar column becomes (rows,) for shape () and (rows, 1) for shape (1,). Lists
            become (rows, n), and tensors (rows, *shape).

    Returns:
        Arrays of the inputs' dtypes, by name. Strings are bytes objects.

    Raises:
        DataError: a column is missing, or its values cannot be converted.
    """
    return {name: feed_column(batch, name, tensor).dense() for name, tensor in inputs.items()}


def feed_column(batch: pa.RecordBatch | pa.Table, name: str, tensor: Any) -> InputColumn:
    """Convert one column for one input; see `feed`."""
    if name not in batch.schema.names:
        raise DataError(
            f"the data has no column {name!r}, an input of the preprocessing; {nearest(name, batch.schema.names)}"
        )
    column = batch.column(name)
    column = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    dtype, shape = str(tensor.dtype), tuple(tensor.shape[1:])
    try:
        return _convert(column, dtype, shape)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, pa.ArrowTypeError, ValueError) as error:
        raise DataError(
            f"column {name!r} of type {column.type} cannot be fed to an input of dtype {dtype} and shape {shape}: "
            f"{error}"
        ) from error


def check_feedable(schema: pa.Schema, inputs: Mapping[str, Any]) -> None:
    """Check that data of a schema can be fed, as far as the types of the columns decide it.

    Args:
        schema: the schema of the data.
        inputs: as for `feed`.

    Raises:
        DataError: a column is missing, or its type does not fit the input.
    """
    # Arrow's own `empty_table` fails for transposed tensors.
    columns = [
        pa.ExtensionArray.from_storage(field.type, pa.array([], field.type.storage_type))
        if isinstance(field.type, pa.BaseExtensionType)
        else pa.array([], field.type)
        for field in schema
    ]
    feed(pa.RecordBatch.from_arrays(columns, schema=schema), inputs)


def rows_per_batch(inputs: Mapping[str, Any]) -> int:
    """Return the number of rows to convert at a time: 65,536, or fewer if rows are wide."""
    width = sum(math.prod(size or ASSUMED_LENGTH for size in tensor.shape[1:]) for tensor in inputs.values())
    return max(64, min(65536, MAX_NUMBERS_PER_BATCH // max(width, 1)))


def _convert(held: pa.Array, dtype: str, shape: tuple[int | None, ...]) -> InputColumn:
    if shape == (None,) or _holds_sequences(held, dtype, shape):
        return _convert_ragged(held, dtype, shape[1:])
    values, received = _convert_uniform(held, dtype, shape)
    if len(shape) == len(received) + 1 and shape[-1] in (1, None):  # (rows,) for an input of shape (1,)
        received = (*received, 1)
    if len(shape) != len(received) or any(a not in (None, b) for a, b in zip(shape, received)):
        raise ValueError(f"its values have shape {received}")
    return InputColumn(values, received)


def _holds_sequences(held: pa.Array, dtype: str, shape: tuple[int | None, ...]) -> bool:
    """Return whether rows are lists of any length of steps of one shape, such as boxes or frames."""
    is_sequence = len(shape) > 1 and shape[0] is None and None not in shape[1:]
    return is_sequence and is_list(held.type) and has_missing_value(dtype)


def _convert_ragged(held: pa.Array, dtype: str, step: tuple[int | None, ...]) -> InputColumn:
    """Convert lists of any length of steps of a shape, () for scalars."""
    missing_value(dtype)  # raises if there is no value to pad with
    held = held.storage if isinstance(held, pa.ExtensionArray) else held
    if not is_list(held.type):
        return InputColumn(_values(held, dtype), (None,), np.ones(len(held), np.int64))
    if not step and is_list(held.type.value_type):
        raise ValueError("it has lists of lists, but an input of shape (None,) takes lists of scalars")
    values, received = _convert_uniform(held.flatten(), dtype, step)
    if received != step:
        raise ValueError(f"its steps have shape {received}")
    return InputColumn(values, (None, *step), _lengths(held))


def _convert_uniform(
    held: pa.Array, dtype: str, shape: tuple[int | None, ...]
) -> tuple[np.ndarray | pa.Array, tuple[int, ...]]:
    """Return all values and the shape of each row."""
    if isinstance(held, pa.FixedShapeTensorArray):
        values, _ = _convert_uniform(held.storage, dtype, (math.prod(held.type.shape),))
        return values, tuple(held.type.shape)
    if not is_list(held.type):
        return _values(held, dtype), ()
    lengths, expected = _lengths(held), shape[0] if shape else None
    longest = int(lengths.max(initial=0)) if len(lengths) else (expected or 0)
    size = longest if expected is None else expected
    if longest > size:
        raise ValueError(f"it has lists with up to {longest} values")
    values, inner = _convert_uniform(held.flatten(), dtype, shape[1:])
    if (lengths != size).any():
        if expected is None:
            raise ValueError(f"its lists vary in length, from {lengths.min()} to {longest}")
        values = _pad(values, lengths * math.prod(inner), size * math.prod(inner))
    return values, (size, *inner)


def _values(held: pa.Array, dtype: str) -> np.ndarray | pa.Array:
    """Convert scalars. Nulls become the missing value of the dtype."""
    kind = held.type
    if dtype == "string":
        if not is_bytes(kind):
            held = held.cast(pa.large_string())
        return held.cast(pa.large_binary()).fill_null(b"")
    if is_text(kind) or is_bytes(kind):
        raise ValueError("expected numbers, received text")
    if dtype.startswith("float") or dtype == "bfloat16":
        if held.null_count or not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            held = held.cast(pa.float64(), safe=False)
        numpy_dtype = "float32" if dtype == "bfloat16" else dtype  # NumPy has no bfloat16
        return held.to_numpy(zero_copy_only=False).astype(numpy_dtype, copy=False)
    if held.null_count:
        held = held.cast(pa.int64()).fill_null(missing_value(dtype))
    return held.cast(pa.from_numpy_dtype(np.dtype(dtype))).to_numpy(zero_copy_only=False)


def _pad(values: np.ndarray | pa.Array, lengths: np.ndarray, size: int) -> np.ndarray | pa.Array:
    """Pad each row of flat values to `size` with missing values."""
    present = np.arange(size) < lengths[:, np.newaxis]
    index = np.full(present.shape, len(values))  # of the missing value, appended to the values
    index[present] = np.arange(len(values))
    if isinstance(values, pa.Array):
        return pa.concat_arrays([values, pa.array([b""], pa.large_binary())]).take(pa.array(index.reshape(-1)))
    if present.all():
        return values
    return np.append(values, np.array(missing_value(str(values.dtype)), values.dtype))[index.reshape(-1)]


def _lengths(lists: pa.Array) -> np.ndarray:
    """Return the number of values of each list. Null has none."""
    if pa.types.is_fixed_size_list(lists.type):
        lengths = np.full(len(lists), lists.type.list_size)
        return np.where(lists.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
    return pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False).astype(np.int64)


def _as_numpy(values: np.ndarray | pa.Array) -> np.ndarray:
    return values.to_numpy(zero_copy_only=False) if isinstance(values, pa.Array) else values
