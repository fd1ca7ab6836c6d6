"""Missing values: filling them, and telling where they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.data.accumulators.feature_quantiles import FeatureQuantiles
from kerasline.components.data.accumulators.moments import FeatureMoments
from kerasline.components.data.accumulators.most_frequent import MostFrequent

STRATEGIES = ("mean", "median", "most_frequent", "constant")


@keras.saving.register_keras_serializable("kerasline")
class Imputation(keras.layers.Layer):
    """Fills missing values: NaN in floats, -1 in whole numbers, "" in texts.

    Gives values of the input's shape and dtype (floats of the layer's, which is float32 unless `dtype` is
    given); with `indicator` a pair of these and of a float32 tensor of the same shape, 1 where a value
    was missing. Booleans and unsigned numbers are never missing.

    A feature is a place of the last axis, and is filled with what its own values say; texts and
    whole numbers are one feature. Of no values, 0 and "" fill.

    Args:
        strategy: `mean`, `median` (of an even number the middle of two) and `most_frequent` (of equally
            frequent ones the smallest), of the values seen; or `constant`. Texts and whole numbers have
            the last two alone.
        fill_value: what `constant` fills with; 0 and "" by default.
        indicator: whether it is told where values were missing.
    """

    def __init__(
        self,
        strategy: Literal["mean", "median", "most_frequent", "constant"] = "mean",
        fill_value: float | int | str | None = None,
        indicator: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **options})  # whatever the global policy, as `NumericLayer`
        if strategy not in STRATEGIES:
            raise ValueError(f"Imputation: strategy is {strategy!r}; possible: {', '.join(STRATEGIES)}")
        self.strategy, self.fill_value, self.indicator = strategy, fill_value, indicator

    def build(self, input_shape: Sequence[int | None]) -> None:
        self._features = 1 if len(input_shape) < 2 else input_shape[-1] or 1

    def call(self, values: Any) -> Any:
        values = tf.convert_to_tensor(values)
        self._check_kind(values.dtype.name)
        values = tf.cast(values, self.compute_dtype) if values.dtype.is_floating else values
        missing = is_missing(values)
        filled = tf.where(missing, self._filling(values.dtype), values)
        return (filled, tf.cast(missing, tf.float32)) if self.indicator else filled

    def compute_output_spec(self, values: Any) -> Any:
        self._check_kind(values.dtype)
        dtype = self.compute_dtype if self._kind == "float" else values.dtype
        filled = keras.KerasTensor(values.shape, dtype)
        return (filled, keras.KerasTensor(values.shape, "float32")) if self.indicator else filled

    def new_state(self) -> FeatureMoments | FeatureQuantiles | MostFrequent | None:
        if self.strategy == "constant" or self.fill_value is not None:
            return None
        if self.strategy == "most_frequent":
            return MostFrequent(self._features if self._kind == "float" else 1)
        return FeatureMoments(self._features) if self.strategy == "mean" else FeatureQuantiles(self._features)

    def set_state(self, state: Any) -> None:
        if self.strategy == "most_frequent":
            found = state.values()
            self.fill_value = [value or 0.0 for value in found] if self._kind == "float" else found[0]
        else:
            figures = state.mean if self.strategy == "mean" else state.at([0.5])[:, 0]
            self.fill_value = np.nan_to_num(np.broadcast_to(figures, self._features)).tolist()

    def get_config(self) -> dict[str, Any]:
        config = {"strategy": self.strategy, "fill_value": self.fill_value, "indicator": self.indicator}
        return {**super().get_config(), **config}

    def _check_kind(self, dtype: str) -> None:
        """Raises where inputs of this dtype cannot be filled as asked."""
        self._kind = _kind(dtype)
        name, given, possible = "fill_value", self.fill_value, None
        if self._kind != "float" and self.strategy in ("mean", "median"):
            name, given = "strategy", self.strategy
            possible = "'most_frequent', 'constant', or a float input"
        elif self._kind != "text" and isinstance(given, str):
            possible = "a number"
        elif self._kind == "int" and given is not None and np.any(np.mod(given, 1)):
            possible = "a whole number"
        if possible is not None:
            raise ValueError(f"Imputation: {name} is {given!r}, inputs are {dtype}; possible: {possible}")

    def _filling(self, dtype: tf.DType) -> tf.Tensor:
        """What fills: a value, or one for each feature."""
        if self.fill_value is None:
            return tf.zeros([], dtype)  # of texts, ""
        if dtype == tf.string:
            return tf.constant(str(self.fill_value))
        with np.errstate(over="ignore"):  # a float64 that float32 has as infinite
            return tf.constant(np.asarray(self.fill_value).astype(dtype.as_numpy_dtype))


@keras.saving.register_keras_serializable("kerasline")
class MissingIndicator(keras.layers.Layer):
    """1 where a value is missing, else 0: float32 of the input's shape. NaN, -1 and "" are missing."""

    def call(self, values: Any) -> Any:
        return tf.cast(is_missing(tf.convert_to_tensor(values)), tf.float32)

    def compute_output_spec(self, values: Any) -> keras.KerasTensor:
        return keras.KerasTensor(values.shape, "float32")


def is_missing(values: tf.Tensor) -> tf.Tensor:
    """Where values are missing; unsigned numbers and booleans never are."""
    if values.dtype == tf.string:
        return values == ""
    if values.dtype.is_floating:
        return tf.math.is_nan(values)
    if values.dtype.is_integer and values.dtype.min < 0:
        return values == -1
    return tf.zeros_like(values, tf.bool)


def _kind(dtype: str) -> str:
    return "text" if dtype == "string" else "float" if "float" in dtype else "int"
