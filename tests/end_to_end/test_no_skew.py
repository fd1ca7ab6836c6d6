"""Training, the Keras model and the exported SavedModel get the same features, for each recipe, on real rows."""

import gzip
import importlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasline import CsvExampleGen, Exporter, InMemoryExampleGen, ModelBuilder, TfdsExampleGen, Transform
from kerasline.components.data.model_inputs import feed
from kerasline.components.data.training_input import dataset
from kerasline.components.preprocessing.layers import BucketIds, FrequencyLookup, Imputation, MissingIndicator
from tests.marks import slowly

ROWS = 1000


@pytest.fixture
def penguins(tmp_path, request):
    source = "kerasline.pipeline.recipes.palmer_penguins:PalmerPenguins"
    return TfdsExampleGen(source, splits={"train": 1}).execute(tmp_path / "examples").examples


@pytest.fixture
def taxi(tmp_path, taxi_csv):
    lines = taxi_csv.read_text().splitlines(keepends=True)[: ROWS + 1]
    (tmp_path / "trips.csv").write_text("".join(lines))
    return CsvExampleGen(str(tmp_path / "trips.csv"), splits={"train": 1}).execute(tmp_path / "examples").examples


@pytest.fixture
def fashion_mnist(tmp_path, fashion_folder):
    import pyarrow as pa

    with gzip.open(fashion_folder / "t10k-images-idx3-ubyte.gz") as file:
        pixels = np.frombuffer(file.read(16 + ROWS * 784), np.uint8, offset=16).reshape(ROWS, 28, 28, 1)
    image = pa.FixedShapeTensorArray.from_numpy_ndarray(pixels)
    table = pa.table({"image": image, "label": pa.array(np.arange(ROWS) % 10)})
    return InMemoryExampleGen(table, splits={"train": 1}).execute(tmp_path / "examples").examples


def check(examples, split, preprocessing, model, exported, work_dir, rows):
    """Assert that all three give the same features and predictions for some rows of a split."""
    data = dataset(examples, split, preprocessing, batch_size=77, work_dir=work_dir)
    batches = [features for features, _ in data]
    trained_on = {name: np.concatenate([features[name] for features in batches]) for name in batches[0]}
    features = preprocessing.load_features()
    raw = {name: tf.convert_to_tensor(v) for name, v in feed(rows, features.input).items()}
    in_keras = features(raw, training=False)
    restored = tf.saved_model.load(str(exported.path))
    served = restored.signatures["transform_features"](**raw)
    assert set(trained_on) == set(in_keras) == set(served)
    for name, expected in in_keras.items():
        np.testing.assert_array_equal(trained_on[name], expected)
        np.testing.assert_array_equal(served[name], expected)
    answer = restored.signatures["serving_default"](**raw)
    expected = model.load()(dict(trained_on), training=False)
    np.testing.assert_allclose(answer[next(n for n in answer if n != "label")], expected, rtol=1e-5, atol=1e-6)
    return trained_on


@pytest.mark.parametrize(
    ("recipe", "label"), [("penguins", "species"), slowly("taxi", "big_tipper"), ("fashion_mnist", "label")]
)
def test_training_keras_and_saved_model_get_the_same_tensors(recipe, label, request, tmp_path):
    examples = request.getfixturevalue(recipe)
    module = importlib.import_module(f"kerasline.pipeline.recipes.{recipe}")
    preprocessing = (
        Transform(examples, function=module.preprocessing, label=label).execute(tmp_path / "t").preprocessing
    )
    hyperparameters = {"units": 4, "hidden": [8], "learning_rate": 0.1, "momentum": 0.9}
    model = ModelBuilder(preprocessing, function=module.build_model, hyperparameters=hyperparameters)
    built = model.execute(tmp_path / "m").model
    exported = Exporter(preprocessing, built).execute(tmp_path / "e").saved_model

    in_order = check(examples, "train", preprocessing, built, exported, tmp_path, examples.read("train"))
    shuffled = dataset(examples, "train", preprocessing, batch_size=77, work_dir=tmp_path, seed=5)
    batches = [features for features, _ in shuffled]
    for name, expected in in_order.items():
        seen = np.concatenate([batch[name] for batch in batches])
        np.testing.assert_array_equal(np.sort(seen, axis=0), np.sort(expected, axis=0))


