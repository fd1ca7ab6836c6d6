"""What the layers share: adapting in memory, argument checks, missing values, and categories as texts."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tensorflow as tf

from kerasline.components.core.errors import DataError


class AdaptableLayer(keras.layers.Layer):
    """Base of layers that implement the protocol of `kerasline.components.preprocessing.adaptation`."""

    def adapt(self, *data: Any, label: Any = None, sample_weight: Any = None) -> None:
        """Compute the layer's state from data in memory, as `adapt()` of Keras's layers does.

        Within a pipeline Transform does this, over all rows.

        Args:
            *data: array-like (rows, ...) for each input of the layer.
            label: array-like (rows,) for a layer that learns from a label. NaN, None and "" are missing.
            sample_weight: array-like (rows,) for a layer with `sample_weight`.

        Raises:
            ValueError: the layer needs a label or weights and received none, or takes none and received some.
        """
        arrays = [in_memory(one) for one in data]
        self.call_symbolically(*arrays)
        state = self._empty_state()
        if state is None:
            return
        beside: dict[str, Any] = {}
        takes = {
            "label": getattr(state, "TAKES_LABEL", False),
            "sample_weight": getattr(self, "sample_weight", None) is not None,
        }
        for name, values in {"label": label, "sample_weight": sample_weight}.items():
            expected = "an array with a value for each row" if takes[name] else "None"
            check(type(self).__name__, takes[name] == (values is not None), name, values, expected)
            if values is not None:
                beside[name] = in_memory(values)
        if label is not None:
            beside["positions"] = np.arange(len(arrays[0]))
        state.add(*arrays, **beside)
        self.set_state(state)

    def _empty_state(self) -> Any:
        """Return an empty accumulator for `adapt`. None if the layer needs no data or has its state."""
        return self.new_state()

    def call_symbolically(self, *arrays: np.ndarray) -> None:
        """Build the layer for inputs like these arrays."""
        inputs = [keras.Input(a.shape[1:], dtype="string" if a.dtype == object else str(a.dtype)) for a in arrays]
        self(inputs if len(inputs) > 1 else inputs[0])

    if TYPE_CHECKING:  # undefined here: a subclass that needs no data, such as SignedLog1p, has neither

        def new_state(self) -> Any: ...

        def set_state(self, state: Any) -> None: ...


class NumericLayer(AdaptableLayer):
    """Base of layers from numbers of any shape and dtype to floats of the layer's dtype.

    That dtype is float32 unless `dtype` is passed, whatever Keras's global policy: float16 would turn amounts beyond
    65,504 into infinity before they are scaled.

    A feature is an index of the last axis. Inputs of shape (rows,), or with an unknown last axis, have one feature. NaN
    is a missing number. -1, which stands for a missing number in integer inputs, is an ordinary number here: declare
    inputs with missing numbers as floats.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})

    def build(self, input_shape: Any) -> None:
        self._features = feature_count(input_shape)

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def compute_output_spec(self, values: Any) -> keras.KerasTensor:
        check(type(self).__name__, values.dtype != "string", "inputs", values.dtype, "numbers")
        return keras.KerasTensor(self.compute_output_shape(values.shape), self.compute_dtype)

    def add_numbers(self, name: str, start: float, *shape: int) -> Any:
        """Add a weight for state: floats (*shape), by default one for each feature."""
        return self.add_weight(
            shape=shape or (self._features,),
            initializer=keras.initializers.Constant(start),
            dtype=self.variable_dtype,
            trainable=False,
            name=name,
        )

    def as_floats(self, values: Any) -> Any:
        return keras.ops.cast(values, self.compute_dtype)

    def check(self, holds: bool, name: str, received: Any, expected: str) -> None:
        check(type(self).__name__, holds, name, received, expected)


def check(layer: str, holds: bool, name: str, received: Any, expected: str) -> None:
    """Raise a ValueError about an argument or input of a layer unless a condition holds."""
    if not holds:
        raise ValueError(f"{layer}: invalid {name}: expected {expected}, received {received!r}")


def is_whole(number: Any, least: int) -> bool:
    """Return whether this is an integer, and not less than `least`."""
    return bool(isinstance(number, (int, np.integer)) and not isinstance(number, bool) and number >= least)


def increase_within(pair: Any, lowest: float, highest: float) -> bool:
    """Return whether this is two numbers, the lower first, from `lowest` to `highest`."""
    return (
        isinstance(pair, (tuple, list))
        and len(pair) == 2
        and all(isinstance(one, numbers.Real) for one in pair)
        and lowest <= pair[0] < pair[1] <= highest
    )


