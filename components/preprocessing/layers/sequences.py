"""Lengths and masks of rows that vary in length."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from kerasline.components.core.keras_compat import set_mask
from kerasline.components.preprocessing.layers.base import check, is_missing, is_whole


@keras.saving.register_keras_serializable("kerasline")
class Lengths(keras.layers.Layer):
    """Counts the steps of each row, without those at its end that are padding.

    A step that has several numbers, such as a frame, is padding if all of them are.

    Args:
        padding: number or text. The value of padding besides missing values (NaN, -1 and ""), such as 0 for the word
            indices of `TextVectorization`. Defaults to None.

    Inputs:
        Numbers or texts, (rows, steps, ...).

    Outputs:
        int32 (rows,).

    Raises:
        ValueError: the inputs have no steps.

    Example:

    >>> kl.layers.Lengths(padding=0)(np.array([[7, 8, 9], [7, 0, 0]])).numpy().tolist()
    [3, 1]
    """

    def __init__(self, padding: Any = None, **options: Any) -> None:
        super().__init__(**{"dtype": "int32", **options})
        self.autocast = False
        self.padding = padding

    def call(self, values: Any) -> tf.Tensor:
        values = tf.convert_to_tensor(values)
        is_padding = is_missing(values)
        if self.padding is not None:
            is_padding |= values == tf.constant(self.padding, values.dtype)
        is_step = ~tf.reduce_all(is_padding, axis=list(range(2, values.shape.rank)))
        numbers = tf.range(1, tf.shape(values)[1] + 1)
        return tf.maximum(tf.reduce_max(tf.where(is_step, numbers, 0), axis=1), 0)  # of no steps, the least integer

    def compute_output_spec(self, values: Any) -> keras.KerasTensor:
        check("Lengths", len(values.shape) > 1, "inputs", tuple(values.shape), "rows of steps, (rows, steps, ...)")
        return keras.KerasTensor((values.shape[0],), "int32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable("kerasline")
class LengthMask(keras.layers.Layer):
    """Replaces the steps beyond each row's length by zeros, and masks them.

    The layers, losses and metrics behind it that support Keras's masks leave these steps out.

    Args:
        stride: int. The number of steps that the lengths count for each step of the inputs, as behind strided
            convolutions: a row then has ceil(length / stride) steps. Defaults to 1.

    Inputs:
        A list of two: numbers, (rows, steps, ...), and their lengths, integers (rows,) or (rows, 1).

    Outputs:
        Numbers of the same shape and dtype.

    Raises:
        ValueError: an argument or the inputs are invalid.

    Example:

    >>> kl.layers.LengthMask()([np.ones((2, 3)), np.array([3, 1])]).numpy().tolist()
    [[1.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
    """

    def __init__(self, stride: int = 1, **options: Any) -> None:
        super().__init__(**options)
        self.autocast = False  # float16 has no integers beyond 2,048
        check("LengthMask", is_whole(stride, 1), "stride", stride, "an integer from 1")
        self.stride = stride

    def call(self, inputs: Any) -> tf.Tensor:
        values, lengths = inputs
        values, lengths = tf.convert_to_tensor(values), tf.cast(tf.reshape(lengths, [-1]), tf.int32)
        mask = tf.sequence_mask(-(-lengths // self.stride), tf.shape(values)[1])
        ones = [1] * (values.shape.rank - 2)
        found = tf.where(tf.reshape(mask, [-1, tf.shape(values)[1], *ones]), values, tf.zeros_like(values))
        set_mask(found, mask)
        return found

    def compute_output_spec(self, inputs: Any) -> keras.KerasTensor:
        two = isinstance(inputs, (list, tuple)) and len(inputs) == 2
        check("LengthMask", two, "inputs", inputs, "a list of values and lengths")
        values, lengths = inputs
        fits = len(values.shape) > 1 and "int" in str(lengths.dtype) and tuple(lengths.shape[1:]) in ((), (1,))
        received = f"{tuple(values.shape)} and {lengths.dtype} {tuple(lengths.shape)}"
        check("LengthMask", fits, "inputs", received, "(rows, steps, ...), and integers (rows,)")
        return keras.KerasTensor(values.shape, values.dtype)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "stride": self.stride}


@keras.saving.register_keras_serializable("kerasline")
class DocumentSteps(keras.layers.Layer):
    """Numbers the steps of rows with a document each, as `Transform(pack=...)` does for rows with several.

    Args:
        padding: int. The id of padding. Defaults to 0.

    Inputs:
        Ids, integers (rows, steps).

    Outputs:
        Two of shape (rows, steps), int32: the segment, 1 up to the last id that is not padding and then 0; and the
        position in the document, from 0.

    Example:

    >>> segments, positions = kl.layers.DocumentSteps()(np.array([[5, 6, 7], [5, 0, 0]]))
    >>> segments.numpy().tolist(), positions.numpy().tolist()
    ([[1, 1, 1], [1, 0, 0]], [[0, 1, 2], [0, 0, 0]])
    """

    def __init__(self, padding: int = 0, **options: Any) -> None:
        super().__init__(**{"dtype": "int32", **options})
        self.padding = padding

    def call(self, ids: Any) -> tuple[tf.Tensor, tf.Tensor]:
        lengths, size = Lengths(self.padding)(ids), tf.shape(ids)[1]
        segments = tf.sequence_mask(lengths, size, tf.int32)
        return segments, segments * tf.range(size)

    def compute_output_spec(self, ids: Any) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        fits = len(ids.shape) == 2 and "int" in str(ids.dtype)
        check("DocumentSteps", fits, "inputs", f"{ids.dtype} {tuple(ids.shape)}", "integers (rows, steps)")
        return keras.KerasTensor(ids.shape, "int32"), keras.KerasTensor(ids.shape, "int32")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable("kerasline")
class SegmentMask(keras.layers.Layer):
    """Lets each step attend to steps of its own document, as `attention_mask` of Keras's attention layers.

    Args:
        causal: bool. Only to itself and the steps before it. Defaults to `True`.

    Inputs:
        The document of each step, integers (rows, steps), 0 for padding: the feature `segment_ids` of packed rows.

    Outputs:
        bool (rows, steps, steps). Padding attends to itself alone.

    Example:

    >>> kl.layers.SegmentMask()(np.array([[1, 1, 2]])).numpy().astype(int).tolist()
    [[[1, 0, 0], [1, 1, 0], [0, 0, 1]]]
    """

    def __init__(self, causal: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.autocast, self.causal = False, bool(causal)

    def call(self, segments: Any) -> tf.Tensor:
        segments = tf.convert_to_tensor(segments)
        size = tf.shape(segments)[1]
        mask = (segments[:, :, tf.newaxis] == segments[:, tf.newaxis, :]) & (segments[:, tf.newaxis, :] > 0)
        if self.causal:
            mask &= tf.range(size)[:, tf.newaxis] >= tf.range(size)
        return mask | tf.eye(size, dtype=tf.bool)

    def compute_output_spec(self, segments: Any) -> keras.KerasTensor:
        check("SegmentMask", len(segments.shape) == 2, "inputs", tuple(segments.shape), "(rows, steps)")
        return keras.KerasTensor((*segments.shape, segments.shape[1]), "bool")

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "causal": self.causal}
