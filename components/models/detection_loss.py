"""The loss of detectors that predict a box and the logits of its classes in each cell of a grid."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


@keras.saving.register_keras_serializable("kerasline")
class CenterDetection(keras.losses.Loss):
    """Trains an anchor-free detector: each cell near the centre of an object predicts its box and class.

    A true box is assigned to the cells whose centres lie inside it and at most `radius` cells away from its centre in
    both directions (centre sampling, Tian et al., FCOS, ICCV 2019), and always to the cell that contains its centre. A
    cell of several boxes is assigned to the smallest.

    The loss of a row is the sum over its cells of the quality focal loss of the logits (Li et al., Generalized Focal
    Loss, NeurIPS 2020) and, in assigned cells, `box_weight * (1 - CIoU)`, divided by the number of assigned cells. The
    target of a logit is the CIoU of the predicted and the true box (Zheng et al., Distance-IoU Loss, AAAI 2020), at
    least 0, so that scores order the boxes by how well they fit.

    Args:
        radius: float. See above, in cells. Defaults to 1.5.
        focus: float. Exponent of the distance of a score from its target. Defaults to 2.0.
        box_weight: float. Defaults to 2.0.
        reduction, name, dtype: see `keras.losses.Loss`.

    Inputs:
        - objects, floats (rows, n, 5): left, top, right and bottom from 0 to 1, and the index of the class. Rows are
          padded with NaN, or with a class below 0.
        - predictions, floats (rows, height, width, 4 + classes): the same corners, and the logits of the classes.

    Raises:
        ValueError: an argument is invalid.

    Example:

    >>> objects = np.array([[[0.0, 0.0, 0.5, 0.5, 0.0], [np.nan] * 5]])
    >>> logits = np.array([[[[9.0], [-9.0]], [[-9.0], [-9.0]]]])
    >>> boxes = np.tile([0.0, 0.0, 0.5, 0.5], (1, 2, 2, 1))
    >>> round(float(kl.losses.CenterDetection(radius=0.5)(objects, np.concatenate([boxes, logits], -1))), 4)
    0.0
    """

    def __init__(
        self,
        radius: float = 1.5,
        focus: float = 2.0,
        box_weight: float = 2.0,
        reduction: str | None = "sum_over_batch_size",
        name: str | None = "center_detection",
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, reduction=reduction, dtype=dtype)
        for argument, value in {"radius": radius, "focus": focus, "box_weight": box_weight}.items():
            if value < 0:
                raise ValueError(f"CenterDetection: {argument}: expected a number of at least 0, received {value}")
        self.radius, self.focus, self.box_weight = radius, focus, box_weight

    def call(self, objects: Any, predictions: Any) -> Any:
        objects, predictions = tf.cast(objects, tf.float32), tf.cast(predictions, tf.float32)
        boxes, logits = predictions[..., :4], predictions[..., 4:]
        is_assigned, true_boxes, true_classes = self._assigned(objects, *predictions.shape[1:3])
        fit = keras.utils.bounding_boxes.compute_ciou(true_boxes, boxes, "xyxy")
        fit = tf.where(is_assigned, fit, 0.0)
        quality = tf.stop_gradient(tf.clip_by_value(fit, 0.0, 1.0))
        target = tf.one_hot(true_classes, logits.shape[-1]) * quality[..., tf.newaxis]
        focal = tf.nn.sigmoid_cross_entropy_with_logits(target, logits)
        focal *= tf.abs(target - tf.sigmoid(logits)) ** self.focus
        distance = tf.where(is_assigned, 1 - fit, 0.0)
        assigned = tf.reduce_sum(tf.cast(is_assigned, tf.float32), (1, 2))
        total = tf.reduce_sum(focal, (1, 2, 3)) + self.box_weight * tf.reduce_sum(distance, (1, 2))
        return total / tf.maximum(assigned, 1.0)

    def is_padding(self, objects: Any) -> Any:
        """Return which numbers of labels are padding: booleans of the same shape."""
        return objects != objects

    def _assigned(self, objects: tf.Tensor, height: int, width: int) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Return which cells have an object, its box and its class: (rows, height, width), the box with 4 numbers."""
        objects = tf.pad(objects, [[0, 0], [0, 1], [0, 0]], constant_values=float("nan"))  # at least one
        is_object = ~tf.reduce_any(tf.math.is_nan(objects), -1) & (objects[..., 4] >= 0)
        objects = tf.where(is_object[..., tf.newaxis], objects, [0.0, 0.0, 1.0, 1.0, 0.0])
        left, top, right, bottom, classes = tf.unstack(objects[:, tf.newaxis, tf.newaxis], axis=-1)
        x = ((tf.range(width, dtype=tf.float32) + 0.5) / width)[:, tf.newaxis]
        y = ((tf.range(height, dtype=tf.float32) + 0.5) / height)[:, tf.newaxis, tf.newaxis]
        is_inside = (x > left) & (x < right) & (y > top) & (y < bottom)
        cells = tf.maximum(tf.abs(x - (left + right) / 2) * width, tf.abs(y - (top + bottom) / 2) * height)
        fits = is_inside & (cells <= self.radius) | (cells <= 0.5)
        fits &= is_object[:, tf.newaxis, tf.newaxis]
        area = tf.where(fits, (right - left) * (bottom - top), float("inf"))
        smallest = tf.argmin(area, -1)
        found = tf.gather(objects, smallest, batch_dims=1)
        return tf.reduce_any(fits, -1), found[..., :4], tf.cast(found[..., 4], tf.int32)

    def get_config(self) -> dict[str, Any]:
        own = {"radius": self.radius, "focus": self.focus, "box_weight": self.box_weight}
        return {**super().get_config(), **own}
