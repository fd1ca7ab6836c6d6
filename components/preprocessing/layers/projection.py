"""Vectors by their principal components, or whitened."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kerasline.components.data.accumulators.covariance import Covariance
from kerasline.components.preprocessing.layers.numeric import NumericLayer

# A variance is taken for 0 below this share of the largest: what rounding leaves of none.
LEAST_SHARE = 1e-12


class _Projection(NumericLayer):
    """Subtracts the mean of each feature, then multiplies with a matrix.

    Rows with a number that is not finite do not count, and become NaN.
    """

    center = True  # whether the mean is subtracted

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.check(
            len(input_shape) >= 2 and input_shape[-1] is not None,
            "the inputs' shape",
            input_shape,
            "(..., features), their number known",
        )
        outputs = self.compute_output_shape(input_shape)[-1]
        self.mean = self.add_numbers("mean", 0.0)
        self.matrix = self.add_numbers("matrix", 0.0, self._features, outputs)

    def call(self, values: Any) -> Any:
        values = self.as_floats(values)
        values = ops.where(ops.isfinite(values), values, np.nan)
        return ops.matmul(values - self.mean if self.center else values, self.matrix)

    def new_state(self) -> Covariance:
        return Covariance(self._features)


@keras.saving.register_keras_serializable("kerasline")
class PrincipalComponents(_Projection):
    """Projects onto the directions of the largest variance, as scikit-learn's PCA.

    Each direction's sign makes its largest loading positive. Of no data, or along directions without
    variance in whitened form, the output is 0. A row with a number that is not finite becomes NaN.

    Input: numbers (..., features). Output: float32 (..., components).

    Args:
        components: how many, at most as many as there are features.
        whiten: divides each component by its standard deviation.
        center: subtracts the mean before. tensorflow-transform's `pca` is used without.
    """

    def __init__(self, components: int, whiten: bool = False, center: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.check(isinstance(components, int) and components >= 1, "components", components, "1 or more")
        self.components, self.whiten, self.center = components, whiten, center

    def build(self, input_shape: Any) -> None:
        features = input_shape[-1] if len(input_shape) >= 2 else 1
        self.check(
            features is None or self.components <= features,
            "components",
            self.components,
            f"at most {features}, the number of features",
        )
        super().build(input_shape)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (*input_shape[:-1], self.components)

    def set_state(self, state: Covariance) -> None:
        variances, directions = np.linalg.eigh(state.covariance)
        variances, directions = variances[::-1][: self.components], directions[:, ::-1][:, : self.components]
        largest = np.abs(directions).argmax(axis=0)
        directions = directions * np.where(directions[largest, np.arange(self.components)] < 0, -1, 1)
        if self.whiten:
            directions = directions * _inverse_root(variances)
        self.mean.assign(state.mean)
        self.matrix.assign(directions if state.count else np.zeros_like(directions))

    def get_config(self) -> dict[str, Any]:
        config = {"components": self.components, "whiten": self.whiten, "center": self.center}
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable("kerasline")
class Whitening(_Projection):
    """Makes features uncorrelated and of variance 1, moving them as little as possible (ZCA).

    The matrix is U (S + epsilon)^(-1/2) U', of the covariance U S U' (Bell and Sejnowski, 1997; Kessy,
    Lewin and Strimmer, 2018). Of no data, the output is the input. A row with a number that is not
    finite becomes NaN.

    Input: numbers (..., features). Output: float32 of the same shape.

    Args:
        epsilon: what is added to variances; with 0, directions without variance are dropped.
    """

    def __init__(self, epsilon: float = 1e-6, **options: Any) -> None:
        super().__init__(**options)
        self.check(epsilon >= 0, "epsilon", epsilon, "0 or more")
        self.epsilon = epsilon

    def set_state(self, state: Covariance) -> None:
        variances, directions = np.linalg.eigh(state.covariance)
        matrix = directions * _inverse_root(variances.clip(min=0) + self.epsilon) @ directions.T
        self.mean.assign(state.mean)
        self.matrix.assign(matrix if state.count else np.eye(self._features))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}


def _inverse_root(variances: np.ndarray) -> np.ndarray:
    """1 / sqrt of variances; 0 of those that are 0 but for rounding."""
    real = variances > LEAST_SHARE * max(variances.max(initial=0.0), np.finfo(float).tiny)
    return np.where(real, 1 / np.sqrt(np.where(real, variances, 1)), 0)