HOLES = {
    "size": [1.0, None, 3.0, float("nan"), float("inf"), 1e30],
    "count": [1, None, 3, 4, -2, 5],
    "word": ["a", None, "", "unseen", "é", "b"],
    "bytes": [b"a", b"\xff\xfe", None, b"", b"a\x00b", b"b"],
    "words": [["a", "b"], None, [], ["unseen"], ["a", None, "a", "b"], ["b"]],
    "numbers": [[1.0, 2.0], None, [], [3.0], [None, 4.0], [5.0, 6.0]],
    "label": [0, 1, 0, 1, 0, 1],
}


def of_holes():
    forms = {
        "size": ((1,), "float32"),
        "count": ((1,), "int64"),
        "word": ((1,), "string"),
        "bytes": ((1,), "string"),
        "words": ((None,), "string"),
        "numbers": ((2,), "float32"),
    }
    raw = {name: keras.Input(shape, name=name, dtype=dtype) for name, (shape, dtype) in forms.items()}
    lookup = keras.layers.StringLookup
    size = keras.layers.Normalization()(raw["size"])
    outputs = {
        "size": Imputation("constant")(size),
        "was_missing": MissingIndicator()(raw["size"]),
        "bucket": BucketIds(bins=2)(raw["size"]),
        "count": keras.layers.IntegerLookup(output_mode="one_hot")(raw["count"]),
        "word": lookup(output_mode="one_hot")(raw["word"]),
        "bytes": FrequencyLookup(output_mode="one_hot")(raw["bytes"]),
        "words": lookup(output_mode="multi_hot", mask_token="")(raw["words"]),
        "numbers": Imputation("mean")(raw["numbers"]),
    }
    return keras.Model(raw, outputs)


def small_model(inputs, hp):
    parts = [keras.ops.cast(keras.ops.nan_to_num(tensor), "float32") for tensor in inputs.values()]
    model = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Concatenate()(parts)))
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_missing_ragged_and_unseen_values_arrive_alike(make_examples, tmp_path):
    seen = {name: [values[0], values[-1]] * 5 for name, values in HOLES.items()}
    examples = make_examples({"train": seen, "eval": HOLES})
    preprocessing = Transform(examples, function=of_holes, label="label").execute(tmp_path / "t").preprocessing
    built = ModelBuilder(preprocessing, function=small_model).execute(tmp_path / "m").model
    exported = Exporter(preprocessing, built).execute(tmp_path / "e").saved_model
    found = check(examples, "eval", preprocessing, built, exported, tmp_path, examples.read("eval"))
    assert found["was_missing"][:, 0].tolist() == [0, 1, 0, 1, 0, 0]
    assert found["size"][[1, 3], 0].tolist() == [0, 0] and found["bucket"][[1, 3], 0].tolist() == [0, 0]
    unknown = [0, 1, 1, 1, 1, 0]  # missing, empty and unseen words are out of the vocabulary
    assert found["word"][:, 0].tolist() == unknown and found["count"][:, 0].tolist() == [0, 1, 1, 1, 1, 0]
    assert found["bytes"].sum(axis=1).tolist() == [1, 1, 0, 0, 1, 1]  # here a missing one has no column
    assert found["words"].sum(axis=1).tolist() == [2, 0, 0, 1, 2, 1]  # a list's missing values are none
    np.testing.assert_array_equal(found["numbers"], [[1, 2], [3, 4], [3, 4], [3, 4], [3, 4], [5, 6]])
