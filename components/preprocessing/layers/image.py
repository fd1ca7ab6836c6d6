"""Encoded images as pixels. Resizing, rescaling and augmentation of pixels are Keras's own layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

# Images decoded in one step of the loop over a batch. A step costs as much as decoding a small image,
# and the images of one are decoded side by side: 16 are 1.5 times as fast as one, 64 no faster.
AT_ONCE = 16


@keras.saving.register_keras_serializable("kerasline")
class ImageDecoding(keras.layers.Layer):
    """Decodes PNG, JPEG, BMP and GIF (its first frame) to one size.

    Input: files as texts, (rows,) or (rows, 1). Output: uint8 (rows, height, width, channels), from 0 to
    255. An image of the wanted size keeps its pixels exactly; others are resized, bilinearly, with
    antialiasing. A missing ("") image is black. A batch of PNGs of the wanted size alone is decoded
    about half again as fast: nothing is asked about each image.

    What is no image raises TensorFlow's InvalidArgumentError, in training and serving alike: a graph
    cannot go on after it. `MediaExampleGen(bad_rows="quarantine")` sets such files aside before.

    Args:
        size: height and width.
        channels: 1 for grey, 3 for colour, 4 with transparency.
        fit: what happens to another aspect ratio: `stretch`, `crop` (of the middle), or `pad` (black).
    """

    def __init__(
        self,
        size: Sequence[int],
        channels: Literal[1, 3, 4] = 3,
        fit: Literal["stretch", "crop", "pad"] = "stretch",
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.supports_jit = False  # XLA has no texts
        for holds, name, given, possible in (
            (len(size) == 2 and min(size) >= 1, "size", size, "height and width"),
            (channels in (1, 3, 4), "channels", channels, "1, 3, 4"),
            (fit in ("stretch", "crop", "pad"), "fit", fit, "'stretch', 'crop', 'pad'"),
        ):
            if not holds:
                raise ValueError(f"ImageDecoding: {name} is {given!r}; possible: {possible}")
        self.size, self.channels, self.fit = (int(size[0]), int(size[1])), channels, fit

    def build(self, input_shape: Sequence[int | None]) -> None:
        if tuple(input_shape[1:]) not in ((), (1,)):
            raise ValueError(f"ImageDecoding: inputs are of shape {tuple(input_shape)}; possible: (rows,), (rows, 1)")
        with tf.init_scope():
            self._black = tf.io.encode_png(tf.zeros((*self.size, self.channels), tf.uint8)).numpy()

    def call(self, files: Any) -> tf.Tensor:
        files = tf.reshape(tf.convert_to_tensor(files), [-1])
        files = tf.where(files == "", tf.constant(self._black), files)
        # A PNG begins with its signature and the first chunk, whose head is followed by width and height.
        heads = tf.strings.substr(tf.where(tf.strings.length(files) >= 24, files, b"?" * 24), 0, 24)
        as_wanted = tf.reduce_all(heads == self._black[:24])
        return tf.cond(as_wanted, lambda: self._of_pngs(files), lambda: self._of_any(files))

    def compute_output_spec(self, files: Any) -> keras.KerasTensor:
        if files.dtype != "string":
            raise ValueError(f"ImageDecoding: inputs are {files.dtype}; possible: texts, each an encoded image")
        return keras.KerasTensor((files.shape[0], *self.size, self.channels), "uint8")

    def get_config(self) -> dict[str, Any]:
        config = {"size": list(self.size), "channels": self.channels, "fit": self.fit}
        return {**super().get_config(), **config}

    def _of_pngs(self, files: tf.Tensor) -> tf.Tensor:
        """PNGs of the wanted size, `AT_ONCE` at a time."""

        def decoded(group: tf.Tensor) -> tf.Tensor:
            images = [tf.io.decode_png(file, self.channels) for file in tf.unstack(group, AT_ONCE)]
            return tf.ensure_shape(tf.stack(images), form.shape)

        rows, form = tf.size(files), tf.TensorSpec((AT_ONCE, *self.size, self.channels), tf.uint8)
        padding = tf.fill([-rows % AT_ONCE], tf.constant(self._black))
        groups = tf.reshape(tf.concat([files, padding], 0), [-1, AT_ONCE])
        images = tf.map_fn(decoded, groups, fn_output_signature=form, parallel_iterations=4)
        return tf.reshape(images, [-1, *self.size, self.channels])[:rows]

    def _of_any(self, files: tf.Tensor) -> tf.Tensor:
        """Images of any format and size."""

        def decoded(file: tf.Tensor) -> tf.Tensor:
            image = tf.io.decode_image(file, self.channels, expand_animations=False)
            fits = tf.reduce_all(tf.shape(image)[:2] == self.size)
            image = tf.cond(fits, lambda: image, lambda: self._resized(image))
            return tf.ensure_shape(image, form.shape)

        form = tf.TensorSpec((*self.size, self.channels), tf.uint8)
        return tf.map_fn(decoded, files, fn_output_signature=form, parallel_iterations=16)

    def _resized(self, image: tf.Tensor) -> tf.Tensor:
        height, width = self.size
        if self.fit == "pad":
            resized = tf.image.resize_with_pad(image, height, width, antialias=True)
        elif self.fit == "crop":
            held = tf.cast(tf.shape(image)[:2], tf.float32)
            scale = tf.reduce_max(tf.constant(self.size, tf.float32) / held)
            covering = tf.maximum(tf.cast(tf.round(held * scale), tf.int32), self.size)
            resized = tf.image.resize(image, covering, antialias=True)
            resized = tf.image.resize_with_crop_or_pad(resized, height, width)
        else:
            resized = tf.image.resize(image, self.size, antialias=True)
        return tf.saturate_cast(tf.round(resized), tf.uint8)
