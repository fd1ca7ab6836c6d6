"""Decoding in an answering function: from the columns of a request to the answers of a SavedModel."""

import json
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasline as kl

SIZE = (16, 16)


def photo(height, width, box):
    pixels = np.zeros((height, width, 1), "uint8")
    left, top, right, bottom = box
    pixels[top:bottom, left:right] = 255
    return tf.io.encode_png(pixels).numpy()


PHOTOS = [(32, 64, (16, 8, 48, 24)), (80, 40, (10, 20, 30, 40)), (16, 16, (4, 4, 12, 12))]


def seeing():
    content = keras.Input((1,), name="content", dtype="string")
    pixels, sizes = kl.layers.ImageDecoding(SIZE, channels=1, return_size=True)(content)
    image = keras.layers.Rescaling(1 / 255)(pixels)
    return keras.Model({"content": content}, {"image": image, "sizes": sizes, "mask": keras.ops.round(image)})


def whole_image(inputs, hp):
    model = keras.Model(inputs, keras.layers.Identity(name="mask")(inputs["image"]))
    model.compile("sgd", "mse")
    return model


def found_boxes(model, features):
    """The extent of the bright pixels, twice, so that one box must be suppressed."""
    bright = model({"image": features["image"], "sizes": features["sizes"]})[..., 0] > 0.5
    edges = []
    for axis in (1, 2):  # of rows, of columns
        seen = tf.cast(tf.reduce_any(bright, axis), tf.float32)
        edges.append((16 - tf.reduce_max(seen * tf.range(16.0, 0, -1), 1), tf.reduce_max(seen * tf.range(1, 17.0), 1)))
    (left, right), (top, bottom) = edges
    box = tf.stack([left, top, right, bottom], 1)[:, None]
    scores = tf.tile([[[0.9], [0.8]]], [tf.shape(box)[0], 1, 1])
    found = kl.decoding.non_max_suppression(tf.concat([box, box - 0.5], 1), scores, max_boxes=3)
    boxes = kl.decoding.restore_boxes(found.boxes, features["sizes"], SIZE)
    return {"boxes": boxes, "classes": found.classes, "scores": found.scores}


PREDICT = """
import json, sys
from pathlib import Path
import numpy as np
from kerasline.components.models.predictors import SavedModelPredictor
files = [[Path(name).read_bytes()] for name in sys.argv[2:]]
found = SavedModelPredictor(Path(sys.argv[1]))({"content": np.array(files, object)})
print(json.dumps({name: value.tolist() for name, value in found.items()}))
"""


@pytest.mark.slow
def test_detector_answers_in_pixels_of_the_original_image(make_examples, tmp_path):
    files = [photo(*one) for one in PHOTOS]
    examples = make_examples({"train": {"content": files}})
    prepared = kl.Transform(examples, function=seeing, label="mask").execute(tmp_path / "t").preprocessing
    model = kl.ModelBuilder(prepared, function=whole_image).execute(tmp_path / "m").model
    saved = kl.Exporter(prepared, model, answer=found_boxes).execute(tmp_path / "x").saved_model
    paths = [tmp_path / f"{place}.png" for place in range(3)]
    for path, file in zip(paths, files):
        path.write_bytes(file)
    command = [sys.executable, "-c", PREDICT, str(saved.path), *map(str, paths)]
    found = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    np.testing.assert_allclose(np.array(found["boxes"])[:, 0], [one[2] for one in PHOTOS], atol=3)
    assert found["classes"] == [[0, -1, -1]] * 3
