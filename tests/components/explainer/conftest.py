"""Trained models on scikit-learn's and the penguins' real data, and what an Explainer says of them."""

import csv
import importlib.util
import io
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pyarrow as pa
import pytest

from kerasline import Explainer, ModelBuilder, Trainer, Transform
from kerasline.components.core.artifacts import Examples
from kerasline.components.data import shards

MEASUREMENTS = ["bill_length_mm", "bill_depth_mm", "flipper_length_mm", "body_mass_g"]
TUMOUR = ["mean radius", "mean texture", "mean smoothness", "worst concavity", "worst area"]


def write_examples(folder, splits):
    folder.mkdir(parents=True)
    examples = Examples(folder)
    with shards.ExamplesWriter(examples, list(splits)) as writer:
        for split, columns in splits.items():
            writer.write(split, pa.RecordBatch.from_pydict(columns))
    return examples


def trained(folder, splits, preprocessing, build_model, epochs=3, **transform):
    """Everything from raw rows to a trained model."""
    examples = write_examples(folder / "examples", splits)
    prepared = Transform(examples, function=preprocessing, **transform).execute(folder / "t").preprocessing
    built = ModelBuilder(prepared, function=build_model).execute(folder / "b").model
    model = Trainer(examples, prepared, built, epochs=epochs, batch_size=16, eval_split=None, tensorboard=False)
    model = model.execute(folder / "m").trained_model
    return SimpleNamespace(examples=examples, prepared=prepared, model=model, splits=splits, folder=folder)


@pytest.fixture
def explain(tmp_path):
    """`explain(problem, split=…, …)`: the explanation's JSON, with `metrics`, `folder` and `progress` beside."""
    count = [0]

    def explain(problem, **given):
        count[0] += 1
        progress = []
        context = {key: given.pop(key) for key in ("beam_options",) if key in given}
        stage = Explainer(problem.examples, problem.prepared, problem.model, **given)
        done = stage.execute(tmp_path / f"explained{count[0]}", report=progress.append, **context)
        found = done.explanation.read_json("explanation.json")
        return SimpleNamespace(
            **found, json=found, metrics=done.metrics, folder=done.explanation.path, progress=progress
        )

    return explain


def numbers(names):
    """Standardised and side by side, as `x`."""
    inputs = {name: keras.Input((1,), name=name) for name in names}
    scaled = [keras.layers.Normalization(name=f"scaled_{number}")(inputs[name]) for number, name in enumerate(names)]
    return keras.Model(inputs, {"x": keras.layers.Concatenate()(scaled)})


def tumour_preprocessing():
    return numbers(TUMOUR)


