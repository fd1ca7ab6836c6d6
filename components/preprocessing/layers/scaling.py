"""Numbers on other scales. NaN stays NaN in all of these layers; `Imputation` fills it."""

from __future__ import annotations

from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerasline.components.data.accumulators.moments import Extremes
from kerasline.components.data.accumulators.quantiles import FeatureQuantiles
from kerasline.components.preprocessing.layers.base import NumericLayer, finite_or, increase_within, is_whole

# TensorFlow's kernels flush smaller numbers to 0, so they must not be divisors.
LEAST, MOST = np.finfo(np.float32).tiny, np.finfo(np.float32).max


@keras.saving.register_keras_serializable("kerasline")
class MinMaxScaling(NumericLayer):
    """Scales each feature linearly, so that its minimum and maximum become the ends of a range.

    A feature with a single value, or without data, is shifted so that the value becomes the lower end, but not scaled,
    as in scikit-learn's `MinMaxScaler`.

    Args:
        feature_range: tuple of two numbers. Lower and upper end. Defaults to `(0.0, 1.0)`.
        clip: bool. Clip numbers outside of the adapted data to the range. Defaults to `False`.

    Inputs:
        Numbers of any shape. A feature is an index of the last axis.

    Outputs:
        Floats of the same shape. The dtype is float32 unless `dtype` is passed.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> layer = kl.layers.MinMaxScaling()
    >>> layer.adapt([[2.0], [6.0]])
    >>> layer(np.array([[3.0], [8.0]])).numpy().tolist()
    [[0.25], [1.5]]
    """

    def __init__(self, feature_range: tuple[float, float] = (0.0, 1.0), clip: bool = False, **options: Any) -> None:
        super().__init__(**options)
        self.check(
            increase_within(feature_range, -float(MOST), float(MOST)),
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
        self.lowest.assign(finite_or(state.minimum, 0.0))
        self.span.assign(np.where(np.isfinite(span) & (span >= LEAST), span, 1.0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "feature_range": list(self.feature_range), "clip": self.clip}


@keras.saving.register_keras_serializable("kerasline")
class RobustScaling(NumericLayer):
    """Subtracts each feature's median and divides by the distance between two of its quantiles.

    Outliers affect neither, as in scikit-learn's `RobustScaler`. A distance of 0 counts as 1.

    Args:
        quantile_range: tuple of two percentages. Defaults to `(25.0, 75.0)`.

    Inputs:
        Numbers of any shape. A feature is an index of the last axis.

    Outputs:
        Floats of the same shape. The dtype is float32 unless `dtype` is passed.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> layer = kl.layers.RobustScaling()
    >>> layer.adapt([[1.0], [2.0], [3.0], [4.0], [1000.0]])
    >>> layer(np.array([[3.0], [5.0]])).numpy().tolist()
    [[0.0], [1.0]]
    """

    def __init__(self, quantile_range: tuple[float, float] = (25.0, 75.0), **options: Any) -> None:
        super().__init__(**options)
        self.check(
            increase_within(quantile_range, 0, 100),
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
        self.median.assign(finite_or(median, 0.0))
        self.range.assign(np.where(np.isfinite(upper - lower) & (upper - lower >= LEAST), upper - lower, 1.0))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "quantile_range": list(self.quantile_range)}


@keras.saving.register_keras_serializable("kerasline")
class SignedLog1p(NumericLayer):
    """Computes sign(x) log(1 + |x|), a logarithm for amounts that may be negative. Needs no data.

    Inputs:
        Numbers of any shape.

    Outputs:
        Floats of the same shape. The dtype is float32 unless `dtype` is passed.

    Example:

    >>> kl.layers.SignedLog1p()(np.array([0.0, np.e - 1, 1 - np.e])).numpy().tolist()
    [0.0, 1.0, -1.0]
    """

    def call(self, values: Any) -> Any:
        values = self.as_floats(values)
        return ops.sign(values) * ops.log1p(ops.abs(values))


@keras.saving.register_keras_serializable("kerasline")
class QuantileClipping(NumericLayer):
    """Clips each feature to the range between two of its quantiles (winsorising). Without data, nothing is clipped.

    Args:
        lower: float from 0 to 1. The lower quantile. Defaults to 0.01.
        upper: float from 0 to 1. The upper quantile. Defaults to 0.99.

    Inputs:
        Numbers of any shape. A feature is an index of the last axis.

    Outputs:
        Floats of the same shape. The dtype is float32 unless `dtype` is passed.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> layer = kl.layers.QuantileClipping(0.25, 0.75)
    >>> layer.adapt([[1.0], [2.0], [3.0], [4.0], [1000.0]])
    >>> layer(np.array([[-5.0], [3.0], [900.0]])).numpy().tolist()
    [[2.0], [3.0], [4.0]]
    """

    def __init__(self, lower: float = 0.01, upper: float = 0.99, **options: Any) -> None:
        super().__init__(**options)
        self.check(
            increase_within((lower, upper), 0, 1),
            "lower, upper",
            (lower, upper),
            "two quantiles from 0 to 1, the lower first",
        )
        self.lower, self.upper = lower, upper

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.lowest, self.highest = self.add_numbers("lowest", -np.inf), self.add_numbers("highest", np.inf)

    def call(self, values: Any) -> Any:
        values = self.as_floats(values)
        values = ops.where(values < self.lowest, self.lowest, values)  # comparisons with NaN are false
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
    """Transforms each feature to a uniform or normal distribution, by the ranks of its numbers.

    It computes what scikit-learn's `QuantileTransformer` does. Ranks between two quantiles are interpolated linearly. A
    number that several quantiles share has the mean of their ranks. Numbers beyond the extremes have rank 0 or 1. For
    the normal distribution, ranks are clipped to 1e-7 from 0 and 1. Without data, every number has rank 1/2.

    Args:
        quantiles: int, at least 2. Number of quantiles to keep, including the extremes. Defaults to 1000.
        output: `"uniform"`, from 0 to 1, or `"normal"`, with mean 0 and variance 1. Defaults to `"uniform"`.
        sample_weight: str. The output of the preprocessing, or else the raw column, with the weight of each row: ranks
            are then shares of the weight, and quantiles numbers of the data. Defaults to None, equal weights.

    Inputs:
        Numbers of any shape. A feature is an index of the last axis.

    Outputs:
        Floats of the same shape. The dtype is float32 unless `dtype` is passed.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> layer = kl.layers.QuantileTransform(quantiles=3)
    >>> layer.adapt([[0.0], [10.0], [1000.0]])
    >>> layer(np.array([[5.0], [10.0], [505.0]])).numpy().tolist()
    [[0.25], [0.5], [0.75]]
    """

    def __init__(
        self,
        quantiles: int = 1000,
        output: Literal["uniform", "normal"] = "uniform",
        sample_weight: str | None = None,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.check(is_whole(quantiles, 2), "quantiles", quantiles, "an integer from 2")
        self.check(output in ("uniform", "normal"), "output", output, "'uniform' or 'normal'")
        self.quantiles, self.output_distribution, self.sample_weight = quantiles, output, sample_weight

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
        # float32 cannot represent 1 - 1e-7 well, so the upper half mirrors the lower one.
        upper = ranks > 0.5
        tail = tf.maximum(tf.where(upper, 1 - ranks, ranks), least)
        return tf.where(upper, -tf.math.ndtri(tail), tf.math.ndtri(tail))

    def _ranks(self, columns: Any) -> Any:
        """Return the ranks of numbers (features, n), from 0 to 1."""
        references, last = tf.cast(self.references, columns.dtype), self.quantiles - 1
        first = tf.searchsorted(references, columns, side="left")  # number of quantiles below
        up_to = tf.searchsorted(references, columns, side="right")  # number of quantiles below or equal
        low, high = tf.clip_by_value(up_to - 1, 0, last), tf.clip_by_value(up_to, 0, last)
        below, above = (tf.gather(references, place, batch_dims=1) for place in (low, high))
        share = tf.math.divide_no_nan(columns - below, above - below)
        # A number between an infinite quantile and a finite one has the rank of the finite one.
        share = tf.where(tf.math.is_inf(below), tf.ones_like(share), share)
        # Multiply by the inverse: TensorFlow turns a division into that in a graph, but not eagerly.
        between = (tf.cast(low, columns.dtype) + tf.clip_by_value(share, 0, 1)) * (1 / last)
        shared = tf.cast(first + up_to - 1, columns.dtype) * (0.5 / last)
        ranks = tf.where(up_to - first > 1, shared, between)
        ranks = tf.where(columns >= references[:, -1:], tf.ones_like(ranks), ranks)
        ranks = tf.where(columns <= references[:, :1], tf.zeros_like(ranks), ranks)
        return tf.where(tf.math.is_nan(references[:, :1]), tf.constant(0.5, ranks.dtype), ranks)

    def new_state(self) -> FeatureQuantiles:
        return FeatureQuantiles(self._features, self.sample_weight is not None)

    def set_state(self, state: FeatureQuantiles) -> None:
        self.references.assign(state.at(np.linspace(0, 1, self.quantiles)))

    def get_config(self) -> dict[str, Any]:
        config = {"quantiles": self.quantiles, "output": self.output_distribution}
        return {**super().get_config(), **config, "sample_weight": self.sample_weight}
