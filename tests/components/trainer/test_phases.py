"""Phases of a training: some layers first, then all of them at another rate."""

import keras
import numpy as np
import pytest

from kerasline import ModelBuilder
from kerasline.components.core.errors import ParameterError
from tests.components.trainer.conftest import BATCH, ROWS, X, Y
from tests.components.trainer.conftest import build_model as plain_model

STEPS_PER_EPOCH = -(-ROWS // BATCH)


def build_model(inputs, hp):
    """A backbone with batch normalization, as a nested model, and a head."""
    own = keras.Input((4,))
    x = keras.layers.BatchNormalization(momentum=0.9)(keras.layers.Dense(8, activation="relu")(own))
    backbone = keras.Model(own, x, name="backbone")
    model = keras.Model(inputs, keras.layers.Dense(2, name="logits")(backbone(inputs["x"])))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), loss, metrics=["accuracy"])
    return model


def test_phases_equal_calls_of_fit_with_a_new_optimizer_each(train, problem, tmp_path):
    phases = [{"epochs": 2, "freeze": ["backbone"]}, {"learning_rate": 0.01}]
    trained = train(function=build_model, phases=phases, epochs=5, shuffle=False)

    model = ModelBuilder(problem[1][False], function=build_model).execute(tmp_path / "untrained").model.load()
    losses, loss = [], model.loss
    for rate, epochs, is_trained in ((0.1, 2, False), (0.01, 3, True)):
        model.get_layer("backbone").trainable = is_trained
        before = model.get_layer("backbone").get_weights()
        model.compile(keras.optimizers.SGD(rate, momentum=0.9), loss, metrics=["accuracy"])
        losses += model.fit({"x": X}, Y, BATCH, epochs, shuffle=False, verbose=0).history["loss"]
        after = model.get_layer("backbone").get_weights()
        assert is_trained != all(np.array_equal(*pair) for pair in zip(before, after))
    for ours, theirs in zip(trained.weights, model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    np.testing.assert_allclose([epoch["loss"] for epoch in trained.epochs], losses, rtol=1e-4)
    assert [epoch["phase"] for epoch in trained.epochs] == [1, 1, 2, 2, 2]
    np.testing.assert_allclose([epoch["learning_rate"] for epoch in trained.epochs], [0.1] * 2 + [0.01] * 3, rtol=1e-6)
    assert trained.facts["phases"] == [
        {"epoch": 1, "trainable_parameters": 18},
        {"epoch": 3, "trainable_parameters": 18 + 40 + 16},
    ]


def test_trained_model_is_as_trainable_as_in_its_last_phase(train):
    trained = train(function=build_model, phases=[{"epochs": 1}, {"freeze": ["backbone"], "learning_rate": 0.01}])
    assert [layer.trainable for layer in trained.model.layers] == [True, False, True]
    assert len(trained.model.trainable_variables) == 2
    assert float(trained.model.optimizer.learning_rate) == pytest.approx(0.01)


def test_early_stopping_ends_only_the_last_phase(train):
    phases = [{"epochs": 4, "learning_rate": 1e-9}, {"learning_rate": 1e-9}]
    stopping = {"monitor": "val_loss", "patience": 2, "min_delta": 0.1}
    trained = train(phases=phases, epochs=12, early_stopping=stopping)
    assert len(trained.epochs) == 6 and trained.facts["best_epoch"] == 1


def test_training_that_ends_in_the_first_phase_leaves_the_frozen_layers(train):
    phases = [{"epochs": 2, "freeze": ["hidden"]}, {}]
    trained = train(phases=phases, steps=STEPS_PER_EPOCH + 3)
    initial = train(epochs=1, phases=[{"freeze": ["logits"], "learning_rate": 1e-30}])
    np.testing.assert_array_equal(trained.weights[0], initial.weights[0])
    assert [epoch["phase"] for epoch in trained.epochs] == [1, 1]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"phases": [{"epochs": 1, "freeze": ["hiden"]}, {}]},
            "Trainer.phases.0.freeze: no layer matches 'hiden'; did",
        ),
        ({"phases": [{"freeze": ["*"]}]}, "Trainer.phases.0.freeze: all layers with weights are frozen"),
        ({"phases": [{}, {}]}, "Trainer.phases.0.epochs: expected the number of epochs"),
        ({"phases": [{"epochs": 1}, {"epochs": 1}]}, "Trainer.phases.1.epochs: the last phase lasts to the end"),
        (
            {"phases": [{"epochs": 2}, {}]},
            "Trainer.phases: the last phase begins after epoch 2, and training ends after",
        ),
        ({"phases": [{"learning_rate": "Cosine"}]}, "Trainer.phases.0.learning_rate: Keras has no schedule 'Cosine'"),
        ({"phases": [{"rate": 1}]}, "Trainer.phases: expected"),
        ({"phases": [{}], "own": lambda context: None}, "Trainer.phases: expected the built-in training loop"),
    ],
)
def test_phases_that_cannot_be_trained_are_refused(train, settings, message):
    with pytest.raises(ParameterError, match=message.replace("[", r"\[")):
        train(function=plain_model, **settings)


@pytest.mark.slow
def test_phases_of_replicas_train_as_one_device(train):
    phases = [{"epochs": 2, "freeze": ["hidden"]}, {"learning_rate": 0.01}]
    one, two = (train(phases=phases, epochs=4, **more) for more in ({}, {"distribution": "mirrored", "replicas": 2}))
    np.testing.assert_allclose(two.losses, one.losses, atol=1e-5)
