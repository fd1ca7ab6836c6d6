"""Losses of sequences, against sums over all paths and against NumPy."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasline as kl
from kerasline.components.core.keras_compat import set_mask
from kerasline.components.models.compile_config import CompiledLoss

RANDOM = np.random.default_rng(0)
LOGITS = RANDOM.normal(size=(3, 5, 3)).astype("float32")
LENGTHS, LABELS = (5, 3, 4), np.array([[1, 2, -1], [2, -1, -1], [-1, -1, -1]])


def negative_log_of_all_paths(logits, label):
    """Return -ln of the probability of all paths that spell the label, by trying every path."""
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    total = 0.0
    for path in itertools.product(range(logits.shape[1]), repeat=len(logits)):
        if [one for one, _ in itertools.groupby(path) if one] == list(label):
            total += np.prod(scores[range(len(path)), path])
    return -np.log(total)


def masked_logits():
    logits = tf.constant(LOGITS)
    set_mask(logits, tf.sequence_mask(LENGTHS, 5))
    return logits


def test_ctc_counts_the_steps_of_the_mask():
    rows = zip(LOGITS, LENGTHS, LABELS)
    expected = [negative_log_of_all_paths(logits[:length], label[label > 0]) for logits, length, label in rows]
    loss = kl.losses.CTC(reduction=None)
    np.testing.assert_allclose(loss(LABELS, masked_logits()), expected, rtol=1e-5)
    of_rows = CompiledLoss(loss).of_rows(tf.constant(LABELS), masked_logits())
    np.testing.assert_allclose(of_rows.mean, expected, rtol=1e-5)


def test_ctc_without_a_mask_is_that_of_keras():
    labels = np.maximum(LABELS[:2], 0)
    ours, theirs = kl.losses.CTC()(labels, LOGITS[:2]), keras.losses.CTC()(labels, LOGITS[:2])
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_padding_has_no_gradient():
    loss, logits = kl.losses.CTC(), masked_logits()
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(LABELS, logits)
    gradient = tape.gradient(value, logits).numpy()
    assert (gradient[1, 3:] == 0).all() and (gradient[1, :3] != 0).all()


@pytest.mark.parametrize("padding", [-1, 0])
def test_masked_is_the_mean_over_the_labels_that_are_no_padding(padding):
    labels = np.array([[1, 2, padding, padding, padding], [2, 1, 2, 2, padding], [padding] * 5])
    scores = np.exp(LOGITS) / np.exp(LOGITS).sum(axis=2, keepdims=True)
    counted = labels != padding
    expected = -np.log(np.take_along_axis(scores, np.maximum(labels, 0)[..., None], 2)[..., 0][counted]).mean()
    loss = kl.losses.Masked(keras.losses.SparseCategoricalCrossentropy(from_logits=True), padding=padding)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    for one in (loss, again):
        np.testing.assert_allclose(one(labels, LOGITS), expected, rtol=1e-6)
    facts = CompiledLoss(loss)
    assert (facts.kind, facts.from_logits) == ("sparse_categorical_crossentropy", True)
    assert facts.ignores(np.array([padding, 1])).tolist() == [True, False]


@pytest.mark.parametrize("loss", ["mse", keras.losses.MeanSquaredError(), keras.losses.Huber(delta=100.0)])
def test_frames_of_nan_are_left_out(loss):
    label, prediction = RANDOM.normal(size=(2, 4, 3)), RANDOM.normal(size=(2, 4, 3))
    label[0, 2:] = np.nan
    expected = ((label - prediction) ** 2)[~np.isnan(label)].mean() / (2 if isinstance(loss, keras.losses.Huber) else 1)
    np.testing.assert_allclose(kl.losses.Masked(loss)(label, prediction), expected, rtol=1e-5)


def test_weights_of_tokens_multiply_the_masked_loss():
    label = np.array([[1.0, 2.0, np.nan], [3.0, np.nan, np.nan]])
    weight = np.array([[2.0, 0.5, 9.0], [1.0, 9.0, 9.0]])
    # As Keras does for masks: the mean is over the tokens, not over their weights.
    expected = (2.0 * 1 + 0.5 * 2 + 1.0 * 3) / 3
    found = kl.losses.Masked("mae")(label[..., None], np.zeros((2, 3, 1)), sample_weight=weight)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_unknown_loss_is_named():
    with pytest.raises(ValueError, match="mean_sqared"):
        kl.losses.Masked("mean_sqared")


@pytest.mark.parametrize("ignore_class", [None, 0])
def test_smoothed_crossentropy_is_that_of_smoothed_one_hot_labels(ignore_class):
    random = np.random.default_rng(0)
    labels, logits = random.integers(0, 5, (4, 6)), random.normal(size=(4, 6, 5)).astype("float32")
    loss = kl.losses.SmoothedCrossentropy(0.3, ignore_class=ignore_class)
    values = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3, reduction=None)(
        np.eye(5)[labels], logits
    ).numpy()
    kept = np.ones_like(labels, bool) if ignore_class is None else labels != ignore_class
    np.testing.assert_allclose(loss(labels, logits), values[kept].mean(), rtol=1e-5)
    again = keras.losses.deserialize(keras.losses.serialize(loss))
    np.testing.assert_allclose(again(labels, logits), loss(labels, logits))
