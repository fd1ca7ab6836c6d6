"""Generated images, encoded as files."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from kerasline.components.preprocessing.layers.base import check


def encode_png(images: Any) -> tf.Tensor:
    """Return images as PNG files, without loss.

    Args:
        images: (rows, height, width, channels), with 1 to 4 channels: uint8, or floats from 0 to 1.

    Returns:
        The files' contents, texts (rows,).

    Example:

    >>> file = kl.decoding.encode_png(np.ones((1, 2, 2, 1)))
    >>> kl.layers.ImageDecoding((2, 2), channels=1)(file).numpy().reshape(2, 2).tolist()
    [[255, 255], [255, 255]]
    """
    return _encoded(images, tf.io.encode_png, "encode_png")


def encode_jpeg(images: Any, quality: int = 95) -> tf.Tensor:
    """Return images as JPEG files.

    Args:
        images: (rows, height, width, channels), with 1 or 3 channels: uint8, or floats from 0 to 1.
        quality: int from 0 to 100. Defaults to 95.

    Returns:
        The files' contents, texts (rows,).
    """
    return _encoded(images, lambda image: tf.io.encode_jpeg(image, quality=quality), "encode_jpeg")


def _encoded(images: Any, encode: Any, name: str) -> tf.Tensor:
    images = tf.convert_to_tensor(images)
    check(name, images.shape.rank == 4, "images", tuple(images.shape), "shape (rows, height, width, channels)")
    if images.dtype.is_floating:
        images = tf.saturate_cast(tf.round(tf.cast(images, tf.float32) * 255), tf.uint8)
    check(name, images.dtype == tf.uint8, "images", images.dtype.name, "uint8, or floats from 0 to 1")
    return tf.map_fn(encode, images, fn_output_signature=tf.TensorSpec([], tf.string), parallel_iterations=16)
