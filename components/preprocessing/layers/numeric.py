"""What the layers for numbers share."""

from __future__ import annotations

import numbers
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np


class NumericLayer(keras.layers.Layer):
    """Takes numbers of any shape, whole ones too, and gives floats of the layer's dtype.

    That is float32 unless `dtype` is given, whatever Keras's global policy: in 16 bits, amounts beyond
    65,504 would be infinite before they are scaled.

    A feature is a place of the last axis; inputs of shape (rows,), or of an unknown last axis, are one
    feature. Where numbers may be missing, let the input be of floats: NaN is a missing number, and -1,
    as which whole-numbered inputs have them, is here a number like others.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"dtype": "float32", **options})

    def build(self, input_shape: Sequence[int | None]) -> None:
        self._features = 1 if len(input_shape) < 2 else input_shape[-1] or 1

    def compute_output_shape(self, input_shape: Sequence[int | None]) -> tuple[int | None, ...]:
        return tuple(input_shape)

    def compute_output_spec(self, values: Any) -> keras.KerasTensor:
        if values.dtype == "string":
            raise ValueError(f"{type(self).__name__}: inputs are string; possible: numbers")
        return keras.KerasTensor(self.compute_output_shape(values.shape), self.compute_dtype)

    def add_numbers(self, name: str, start: float, *shape: int) -> Any:
        """A weight that holds state: floats (*shape), by default one a feature."""
        return self.add_weight(
            shape=shape or (self._features,),
            initializer=keras.initializers.Constant(start),
            dtype=self.variable_dtype,
            trainable=False,
            name=name,
        )

    def as_floats(self, values: Any) -> Any:
        return keras.ops.cast(values, self.compute_dtype)

    def check(self, holds: bool, name: str, given: Any, possible: str) -> None:
        """Raises a ValueError about an argument of the layer's."""
        if not holds:
            raise ValueError(f"{type(self).__name__}: {name} is {given!r}; possible: {possible}")


def rise_within(pair: Any, lowest: float, highest: float) -> bool:
    """Whether this is two numbers, the lower first, from `lowest` to `highest`."""
    return (
        isinstance(pair, (tuple, list))
        and len(pair) == 2
        and all(isinstance(one, numbers.Real) for one in pair)
        and lowest <= pair[0] < pair[1] <= highest
    )


def known_or(values: np.ndarray, otherwise: float) -> np.ndarray:
    """The values, and another number where one is not finite: where a state saw nothing."""
    return np.where(np.isfinite(values), values, otherwise)
