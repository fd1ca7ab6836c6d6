"""Random parts of images with the boxes of their objects. Keras 3.15's RandomCrop moves boxes by swapped offsets."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from kerasline.components.preprocessing.layers.augmentation import RandomRows
from kerasline.components.preprocessing.layers.base import check, increase_within

FLIPS = ("horizontal", "vertical", "both", None)


@keras.saving.register_keras_serializable("kerasline")
class RandomWindow(RandomRows):
    """Replaces an image by a random part of it, or by a smaller copy, with the boxes of its objects, in training.

    The window has the image's aspect ratio. A larger window contains the whole image.

    Args:
        scale: pair of floats above 0. Range of the side of the window, as a share of the image's. Defaults to
            (0.7, 1.2).
        flip: `"horizontal"`, `"vertical"`, `"both"` or None: the directions in which every other image is mirrored.
            Defaults to `"horizontal"`.
        visible: float from 0 to 1. Boxes of which a smaller share is inside the window become NaN. Defaults to 0.3.
        fill: float. The pixels beyond the image. Defaults to 0.0.
        seed: int. See `kerasline.components.preprocessing.layers.augmentation.RandomRows`.

    Inputs:
        Images, floats (rows, height, width, channels), and boxes, floats (rows, n, 4): left, top, right and bottom from
        0 to 1, padded with NaN.

    Outputs:
        Images and boxes of the same shapes and dtypes.

    Raises:
        ValueError: an argument is invalid.

    Example:

    >>> image, boxes = np.zeros((1, 8, 8, 3), "float32"), np.array([[[0.0, 0.0, 0.25, 1.0]]], "float32")
    >>> _, moved = kl.layers.RandomWindow((2.0, 2.00001), flip=None, seed=0)(image, boxes, training=True)
    >>> (moved[..., 2:] - moved[..., :2]).numpy().round(3).tolist()
    [[[0.125, 0.5]]]
    """

    def __init__(
        self,
        scale: Sequence[float] = (0.7, 1.2),
        flip: Literal["horizontal", "vertical", "both"] | None = "horizontal",
        visible: float = 0.3,
        fill: float = 0.0,
        seed: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__(seed, **options)
        allowed = increase_within(scale, math.nextafter(0, 1), math.inf)
        check("RandomWindow", allowed, "scale", scale, "two numbers above 0, the lower first")
        check("RandomWindow", flip in FLIPS, "flip", flip, " or ".join(map(repr, FLIPS)))
        check("RandomWindow", 0 <= visible <= 1, "visible", visible, "a number from 0 to 1")
        self.scale, self.flip, self.visible, self.fill = tuple(scale), flip, float(visible), float(fill)

    def call(self, images: Any, boxes: Any, training: bool = False) -> tuple[Any, Any]:
        if not training:
            return images, boxes
        rows, (height, width) = tf.shape(images)[0], images.shape[1:3]
        scale = tf.exp(self.between(rows, *map(math.log, self.scale)))
        start = self.uniform(rows, 2) * (1 - scale)  # of x and y
        end = start + scale
        allowed = tf.constant([self.flip in ("horizontal", "both"), self.flip in ("vertical", "both")])
        is_flipped = (self.uniform(rows, 2) < 0.5) & allowed
        start, end = tf.where(is_flipped, end, start), tf.where(is_flipped, start, end)
        return self._images(images, start, end, height, width), self._boxes(boxes, start, end)

    def _images(self, images: Any, start: tf.Tensor, end: tf.Tensor, height: int, width: int) -> tf.Tensor:
        """Sample the windows at the centres of their pixels."""
        scale = end - start
        offset = start * [width, height] + (scale - 1) / 2
        zero = tf.zeros_like(scale[:, 0])
        rows = [scale[:, 0], zero, offset[:, 0], zero, scale[:, 1], offset[:, 1], zero, zero]
        fill = {"fill_mode": "constant", "fill_value": self.fill}
        return keras.ops.image.affine_transform(images, tf.stack(rows, -1), **fill)

    def _boxes(self, boxes: Any, start: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
        corners = tf.reshape(boxes, [tf.shape(boxes)[0], -1, 2, 2])
        start, end = (tf.cast(one, boxes.dtype)[:, tf.newaxis, tf.newaxis] for one in (start, end))
        corners = (corners - start) / (end - start)
        low, high = tf.reduce_min(corners, 2), tf.reduce_max(corners, 2)
        whole = tf.reduce_prod(high - low, -1, keepdims=True)
        low, high = (tf.clip_by_value(one, 0.0, 1.0) for one in (low, high))
        part = tf.reduce_prod(high - low, -1, keepdims=True)
        is_visible = (part > 0) & (part >= self.visible * whole)
        found = tf.where(is_visible, tf.concat([low, high], -1), float("nan"))
        return tf.ensure_shape(found, boxes.shape)

    def compute_output_spec(self, images: Any, boxes: Any, training: bool = False) -> tuple[Any, Any]:
        fits = len(images.shape) == 4 and None not in images.shape[1:]
        check("RandomWindow", fits, "images", tuple(images.shape), "shape (rows, height, width, channels)")
        fits = len(boxes.shape) == 3 and boxes.shape[-1] == 4
        check("RandomWindow", fits, "boxes", tuple(boxes.shape), "shape (rows, n, 4)")
        return tuple(keras.KerasTensor(one.shape, one.dtype) for one in (images, boxes))

    def get_config(self) -> dict[str, Any]:
        own = {"scale": list(self.scale), "flip": self.flip, "visible": self.visible, "fill": self.fill}
        return {**super().get_config(), **own}
