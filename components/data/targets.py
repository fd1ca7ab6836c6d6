"""Labels and weights that are raw columns, beside those that the preprocessing computes."""

from __future__ import annotations

from collections.abc import Iterable

import keras
import pyarrow as pa

from kerasline.components.core.artifacts import Examples, Preprocessing
from kerasline.components.core.errors import DataError, nearest


def columns_beside(
    preprocessing: Preprocessing, model: keras.Model, examples: Examples
) -> dict[str, keras.KerasTensor]:
    """The labels and the weight that are raw columns, in the form in which they are fed.

    Args:
        model: the preprocessing's, loaded.

    Raises:
        DataError: the data has no such column.
    """
    weight = preprocessing.facts["sample_weight"]
    asked = [*preprocessing.labels, *([weight] if weight else [])]
    return {name: _as_input(examples, name) for name in asked if name not in model.output}


def check_complete(batch: pa.RecordBatch, names: Iterable[str]) -> None:
    """Raises a DataError where one of the columns, a label or weight, is missing in some row."""
    for name in names:
        if missing := batch.column(name).null_count:
            raise DataError(
                f"column {name!r}, the label or weight, is missing in {missing} of {batch.num_rows} rows; "
                "leave such rows out of the data"
            )


def _as_input(examples: Examples, name: str) -> keras.KerasTensor:
    """A label or weight as an input of the model's would be: numbers stay of their kind."""
    schema = examples.schema()
    if name not in schema.names:
        hint = nearest(name, schema.names)
        raise DataError(f"the data has no column {name!r}, the label or weight; {hint}")
    kind, shape = schema.field(name).type, ()
    if isinstance(kind, pa.FixedShapeTensorType):
        kind, shape = kind.value_type, tuple(kind.shape)
    while pa.types.is_nested(kind) and not pa.types.is_struct(kind):
        kind, shape = kind.value_type, (*shape, None)
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return keras.KerasTensor((None, *shape), "int64")
    return keras.KerasTensor((None, *shape), "float32" if pa.types.is_floating(kind) else "string")
