"""The base of all features, and the model that they describe."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from kerasline.components.core.errors import DataError, nearest
from kerasline.components.core.keras_names import input_names, layer_prefixes
from kerasline.components.core.parameters import parse_value

if TYPE_CHECKING:
    import keras
    import pyarrow as pa

Encoding = Literal["index", "one_hot", "multi_hot"]


@dataclass(frozen=True)
class Feature:
    """Base of all features. A subclass describes the layers between its columns and a model input.

    Args:
        column: str. The column, if it has another name than the feature.

    Raises:
        ParameterError: an argument has the wrong type. The message names it, its value and the expected type.

    Example, a feature of your own:

    >>> import dataclasses
    >>> @dataclasses.dataclass(frozen=True)
    ... class Doubled(Feature):
    ...     def output(self, name, *inputs):
    ...         return inputs[0] * 2
    >>> examples = kl.InMemoryExampleGen({"fare": [1.0]}, splits={"train": 1}).execute(folder / "a").examples
    >>> model = kl.Transform(examples, features={"fare": Doubled()}).execute(folder / "b").preprocessing.load()
    >>> model({"fare": np.array([[3.0]])})["fare"].numpy().tolist()
    [[6.0]]
    """

    column: str | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        hints = typing.get_type_hints(type(self), include_extras=True)
        for one in dataclasses.fields(self):
            where = f"{type(self).__name__}.{one.name}"
            object.__setattr__(self, one.name, parse_value(where, hints[one.name], getattr(self, one.name)))

    def columns(self, name: str) -> list[str]:
        """Return the columns that the feature of this name reads."""
        return [self.column or name]

    def input_form(self, name: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
        """Return the dtype and shape of the input for a column of this Arrow type.

        Raises:
            DataError: the feature does not accept such columns.
        """
        return number_form(self, name, kind)

    def output(self, name: str, *inputs: keras.KerasTensor) -> keras.KerasTensor:
        """Return the model input, computed from the inputs for the columns.

        Args:
            name: the beginning of the names of the layers.
            inputs: the columns, in the order of `columns`.
        """
        raise NotImplementedError


def preprocessing_model(features: Mapping[str, Feature], schema: pa.Schema, labels: Sequence[str] = ()) -> keras.Model:
    """Return the functional model that features describe. Its layers are not adapted yet.

    Args:
        features: by the name of the model input.
        schema: of the data. The columns' types decide the inputs' dtypes and shapes.
        labels: labels. Those that are columns of texts, or of lists of texts, become outputs: the index of the class,
            or multi-hot rows.

    Raises:
        DataError: a column is not in the data, or has a type that its feature does not accept.
    """
    import keras

    forms: dict[str, dict[str, tuple[str, tuple[int | None, ...]]]] = {}
    for name, feature in features.items():
        forms[name] = {}
        for column in feature.columns(name):
            if column not in schema.names:
                raise DataError(
                    f"Transform.features: the data has no column {column!r}, which feature {name!r} reads; "
                    f"{nearest(column, schema.names)}"
                )
            forms[name][column] = feature.input_form(column, schema.field(column).type)
    inputs: dict[str, keras.KerasTensor] = {}
    outputs: dict[str, keras.KerasTensor] = {}
    in_double = {column for of in forms.values() for column, (dtype, _) in of.items() if dtype == "float64"}
    classes = [
        label
        for label in labels
        if label not in features and label in schema.names and form_of(schema.field(label).type)[0] == "string"
    ]
    names = input_names(dict.fromkeys([*(column for of in forms.values() for column in of), *classes]))
    prefixes = layer_prefixes([*features, *classes], names.values())
    for name, feature in features.items():
        taken = [
            _input(inputs, column, names[column], *form, column in in_double) for column, form in forms[name].items()
        ]
        outputs[name] = feature.output(prefixes[name], *taken)
    for label in classes:
        tensor = _input(inputs, label, names[label], *form_of(schema.field(label).type), in_double=False)
        outputs[label] = _class_index(prefixes[label], tensor)
    return keras.Model({name: inputs[name] for name in inputs}, outputs)


def _class_index(name: str, label: keras.KerasTensor) -> keras.KerasTensor:
    from kerasline.components.preprocessing.layers.categories import ClassIndex

    return ClassIndex("int" if label.shape[1:] == (1,) else "multi_hot", name=f"{name}_class")(label)


def form_of(kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
    """Return the dtype (float32, int64 or string) and the shape of a column of this type."""
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
    """Return the form of a column of numbers. Raise a DataError for texts."""
    import pyarrow as pa

    dtype, shape = form_of(kind)
    if dtype == "string" and not pa.types.is_null(kind):
        expected = f"{type(feature).__name__} expects numbers"
        raise DataError(f"Transform.features: column {column!r} is {kind}, but {expected}")
    return "float32", shape


def category_form(feature: Feature, column: str, kind: pa.DataType) -> tuple[str, tuple[int | None, ...]]:
    """Return the form of a column of texts or integers. Raise a DataError for floats."""
    dtype, shape = form_of(kind)
    if dtype == "float32":
        raise DataError(
            f"Transform.features: column {column!r} is {kind}, but {type(feature).__name__} expects texts or "
            "integers; use Number or Buckets for floats"
        )
    return dtype, shape


def encoded(ids: keras.KerasTensor, encode: str, number: int) -> keras.KerasTensor:
    """Return ids as they are, or encoded in `number` columns."""
    from keras import layers

    if encode == "index":
        return ids
    return layers.CategoryEncoding(num_tokens=number, output_mode=encode)(ids)


def _input(
    inputs: dict[str, keras.KerasTensor],
    column: str,
    name: str,
    dtype: str,
    shape: tuple[int | None, ...],
    in_double: bool,
) -> keras.KerasTensor:
    """Return the column's input. All features that read it share one, in float64 or else the form of the first."""
    import keras

    if column not in inputs:
        is_float32 = dtype == "float32" and in_double
        inputs[column] = keras.Input(shape, name=name, dtype="float64" if is_float32 else dtype)
    held = inputs[column]
    if (held.dtype, tuple(held.shape[1:])) == (dtype, shape):
        return held
    if "string" not in (held.dtype, dtype) and tuple(held.shape[1:]) == shape:
        return keras.ops.cast(held, dtype)
    raise DataError(
        f"Transform.features: features read column {column!r} both as {held.dtype} {tuple(held.shape[1:])} and "
        f"as {dtype} {shape}; read it in one form, or write a function"
    )
