"""The orientation of a photograph, which cameras write beside its pixels, in TensorFlow's operations.

It is an entry of EXIF metadata (CIPA DC-008), which have the form of a TIFF file. A JPEG has them in a segment, a PNG
in a chunk.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_ORIENTATION_TAG = 0x0112
# One scan of all bytes (`\C`) decides about most files: finding the orientation takes longer than a small image.
_MAY_BE_TURNED = r"\C*(Exif\x00\x00|eXIf)\C*"


def decode_upright(file: tf.Tensor, channels: int) -> tf.Tensor:
    """Decode an image of any format to uint8 (height, width, channels), turned as it should be displayed."""
    image = _decoded(file, channels)
    may_be_turned = tf.strings.regex_full_match(file, _MAY_BE_TURNED)
    return tf.cond(may_be_turned, lambda: _turned(image, orientation(file)), lambda: image)


def _decoded(file: tf.Tensor, channels: int) -> tf.Tensor:
    """Decode an image. TensorFlow converts most formats to 3 channels, to 1 some, and to 4 hardly any."""
    start = tf.strings.substr(file, 0, 2)
    if channels == 3:
        is_converted = start != b"RI"  # it does not drop the alpha channel of WebP
    elif channels == 1:
        is_converted = tf.cond(
            start == b"\xff\xd8",
            lambda: tf.io.extract_jpeg_shape(file)[2] < 4,  # it does not convert CMYK to grey
            lambda: start == b"\x89P",
        )
    else:
        is_converted = tf.constant(False)  # the alpha channel that it adds to a PNG of 1 bit is wrong
    return tf.cond(
        is_converted,
        lambda: tf.io.decode_image(file, channels, expand_animations=False),
        lambda: _converted(tf.io.decode_image(file, expand_animations=False), channels),
    )


def _converted(image: tf.Tensor, channels: int) -> tf.Tensor:
    """Convert an image of any number of channels to 1, grey, 3, colour, or 4, with alpha."""
    held = tf.shape(image)[2]
    colour = tf.cond(held < 3, lambda: tf.repeat(image[..., :1], 3, axis=2), lambda: image[..., :3])
    if channels == 3:
        return colour
    if channels == 1:
        return tf.cond(
            held < 3,
            lambda: image[..., :1],
            lambda: tf.image.rgb_to_grayscale(tf.ensure_shape(colour, [None, None, 3])),
        )
    alpha = tf.cond(
        held % 2 == 0,
        lambda: image[..., -1:],
        lambda: tf.fill([*tf.unstack(tf.shape(image)[:2]), 1], tf.constant(255, tf.uint8)),
    )
    return tf.concat([colour, alpha], axis=2)


def orientation(file: tf.Tensor) -> tf.Tensor:
    """Return the EXIF orientation of an encoded image, from 1 to 8. It is 1, upright, if the image has none."""
    data = tf.io.decode_raw(file, tf.uint8)
    is_jpeg, is_png = tf.strings.substr(file, 0, 2) == b"\xff\xd8", tf.strings.substr(file, 1, 3) == b"PNG"
    start = tf.case([(is_jpeg, lambda: _in_jpeg(data)), (is_png, lambda: _in_png(data))], lambda: _none(data))
    return tf.cond(start < _none(data), lambda: _in_tiff(data, start), lambda: tf.constant(1, tf.int64))


def _turned(image: tf.Tensor, orientation: tf.Tensor) -> tf.Tensor:
    image = tf.cond(orientation > 4, lambda: tf.transpose(image, [1, 0, 2]), lambda: image)
    upside_down, mirrored = (tf.reduce_any(orientation == some) for some in ([3, 4, 7, 8], [2, 3, 6, 7]))
    image = tf.cond(upside_down, lambda: tf.reverse(image, [0]), lambda: image)
    return tf.cond(mirrored, lambda: tf.reverse(image, [1]), lambda: image)


def _none(data: tf.Tensor) -> tf.Tensor:
    """Return the position of metadata that do not exist: the end of the file."""
    return tf.size(data, tf.int64)


def _in_jpeg(data: tf.Tensor) -> tf.Tensor:
    """Return where the metadata of a JPEG begin. Segments of other applications and comments may precede them."""

    def precedes(at: tf.Tensor) -> tf.Tensor:
        marker = _number(data, at, 2)
        is_exif = (marker == 0xFFE1) & (_number(data, at + 4, 4) == int.from_bytes(b"Exif"))
        return ((marker & 0xFFF0 == 0xFFE0) | (marker == 0xFFFE)) & ~is_exif

    start = tf.constant(2, tf.int64)
    (at,) = tf.while_loop(precedes, lambda at: (at + 2 + _number(data, at + 2, 2),), (start,))
    return tf.where(_number(data, at, 2) == 0xFFE1, at + 10, _none(data))


def _in_png(data: tf.Tensor) -> tf.Tensor:
    """Return where the metadata of a PNG begin. They may stand anywhere before the pixels."""
    exif, pixels = int.from_bytes(b"eXIf"), int.from_bytes(b"IDAT")

    def precedes(at: tf.Tensor) -> tf.Tensor:
        name = _number(data, at + 4, 4)
        return (at < _none(data)) & (name != exif) & (name != pixels)

    start = tf.constant(8, tf.int64)
    (at,) = tf.while_loop(precedes, lambda at: (at + 12 + _number(data, at, 4),), (start,))
    return tf.where(_number(data, at + 4, 4) == exif, at + 8, _none(data))


def _in_tiff(data: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
    """Return the orientation in the first directory of a TIFF file that begins at `start`."""
    little = _number(data, start, 2) == int.from_bytes(b"II")
    directory = start + _number(data, start + 4, 4, little)
    entries = directory + 2 + 12 * tf.range(_number(data, directory, 2, little))
    values = tf.where(
        _number(data, entries, 2, little) == _ORIENTATION_TAG, _number(data, entries + 8, 2, little), tf.int64.min
    )
    value = tf.reduce_max(values)
    return tf.where((value >= 1) & (value <= 8), value, 1)


def _number(data: tf.Tensor, at: tf.Tensor, size: int, little: Any = False) -> tf.Tensor:
    """Return the unsigned integer of `size` bytes at each position, and 0 where it would reach beyond the end.

    Args:
        little: whether the least significant byte comes first.
    """
    index = at[..., None] + tf.range(size, dtype=tf.int64)
    read = tf.cast(tf.gather(data, tf.clip_by_value(index, 0, _none(data) - 1)), tf.int64)
    powers = [256**power for power in range(size)]
    whole = tf.where(little, tf.reduce_sum(read * powers, -1), tf.reduce_sum(read * powers[::-1], -1))
    return tf.where(at + size <= _none(data), whole, 0)
