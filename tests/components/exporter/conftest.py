"""A small model with inputs of every kind and missing values, trained and exported once."""

from types import SimpleNamespace

import keras
import numpy as np
import pyarrow as pa
import pytest

from kerasline import Exporter, ModelBuilder, Trainer, Transform
from kerasline.components.core.artifacts import Examples
from kerasline.components.data.shards import ExamplesWriter

RANDOM = np.random.default_rng(5)
KINDS = ["fish", "fowl", "flesh"]


def rows(count):
    """Return columns with nulls, lists that are too short, and lists of varying length."""
    kind = RANDOM.integers(0, 3, count)
    amount = kind * 2 + RANDOM.normal(0, 0.4, count)
    point = RANDOM.normal(0, 1, (count, 3)) + kind[:, None]
    return pa.RecordBatch.from_pydict(
        {
            "amount": pa.array([None if i % 7 == 0 else float(v) for i, v in enumerate(amount)], pa.float32()),
            "code": pa.array([None if i % 11 == 0 else int(v) for i, v in enumerate(RANDOM.integers(0, 5, count))]),
            "word": [None if i % 5 == 0 else str(w) for i, w in enumerate(RANDOM.choice(["a", "b", "c"], count))],
            "point": pa.array(
                [None if i % 13 == 0 else [float(v) for v in p[: 1 + i % 3]] for i, p in enumerate(point)],
                pa.list_(pa.float32()),
            ),
            "tags": [None if i % 3 == 0 else ["x"] * (i % 4) + ["y"] for i in range(count)],
            "kind": [KINDS[k] for k in kind],
        }
    )


BATCHES = {"train": rows(400), "eval": rows(60), "test": rows(150)}


def preprocessing():
    raw = {
        "amount": keras.Input((1,), name="amount"),
        "code": keras.Input((), name="code", dtype="int64"),
        "word": keras.Input((1,), name="word", dtype="string"),
        "point": keras.Input((3,), name="point"),
        "tags": keras.Input((None,), name="tags", dtype="string"),
        "kind": keras.Input((), name="kind", dtype="string"),
    }
    code = keras.ops.cast(keras.ops.reshape(raw["code"], (-1, 1)), "float32")
    parts = [
        keras.ops.nan_to_num(keras.layers.Normalization(name="scaled")(raw["amount"])),
        code,
        keras.layers.StringLookup(output_mode="one_hot", name="words")(raw["word"]),
        keras.ops.nan_to_num(raw["point"]),
        keras.layers.StringLookup(vocabulary=["x", "y"], output_mode="multi_hot", name="tag_words")(raw["tags"]),
    ]
    return keras.Model(
        raw,
        {
            "x": keras.layers.Concatenate()(parts),
            "code": keras.ops.cast(keras.ops.maximum(raw["code"], 0), "int32"),
            "kind": keras.layers.StringLookup(num_oov_indices=0, name="kinds")(raw["kind"]),
        },
    )


def build_model(inputs, hp):
    x = keras.layers.Dense(16, activation="relu")(inputs["x"])
    code = keras.layers.Flatten()(keras.layers.Embedding(5, 4)(keras.layers.Reshape((1,))(inputs["code"])))
    scores = keras.layers.Dense(3, activation="softmax", name="scores")(keras.layers.Concatenate()([x, code]))
    model = keras.Model(inputs, scores)
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def examples_of(folder, batches):
    folder.mkdir()
    with ExamplesWriter(Examples(folder), list(batches)) as writer:
        for split, batch in batches.items():
            writer.write(split, batch)
    return Examples(folder)


@pytest.fixture(scope="package")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exporting")
    examples = examples_of(folder / "examples", BATCHES)
    prepared = Transform(examples, function=preprocessing, label="kind").execute(folder / "transform").preprocessing
    built = ModelBuilder(prepared, function=build_model).execute(folder / "built").model
    model = Trainer(examples, prepared, built, epochs=10).execute(folder / "trained").trained_model
    return SimpleNamespace(examples=examples, prepared=prepared, built=built, model=model)


@pytest.fixture(scope="package")
def exported(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return Exporter(trained.prepared, trained.model, trained.examples).execute(folder).saved_model


@pytest.fixture(scope="package")
def expected(trained):
    """Return Keras's predictions for the test rows."""
    from kerasline.components.data.model_inputs import feed

    features = trained.prepared.load_features()
    raw = feed(BATCHES["test"], features.input)
    made = features({name: keras.ops.convert_to_tensor(values) for name, values in raw.items()})
    return SimpleNamespace(
        raw=raw,
        made={name: np.asarray(values) for name, values in made.items()},
        scores=np.asarray(trained.model.load()(made)),
    )
