"""Losses of sequences of varying length."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.keras_compat import mask_of, set_mask

# Keeps logarithms of probabilities finite.
EPSILON = 1e-7


@keras.saving.register_keras_serializable("kerasline")
class Masked(keras.losses.Loss):
    """Leaves the padding of labels out of another loss.

    The loss of a batch is the mean over the steps of its rows whose label is not padding. A step that has several
    numbers, such as a frame, is padding if all of them are. A mask of the prediction leaves out further steps.

    Args:
        loss: a loss of Keras with a value for each step: a name, such as `"mse"`, or an object.
        padding: number. The label of padding besides NaN, such as -1 for lists of integers. Defaults to None.
        reduction: see `keras.losses.Loss`. Defaults to `"sum_over_batch_size"`.
        name, dtype: see `keras.losses.Loss`.

    Raises:
        ValueError: the loss is unknown.

    Example:

    >>> loss = kl.losses.Masked("mae")
    >>> label = np.array([[[1.0], [2.0]], [[3.0], [np.nan]]])
    >>> float(loss(label, np.zeros((2, 2, 1))))
    2.0
    """

    def __init__(
        self,
        loss: Any,
        padding: float | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "masked",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        self._given, self.padding = keras.losses.get(loss), padding
        self.inner = unreduced_loss(self._given)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        counts = ~self.is_padding(y_true)
        values = self.inner.call(tf.where(counts, y_true, tf.zeros_like(y_true)), y_pred)
        counts = tf.reduce_any(counts, axis=list(range(values.shape.rank, counts.shape.rank)))
        values = tf.where(counts, values, tf.zeros_like(values))
        set_mask(values, counts)
        return values

    def is_padding(self, label: Any) -> Any:
        """Return which numbers of a label, an array or tensor, are padding: booleans of the same shape."""
        is_nan = label != label
        return is_nan if self.padding is None else is_nan | (label == self.padding)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "loss": keras.losses.serialize(self._given), "padding": self.padding}


@keras.saving.register_keras_serializable("kerasline")
class CTC(keras.losses.Loss):
    """Connectionist temporal classification of rows of any length (Graves et al., ICML 2006).

    A label ends before its first padding: 0, or less. A prediction has as many steps as its mask, which
    `kerasline.layers.LengthMask` sets. Without a mask all steps count, as they always do in `keras.losses.CTC`. Class 0
    is the blank.

    Args:
        reduction, name, dtype: see `keras.losses.Loss`.

    Inputs:
        The labels, classes from 1, (rows, length), and logits, (rows, steps, classes).

    Example:

    >>> logits = np.zeros((1, 4, 3), "float32")
    >>> round(float(kl.losses.CTC()(np.array([[1, 2, 0]]), logits)), 3)  # 15 of 81 paths spell it
    1.686
    """

    def __init__(
        self, reduction: str | None = "sum_over_batch_size", name: str | None = "ctc", dtype: Any = None
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        # Keras would apply the mask of steps to the losses of rows.
        return super().__call__(y_true, _blank_where_masked(y_pred), sample_weight)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_pred = _blank_where_masked(y_pred)
        labels = tf.cast(tf.maximum(y_true, 0), tf.int32)
        return tf.nn.ctc_loss(
            labels=labels,
            logits=y_pred,
            label_length=tf.reduce_sum(tf.math.cumprod(tf.cast(labels > 0, tf.int32), axis=1), axis=1),
            logit_length=tf.fill([tf.shape(y_pred)[0]], tf.shape(y_pred)[1]),
            blank_index=0,
            logits_time_major=False,
        )


@keras.saving.register_keras_serializable("kerasline")
class SmoothedCrossentropy(keras.losses.SparseCategoricalCrossentropy):
    """Sparse categorical crossentropy with label smoothing, which Keras has for one-hot labels only.

    The target is the label with the probability 1 - smoothing, plus smoothing spread evenly over all classes (Szegedy
    et al., CVPR 2016).

    Args:
        smoothing: float in [0, 1). Defaults to 0.1.
        from_logits, ignore_class, reduction, name, dtype: see `keras.losses.SparseCategoricalCrossentropy`.
            `from_logits` defaults to `True`.

    Raises:
        ValueError: the smoothing is invalid.

    Example:

    >>> loss = kl.losses.SmoothedCrossentropy(0.2)
    >>> round(float(loss(np.array([1]), np.array([[0.0, 2.0]]))), 4)
    0.3269
    """

    def __init__(
        self,
        smoothing: float = 0.1,
        from_logits: bool = True,
        ignore_class: int | None = None,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "smoothed_crossentropy",
        dtype: Any = None,
    ) -> None:
        super().__init__(from_logits, ignore_class, reduction, name=name, dtype=dtype)
        if not 0 <= smoothing < 1:
            raise ValueError(f"SmoothedCrossentropy: smoothing: expected a number in [0, 1), received {smoothing}")
        self.smoothing = smoothing

    def call(self, y_true: Any, y_pred: Any) -> Any:
        label, y_pred = tf.convert_to_tensor(y_true), tf.convert_to_tensor(y_pred)
        counts = None if self.ignore_class is None else label != tf.cast(self.ignore_class, label.dtype)
        if counts is not None:  # Keras would multiply all predictions by the mask
            label = tf.where(counts, label, tf.zeros_like(label))
        values = keras.losses.sparse_categorical_crossentropy(label, y_pred, from_logits=self.from_logits)
        # Logits differ from logarithms of probabilities by a number per step, which the difference below does not have.
        logarithms = y_pred if self.from_logits else tf.math.log(y_pred + EPSILON)
        index = tf.reshape(tf.cast(label, tf.int32), tf.shape(values))
        of_label = tf.gather(logarithms, index, axis=-1, batch_dims=values.shape.rank)
        smoothed = values + self.smoothing * (of_label - tf.reduce_mean(logarithms, axis=-1))
        if counts is None:
            return smoothed
        counts = tf.reshape(counts, tf.shape(values))
        smoothed = tf.where(counts, smoothed, tf.zeros_like(smoothed))
        set_mask(smoothed, counts)
        return smoothed

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "smoothing": self.smoothing}


def _blank_where_masked(logits: Any) -> Any:
    """Return logits without a mask, certain of the blank where it was False: such steps change no loss."""
    mask = mask_of(logits)
    if mask is None:
        return logits
    logits = tf.convert_to_tensor(logits)
    certain = tf.one_hot(0, logits.shape[-1], on_value=0.0, off_value=-1e4, dtype=logits.dtype)
    return tf.where(tf.cast(mask, tf.bool)[..., tf.newaxis], logits, certain)


def unreduced_loss(identifier: Any) -> keras.losses.Loss:
    """Return the loss without reduction over the batch."""
    loss = keras.losses.get(identifier)
    if not isinstance(loss, keras.losses.Loss):

        class OfFunction(keras.losses.Loss):
            fn = staticmethod(loss)

            def call(self, y_true: Any, y_pred: Any) -> Any:
                if len(y_true.shape) == len(y_pred.shape) - 1 and y_pred.shape[-1] == 1:
                    y_true = keras.ops.expand_dims(y_true, -1)
                return self.fn(y_true, y_pred)

        loss = OfFunction(name=getattr(loss, "__name__", "loss"))
    loss.reduction = None
    return loss
