"""Models that are trained once for all tests of the Evaluator."""

import numpy as np
import pytest

from tests.components.evaluator.problems import problem


def dense(width, units, activation=None, name="scores", hidden=16):
    import keras

    x = keras.Input((width,), name="x")
    inner = keras.layers.Dense(hidden, activation="relu")(x) if hidden else x
    return keras.Model({"x": x}, keras.layers.Dense(units, activation=activation, name=name)(inner))


def scaled(features):
    return ((features - features.mean(0)) / (features.std(0) + 1e-9)).astype("float32")


@pytest.fixture(scope="session")
def cancer(tmp_path_factory):
    """Return a binary problem with logits, slices, and a weight that is not used."""
    import keras
    from sklearn.datasets import load_breast_cancer

    features, label = load_breast_cancer(return_X_y=True)
    x = scaled(features)[:, :6] + np.random.default_rng(0).normal(0, 1.5, (len(features), 6)).astype("float32")
    keras.utils.set_random_seed(1)
    model = dense(6, 1)
    model.compile(
        "adam",
        keras.losses.BinaryCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.AUC(from_logits=True, name="auc")],
    )
    model.fit({"x": x}, label, epochs=4, verbose=0)
    random = np.random.default_rng(1)
    columns = {
        "x": x,
        "label": label.astype("int64"),
        "weight": random.gamma(1.0, size=len(label)),
        "site": [None if r < 0.1 else "north" if r < 0.5 else "south" for r in random.random(len(label))],
        "size": features[:, 0],
        "tags": [[tag for tag in "ab" if r < ord(tag) - 96.6] for r in random.random(len(label))],
    }
    return problem(tmp_path_factory.mktemp("cancer"), columns, model, "label")


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Ten classes, by a softmax."""
    import keras
    from sklearn.datasets import load_digits

    features, label = load_digits(return_X_y=True)
    x = scaled(features) + np.random.default_rng(0).normal(0, 1.5, features.shape).astype("float32")
    keras.utils.set_random_seed(2)
    model = dense(64, 10, "softmax")
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit({"x": x}, label, epochs=12, verbose=0)  # with fewer, some seeds hardly find a class
    return problem(tmp_path_factory.mktemp("digits"), {"x": x, "label": label.astype("int64")}, model, "label")
