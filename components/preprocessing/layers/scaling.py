"""Numbers on other scales. NaN stays NaN in all of these: filling it is `Imputation`'s work."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerasline.components.data.accumulators.extremes import Extremes
from kerasline.components.data.accumulators.feature_quantiles import FeatureQuantiles
from kerasline.components.preprocessing.layers.numeric import NumericLayer, known_or, rise_within

# TensorFlow's kernels take smaller numbers for 0, and must not divide by them.
LEAST, MOST = np.finfo(np.float32).tiny, np.finfo(np.float32).max


@keras.saving.register_keras_serializable("kerasline")
class MinMaxScaling(NumericLayer):
    """Moves each feature's smallest number to the range's lower end, and the largest to its upper.

    A feature of one value, or of none, goes to the lower end from there on, in steps of its own
    size, as in scikit-learn's MinMaxScaler.

    Args:
        feature_range: lower and upper end.
        clip: whether numbers beyond those seen are cut off at the ends.
    """

    def __init__(self, feature_range: tuple[float, float] = (0.0, 1.0), clip: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.check(
            rise_within(feature_range, -MOST, MOST),
            "feature_range",
            feature_range,
            "two numbers, the lower first",
        )
        self.feature_range, self.clip = tuple(feature_range), clip

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.lowest, self.span = self.add_numbers("lowest", 0.0), self.add_numbers("span", 1.0)

    def call(self, values: Any) -> Any:
        low, high = self.feature_range
        scaled = (self.as_floats(values) - self.lowest) / self.span * (high - low) + low
        return ops.clip(scaled, low, high) if self.clip else scaled

    def new_state(self) -> Extremes:
        return Extremes(self._features)

    def set_state(self, state: Extremes) -> None:
        span = state.maximum - state.minimum
        self.lowest.assign(known_or(state.minimum, 0.0))
        self.span.assign(np.where(np.isfinite(span) & (span >= LEAST), span, 1.0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "feature_range": list(self.feature_range), "clip": self.clip}


@keras.saving.register_keras_serializable("kerasline")
class RobustScaling(NumericLayer):
    """Subtracts each feature's median and divides by the range between two of its quantiles.

    As scikit-learn's RobustScaler: outliers move neither. Where the range is 0, it is taken as 1.

    Args:
        quantile_range: the two quantiles in percent.
    """

    def __init__(self, quantile_range: tuple[float, float] = (25.0, 75.0), **options: Any) -> None:
        super().__init__(**options)
        self.check(
            rise_within(quantile_range, 0, 100),
            "quantile_range",
            quantile_range,
            "two numbers from 0 to 100, the lower first",
        )
        self.quantile_range = tuple(quantile_range)

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.median, self.range = self.add_numbers("median", 0.0), self.add_numbers("range", 1.0)

    def call(self, values: Any) -> Any:
        return (self.as_floats(values) - self.median) / self.range

    def new_state(self) -> FeatureQuantiles:
        return FeatureQuantiles(self._features)

    def set_state(self, state: FeatureQuantiles) -> None:
        low, high = (share / 100 for share in self.quantile_range)
        lower, median, upper = state.at([low, 0.5, high]).T
        self.median.assign(known_or(median, 0.0))
        self.range.assign(np.where(np.isfinite(upper - lower) & (upper - lower >= LEAST), upper - lower, 1.0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "quantile_range": list(self.quantile_range)}


@keras.saving.register_keras_serializable("kerasline")
class SignedLog1p(NumericLayer):
    """sign(x) log(1 + |x|): the logarithm of amounts, for negative ones too. Needs no data."""

    def call(self, values: Any) -> Any:
        values = self.as_floats(values)
        return ops.sign(values) * ops.log1p(ops.abs(values))


@keras.saving.register_keras_serializable("kerasline")
class QuantileClipping(NumericLayer):
    """Cuts each feature off at two of its quantiles (winsorising). Of no data, nothing is cut off.

    Args:
        lower, upper: shares, such as 0.01 and 0.99.
    """

    def __init__(self, lower: float = 0.01, upper: float = 0.99, **options: Any) -> None:
        super().__init__(**options)
        self.check(rise_within((lower, upper), 0, 1), "lower, upper", (lower, upper), "two shares from 0 to 1")
        self.lower, self.upper = lower, upper

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.lowest, self.highest = self.add_numbers("lowest", -np.inf), self.add_numbers("highest", np.inf)

    def call(self, values: Any) -> Any:
        values = self.as_floats(values)
        values = ops.where(values < self.lowest, self.lowest, values)  # NaN is less than nothing
        return ops.where(values > self.highest, self.highest, values)

    def new_state(self) -> FeatureQuantiles:
        return FeatureQuantiles(self._features)

    def set_state(self, state: FeatureQuantiles) -> None:
        lowest, highest = state.at([self.lower, self.upper]).T
        self.lowest.assign(np.where(np.isnan(lowest), -np.inf, lowest))
        self.highest.assign(np.where(np.isnan(highest), np.inf, highest))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "lower": self.lower, "upper": self.upper}


@keras.saving.register_keras_serializable("kerasline")
class QuantileTransform(NumericLayer):
    """Gives each feature a uniform or a normal distribution, by the ranks of its numbers.

    As scikit-learn's QuantileTransformer: between quantiles by linear interpolation, a number that
    several quantiles share at the middle of their ranks, beyond the extremes the rank 0 or 1, and for
    the normal distribution ranks no closer to 0 and 1 than 1e-7. Of no data, every number has rank 1/2.

    Args:
        quantiles: how many are kept, the extremes among them.
        output: `uniform`, from 0 to 1, or `normal`, of mean 0 and variance 1.
    """

    def __init__(self, quantiles: int = 1000, output: Literal["uniform", "normal"] = "uniform", **options: Any) -> None:
        super().__init__(**options)
        self.check(isinstance(quantiles, int) and quantiles >= 2, "quantiles", quantiles, "2 or more")
        self.check(output in ("uniform", "normal"), "output", output, "'uniform' or 'normal'")
        self.quantiles, self.output_distribution = quantiles, output

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.references = self.add_numbers("references", np.nan, self._features, self.quantiles)

    def call(self, values: Any) -> Any:
        values = self.as_floats(values)
        shape = tf.shape(values)
        columns = tf.transpose(tf.reshape(values, [-1, self._features]))
        ranks = tf.reshape(tf.transpose(self._ranks(columns)), shape)
        ranks = tf.ensure_shape(tf.where(tf.math.is_nan(values), values, ranks), values.shape)
        if self.output_distribution == "uniform":
            return ranks
        least = tf.constant(1e-7, ranks.dtype)
        # float32 has 1 - 1e-7 only roughly: the upper half is the lower one mirrored.
        upper = ranks > 0.5
        tail = tf.maximum(tf.where(upper, 1 - ranks, ranks), least)
        return tf.where(upper, -tf.math.ndtri(tail), tf.math.ndtri(tail))

    def _ranks(self, columns: Any) -> Any:
        """The ranks of numbers (features, n), from 0 to 1."""
        references, last = tf.cast(self.references, columns.dtype), self.quantiles - 1
        first = tf.searchsorted(references, columns, side="left")  # quantiles below the number
        up_to = tf.searchsorted(references, columns, side="right")  # and those that it equals
        low, high = tf.clip_by_value(up_to - 1, 0, last), tf.clip_by_value(up_to, 0, last)
        below, above = (tf.gather(references, place, batch_dims=1) for place in (low, high))
        share = tf.math.divide_no_nan(columns - below, above - below)
        # Between an infinite quantile and a finite one, a number has the rank of the finite one.
        share = tf.where(tf.math.is_inf(below), tf.ones_like(share), share)
        # Times the inverse, as TensorFlow makes it of a division in a graph, but not outside.
        between = (tf.cast(low, columns.dtype) + tf.clip_by_value(share, 0, 1)) * (1 / last)
        shared = tf.cast(first + up_to - 1, columns.dtype) * (0.5 / last)
        ranks = tf.where(up_to - first > 1, shared, between)
        ranks = tf.where(columns >= references[:, -1:], tf.ones_like(ranks), ranks)
        ranks = tf.where(columns <= references[:, :1], tf.zeros_like(ranks), ranks)
        return tf.where(tf.math.is_nan(references[:, :1]), tf.constant(0.5, ranks.dtype), ranks)

    def new_state(self) -> FeatureQuantiles:
        return FeatureQuantiles(self._features)

    def set_state(self, state: FeatureQuantiles) -> None:
        self.references.assign(state.at(np.linspace(0, 1, self.quantiles)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "quantiles": self.quantiles, "output": self.output_distribution}