def feature_count(input_shape: Sequence[int | None]) -> int:
    return 1 if len(input_shape) < 2 else input_shape[-1] or 1


def finite_or(values: np.ndarray, otherwise: float) -> np.ndarray:
    """Return the values, with those that are not finite, as of a state without data, replaced."""
    return np.where(np.isfinite(values), values, otherwise)


def is_missing(values: tf.Tensor, may_be_missing: bool = True) -> tf.Tensor:
    """Return where values are missing: NaN, -1 and "". Unsigned integers and booleans never are.

    Args:
        may_be_missing: whether -1 is a missing integer.
    """
    if values.dtype == tf.string:
        return values == ""
    if values.dtype.is_floating:
        return tf.math.is_nan(values)
    if may_be_missing and values.dtype.is_integer and values.dtype.min < 0:
        return values == -1
    return tf.zeros_like(values, tf.bool)


def check_category_dtype(layer: str, dtype: str) -> None:
    """Raise a ValueError if inputs of this dtype cannot name categories."""
    check(layer, "float" not in dtype and "complex" not in dtype, "inputs", dtype, "texts or integers")


def as_texts(values: tf.Tensor, layer: str, may_be_missing: bool = True) -> tf.Tensor:
    """Return categories as texts: integers as their decimal text, a missing one as "".

    Args:
        may_be_missing: whether -1 is a missing integer.
    """
    if values.dtype == tf.string:
        return values
    check_category_dtype(layer, values.dtype.name)
    texts = tf.strings.as_string(tf.cast(values, tf.int64))
    return tf.where(is_missing(values, may_be_missing), "", texts)


def vocabulary_table(values: Sequence[str] | np.ndarray) -> tf.lookup.StaticHashTable:
    """Return a table from texts to their positions, and from other texts to -1."""
    with tf.init_scope():
        # TensorFlow refuses an empty table. "" is missing, so its entry is never used.
        keys = tf.constant([*values, ""])
        places = tf.constant([*range(len(values)), -1], tf.int64)
        return tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(keys, places), -1)


def as_arrow_texts(values: np.ndarray, may_be_missing: bool = True) -> pa.Array:
    """Return categories (n,) as `as_texts` does, as bytes: large_binary (n,)."""
    if values.dtype == object or values.dtype.kind in "SU":
        return pa.array(values).cast(pa.large_binary())
    values = values.astype(np.int8) if values.dtype.kind == "b" else values  # as `as_texts`: "0" and "1"
    texts = pa.array(values).cast(pa.large_string())
    missing = pa.array((values == -1) & may_be_missing)
    return pc.if_else(missing, pa.scalar("", pa.large_string()), texts).cast(pa.large_binary())


def known_numbers(values: np.ndarray, may_be_missing: bool = True) -> np.ndarray:
    """Return numbers as float64 of the same shape, with NaN where an integer is missing."""
    numbers = np.asarray(values)
    if numbers.dtype.kind == "i" and may_be_missing:
        return np.where(numbers == -1, np.nan, numbers)
    return numbers.astype(np.float64)


def known_labels(layer: str, label: Any, may_be_text: bool) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels that are not missing, and where they are: bool (rows,).

    Args:
        layer: name of the layer's class, for messages.
        label: array (rows,) or (rows, 1). NaN, None and "" are missing.
        may_be_text: whether the label names classes.
    """
    label = np.asarray(label)
    if label.ndim != 1 and label.shape[1:] != (1,):
        raise DataError(f"{layer}: expected one label per row, received an array of shape {label.shape}")
    label = label.reshape(-1)
    if label.dtype == object or label.dtype.kind in "SU":
        if not may_be_text:
            raise DataError(
                f"{layer}: expected a numeric label, received texts; pass target_type='multiclass', or "
                "number the classes in the preprocessing, for instance with StringLookup(num_oov_indices=0)"
            )
        texts = pa.array(label).cast(pa.large_binary()).fill_null(b"").cast(pa.large_string())
        known = pc.not_equal(texts, "").to_numpy(zero_copy_only=False)
        return texts.to_numpy(zero_copy_only=False)[known].astype(str), known
    known = ~np.isnan(label.astype(np.float64))
    return label[known], known


def is_utf8(text: bytes) -> bool:
    try:
        text.decode()
        return True
    except UnicodeDecodeError:
        return False


def in_memory(values: Any) -> np.ndarray:
    """Return an array-like as an array, texts as objects."""
    array = np.asarray(values)
    return array.astype(object) if array.dtype.kind in "SU" else array
