"""The arithmetic of training, compared with NumPy: forward pass, losses, gradients, updates.

Goodfellow, Bengio and Courville, "Deep learning", 2016: sections 6.5 (back-propagation) and 8.3.2
(momentum); Polyak averaging, section 8.7.3; clipping by the norm, section 10.11.1.
"""

import keras
import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from tests.components.trainer.conftest import BATCH, ROWS, X, Y

RATE, MOMENTUM = 0.05, 0.9


def batches(epochs):
    for _ in range(epochs):
        for start in range(0, ROWS, BATCH):
            yield slice(start, start + BATCH)


class ByHand:
    """A dense layer, ReLU, a dense layer, softmax and cross entropy, in float64."""

    def __init__(self, weights):
        self.w = [np.float64(w) for w in weights]
        self.velocity = [np.zeros_like(w) for w in self.w]

    def loss_and_gradients(self, x, y, weight=None):
        w1, b1, w2, b2 = self.w
        before = x @ w1 + b1
        hidden = np.maximum(before, 0)
        logits = hidden @ w2 + b2
        p = np.exp(logits - logits.max(1, keepdims=True))
        p /= p.sum(1, keepdims=True)
        weight = np.ones(len(x)) if weight is None else weight
        loss = np.mean(weight * -np.log(p[np.arange(len(x)), y]))
        d = p.copy()
        d[np.arange(len(x)), y] -= 1
        d *= (weight / len(x))[:, None]
        back = d @ w2.T * (before > 0)
        return loss, [x.T @ back, back.sum(0), hidden.T @ d, d.sum(0)]

    def update(self, gradients, momentum=MOMENTUM):
        for i, gradient in enumerate(gradients):
            self.velocity[i] = momentum * self.velocity[i] - RATE * gradient
            self.w[i] = self.w[i] + self.velocity[i]


def by_hand(weights, epochs=2, weights_of_rows=None, clip=None):
    model, losses = ByHand(weights), []
    for rows in batches(epochs):
        weight = None if weights_of_rows is None else weights_of_rows[rows]
        loss, gradients = model.loss_and_gradients(np.float64(X[rows]), Y[rows], weight)
        losses.append(loss)
        if clip:
            norm = np.sqrt(sum((g**2).sum() for g in gradients))
            gradients = [g * min(1, clip / norm) for g in gradients]
        model.update(gradients)
    return model.w, losses


@pytest.fixture
def start(train):
    """Return the initial weights, from a training with a negligible learning rate."""
    return train({"rate": 1e-30}, steps=1, eval_split=None).weights


HP = {"rate": RATE, "momentum": MOMENTUM}


@pytest.mark.parametrize("jit_compile", [False, True])
def test_steps_agree_with_formulas(train, start, jit_compile):
    trained = train(HP, shuffle=False, jit_compile=jit_compile)
    weights, losses = by_hand(start)
    np.testing.assert_allclose(trained.losses, losses, atol=1e-6)
    for ours, theirs in zip(trained.weights, weights):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


def test_loss_of_an_epoch_is_the_mean_over_its_rows(train, start):
    trained = train(HP, shuffle=False, epochs=1)
    sizes = [len(X[rows]) for rows in batches(1)]
    np.testing.assert_allclose(trained.epochs[0]["loss"], np.average(by_hand(start, 1)[1], weights=sizes), rtol=1e-6)


def test_gradients_are_clipped_by_their_global_norm(train, start):
    trained = train(HP, shuffle=False, clip_norm=0.1)
    np.testing.assert_allclose(trained.losses, by_hand(start, clip=0.1)[1], atol=1e-6)


def test_rows_are_weighted_by_sample_weight(train, start):
    trained = train(HP, shuffle=False, weighted=True)
    np.testing.assert_allclose(trained.losses, by_hand(start, weights_of_rows=np.abs(X[:, 3]))[1], atol=1e-6)


@pytest.mark.parametrize("given", ["balanced", {"1": 3.0}])
def test_rows_are_weighted_by_class_weight(train, start, given):
    table = (
        compute_class_weight("balanced", classes=np.array([0, 1]), y=Y) if given == "balanced" else np.array([1.0, 3.0])
    )
    trained = train(HP, shuffle=False, class_weight=given)
    np.testing.assert_allclose(trained.losses, by_hand(start, weights_of_rows=table[Y])[1], atol=1e-6)


def test_accumulated_gradients_equal_those_of_a_larger_batch(train):
    whole = {"shuffle": False, "eval_split": None}
    small = train(HP, batch_size=8, steps=24, accumulate_steps=2, **whole)
    large = train(HP, batch_size=16, steps=12, **whole)
    for ours, theirs in zip(small.weights, large.weights):
        np.testing.assert_allclose(ours, theirs, atol=2e-6)


@pytest.mark.slow
def test_ema_returns_the_averaged_weights(train, start):
    trained = train(HP, shuffle=False, epochs=1, ema=0.9)
    model, averages = ByHand(start), None
    for rows in batches(1):
        _, gradients = model.loss_and_gradients(np.float64(X[rows]), Y[rows])
        model.update(gradients)
        averages = list(model.w) if averages is None else [0.9 * a + 0.1 * w for a, w in zip(averages, model.w)]
    for ours, theirs in zip(trained.weights, averages):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
    loss = by_hand_loss(averages)
    np.testing.assert_allclose(trained.epochs[0]["val_loss"], loss, rtol=1e-4)


def by_hand_loss(weights):
    return ByHand(weights).loss_and_gradients(np.float64(X[:90]), Y[:90])[0]


@keras.saving.register_keras_serializable("tests")
def half_squared_error(y_true, y_pred):
    """The article's loss, 1/2n times the sum of (prediction - target)². Keras computes the mean over n."""
    return 0.5 * keras.ops.sum(
        keras.ops.square(y_pred - keras.ops.reshape(keras.ops.cast(y_true, "float32"), (-1, 1))), axis=-1
    )


def line(inputs, hp):
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs["x"]))
    model.compile(keras.optimizers.SGD(RATE), half_squared_error)
    return model


def test_half_squared_error_and_plain_gradient_descent(train):
    w, b = train(function=line, steps=1, optimizer={"name": "SGD", "learning_rate": 1e-30}).weights
    w, b = np.float64(w), np.float64(b)
    trained = train(function=line, shuffle=False, epochs=1)
    losses = []
    for rows in batches(1):
        error = np.float64(X[rows]) @ w + b - Y[rows, None]
        losses.append(np.sum(error**2) / (2 * len(error)))
        w, b = w - RATE * X[rows].T @ error / len(error), b - RATE * error.mean(0)
    np.testing.assert_allclose(trained.losses, losses, rtol=1e-5)
    np.testing.assert_allclose(trained.weights[0], w, atol=1e-6)
