"""Temperature scaling of a trained classifier."""

import keras
import numpy as np
import pytest
from scipy.optimize import minimize_scalar
from scipy.special import expit, log_softmax, softmax

from kerasline.components.core.errors import ParameterError
from kerasline.components.trainer.temperature import best_temperature
from tests.components.trainer.conftest import COLUMNS, X, Y

HELD_OUT = slice(0, 90)


def build_model(inputs, hp):
    x = keras.layers.Dense(16, activation="relu")(inputs["x"])
    if hp["head"] == "sigmoid":
        model, loss = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(x)), "binary_crossentropy"
    elif hp["head"] == "softmax":
        scores = keras.layers.Activation("softmax")(keras.layers.Dense(2)(x))
        model, loss = keras.Model(inputs, scores), "sparse_categorical_crossentropy"
    else:
        model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(x))
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.05), loss, metrics=["accuracy"])
    return model


def as_logits(scores, head):
    scores = np.asarray(scores, np.float64)
    if head == "sigmoid":
        return np.concatenate([np.zeros_like(scores), np.log(scores / (1 - scores))], axis=1)
    return np.log(scores) if head == "softmax" else scores


@pytest.mark.parametrize(("head", "weighted"), [("logits", False), ("softmax", True), ("sigmoid", False)])
def test_probabilities_minimize_the_log_loss_of_held_out_rows(train, head, weighted):
    settings = {"epochs": 3, "weighted": weighted, "function": build_model}
    plain, scaled = (train({"head": head}, **settings, **more) for more in ({}, {"calibrate": "temperature"}))
    weight = COLUMNS["w"][HELD_OUT].astype(np.float64) if weighted else np.ones(90)
    before, after = (as_logits(one.model.predict({"x": X[HELD_OUT]}, verbose=0), head) for one in (plain, scaled))

    def log_loss(temperature):
        losses = -log_softmax(before / temperature, axis=1)[np.arange(90), Y[HELD_OUT]]
        return np.average(losses, weights=weight)

    expected = minimize_scalar(log_loss, bounds=(0.01, 10), method="bounded", options={"xatol": 1e-9})
    assert abs(np.log(expected.x)) > 0.1  # another one than before
    assert scaled.metrics["temperature"] == pytest.approx(expected.x, rel=1e-3)
    np.testing.assert_allclose(softmax(after, axis=1), softmax(before / expected.x, axis=1), atol=1e-3)
    assert [epoch["loss"] for epoch in scaled.epochs] == [epoch["loss"] for epoch in plain.epochs]
    facts = scaled.calibration
    assert facts["rows"] == 90
    assert facts["before"]["log_loss"] == pytest.approx(log_loss(1), rel=1e-5)
    assert facts["after"]["log_loss"] == pytest.approx(expected.fun, rel=1e-5)
    if head == "logits":
        for side, logits in (("before", before), ("after", before / expected.x)):
            confidence, right = softmax(logits, axis=1).max(axis=1), logits.argmax(axis=1) == Y[HELD_OUT]
            bins = np.minimum((confidence * 10).astype(int), 9)
            error = sum(abs((confidence - right)[bins == one].sum()) for one in range(10)) / 90
            assert facts[side]["calibration_error"] == pytest.approx(error, abs=1e-4)


def test_rows_without_a_best_temperature_have_none():
    logits, weight = np.array([[2.0, 0.0], [0.0, 3.0]]), np.ones(2)
    assert best_temperature(logits, np.array([0, 1]), weight) is None  # all are right: the colder, the better
    assert best_temperature(logits, np.array([1, 0]), weight) is None  # all are wrong: the hotter, the better
    label = np.array([0, 0])
    found = best_temperature(logits, label, weight)
    assert found is None or found > 1


def test_one_wrong_row_among_equal_ones_has_the_temperature_of_its_share():
    logits, label = np.tile([[0.0, 5.0]], (10, 1)), np.array([1] * 9 + [0])
    assert expit(5 / best_temperature(logits, label, np.ones(10))) == pytest.approx(0.9)


@pytest.mark.parametrize(
    ("head", "settings", "message"),
    [
        ("relu", {}, "Trainer.calibrate: expected an output that a Dense or convolutional layer computes"),
        ("mse", {}, "Trainer.calibrate: expected a model with one output, of classes; received 'score' .regression."),
        ("logits", {"eval_split": None}, "Trainer.calibrate: expected an eval_split"),
        ("logits", {"eval_split": "later"}, "Trainer.calibrate: expected data with the split of eval_split, 'later'"),
        ("logits", {"own": lambda context: None}, "Trainer.calibrate: expected the built-in training loop"),
    ],
)
def test_models_that_cannot_be_calibrated_are_refused(train, head, settings, message):
    def build(inputs, hp):
        if head == "logits":
            return build_model(inputs, {"head": head})
        activation, units = ("relu", 2) if head == "relu" else (None, 1)
        model = keras.Model(inputs, keras.layers.Dense(units, activation=activation, name="score")(inputs["x"]))
        model.compile("sgd", "mse" if head == "mse" else "sparse_categorical_crossentropy")
        return model

    with pytest.raises(ParameterError, match=message):
        train(function=build, calibrate="temperature", **settings)
