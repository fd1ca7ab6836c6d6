"""What all features share, and how the model is made of them."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kerasline.components.core.errors import DataError, nearest
from kerasline.components.core.parameters import parse_value

if TYPE_CHECKING:
    import keras
    import pyarrow as pa

Encoding = Literal["index", "one_hot", "multi_hot"]


@dataclass(frozen=True)
class Feature:
    """Base of all. A subclass says what layers its columns go through.

    Raises:
        ParameterError: an argument is of the wrong kind; names it, what was given and what is wanted.
    """

    column: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self))
        for one in dataclasses.fields(self):
            where = f"{type(self).__name__}.{one.name}"
            object.__setattr__(self, one.name, parse_value(where, hints[one.name], getattr(self, one.name)))

    def columns(self, name: str) -> list[str]:
        """The columns that the feature of this name is made of."""
        return [self.column or name]

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        """The dtype and shape of the input for a column of this Arrow type.

        Raises:
            DataError: the feature is not for such columns.
        """
        return number_form(self, name, kind)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        """The model input that becomes of the columns' inputs."""
        raise NotImplementedError


def preprocessing_model(features: Mapping[str, Feature], schema: pa.Schema) -> keras.Model:
    """The functional model, not yet adapted, that the specifications amount to.

    Args:
        features: by the name of the model input.
        schema: of the data, whose types decide the inputs' dtypes and shapes.

    Raises:
        DataError: a column is not in the data, or of a kind that its feature is not for.
    """
    import keras

    inputs: dict[str, keras.KerasTensor] = {}
    outputs: dict[str, keras.KerasTensor] = {}
    for name, feature in features.items():
        forms = {}
        for column in feature.columns(name):
            if column not in schema.names:
                raise DataError(
                    f"Transform.features: the data has no column {column!r}, which {name!r} wants; "
                    f"{nearest(column, schema.names)}"
                )
            forms[column] = feature.input_form(column, schema.field(column).type)
        taken = [_input(inputs, column, *form) for column, form in forms.items()]
        outputs[name] = feature.output(name, *taken)
    return keras.Model({name: inputs[name] for name in inputs}, outputs)


def form_of(kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
    """The dtype, as far as it matters here, and the shape of a column of this type."""
    import pyarrow as pa

    from kerasline.components.data.arrow_types import is_list

    if isinstance(kind, pa.FixedShapeTensorType):
        return form_of(kind.value_type)[0], tuple(kind.shape)
    if is_list(kind):
        size = kind.list_size if pa.types.is_fixed_size_list(kind) else None
        return form_of(kind.value_type)[0], (size,)
    if pa.types.is_floating(kind):
        return "float32", (1,)
    return ("int64" if pa.types.is_integer(kind) or pa.types.is_boolean(kind) else "string"), (1,)


def number_form(feature: Feature, column: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
    import pyarrow as pa

    dtype, shape = form_of(kind)
    if dtype == "string" and not pa.types.is_null(kind):
        raise DataError(f"Transform.features: column {column!r} holds {kind}, {type(feature).__name__} takes numbers")
    return "float32", shape


def category_form(feature: Feature, column: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
    dtype, shape = form_of(kind)
    if dtype == "float32":
        raise DataError(
            f"Transform.features: column {column!r} holds {kind}, {type(feature).__name__} takes texts or "
            "whole numbers; Number and Buckets take fractions"
        )
    return dtype, shape


def encoded(ids: keras.KerasTensor, encode: str, number: int) -> keras.KerasTensor:
    from keras import layers

    if encode == "index":
        return ids
    return layers.CategoryEncoding(num_tokens=number, output_mode=encode)(ids)


def _input(
    inputs: dict[str, keras.KerasTensor], column: str, dtype: str, shape: tuple[int | None, ...]
) -> keras.KerasTensor:
    """The column's input; one for all features that take it, in the form that the first takes."""
    import keras

    if column not in inputs:
        inputs[column] = keras.Input(shape, name=column, dtype=dtype)
    held = inputs[column]
    if (held.dtype, tuple(held.shape[1:])) == (dtype, shape):
        return held
    if "string" not in (held.dtype, dtype) and tuple(held.shape[1:]) == shape:
        return keras.ops.cast(held, dtype)
    raise DataError(
        f"Transform.features: column {column!r} is taken both as {held.dtype} {tuple(held.shape[1:])} and "
        f"as {dtype} {shape}; make one model input of it, or write a function"
    )
