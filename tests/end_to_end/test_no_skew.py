"""Training, the Keras model and the exported SavedModel see the same: for each recipe, on real rows."""

import gzip
import importlib

import numpy as np
import pytest
import tensorflow as tf

from components import CsvExampleGen, Exporter, InMemoryExampleGen, ModelBuilder, TfdsExampleGen, Transform
from components.columnar.feed import feed
from components.columnar.training_input import dataset

ROWS = 1000


@pytest.fixture
def penguins(tmp_path, request):
    source = "pipeline.recipes.palmer_penguins:PalmerPenguins"
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


@pytest.mark.parametrize(
    ("recipe", "label"), [("penguins", "species"), ("taxi", "big_tipper"), ("fashion_mnist", "label")]
)
def test_all_three_give_the_same_tensors(recipe, label, request, tmp_path):
    examples = request.getfixturevalue(recipe)
    module = importlib.import_module(f"pipeline.recipes.{recipe}")
    preprocessing = Transform(examples, function=module.preprocessing, label=label).execute(tmp_path / "t").preprocessing
    hyperparameters = {"units": 4, "hidden": [8], "learning_rate": 0.1, "momentum": 0.9}
    model = ModelBuilder(preprocessing, function=module.build_model, hyperparameters=hyperparameters)
    built = model.execute(tmp_path / "m").model
    exported = Exporter(preprocessing, built).execute(tmp_path / "e").saved_model

    data = dataset(examples, "train", preprocessing, batch_size=77, work_dir=tmp_path, seed=5)
    shuffled = [features for features, _ in data]
    data = dataset(examples, "train", preprocessing, batch_size=77, work_dir=tmp_path)
    trained_on = {name: np.concatenate([features[name] for features, _ in data]) for name in shuffled[0]}

    features = preprocessing.load_features()
    raw = {name: tf.convert_to_tensor(v) for name, v in feed(examples.read("train"), features.input).items()}
    in_keras = features(raw, training=False)
    signatures = tf.saved_model.load(str(exported.path)).signatures
    served = signatures["transform_features"](**raw)
    assert set(trained_on) == set(in_keras) == set(served)
    for name, expected in in_keras.items():
        np.testing.assert_array_equal(trained_on[name], expected)
        np.testing.assert_array_equal(served[name], expected)
        seen = np.concatenate([batch[name] for batch in shuffled])
        np.testing.assert_array_equal(np.sort(seen, axis=0), np.sort(expected, axis=0))
    answer = signatures["serving_default"](**raw)
    expected = built.load()(dict(trained_on), training=False)
    np.testing.assert_allclose(answer[next(n for n in answer if n != "label")], expected, rtol=1e-5, atol=1e-6)
