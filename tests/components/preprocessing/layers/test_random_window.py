"""Random windows of images and their boxes, against a loop over pixels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasline import layers
from kerasline.components.preprocessing.row_seeds import RowSeeds, row_seeds
from tests.components.preprocessing.layers.round_trip import round_trips

ROWS, HEIGHT, WIDTH = 40, 30, 40
BOX = np.array([10, 6, 22, 15])  # left, top, right, bottom in pixels
IMAGES = np.zeros((ROWS, HEIGHT, WIDTH, 1), "float32")
IMAGES[:, 6:15, 10:22] = 1
BOXES = np.tile(np.stack([BOX / [WIDTH, HEIGHT, WIDTH, HEIGHT], [np.nan] * 4]), (ROWS, 1, 1)).astype("float32")


def changed(layer, images=IMAGES, boxes=BOXES):
    with row_seeds(RowSeeds(0, 0, tf.range(len(images), dtype=tf.int64))):
        return [found.numpy() for found in layer(images, boxes, training=True)]


@pytest.mark.parametrize("flip", ["horizontal", "vertical", "both", None])
def test_boxes_surround_the_pixels_of_their_objects(flip):
    images, boxes = changed(layers.RandomWindow((0.8, 1.4), flip=flip, fill=0.5))
    assert np.isnan(boxes[:, 1]).all()
    areas = []
    for image, box in zip(images[..., 0], boxes[:, 0] * [WIDTH, HEIGHT, WIDTH, HEIGHT]):
        y, x = np.nonzero(image > 0.75)
        np.testing.assert_allclose([x.min(), y.min(), x.max() + 1, y.max() + 1], box, atol=1.01)
        areas.append((box[2] - box[0]) * (box[3] - box[1]) / 108)
    assert np.min(areas) < 0.6 and np.max(areas) > 1.2 and len(set(areas)) == ROWS
    assert (images == 0.5).any()  # windows larger than the image


def test_unscaled_window_is_the_image_or_its_mirror_image():
    noise = np.random.default_rng(0).normal(size=IMAGES.shape).astype("float32")
    images, boxes = changed(layers.RandomWindow((1.0, 1.0000001)), noise)
    is_mirrored = boxes[:, 0, 0] > 0.3
    assert 0 < is_mirrored.sum() < ROWS
    np.testing.assert_allclose(images[is_mirrored], noise[is_mirrored, :, ::-1], atol=1e-4)
    np.testing.assert_allclose(images[~is_mirrored], noise[~is_mirrored], atol=1e-4)


def test_boxes_that_are_hardly_visible_are_dropped():
    _, boxes = changed(layers.RandomWindow((0.5, 0.51), visible=0.9))
    dropped = np.isnan(boxes[:, 0]).all(axis=1)
    assert 0 < dropped.sum() < ROWS and not np.isnan(boxes[~dropped, 0]).any()


def test_nothing_changes_outside_of_training(tmp_path):
    layer = layers.RandomWindow((0.5, 1.5), flip="both", visible=0.5, fill=1.0)
    image, boxes = keras.Input((HEIGHT, WIDTH, 1), name="image"), keras.Input((None, 4), name="boxes")
    found = layer(image, boxes)
    model = keras.Model({"image": image, "boxes": boxes}, {"image": found[0], "boxes": found[1]})
    outputs = model({"image": IMAGES, "boxes": BOXES})
    np.testing.assert_array_equal(outputs["image"], IMAGES)
    np.testing.assert_array_equal(outputs["boxes"], BOXES)
    round_trips(model, {"image": IMAGES, "boxes": np.nan_to_num(BOXES)}, tmp_path)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.RandomWindow((0.0, 1.0)), "RandomWindow: invalid scale: expected two numbers above 0"),
        (lambda: layers.RandomWindow(flip="up"), "RandomWindow: invalid flip: expected 'horizontal' or 'vertical'"),
        (lambda: layers.RandomWindow(visible=2), "RandomWindow: invalid visible: expected a number from 0 to 1"),
        (
            lambda: layers.RandomWindow()(keras.Input((8, 8, 3)), keras.Input((5,))),
            r"RandomWindow: invalid boxes: expected shape \(rows, n, 4\)",
        ),
    ],
)
def test_invalid_arguments_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
