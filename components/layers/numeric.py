"""What the layers for numbers share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


class NumericLayer(keras.layers.Layer):
    """Takes numbers of any shape, whole ones too, and gives floats of the layer's dtype (float32).

    A feature is a place of the last axis; inputs of shape (rows,), or of an unknown last axis, are one
    feature. Where numbers may be missing, let the input be of floats: NaN is a missing number, and -1,
    as which whole-numbered inputs have them, is here a number like others.
    """

    def build(self, input_shape: Sequence[int | None]) -> None:
        self._features = 1 if len(input_shape) < 2 else input_shape[-1] or 1

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def compute_output_spec(self, values: Any) -> keras.KerasTensor:
        if values.dtype == "string":
            raise ValueError(f"{type(self).__name__}: inputs are string; possible: numbers")
        return keras.KerasTensor(self.compute_output_shape(values.shape), self.compute_dtype)

    def add_numbers(self, name: str, start: float, *shape: int) -> Any:
        """A weight that holds state: float32 (*shape), by default one a feature."""
        return self.add_weight(
            shape=shape or (self._features,), initializer=keras.initializers.Constant(start),
            dtype="float32", trainable=False, name=name,
        )  # fmt: skip

    def as_floats(self, values: Any) -> Any:
        return keras.ops.cast(values, self.compute_dtype)

    def check(self, holds: bool, name: str, given: Any, possible: str) -> None:
        """Raises a ValueError about an argument of the layer's."""
        if not holds:
            raise ValueError(f"{type(self).__name__}: {name} is {given!r}; possible: {possible}")


def known_or(values: np.ndarray, otherwise: float) -> np.ndarray:
    """The values, and another number where one is not finite: where a state saw nothing."""
    return np.where(np.isfinite(values), values, otherwise)
