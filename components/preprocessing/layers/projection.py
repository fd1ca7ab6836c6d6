"""Vectors as their principal components, or whitened."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kerasline.components.data.accumulators.moments import Covariance
from kerasline.components.preprocessing.layers.base import NumericLayer, is_whole

# Treat a variance below this share of the largest as 0: it is rounding error.
LEAST_SHARE = 1e-12


class _Projection(NumericLayer):
    """Base of layers that subtract the mean of each feature and multiply by a matrix.

    Rows with a number that is not finite are ignored in adaptation, and become NaN.
    """

    center = True  # whether to subtract the mean

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.check(
            len(input_shape) >= 2 and input_shape[-1] is not None,
            "inputs",
            input_shape,
            "shape (..., features), with a known number of features",
        )
        *_, outputs = self.compute_output_shape(input_shape)
        assert outputs is not None  # checked above
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
    """Projects vectors onto the directions of largest variance, as scikit-learn's `PCA` does.

    The sign of each direction makes its largest loading positive. Without data the output is 0, and with `whiten` also
    along directions without variance. A row with a number that is not finite becomes NaN.

    Args:
        components: int, at most the number of features. Number of components to keep.
        whiten: bool. Divide each component by its standard deviation. Defaults to `False`.
        center: bool. Subtract the mean first. `False` is for results like those of tensorflow-transform's `pca`.
            Defaults to `True`.

    Inputs:
        Numbers of shape (..., features).

    Outputs:
        Floats of shape (..., components). The dtype is float32 unless `dtype` is passed.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> layer = kl.layers.PrincipalComponents(1)
    >>> layer.adapt([[-1.0, 0.0], [1.0, 0.0], [3.0, 0.0]])
    >>> layer(np.array([[2.0, 5.0]])).numpy().tolist()
    [[1.0]]
    """

    def __init__(self, components: int, whiten: bool = False, center: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.check(is_whole(components, 1), "components", components, "an integer from 1")
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
    """Transforms features to be uncorrelated with variance 1, changing them as little as possible (ZCA).

    For the covariance U S U', the matrix is U (S + epsilon)^(-1/2) U' (Bell and Sejnowski, 1997; Kessy, Lewin and
    Strimmer, 2018). Without data, the output is the input. A row with a number that is not finite becomes NaN.

    Args:
        epsilon: float, at least 0. Added to the variances. With 0, directions without variance are dropped. Defaults to
            1e-6.

    Inputs:
        Numbers of shape (..., features).

    Outputs:
        Floats of the same shape. The dtype is float32 unless `dtype` is passed.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> layer = kl.layers.Whitening(epsilon=0.0)
    >>> layer.adapt([[0.0, 0.0], [0.0, 4.0], [2.0, 0.0], [2.0, 4.0]])
    >>> print(layer(np.array([[2.0, 2.0]])).numpy().round(3))
    [[0.866 0.   ]]
    """

    def __init__(self, epsilon: float = 1e-6, **options: Any) -> None:
        super().__init__(**options)
        self.check(epsilon >= 0, "epsilon", epsilon, "a number from 0")
        self.epsilon = epsilon

    def set_state(self, state: Covariance) -> None:
        variances, directions = np.linalg.eigh(state.covariance)
        matrix = directions * _inverse_root(variances.clip(min=0) + self.epsilon) @ directions.T
        self.mean.assign(state.mean)
        self.matrix.assign(matrix if state.count else np.eye(self._features))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon}


def _inverse_root(variances: np.ndarray) -> np.ndarray:
    """Return 1 / sqrt of variances, and 0 for those that are 0 up to rounding."""
    real = variances > LEAST_SHARE * max(variances.max(initial=0.0), np.finfo(float).tiny)
    return np.where(real, 1 / np.sqrt(np.where(real, variances, 1)), 0)
