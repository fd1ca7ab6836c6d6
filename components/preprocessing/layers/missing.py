"""Missing values: fill them, and mark where they were."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.data.accumulators.moments import FeatureMoments
from kerasline.components.data.accumulators.most_frequent import MostFrequent
from kerasline.components.data.accumulators.quantiles import FeatureQuantiles
from kerasline.components.preprocessing.layers.base import AdaptableLayer, check, feature_count, is_missing

STRATEGIES = ("mean", "median", "most_frequent", "constant")


@keras.saving.register_keras_serializable("kerasline")
class Imputation(AdaptableLayer):
    """Replaces missing values: NaN in floats, -1 in integers, "" in texts.

    A feature is an index of the last axis, and is filled with a statistic of its own values. Texts and integers are one
    feature. Without data, the statistic is 0 or "". Booleans and unsigned integers are never missing.

    Args:
        strategy: `"mean"`, `"median"` (of an even number of values the mean of the middle two) or `"most_frequent"` (of
            equally frequent values the smallest) of the data; or `"constant"`. Texts and integers accept only the last
            two. Defaults to `"mean"`.
        fill_value: number or str. The replacement for `"constant"`. Defaults to 0 or "".
        indicator: bool. Also return where values were missing. Defaults to `False`.
        may_be_missing: bool. Whether -1 in integers means a missing value. If `False`, it is an ordinary integer.
            Defaults to `True`.

    Inputs:
        Numbers or texts of any shape.

    Outputs:
        A tensor of the same shape and dtype; floats have the layer's dtype, which is float32 unless `dtype` is passed.
        With `indicator` a pair of this tensor and a float32 tensor of the same shape: 1 where a value was missing, else
        0.

    Raises:
        ValueError: an argument is invalid, or does not fit the inputs' dtype.

    Example:

    >>> layer = kl.layers.Imputation("median")
    >>> layer.adapt([[1.0], [np.nan], [5.0]])
    >>> layer(np.array([[np.nan], [7.0]])).numpy().tolist()
    [[3.0], [7.0]]
    """

    def __init__(
        self,
        strategy: Literal["mean", "median", "most_frequent", "constant"] = "mean",
        fill_value: Any = None,
        indicator: bool = False,
        may_be_missing: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**{"dtype": "float32", **options})  # whatever the global policy, as `NumericLayer`
        check("Imputation", strategy in STRATEGIES, "strategy", strategy, " or ".join(map(repr, STRATEGIES)))
        self.strategy, self.fill_value, self.indicator = strategy, fill_value, indicator
        self.may_be_missing = bool(may_be_missing)

    def build(self, input_shape: Any) -> None:
        self._features = feature_count(input_shape)

    def call(self, values: Any) -> Any:
        values = tf.convert_to_tensor(values)
        self._check_kind(values.dtype.name)
        values = tf.cast(values, self.compute_dtype) if values.dtype.is_floating else values
        missing = is_missing(values, self.may_be_missing)
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
            return MostFrequent(self._features if self._kind == "float" else 1, self.may_be_missing)
        return FeatureMoments(self._features) if self.strategy == "mean" else FeatureQuantiles(self._features)

    def set_state(self, state: Any) -> None:
        if self.strategy == "most_frequent":
            found = state.values()
            self.fill_value = [value or 0.0 for value in found] if self._kind == "float" else found[0]
        else:
            statistics = state.mean if self.strategy == "mean" else state.at([0.5])[:, 0]
            self.fill_value = np.nan_to_num(np.broadcast_to(statistics, self._features)).tolist()

    def get_config(self) -> dict[str, Any]:
        config = {"strategy": self.strategy, "fill_value": self.fill_value, "indicator": self.indicator}
        return {**super().get_config(), **config, "may_be_missing": self.may_be_missing}

    def _check_kind(self, dtype: str) -> None:
        """Raise a ValueError if inputs of this dtype cannot be filled with this strategy."""
        self._kind = "text" if dtype == "string" else "float" if "float" in dtype else "int"
        name, received, expected = "fill_value", self.fill_value, None
        if self._kind != "float" and self.strategy in ("mean", "median"):
            name, received = "strategy", self.strategy
            expected = "'most_frequent', 'constant', or a float input"
        elif self._kind != "text" and isinstance(received, str):
            expected = "a number"
        elif self._kind == "int" and received is not None and np.any(np.mod(received, 1)):
            expected = "an integer"
        if expected is not None:
            check("Imputation", False, f"{name} for {dtype} inputs", received, expected)

    def _filling(self, dtype: tf.DType) -> tf.Tensor:
        """Return the replacement: a value, or one for each feature."""
        if self.fill_value is None:
            return tf.zeros([], dtype)  # of texts, ""
        if dtype == tf.string:
            return tf.constant(str(self.fill_value))
        with np.errstate(over="ignore"):  # a float64 that is infinite as float32
            return tf.constant(np.asarray(self.fill_value).astype(dtype.as_numpy_dtype))


@keras.saving.register_keras_serializable("kerasline")
class MissingIndicator(keras.layers.Layer):
    """Marks missing values: NaN in floats, -1 in integers, "" in texts.

    Args:
        may_be_missing: bool. Whether -1 in integers means a missing value. If `False`, it is an ordinary integer.
            Defaults to `True`.

    Inputs:
        Numbers or texts of any shape.

    Outputs:
        float32 of the same shape: 1 where a value is missing, else 0.

    Example:

    >>> kl.layers.MissingIndicator()(np.array([[1.0], [np.nan]])).numpy().tolist()
    [[0.0], [1.0]]
    """

    def __init__(self, may_be_missing: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.may_be_missing = bool(may_be_missing)

    def call(self, values: Any) -> Any:
        return tf.cast(is_missing(tf.convert_to_tensor(values), self.may_be_missing), tf.float32)

    def compute_output_spec(self, values: Any) -> keras.KerasTensor:
        return keras.KerasTensor(values.shape, "float32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "may_be_missing": self.may_be_missing}
