"""Numbers as bucket ids, for an embedding or an encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.data.accumulators.quantiles import FeatureQuantiles
from kerasline.components.preprocessing.layers.base import NumericLayer, is_missing, is_whole, known_numbers


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
        sample_weight: str. The output of the preprocessing, or else the raw column, with the weight of each row:
            buckets then hold equal shares of the weight, and boundaries are numbers of the data. Defaults to None,
            equal weights.
        may_be_missing: bool. Whether -1 in integers means a missing value. If `False`, it is an ordinary integer.
            Defaults to `True`.

    Inputs:
        Numbers of any shape.

    Outputs:
        int64 of the same shape: 0 where the number is missing, else the bucket from 1 to `bins`.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> layer = kl.layers.BucketIds(bins=2)
    >>> layer.adapt([1.0, 2.0, 3.0, 4.0])
    >>> layer(np.array([1.5, 3.5, np.nan])).numpy().tolist()
    [1, 2, 0]
    """

    def __init__(
        self,
        bins: int | None = None,
        boundaries: Sequence[float] | None = None,
        sample_weight: str | None = None,
        may_be_missing: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**{"autocast": False, **options})  # in float32, near timestamps are one number
        self.check((bins is None) != (boundaries is None), "bins", bins, "either bins or boundaries")
        self.check(bins is None or is_whole(bins, 2), "bins", bins, "an integer from 2")
        self.check(boundaries is None or _ascend(boundaries), "boundaries", boundaries, "ascending numbers")
        self.bins, self.boundaries = bins, None if boundaries is None else list(map(float, boundaries))
        self.sample_weight, self.may_be_missing = sample_weight, bool(may_be_missing)

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
        bounds = (
            tf.convert_to_tensor(self._bounds) if self.boundaries is None else tf.constant(self.boundaries, tf.float64)
        )
        flat = tf.reshape(tf.cast(values, tf.float64), [-1])
        ids = tf.reshape(tf.searchsorted(bounds, flat, side="right", out_type=tf.int64) + 1, tf.shape(values))
        return tf.where(is_missing(values, self.may_be_missing), tf.zeros_like(ids), ids)

    def new_state(self) -> KnownQuantiles | None:
        if self.boundaries is not None:
            return None
        return KnownQuantiles(self.may_be_missing, self.sample_weight is not None)

    def set_state(self, state: KnownQuantiles) -> None:
        assert self.bins is not None, "only a layer with bins has a state"
        bounds = state.at(np.arange(1, self.bins) / self.bins)[0]
        self._bounds.assign(np.where(np.isnan(bounds), -np.inf, bounds))

    def get_config(self) -> dict[str, Any]:
        config = {"bins": self.bins, "boundaries": self.boundaries, "sample_weight": self.sample_weight}
        return {**super().get_config(), **config, "may_be_missing": self.may_be_missing}


class KnownQuantiles(FeatureQuantiles):
    """Quantiles of all numbers together, except missing ones."""

    def __init__(self, may_be_missing: bool, weighted: bool) -> None:
        super().__init__(weighted=weighted)
        self._may_be_missing = may_be_missing

    def add(self, values: np.ndarray, sample_weight: np.ndarray | None = None) -> None:
        super().add(known_numbers(values, self._may_be_missing), sample_weight)


def _ascend(boundaries: Any) -> bool:
    if not isinstance(boundaries, (tuple, list, np.ndarray)):
        return False
    numbers = np.asarray(boundaries)
    if numbers.dtype.kind not in "iuf" or numbers.ndim != 1:
        return False
    return bool(len(numbers) and not np.isnan(numbers).any() and (np.diff(numbers) > 0).all())
