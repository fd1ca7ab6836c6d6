"""Labels and sample weights that are raw columns, not outputs of the preprocessing."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import pyarrow as pa

from kerasline.components.core.artifacts import Examples, Preprocessing
from kerasline.components.core.errors import DataError, nearest


def raw_label_columns(
    preprocessing: Preprocessing, model: keras.Model, examples: Examples
) -> dict[str, keras.KerasTensor]:
    """Return the labels and the sample weight that are raw columns, as Keras tensors by name.

    Args:
        model: the loaded model of the preprocessing.

    Raises:
        DataError: the data has no such column.
    """
    weight = preprocessing.facts["sample_weight"]
    names = [*preprocessing.labels, *([weight] if weight else [])]
    return {name: _as_input(examples, name) for name in names if name not in model.output}


def check_no_nulls(batch: pa.RecordBatch, names: Iterable[str]) -> None:
    """Raise a DataError if a label or weight, given by its column, is null in any row."""
    for name in names:
        if missing := batch.column(name).null_count:
            raise DataError(
                f"column {name!r}, the label or weight, is missing in {missing} of {batch.num_rows} rows; "
                "remove such rows from the data"
            )


def _as_input(examples: Examples, name: str) -> keras.KerasTensor:
    """Return the tensor for a label or weight: int64, float32 or string, as the column's type."""
    schema = examples.schema()
    if name not in schema.names:
        hint = nearest(name, schema.names)
        raise DataError(f"the data has no column {name!r}, the label or weight; {hint}")
    kind = schema.field(name).type
    shape: tuple[int | None, ...] = ()
    if isinstance(kind, pa.FixedShapeTensorType):
        kind, shape = kind.value_type, tuple(kind.shape)
    while pa.types.is_nested(kind) and not pa.types.is_struct(kind):
        kind, shape = kind.value_type, (*shape, None)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return keras.KerasTensor((None, *shape), "int64")
    return keras.KerasTensor((None, *shape), "float32" if pa.types.is_floating(kind) else "string")
