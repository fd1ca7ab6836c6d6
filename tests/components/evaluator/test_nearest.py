"""The training pictures that generated ones resemble most."""

import io
from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kerasline as kl
from kerasline.components.core.component import Context
from kerasline.components.core.errors import ParameterError
from kerasline.components.evaluator.checks import check_settings
from kerasline.components.evaluator.nearest import nearest_pictures
from kerasline.components.evaluator.settings import EvaluatorSettings
from tests.components import answering

RANDOM = np.random.default_rng(0)


def encoded(pixels, kind="PNG"):
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, kind)
    return stream.getvalue()


def test_nearest_pictures_and_copies_are_found(make_examples, tmp_path):
    training = RANDOM.integers(0, 256, (2100, 6, 5, 3), "uint8")
    generated = RANDOM.integers(0, 256, (4, 6, 5, 3), "uint8")
    generated[2] = training[1500]
    examples = make_examples({"train": {"image": [encoded(one) for one in training]}})
    found = nearest_pictures([encoded(one) for one in generated], examples, "image", Context(tmp_path))
    distances = np.sqrt(np.square(generated[:, None].astype(float) - training).mean(axis=(2, 3, 4)))
    np.testing.assert_array_equal(found.row, distances.argmin(axis=1))
    np.testing.assert_allclose(found.distance, distances.min(axis=1), rtol=1e-6)
    assert found.row[2] == 1500 and found.distance[2] == 0


def test_pictures_of_other_sizes_and_modes_are_compared_at_the_size_of_the_generated_ones(make_examples, tmp_path):
    large = np.kron(RANDOM.integers(0, 256, (3, 4, 4), "uint8"), np.ones((1, 8, 8), "uint8"))
    examples = make_examples({"train": {"image": [encoded(one) for one in large]}})
    small = np.repeat(large[1, 4::8, 4::8, None], 3, axis=2)
    found = nearest_pictures([encoded(small, "BMP")], examples, "image", Context(tmp_path))
    assert found.row.tolist() == [1] and found.distance[0] < 40


@pytest.mark.parametrize(
    ("splits", "message"),
    [
        ({"train": {"image": [[1.0]]}}, "Evaluator.nearest: expected a column of encoded images, and 'image' is list"),
        ({"test": {"image": [b"x"]}}, "Evaluator.nearest: expected data with the split 'train'"),
    ],
)
def test_data_without_training_pictures_are_refused(make_examples, splits, message):
    others = dict.fromkeys(("preprocessing", "model", "saved_model"))
    inputs = SimpleNamespace(examples=make_examples(splits), judges={}, **others)
    with pytest.raises(ParameterError, match=message):
        check_settings(EvaluatorSettings(nearest="image"), inputs, has_baseline=False)


def test_copied_training_pictures_are_displayed_beside_the_samples(tmp_path):
    training = RANDOM.integers(0, 256, (12, 6, 5, 3), "uint8")
    files = tf.constant([encoded(one) for one in training])
    held_out = [encoded(one) for one in RANDOM.integers(0, 256, (12, 6, 5, 3), "uint8")]
    tables = {
        split: {**answering.kinds(12), "image": images}
        for split, images in (("train", files.numpy().tolist()), ("test", held_out))
    }
    given = answering.untrained(
        tmp_path, tables, answering.kind_preprocessing, answering.build_painter, label="brightness"
    )

    def copy(model, features):
        return {"picture": tf.gather(files, features["seed"][:, 0])}

    exported = kl.Exporter(given.prepared, given.model, given.examples, answer=copy).execute(tmp_path / "x").saved_model
    stage = kl.Evaluator(
        given.examples, given.prepared, given.model, saved_model=exported, nearest="image", replicates=0, samples=4
    )
    evaluation = stage.execute(tmp_path / "evaluation").evaluation
    (group,) = evaluation.read_json("samples/samples.json")["groups"]
    assert len(group["rows"]) == 4
    for row in group["rows"]:
        nearest = row["nearest"]
        assert nearest["row"] == row["row"] and nearest["distance"] == 0 and nearest["held_out_distance"] > 40
        picture = np.asarray(Image.open(evaluation.path / nearest["picture"]).convert("RGB"))
        np.testing.assert_array_equal(picture, training[nearest["row"]])
