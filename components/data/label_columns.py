"""Labels and sample weights: computed by the preprocessing, or raw columns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kerasline.components.core.artifacts import Examples, Preprocessing, part_of
from kerasline.components.core.errors import DataError
from kerasline.components.core.keras_compat import flatten_layers
from kerasline.components.data.arrow_types import is_list
from kerasline.components.data.model_inputs import feed, rows_per_batch
from kerasline.components.preprocessing.features.base import form_of


def raw_label_columns(preprocessing: Preprocessing, model: keras.Model) -> dict[str, keras.KerasTensor]:
    """Return the labels and the sample weight that are raw columns, as Keras tensors by name.

    Args:
        model: the loaded model of the preprocessing.
    """
    return {name: tensor for name, tensor in preprocessing.label_specs.items() if name not in model.output}


def without_padding(weight: Any) -> Any:
    """Return weights as a tensor with 0 for NaN, which pads the weights of tokens that lists hold."""
    return keras.ops.where(keras.ops.isnan(weight), 0.0, weight) if weight.dtype.is_floating else weight


@dataclass(frozen=True)
class LabelReader:
    """Reads labels and weights alone: it runs only the part of the preprocessing that computes them.

    Attributes:
        model: that part, or None.
        columns: symbolic tensors of the labels and weights that are raw columns, by name.
    """

    model: keras.Model | None
    columns: Mapping[str, keras.KerasTensor]

    @classmethod
    def of(cls, preprocessing: Preprocessing, model: keras.Model, names: Sequence[str]) -> LabelReader:
        """Return a reader of the named labels and weights.

        Args:
            model: the loaded model of the preprocessing.
        """
        columns = raw_label_columns(preprocessing, model)
        computed = [name for name in names if name not in columns]
        part = part_of(model, computed) if computed else None
        return cls(part, {name: columns[name] for name in names if name in columns})

    def alone(self, name: str) -> LabelReader:
        """Return a reader of one of the labels and weights that the preprocessing computes."""
        assert self.model is not None
        return LabelReader(part_of(self.model, [name]), {})

    @property
    def inputs(self) -> dict[str, keras.KerasTensor]:
        """Symbolic tensors of the raw columns that are read, by name."""
        return {**(self.model.input if self.model else {}), **self.columns}

    @property
    def rows_per_batch(self) -> int:
        """The number of rows to read at a time. What the layers before labels return also takes memory, as of sound."""
        tensors = self.inputs
        if self.model is not None:
            layers = [layer.output for layer in flatten_layers(self.model) if hasattr(layer, "output")]
            tensors |= {f"output {number}": tensor for number, tensor in enumerate(keras.tree.flatten(layers))}
        return rows_per_batch(tensors)

    def spec(self, name: str) -> keras.KerasTensor:
        """Return the symbolic tensor of a label or weight."""
        return self.columns[name] if name in self.columns or self.model is None else self.model.output[name]

    def values(self, batch: pa.RecordBatch | pa.Table) -> dict[str, np.ndarray]:
        """Return the labels and weights of some rows, arrays (rows, ...) by name.

        Raises:
            DataError: a label or weight is missing, or a column does not fit.
        """
        check_no_nulls(batch, self.columns)
        found = feed(batch, self.columns)
        if self.model is not None:
            fed: dict[str, Any] = feed(batch, self.model.input)
            casts = {name: keras.ops.cast(fed[name], tensor.dtype) for name, tensor in self.model.input.items()}
            computed = self.model(casts, training=False)
            found |= {name: tensor.numpy() for name, tensor in computed.items()}
        return found


def column_spec(examples: Examples, name: str) -> tuple[str, tuple[int | None, ...]]:
    """Return the dtype and the shape of a row that a raw column has as a label or weight.

    Lists that all have the same length, in all splits, have that length as their shape. Otherwise it is None, and they
    are padded to the longest of a batch.

    Returns:
        The dtype, "int64", "float32" or "string", and the shape, () for a column of scalars.
    """
    kind = examples.schema().field(name).type
    dtype, shape = form_of(kind)
    if isinstance(kind, pa.FixedShapeTensorType):
        return dtype, shape
    return dtype, _list_shape(examples, name) if is_list(kind) else ()


def check_no_nulls(batch: pa.RecordBatch, names: Iterable[str]) -> None:
    """Raise a DataError if a label or weight, given by its column, is null in any row."""
    for name in names:
        if name not in batch.schema.names:
            raise DataError(f"the data has no column {name!r}, the label or weight")
        if missing := batch.column(name).null_count:
            raise DataError(
                f"column {name!r}, the label or weight, is missing in {missing} of {batch.num_rows} rows; "
                "remove such rows from the data"
            )


def _list_shape(examples: Examples, name: str) -> tuple[int | None, ...]:
    """Return for each level of lists the length that all of them have, or None if they vary."""
    lengths: list[set[int]] = []
    for split in examples.splits:
        for batch in examples.batches(split, [name]):
            values, level = batch.column(name), 0
            while is_list(values.type):
                found = set(pc.unique(pc.list_value_length(values.drop_null())).to_pylist())
                lengths += [set()] * (level == len(lengths))
                lengths[level] = lengths[level] | found
                values, level = values.flatten(), level + 1
            if all(len(found) > 1 for found in lengths):
                return (None,) * len(lengths)
    return tuple(found.pop() if len(found) == 1 else None for found in lengths)
