"""Encoded images as pixels. To resize, rescale and augment pixels, use Keras's layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import keras
import tensorflow as tf

from kerasline.components.preprocessing.layers.base import check, is_whole
from kerasline.components.preprocessing.layers.exif import decode_upright

# Number of images decoded in one step of the loop over a batch. A step costs as much as decoding a small image, and its
# images are decoded in parallel: 16 are 1.5 times as fast as one, 64 no faster.
GROUP = 16


@keras.saving.register_keras_serializable("kerasline")
class ImageDecoding(keras.layers.Layer):
    """Decodes PNG, JPEG, BMP, WebP and GIF images (its first frame) to a fixed size.

    An image of that size keeps its exact pixels. Others are resized bilinearly with antialiasing. JPEG and PNG images
    are turned as the orientation in their EXIF metadata says, in training and in serving. A missing ("") image is
    black. A batch that holds only PNGs of that size is decoded about 1.5 times as fast.

    `MediaExampleGen` finds damaged images beforehand.

    Args:
        size: tuple of two ints. Height and width.
        channels: 1 for grey, 3 for color, 4 for color with transparency. Defaults to 3.
        fit: how to change the aspect ratio: `"stretch"`, `"crop"` (keep the middle) or `"pad"` (with black). Defaults
            to `"stretch"`.
        return_size: bool. Return the size of each encoded image too, as `kerasline.decoding.restore_boxes` takes it.
            Defaults to `False`.

    Inputs:
        The images' encoded contents as texts, (rows,) or (rows, 1).

    Outputs:
        uint8 from 0 to 255, of shape (rows, height, width, channels). With `return_size`, a tuple of these and of
        heights and widths before resizing, upright, int32 (rows, 2); a missing image has the fixed size.

    Raises:
        ValueError: an argument or the inputs are invalid.
        tf.errors.InvalidArgumentError: when called, in training and serving, on a text that is not an image.

    Example:

    >>> import tensorflow as tf
    >>> png = tf.io.encode_png(np.full((2, 2, 1), 7, "uint8"))
    >>> kl.layers.ImageDecoding((2, 2), channels=1)(png[None]).numpy().reshape(2, 2).tolist()
    [[7, 7], [7, 7]]
    """

    def __init__(
        self,
        size: Sequence[int],
        channels: Literal[1, 3, 4] = 3,
        fit: Literal["stretch", "crop", "pad"] = "stretch",
        return_size: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.supports_jit = False  # XLA has no texts
        whole = len(size) == 2 and all(is_whole(one, 1) for one in size)
        fits = ("stretch", "crop", "pad")
        check("ImageDecoding", whole, "size", size, "height and width, integers from 1")
        check("ImageDecoding", channels in (1, 3, 4), "channels", channels, "1, 3 or 4")
        check("ImageDecoding", fit in fits, "fit", fit, " or ".join(map(repr, fits)))
        self.size, self.channels, self.fit = (int(size[0]), int(size[1])), channels, fit
        self.return_size = bool(return_size)

    def build(self, input_shape: Any) -> None:
        shape = tuple(input_shape)
        check("ImageDecoding", shape[1:] in ((), (1,)), "inputs", shape, "shape (rows,) or (rows, 1)")
        with tf.init_scope():
            self._black = tf.io.encode_png(tf.zeros((*self.size, self.channels), tf.uint8)).numpy()

    def call(self, files: Any) -> tf.Tensor | tuple[tf.Tensor, tf.Tensor]:
        files = tf.reshape(tf.convert_to_tensor(files), [-1])
        files = tf.where(files == "", tf.constant(self._black), files)
        # A PNG begins with its signature and its first chunk, which has width and height, then the bits of a number and
        # whether there is alpha. If pixels come next, it has no orientation.
        heads = tf.strings.substr(tf.where(tf.strings.length(files) >= 41, files, b"?" * 41), 0, 41)
        length = 26 if self.channels == 4 else 24  # TensorFlow adds a wrong alpha channel to images of 1 bit
        start, following = tf.strings.substr(heads, 0, length), tf.strings.substr(heads, 37, 4)
        all_pngs = tf.reduce_all((start == self._black[:length]) & (following == b"IDAT"))
        images, sizes = tf.cond(all_pngs, lambda: self._decode_pngs(files), lambda: self._decode_any(files))
        return (images, sizes) if self.return_size else images

    def compute_output_spec(self, files: Any) -> keras.KerasTensor | tuple[keras.KerasTensor, keras.KerasTensor]:
        check("ImageDecoding", files.dtype == "string", "inputs", files.dtype, "texts, each an encoded image")
        images = keras.KerasTensor((files.shape[0], *self.size, self.channels), "uint8")
        return (images, keras.KerasTensor((files.shape[0], 2), "int32")) if self.return_size else images

    def get_config(self) -> dict[str, Any]:
        config = {"size": list(self.size), "channels": self.channels, "fit": self.fit}
        return {**super().get_config(), **config, "return_size": self.return_size}

    def _decode_pngs(self, files: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decode PNGs of the final size, `GROUP` at a time. Return images and sizes."""

        def decoded(group: tf.Tensor) -> tf.Tensor:
            images = [tf.io.decode_png(file, self.channels) for file in tf.unstack(group, GROUP)]
            return tf.ensure_shape(tf.stack(images), form.shape)

        rows, form = tf.size(files), tf.TensorSpec((GROUP, *self.size, self.channels), tf.uint8)
        padding = tf.fill([-rows % GROUP], tf.constant(self._black))
        groups = tf.reshape(tf.concat([files, padding], 0), [-1, GROUP])
        images = tf.map_fn(decoded, groups, fn_output_signature=form, parallel_iterations=4)
        return tf.reshape(images, [-1, *self.size, self.channels])[:rows], tf.tile([self.size], [rows, 1])

    def _decode_any(self, files: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decode images of any format and size. Return images and sizes."""

        def decoded(file: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            image = decode_upright(file, self.channels)
            size = tf.shape(image)[:2]
            image = tf.cond(tf.reduce_all(size == self.size), lambda: image, lambda: self._resized(image))
            return tf.ensure_shape(image, form.shape), tf.ensure_shape(size, [2])

        form = tf.TensorSpec((*self.size, self.channels), tf.uint8)
        signature = (form, tf.TensorSpec([2], tf.int32))
        return tf.map_fn(decoded, files, fn_output_signature=signature, parallel_iterations=16)

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
