"""A metric of Keras for sequences with padding."""

from __future__ import annotations

from typing import Any

import keras


@keras.saving.register_keras_serializable("kerasline")
class TokenAccuracy(keras.metrics.SparseCategoricalAccuracy):
    """The proportion of tokens whose most likely class is correct, without padding.

    Keras's `accuracy` counts tokens that `ignore_class` leaves out of the loss.

    Args:
        ignore_class: int. The label of padding. Defaults to -1.
        name, dtype: see `keras.metrics.Metric`.

    Inputs:
        Class indices (rows, length), and probabilities or logits (rows, length, classes).

    Example:

    >>> metric = kl.metrics.TokenAccuracy(ignore_class=0)
    >>> metric.update_state([[1, 2, 0, 0]], np.eye(3)[[[1, 1, 0, 0]]])
    >>> float(metric.result())
    0.5
    """

    def __init__(self, ignore_class: int = -1, name: str = "token_accuracy", dtype: Any = None) -> None:
        super().__init__(name=name, dtype=dtype)
        self.ignore_class = ignore_class

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        weight = keras.ops.cast(keras.ops.not_equal(y_true, self.ignore_class), self.dtype)
        if sample_weight is not None:
            given = keras.ops.cast(sample_weight, self.dtype)
            rank = len(weight.shape)
            weight *= keras.ops.reshape(given, (*given.shape[:1], 1)) if len(given.shape) < rank else given
        return super().update_state(y_true, y_pred, sample_weight=weight)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "dtype": self.dtype, "ignore_class": self.ignore_class}
