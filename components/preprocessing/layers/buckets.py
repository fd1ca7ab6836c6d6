"""Numbers by their rank, as ids for an embedding or an encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasline.components.data.accumulators.feature_quantiles import FeatureQuantiles
from kerasline.components.preprocessing.layers.missing import is_missing
from kerasline.components.preprocessing.layers.numeric import NumericLayer


@keras.saving.register_keras_serializable("kerasline")
class BucketIds(NumericLayer):
    """The bucket of each number: int64 of the input's shape; 0 where it is missing (NaN, and -1 in whole
    numbers), else 1 to `bins`.

    All features share the boundaries, which stand at equal ranks of their numbers together. A number
    that is a boundary is in the bucket above it, as in Keras's Discretization. Where a value fills
    several buckets, all but the last of them stay empty. Of no data, all numbers are in the last.

    Args:
        bins: how many buckets.
        boundaries: those between them, ascending, where they are known: such a layer needs no data.
    """

    def __init__(self, bins: int | None = None, boundaries: Sequence[float] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.check((bins is None) != (boundaries is None), "bins", bins, "a number, or else boundaries")
        self.check(bins is None or (isinstance(bins, int) and bins >= 2), "bins", bins, "2 or more")
        self.check(boundaries is None or _ascend(boundaries), "boundaries", boundaries, "ascending numbers")
        self.bins, self.boundaries = bins, None if boundaries is None else list(map(float, boundaries))

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if self.boundaries is None:
            self._bounds = self.add_numbers("bounds", -np.inf, self.bins - 1)

    def compute_output_spec(self, values: Any) -> keras.KerasTensor:
        return keras.KerasTensor(super().compute_output_spec(values).shape, "int64")

    def call(self, values: Any) -> Any:
        values = tf.convert_to_tensor(values)
        bounds = tf.cast(self._bounds if self.boundaries is None else self.boundaries, self.compute_dtype)
        flat = tf.reshape(tf.cast(values, self.compute_dtype), [-1])
        ids = tf.reshape(tf.searchsorted(bounds, flat, side="right", out_type=tf.int64) + 1, tf.shape(values))
        return tf.where(is_missing(values), tf.zeros_like(ids), ids)

    def new_state(self) -> KnownQuantiles | None:
        return KnownQuantiles() if self.boundaries is None else None

    def set_state(self, state: KnownQuantiles) -> None:
        bounds = state.at(np.arange(1, self.bins) / self.bins)[0]
        self._bounds.assign(np.where(np.isnan(bounds), -np.inf, bounds))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bins": self.bins, "boundaries": self.boundaries}


class KnownQuantiles(FeatureQuantiles):
    """Quantiles of all numbers together, without -1 in whole numbers, which is missing."""

    def add(self, values: np.ndarray) -> None:
        values = np.asarray(values)
        super().add(values[values != -1] if values.dtype.kind == "i" else values)


def _ascend(boundaries: Any) -> bool:
    numbers = isinstance(boundaries, (tuple, list, np.ndarray)) and np.asarray(boundaries)
    if numbers is False or numbers.dtype.kind not in "iuf" or numbers.ndim != 1:
        return False
    return bool(len(numbers) and not np.isnan(numbers).any() and (np.diff(numbers) > 0).all())