def tumour_model(inputs, hp):
    """Build a model whose weight of the last column is zero."""
    seen = inputs["x"] * np.array([1, 1, 1, 1, 0], "float32")
    hidden = keras.layers.Dense(8, activation="tanh")(seen)
    model = keras.Model(inputs, keras.layers.Dense(1, name="benign")(hidden))
    model.compile(keras.optimizers.Adam(0.02), keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def tumour_columns():
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    names = list(data.feature_names)
    columns = {name: data.data[:, names.index(name)].astype("float32") for name in TUMOUR}
    return {
        **columns,
        "benign": data.target,
        "patient": [f"patient {n} " + "x" * 300 for n in range(len(data.target))],
        "importance": np.random.default_rng(0).integers(0, 3, len(data.target)).astype("float32"),
    }


def split_at(columns, place):
    return {
        "train": {k: v[:place] for k, v in columns.items()},
        "test": {k: v[place:] for k, v in columns.items()},
    }


@pytest.fixture(scope="session")
def tumours(tmp_path_factory):
    """Binary, with logits: 300 rows to learn from, 269 to explain."""
    folder = tmp_path_factory.mktemp("tumours")
    return trained(folder, split_at(tumour_columns(), 300), tumour_preprocessing, tumour_model, label="benign")


@pytest.fixture(scope="session")
def weighted_tumours(tumours, tmp_path_factory):
    """Return the same model and rows, weighted by 0, 1 or 2."""
    folder = tmp_path_factory.mktemp("weighted")
    prepared = Transform(tumours.examples, function=tumour_preprocessing, label="benign", sample_weight="importance")
    prepared = prepared.execute(folder).preprocessing
    return SimpleNamespace(**{**vars(tumours), "prepared": prepared})


DIABETES = ["age", "sex", "bmi", "bp"]


def diabetes_preprocessing():
    return numbers(DIABETES)


def linear_model(inputs, hp):
    model = keras.Model(inputs, keras.layers.Dense(1, name="progression")(inputs["x"]))
    model.compile(keras.optimizers.Adam(1.0), "mse")
    return model


@pytest.fixture(scope="session")
def diabetes(tmp_path_factory):
    """Return a linear regression."""
    from sklearn.datasets import load_diabetes

    data = load_diabetes(scaled=False)
    columns = {name: data.data[:, number].astype("float32") for number, name in enumerate(DIABETES)}
    columns = split_at({**columns, "progression": data.target.astype("float32")}, 300)
    folder = tmp_path_factory.mktemp("diabetes")
    return trained(folder, columns, diabetes_preprocessing, linear_model, label="progression", epochs=15)


def penguin_preprocessing():
    raw = {name: keras.Input((1,), name=name) for name in MEASUREMENTS}
    raw |= {name: keras.Input((), name=name, dtype="string") for name in ("island", "sex", "species")}
    scaled = [
        keras.ops.nan_to_num(keras.layers.Normalization(name=f"{name}_scaled")(raw[name])) for name in MEASUREMENTS
    ]
    island = keras.layers.StringLookup(name="island_number")(raw["island"])
    sex = keras.layers.StringLookup(output_mode="one_hot", name="sex_one_hot")(raw["sex"])
    species = keras.layers.StringLookup(num_oov_indices=0, name="species_number")(raw["species"])
    return keras.Model(raw, {"x": keras.layers.Concatenate()([*scaled, sex]), "island": island, "species": species})


def penguin_model(inputs, hp):
    island = keras.layers.Embedding(4, 3, name="island_vector")(inputs["island"])
    joined = keras.layers.Concatenate()([inputs["x"], island])
    hidden = keras.layers.Dense(8, activation="relu")(joined)
    model = keras.Model(inputs, keras.layers.Dense(3, activation="softmax", name="species")(hidden))
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def penguin_rows():
    spec = importlib.util.find_spec("palmerpenguins")
    if spec is None:
        pytest.skip("palmerpenguins is not installed")
    text = (Path(spec.submodule_search_locations[0]) / "data" / "penguins.csv").read_text(encoding="utf-8")
    rows = list(csv.DictReader(io.StringIO(text)))
    np.random.default_rng(1).shuffle(rows)
    columns = {name: [None if row[name] == "NA" else float(row[name]) for row in rows] for name in MEASUREMENTS}
    columns |= {
        name: [None if row[name] == "NA" else row[name] for row in rows] for name in ("island", "sex", "species")
    }
    return columns


@pytest.fixture(scope="session")
def penguins(tmp_path_factory):
    """Three species, with texts, missing values, an embedding, and a label made by the preprocessing."""
    folder = tmp_path_factory.mktemp("penguins")
    columns = split_at(penguin_rows(), 244)
    return trained(folder, columns, penguin_preprocessing, penguin_model, label="species", epochs=5)


class Served:
    """The model with its preprocessing, loaded anew: what scikit-learn asks, on a plain array of columns."""

    def __init__(self, problem, names, missing=()):
        self.features, self.model, self.names = problem.prepared.load_features(), problem.model.load(), names

    def output(self, values):
        raw = {name: np.asarray(values)[:, [number]].astype("float32") for number, name in enumerate(self.names)}
        return self.model(self.features(raw)).numpy().astype("float64")


def matrix(problem, names, split="test"):
    return np.column_stack([np.asarray(problem.splits[split][name], "float64") for name in names])
