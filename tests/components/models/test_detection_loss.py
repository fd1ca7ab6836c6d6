"""The loss of a detector, against a loop over cells and boxes."""

import keras
import numpy as np
import pytest

import kerasline as kl
from kerasline.components.models.compile_config import CompiledLoss

RANDOM = np.random.default_rng(0)
HEIGHT, WIDTH, CLASSES = 6, 8, 3
OBJECTS = np.full((3, 4, 5), np.nan)
OBJECTS[0, :3] = [[0.1, 0.1, 0.5, 0.6, 2], [0.2, 0.2, 0.45, 0.5, 0], [0.8, 0.3, 0.85, 0.34, 1]]
OBJECTS[1, :2] = [[0.0, 0.0, 0.97, 0.9, 1], [0.5, 0.5, 0.9, 0.9, -1]]  # -1: a class that training did not see
CORNERS = np.sort(RANDOM.uniform(size=(3, HEIGHT, WIDTH, 2, 2)), axis=-2).reshape(3, HEIGHT, WIDTH, 4)
PREDICTED = np.concatenate([CORNERS, RANDOM.normal(size=(3, HEIGHT, WIDTH, CLASSES))], -1).astype("float32")


def complete_iou(a, b):
    """Zheng et al., Distance-IoU Loss: IoU - distance of centres² / diagonal² - alpha * v."""
    (ax, ay), (bx, by) = a[2:] - a[:2], b[2:] - b[:2]
    overlap = np.prod(np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0))
    iou = overlap / (ax * ay + bx * by - overlap)
    centers = (((a[:2] + a[2:]) - (b[:2] + b[2:])) / 2) ** 2
    diagonal = (np.maximum(a[2:], b[2:]) - np.minimum(a[:2], b[:2])) ** 2
    v = 4 / np.pi**2 * (np.arctan(ax / ay) - np.arctan(bx / by)) ** 2
    return iou - centers.sum() / diagonal.sum() - v * v / (1 - iou + v)


def by_loops(objects, predicted, radius, focus, weight):
    total, assigned = 0.0, 0
    for row in range(HEIGHT):
        for column in range(WIDTH):
            x, y = (column + 0.5) / WIDTH, (row + 0.5) / HEIGHT
            fitting = []
            for left, top, right, bottom, kind in objects:
                if np.isnan(left) or kind < 0:
                    continue
                away = max(abs(x - (left + right) / 2) * WIDTH, abs(y - (top + bottom) / 2) * HEIGHT)
                if (left < x < right and top < y < bottom and away <= radius) or away <= 0.5:
                    fitting.append(((right - left) * (bottom - top), np.array([left, top, right, bottom]), int(kind)))
            target = np.zeros(CLASSES)
            if fitting:
                _, box, kind = min(fitting, key=lambda one: one[0])
                fit = complete_iou(box, predicted[row, column, :4])
                target[kind] = np.clip(fit, 0, 1)
                total, assigned = total + weight * (1 - fit), assigned + 1
            score = 1 / (1 + np.exp(-predicted[row, column, 4:]))
            entropy = -target * np.log(score) - (1 - target) * np.log(1 - score)
            total += (np.abs(target - score) ** focus * entropy).sum()
    return total / max(assigned, 1)


@pytest.mark.parametrize(("radius", "focus", "weight"), [(1.5, 2.0, 2.0), (0.5, 1.0, 0.5), (9.0, 2.0, 1.0)])
def test_loss_equals_a_loop_over_cells(radius, focus, weight):
    loss = kl.losses.CenterDetection(radius, focus, weight, reduction=None)
    expected = [by_loops(*row, radius, focus, weight) for row in zip(OBJECTS, PREDICTED.astype(float))]
    np.testing.assert_allclose(loss(OBJECTS, PREDICTED), expected, rtol=2e-4)
    np.testing.assert_allclose(CompiledLoss(loss).of_rows(OBJECTS, PREDICTED).total, expected, rtol=2e-4)
    mean = kl.losses.CenterDetection.from_config(loss.get_config() | {"reduction": "sum_over_batch_size"})
    np.testing.assert_allclose(mean(OBJECTS[:, :0], PREDICTED), mean(OBJECTS[2:], PREDICTED), rtol=1e-6)


def test_gradient_is_finite_and_lowers_the_loss():
    import tensorflow as tf

    loss, predicted = kl.losses.CenterDetection(), tf.Variable(PREDICTED[:1])
    optimizer = keras.optimizers.Adam(0.05)
    values = []
    for _ in range(100):
        with tf.GradientTape() as tape:
            value = loss(OBJECTS[:1], predicted)
        (gradient,) = tape.gradient(value, [predicted])
        assert np.isfinite(gradient).all()
        optimizer.apply([gradient], [predicted])
        values.append(float(value))
    assert values[-1] < values[0] / 10
    assert predicted.numpy()[0, 1, 6, 4:].argmax() == 1  # the class of the cell of the smallest object


def test_invalid_arguments_are_refused():
    with pytest.raises(ValueError, match="CenterDetection: radius: expected a number of at least 0, received -1"):
        kl.losses.CenterDetection(radius=-1)
