"""Augmentation changes features and labels together, in training alone, by seed, epoch and row."""

import keras
import numpy as np
import pytest

import kerasline as kl
from kerasline.components.core.errors import UserCodeError
from kerasline.components.data.training_input import Chunks, dataset

RANDOM = np.random.default_rng(0)
SOUND, NOISE = RANDOM.normal(size=(24, 50)), RANDOM.normal(size=(24, 50))


def preprocessing():
    sound, noise = keras.Input((50,), name="sound"), keras.Input((50,), name="noise")
    end = keras.ops.sum(sound, axis=1, keepdims=True)
    outputs = {"sound": keras.layers.Rescaling(1.0)(sound), "noise": keras.layers.Rescaling(0.1)(noise), "total": end}
    return keras.Model({"sound": sound, "noise": noise}, outputs)


def augment(outputs):
    noisy = kl.layers.RandomTimeShift(0.3)(outputs["sound"]) + outputs["noise"]
    noisy = kl.layers.RandomNoise()(noisy)
    return {"sound": noisy, "total": keras.ops.sum(noisy, axis=1, keepdims=True)}


@pytest.fixture(scope="module")
def transformed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("augmented")
    columns = {"sound": SOUND.tolist(), "noise": NOISE.tolist()}
    examples = kl.InMemoryExampleGen(columns, splits={"train": 1}).execute(folder / "examples").examples
    transform = kl.Transform(examples, function=preprocessing, label="total", augment=augment)
    return examples, transform.execute(folder / "out").preprocessing


def rows(transformed, work, **options):
    """Return augmented rows by the sum of their unchanged sound, which identifies them."""
    examples, prepared = transformed
    options = {"batch_size": 8, "seed": 3, **options}
    return [(x["sound"].numpy(), y.numpy()) for x, y in dataset(examples, "train", prepared, work_dir=work, **options)]


def in_order(batches, order):
    return np.concatenate([values for values, _ in batches])[np.argsort(order, kind="stable")]


def test_label_follows_the_augmented_feature(transformed, tmp_path):
    for sound, total in rows(transformed, tmp_path):
        np.testing.assert_allclose(sound.sum(axis=1, keepdims=True), total, rtol=1e-4, atol=1e-4)
        assert not any(np.allclose(one, other) for one in sound for other in SOUND)


def test_evaluation_and_clients_see_unchanged_rows(transformed, tmp_path):
    (sound, _), *_ = rows(transformed, tmp_path, seed=None, batch_size=24)
    np.testing.assert_allclose(sound, SOUND, rtol=1e-5)
    assert list(transformed[1].served_inputs) == ["sound"] and transformed[1].features == ["sound"]


def test_seed_epoch_and_row_decide_the_change(transformed, tmp_path):
    def by_row(**options):
        found = np.concatenate([sound for sound, _ in rows(transformed, tmp_path, **options)])
        return {tuple(row) for row in found.round(3)}

    assert by_row() == by_row(batch_size=5)
    assert not by_row() & by_row(first_epoch=1) and not by_row() & by_row(seed=4)


def test_workers_augment_like_one_process(transformed, tmp_path):
    examples, prepared = transformed
    alone = np.concatenate([sound for sound, _ in rows(transformed, tmp_path)])
    shares = []
    for worker in range(2):
        chunks = Chunks(examples, "train", prepared, batch_size=8, work_dir=tmp_path, seed=3, worker=worker, workers=2)
        shares.append([features["sound"].numpy() for features, _ in chunks.starting(0, 0).take(3)])
    np.testing.assert_allclose(np.concatenate([part for parts in zip(*shares) for part in parts]), alone, rtol=1e-5)


def flipped(outputs):
    boxes = {"boxes": outputs["boxes"], "labels": keras.ops.zeros_like(outputs["boxes"][..., 0])}
    flip = keras.layers.RandomFlip("horizontal", bounding_box_format="xyxy")
    found = flip({"images": outputs["image"], "bounding_boxes": boxes})
    return {"image": found["images"], "boxes": found["bounding_boxes"]["boxes"]}


def pictures():
    image, boxes = keras.Input((8, 8, 1), name="image"), keras.Input((2, 4), name="boxes")
    identity = keras.layers.Identity
    return keras.Model({"image": image, "boxes": boxes}, {"image": identity()(image), "boxes": identity()(boxes)})


def test_boxes_follow_the_image_in_layers_of_keras(make_examples, tmp_path):
    image = np.zeros((8, 8, 1), "float32")
    image[2:4, 1:3] = 1
    boxes = [[1.0, 2.0, 3.0, 4.0], [0.0, 0.0, 8.0, 8.0]]
    examples = make_examples({"train": {"image": [image.tolist()] * 12, "boxes": [boxes] * 12}})
    transform = kl.Transform(examples, function=pictures, label="boxes", augment=flipped)
    prepared = transform.execute(tmp_path / "out").preprocessing
    left = 0
    for features, label in dataset(examples, "train", prepared, batch_size=6, work_dir=tmp_path, seed=0):
        for pixels, (x0, y0, x1, y1) in zip(features["image"].numpy(), label.numpy()[:, 0].round().astype(int)):
            expected = np.zeros_like(image)
            expected[y0:y1, x0:x1] = 1
            np.testing.assert_array_equal(pixels, expected)
            left += x0 == 1
    assert 0 < left < 12


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda outputs: outputs["sound"], "must return a dict of tensors by name, it returned KerasTensor"),
        (lambda outputs: {**outputs, "sounds": outputs["sound"]}, "'sounds', no output of the preprocessing; .*sound"),
        (lambda outputs: {"sound": outputs["sound"]}, "at least one feature; 'total' is missing"),
        (lambda outputs: {**outputs, "sound": outputs["sound"][:, :9]}, r"'sound' must stay float32 \(50,\) per row"),
        (lambda outputs: {**outputs, "sound": keras.layers.Normalization()(outputs["sound"])}, "needs data"),
    ],
)
def test_wrong_functions_are_refused(transformed, tmp_path, function, message):
    with pytest.raises(UserCodeError, match=message):
        transform = kl.Transform(transformed[0], function=preprocessing, label="total", augment=function)
        transform.execute(tmp_path / "out")
