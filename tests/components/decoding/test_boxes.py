"""Detected boxes, against NumPy's suppression and the pixels of decoded images."""

import contextlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasline as kl
from kerasline import decoding
from kerasline.components.decoding.boxes import portable_operations

GENERATOR = np.random.default_rng(0)


def boxes_of(rows, count):
    corners = GENERATOR.uniform(0, 80, (rows, count, 2))
    return np.concatenate([corners, corners + GENERATOR.uniform(5, 40, (rows, count, 2))], axis=2).astype("float32")


def suppressed(boxes, scores, iou, threshold, per_class, most):
    """Greedy suppression of one row: (score, class, box), the best first."""

    def overlap(a, b):
        sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
        shared = np.prod(np.maximum(sides, 0))
        return shared / (np.prod(a[2:] - a[:2]) + np.prod(b[2:] - b[:2]) - shared)

    found = []
    for label in range(scores.shape[1]):
        kept = []
        for place in np.argsort(-scores[:, label]):
            if scores[place, label] > threshold and all(overlap(boxes[place], boxes[k]) <= iou for k in kept):
                kept.append(place)
        found += [(scores[k, label], label, boxes[k].tolist()) for k in kept[:per_class]]
    return sorted(found, reverse=True)[:most]


@pytest.mark.parametrize("operations", [contextlib.nullcontext, portable_operations])
@pytest.mark.parametrize(("per_class", "most"), [(None, 100), (2, 5)])
def test_suppression_keeps_what_numpy_keeps(per_class, most, operations):
    with operations():
        check_suppression(per_class, most)


def check_suppression(per_class, most):
    boxes, scores = boxes_of(3, 40), GENERATOR.uniform(size=(3, 40, 4)).astype("float32")
    options = {"iou_threshold": 0.3, "score_threshold": 0.4, "max_boxes": most, "max_boxes_per_class": per_class}
    found = decoding.non_max_suppression(boxes, scores, **options)
    for row in range(3):
        expected = suppressed(boxes[row], scores[row], 0.3, 0.4, per_class or most, most)
        count = int(found.counts[row])
        assert count == len(expected)
        np.testing.assert_allclose(found.scores[row, :count], [score for score, *_ in expected])
        assert found.classes.numpy()[row, :count].tolist() == [label for _, label, _ in expected]
        np.testing.assert_allclose(found.boxes[row, :count], [box for *_, box in expected])
        assert (found.classes.numpy()[row, count:] == -1).all() and not found.scores.numpy()[row, count:].any()
        alone = decoding.non_max_suppression(boxes[[row]], scores[[row]], **options)
        for one, other in zip(alone, found):
            np.testing.assert_array_equal(one[0], other[row])


def test_each_class_may_have_its_own_boxes():
    boxes = np.stack([boxes_of(2, 10), boxes_of(2, 10)], axis=2)
    scores = GENERATOR.uniform(size=(2, 10, 2)).astype("float32")
    found = decoding.non_max_suppression(boxes, scores, iou_threshold=0.6, score_threshold=0.0, max_boxes=20)
    best = np.unravel_index(scores[0].argmax(), (10, 2))
    np.testing.assert_array_equal(found.boxes[0, 0], boxes[0][best])
    with portable_operations():
        portable = decoding.non_max_suppression(boxes, scores, iou_threshold=0.6, score_threshold=0.0, max_boxes=20)
    for one, other in zip(found, portable):
        np.testing.assert_array_equal(one, other)


def picture(height, width, box):
    """A black image with a white box, as a PNG."""
    pixels = np.zeros((height, width, 1), "uint8")
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = 255
    return tf.io.encode_png(pixels).numpy()


PICTURES = [
    (60, 100, (20, 12, 60, 36)),
    (100, 60, (12, 30, 36, 70)),
    (40, 40, (10, 10, 30, 30)),
    (41, 97, (40, 8, 64, 32)),
]


@pytest.mark.parametrize("fit", ["stretch", "crop", "pad"])
def test_boxes_follow_the_decoded_pixels(fit):
    files = np.array([picture(*one) for one in PICTURES], object)
    images, sizes = kl.layers.ImageDecoding((40, 40), channels=1, fit=fit, return_size=True)(files)
    np.testing.assert_array_equal(sizes, [one[:2] for one in PICTURES])
    boxes = np.array([[one[2]] for one in PICTURES], "float32")
    found = decoding.resize_boxes(boxes, sizes, (40, 40), fit)
    for image, (left, top, right, bottom) in zip(images.numpy()[..., 0], found.numpy()[:, 0]):
        seen_y, seen_x = (np.flatnonzero((image > 127).any(axis)) for axis in (1, 0))
        seen = [seen_x[0], seen_y[0], seen_x[-1] + 1, seen_y[-1] + 1]
        np.testing.assert_allclose(np.clip([left, top, right, bottom], 0, 40), seen, atol=1.01)
    restored = decoding.restore_boxes(found, sizes, (40, 40), fit)
    np.testing.assert_allclose(restored, boxes, atol=1e-3)
    missing = decoding.resize_boxes(np.full((4, 2, 4), np.nan, "float32"), sizes, (40, 40), fit)
    assert np.isnan(missing).all()


def test_restored_boxes_end_at_the_edges():
    found = decoding.restore_boxes([[[-5, -5, 50, 50]]], [[20, 80]], (40, 40))
    np.testing.assert_array_equal(found, [[[0, 0, 80, 20]]])


def test_formats_are_converted_by_keras_in_a_graph():
    """`convert_format` of Keras accepts the size of each row, so kerasline has no conversion of its own."""

    @tf.function
    def pixels(boxes, sizes):
        sizes = tf.cast(sizes, tf.float32)[:, :, None, None]
        convert = keras.utils.bounding_boxes.convert_format
        return convert(boxes, "rel_center_xywh", "xyxy", height=sizes[:, 0], width=sizes[:, 1])

    found = pixels(tf.constant([[[0.5, 0.5, 0.2, 0.4]]] * 2), tf.constant([[100, 50], [10, 20]]))
    np.testing.assert_allclose(found, [[[20, 30, 30, 70]], [[8, 3, 12, 7]]], atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: decoding.non_max_suppression(np.zeros((1, 2, 4)), np.zeros((1, 2))), "invalid scores: expected shape"),
        (
            lambda: decoding.non_max_suppression(np.zeros((1, 2, 5)), np.zeros((1, 2, 1))),
            "invalid boxes: expected shape",
        ),
        (lambda: decoding.resize_boxes([[[0, 0, 1, 1]]], [[1, 1]], (4, 4), "zoom"), "invalid fit"),
    ],
)
def test_invalid_argument_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
