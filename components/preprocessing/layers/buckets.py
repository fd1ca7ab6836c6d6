"""Numbers as bucket ids, for an embedding or an encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.data.accumulators.quantiles import FeatureQuantiles
from kerasline.components.preprocessing.layers.base import NumericLayer, is_missing, is_whole


@keras.saving.register_keras_serializable("kerasline")
class BucketIds(NumericLayer):
    """Maps each number to the id of its bucket. Buckets hold equal shares of the data.

    All features share the boundaries, which are quantiles of all their numbers together. A number equal to a boundary
    is in the bucket above it, as in Keras's `Discretization`. If one value fills several buckets, all but the last of
    them stay empty. Without data, all numbers are in the last bucket. Numbers are compared in float64, so that
    timestamps in seconds or microseconds keep their order.

    Args:
        bins: int, at least 2. Number of buckets.
        boundaries: list of floats in ascending order, instead of `bins`. The layer then needs no data.

    Inputs:
        Numbers of any shape.

    Outputs:
        int64 of the same shape: 0 where the number is missing (NaN, and -1 in integers), else the bucket from 1 to
        `bins`.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> layer = kl.layers.BucketIds(bins=2)
    >>> layer.adapt([1.0, 2.0, 3.0, 4.0])
    >>> layer(np.array([1.5, 3.5, np.nan])).numpy().tolist()
    [1, 2, 0]
    """

    def __init__(self, bins: int | None = None, boundaries: Sequence[float] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.check((bins is None) != (boundaries is None), "bins", bins, "either bins or boundaries")
        self.check(bins is None or is_whole(bins, 2), "bins", bins, "an integer from 2")
        self.check(boundaries is None or _ascend(boundaries), "boundaries", boundaries, "ascending numbers")
        self.bins, self.boundaries = bins, None if boundaries is None else list(map(float, boundaries))

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if self.bins is not None:
            self._bounds = self.add_weight(
                shape=(self.bins - 1,),
                initializer=keras.initializers.Constant(-np.inf),
                dtype="float64",
                trainable=False,
                name="bounds",
            )

    def compute_output_spec(self, values: Any) -> keras.KerasTensor:
        return keras.KerasTensor(super().compute_output_spec(values).shape, "int64")

    def call(self, values: Any) -> Any:
        values = tf.convert_to_tensor(values)
        # In float64: in float32 the timestamps of two minutes are one number.
        bounds = (
            tf.convert_to_tensor(self._bounds) if self.boundaries is None else tf.constant(self.boundaries, tf.float64)
        )
        flat = tf.reshape(tf.cast(values, tf.float64), [-1])
        ids = tf.reshape(tf.searchsorted(bounds, flat, side="right", out_type=tf.int64) + 1, tf.shape(values))
        return tf.where(is_missing(values), tf.zeros_like(ids), ids)

    def new_state(self) -> KnownQuantiles | None:
        return KnownQuantiles() if self.boundaries is None else None

    def set_state(self, state: KnownQuantiles) -> None:
        assert self.bins is not None, "only a layer with bins has a state"
        bounds = state.at(np.arange(1, self.bins) / self.bins)[0]
        self._bounds.assign(np.where(np.isnan(bounds), -np.inf, bounds))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bins": self.bins, "boundaries": self.boundaries}


class KnownQuantiles(FeatureQuantiles):
    """Quantiles of all numbers together, except -1 in integers, which is missing."""

    def add(self, values: np.ndarray) -> None:
        values = np.asarray(values)
        super().add(values[values != -1] if values.dtype.kind == "i" else values)


def _ascend(boundaries: Any) -> bool:
    if not isinstance(boundaries, (tuple, list, np.ndarray)):
        return False
    numbers = np.asarray(boundaries)
    if numbers.dtype.kind not in "iuf" or numbers.ndim != 1:
        return False
    return bool(len(numbers) and not np.isnan(numbers).any() and (np.diff(numbers) > 0).all())
