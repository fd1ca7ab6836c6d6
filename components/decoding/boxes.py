"""Boxes of detected objects: the best of those that overlap, and back to the pixels of the original image.

Keras's `keras.utils.bounding_boxes.convert_format` converts formats of boxes, also inside an exported model.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from kerasline.components.preprocessing.layers.base import check

Fit = Literal["stretch", "crop", "pad"]
_IS_PORTABLE = ContextVar("is_portable", default=False)


@contextlib.contextmanager
def portable_operations() -> Iterator[None]:
    """Trace with operations that LiteRT and ONNX have. They are slower, and the answers are the same."""
    token = _IS_PORTABLE.set(True)
    try:
        yield
    finally:
        _IS_PORTABLE.reset(token)


class Detections(NamedTuple):
    """What `non_max_suppression` returns, the most certain objects first.

    Attributes:
        boxes: float32 (rows, max_boxes, 4), 0 after the last object.
        classes: int32 (rows, max_boxes), -1 after the last object.
        scores: float32 (rows, max_boxes), 0 after the last object.
        counts: int32 (rows,). Number of objects.
    """

    boxes: tf.Tensor
    classes: tf.Tensor
    scores: tf.Tensor
    counts: tf.Tensor


def non_max_suppression(
    boxes: Any,
    scores: Any,
    *,
    iou_threshold: float = 0.5,
    score_threshold: float = 0.05,
    max_boxes: int = 100,
    max_boxes_per_class: int | None = None,
) -> Detections:
    """Keep the boxes with the highest scores, and of each class none that overlaps a kept one too much.

    Args:
        boxes: floats (rows, n, 4), or (rows, n, classes, 4) with boxes of each class: the corners `xyxy` or `yxyx`, in
            pixels or relative.
        scores: floats (rows, n, classes).
        iou_threshold: float. Drop a box whose intersection with a kept box of its class is more than this share of
            their union. Defaults to 0.5.
        score_threshold: float. Drop boxes with lower scores. Defaults to 0.05.
        max_boxes: int. Maximum number of objects in a row. Defaults to 100.
        max_boxes_per_class: int. Maximum number of objects of a class in a row. Defaults to None, `max_boxes`.

    Returns:
        Detections.

    Raises:
        ValueError: an argument is invalid.

    Example:

    >>> boxes = [[[0, 0, 10, 10], [0, 0, 10, 9], [20, 20, 30, 30]]]
    >>> scores = [[[0.9], [0.8], [0.7]]]
    >>> found = kl.decoding.non_max_suppression(boxes, scores, max_boxes=3)
    >>> found.scores.numpy().round(1), found.classes.numpy(), found.counts.numpy()
    (array([[0.9, 0.7, 0. ]], dtype=float32), array([[ 0,  0, -1]], dtype=int32), array([2], dtype=int32))
    """
    boxes, scores = tf.cast(boxes, tf.float32), tf.cast(scores, tf.float32)
    check("non_max_suppression", scores.shape.rank == 3, "scores", tuple(scores.shape), "shape (rows, n, classes)")
    fits = boxes.shape.rank in (3, 4) and boxes.shape[-1] == 4
    check("non_max_suppression", fits, "boxes", tuple(boxes.shape), "shape (rows, n, 4) or (rows, n, classes, 4)")
    suppress = _suppress_in_a_loop if _IS_PORTABLE.get() else tf.image.combined_non_max_suppression
    found, best, classes, counts = suppress(
        boxes[:, :, None] if boxes.shape.rank == 3 else boxes,
        scores,
        max_output_size_per_class=max_boxes_per_class or max_boxes,
        max_total_size=max_boxes,
        iou_threshold=iou_threshold,
        score_threshold=score_threshold,
        clip_boxes=False,
    )
    is_object = tf.sequence_mask(counts, max_boxes)
    return Detections(found, tf.where(is_object, tf.cast(classes, tf.int32), -1), best, counts)


def _suppress_in_a_loop(
    boxes: tf.Tensor,
    scores: tf.Tensor,
    max_output_size_per_class: int,
    max_total_size: int,
    iou_threshold: float,
    score_threshold: float,
    clip_boxes: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """Compute `tf.image.combined_non_max_suppression` with simpler operations: each step takes the best box left."""
    rows, count, kinds, total = tf.shape(scores)[0], scores.shape[1], scores.shape[2], max_total_size
    low, high = tf.minimum(boxes[..., :2], boxes[..., 2:]), tf.maximum(boxes[..., :2], boxes[..., 2:])
    area = tf.reduce_prod(high - low, -1)
    lowest = tf.float32.min  # ONNX multiplies by 0 what tf.where leaves out, so infinity would become NaN

    def body(number: tf.Tensor, left: tf.Tensor, found: tf.Tensor, of_kinds: tf.Tensor) -> tuple[tf.Tensor, ...]:
        flat = tf.reshape(left, [-1, count * kinds])
        score, best = tf.reduce_max(flat, -1), tf.argmax(flat, -1, output_type=tf.int32)
        place, kind = best // kinds, best % kinds
        own = tf.gather(boxes, place, batch_dims=1)  # (rows, 1 or kinds, 4)
        own = own[:, 0] if boxes.shape[2] == 1 else tf.gather(own, kind, batch_dims=1)
        own_low, own_high = tf.minimum(own[:, :2], own[:, 2:]), tf.maximum(own[:, :2], own[:, 2:])
        sides = tf.minimum(high, own_high[:, None, None]) - tf.maximum(low, own_low[:, None, None])
        shared = tf.reduce_prod(tf.maximum(sides, 0.0), -1)
        union = area + tf.reduce_prod(own_high - own_low, -1)[:, None, None] - shared
        is_kind = tf.equal(tf.range(kinds), kind[:, None])
        of_kinds += tf.cast(is_kind, tf.int32)
        is_full = of_kinds >= max_output_size_per_class
        is_dropped = (shared > iou_threshold * union) | is_full[:, None]
        is_dropped |= tf.equal(tf.range(count), place[:, None])[..., None]
        left = tf.where(is_dropped & is_kind[:, None], lowest, left)
        entry = tf.concat([own, tf.cast(kind, tf.float32)[:, None], score[:, None]], -1)
        is_new = tf.equal(tf.range(total), number)[:, None] & (score > score_threshold)[:, None, None]
        return number + 1, left, tf.where(is_new, entry[:, None], found), of_kinds

    left = tf.where(scores > score_threshold, scores, lowest)
    state = (tf.constant(0), left, tf.zeros([rows, total, 6]), tf.zeros([rows, kinds], tf.int32))
    shapes = tuple(one.shape if one.shape.rank == 0 else tf.TensorShape([None, *one.shape[1:]]) for one in state)
    found = tf.while_loop(lambda number, *_: number < total, body, state, shape_invariants=shapes)[2]
    counts = tf.reduce_sum(tf.cast(found[..., 5] > score_threshold, tf.int32), -1)
    return found[..., :4], found[..., 5], found[..., 4], counts


def resize_boxes(boxes: Any, sizes: Any, image_size: Sequence[int], fit: Fit = "stretch") -> tf.Tensor:
    """Return where boxes of the original image are in the image that `ImageDecoding(image_size, fit=fit)` returns.

    Args:
        boxes: floats (rows, n, 4): left, top, right and bottom in pixels of the original image.
        sizes: (rows, 2). Height and width of each original image, as `ImageDecoding(return_size=True)` returns them.
        image_size: tuple of two ints. Height and width of the decoded image.
        fit: as in `ImageDecoding`. Defaults to `"stretch"`.

    Returns:
        float32 (rows, n, 4), in pixels of the decoded image.

    Example:

    >>> kl.decoding.resize_boxes([[[0, 0, 200, 100]]], [[100, 400]], (50, 50)).numpy().tolist()
    [[[0.0, 0.0, 25.0, 50.0]]]
    """
    scale, offset = _placement(sizes, image_size, fit)
    return tf.cast(boxes, tf.float32) * scale + offset


def restore_boxes(boxes: Any, sizes: Any, image_size: Sequence[int], fit: Fit = "stretch") -> tf.Tensor:
    """Return boxes in pixels of the original image: the inverse of `resize_boxes`, cut at the image's edges.

    Args:
        boxes: floats (rows, n, 4): left, top, right and bottom in pixels of the decoded image.
        sizes, image_size, fit: as in `resize_boxes`.

    Returns:
        float32 (rows, n, 4).

    Example:

    >>> kl.decoding.restore_boxes([[[0, 0, 25, 50]]], [[100, 400]], (50, 50)).numpy().tolist()
    [[[0.0, 0.0, 200.0, 100.0]]]
    """
    scale, offset = _placement(sizes, image_size, fit)
    restored = (tf.cast(boxes, tf.float32) - offset) / scale
    edges = tf.tile(tf.reverse(tf.cast(sizes, tf.float32), [1]), [1, 2])[:, None]
    return tf.minimum(tf.maximum(restored, 0.0), edges)


def _placement(sizes: Any, image_size: Sequence[int], fit: str) -> tuple[tf.Tensor, tf.Tensor]:
    """Return scale and offset of coordinates (rows, 1, 4), as `ImageDecoding` resizes images."""
    fits = ("stretch", "crop", "pad")
    check("resize_boxes", fit in fits, "fit", fit, " or ".join(map(repr, fits)))
    sizes, to = tf.cast(sizes, tf.float32), tf.constant(image_size, tf.float32)
    if fit == "stretch":
        resized, offset = to, tf.zeros_like(sizes)
    elif fit == "pad":
        exact = sizes / tf.reduce_max(sizes / to, axis=1, keepdims=True)
        resized, offset = tf.floor(exact), tf.floor((to - exact) / 2)
    else:
        resized = tf.maximum(tf.round(sizes * tf.reduce_max(to / sizes, axis=1, keepdims=True)), to)
        offset = -tf.floor((resized - to) / 2)
    scale = resized / sizes

    def per_coordinate(of_height_and_width: tf.Tensor) -> tf.Tensor:
        return tf.tile(tf.reverse(of_height_and_width, [1]), [1, 2])[:, None]

    return per_coordinate(scale), per_coordinate(offset)
