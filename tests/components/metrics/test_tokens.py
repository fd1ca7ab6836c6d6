"""Token metrics against scikit-learn and Keras on flattened tokens."""

import gzip

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, log_loss

from kerasline.components.core.errors import DataError
from kerasline.components.metrics.token_accuracy import TokenAccuracy
from kerasline.components.metrics.tokens import TokenMetrics
from tests.components.metrics.of_rows import rows, total, values
from tests.conftest import SHARED_DATA

CLASSES = 7


def sequences(seed=0, count=60, length=9, padding=-1, dtype=np.float32):
    """Labels with padding behind, none in the first row and nothing else in the last; and softmaxes that know a
    bit of them."""
    rng = np.random.default_rng(seed)
    first = 1 if padding == 0 else 0
    label = rng.integers(first, CLASSES, (count, length))
    logits = rng.normal(size=(count, length, CLASSES)) + 4 * np.eye(CLASSES)[label]
    odds = np.exp(logits - logits.max(axis=2, keepdims=True))
    lengths = rng.integers(1, length + 1, count)
    lengths[0], lengths[-1] = length, 0
    label[np.arange(length) >= lengths[:, np.newaxis]] = padding
    return label, (odds / odds.sum(axis=2, keepdims=True)).astype(dtype)


def flattened(label, probability, padding=-1):
    there = label != padding
    return label[there], probability[there], np.nonzero(there)[0]


@pytest.mark.parametrize("padding", [-1, 0])
def test_metrics_agree_with_scikit_learn_on_flattened_tokens(padding):
    label, probability = sequences(padding=padding)
    found = values(TokenMetrics(ignore=padding), label, probability)
    true, predicted, _ = flattened(label, probability, padding)
    assert found["token_accuracy"] == pytest.approx(accuracy_score(true, predicted.argmax(axis=1)), rel=1e-12)
    entropy = log_loss(true, predicted, labels=range(CLASSES))
    assert found["cross_entropy"] == pytest.approx(entropy, rel=1e-6)
    assert found["perplexity"] == pytest.approx(np.exp(entropy), rel=1e-6)


def test_row_weights_apply_to_all_tokens_of_the_row():
    label, probability = sequences(dtype=np.float64)
    weight = np.random.default_rng(1).uniform(0, 3, len(label))
    found = values(TokenMetrics(), label, probability, weight)
    true, predicted, row = flattened(label, probability)
    expected = log_loss(true, predicted, labels=range(CLASSES), sample_weight=weight[row])
    assert found["cross_entropy"] == pytest.approx(expected, rel=1e-12)
    expected = accuracy_score(true, predicted.argmax(axis=1), sample_weight=weight[row])
    assert found["token_accuracy"] == pytest.approx(expected, rel=1e-12)
    right = [(row.argmax(axis=1) == true)[true >= 0].all() for true, row in zip(label, probability)]
    expected = np.average(right[:-1], weights=weight[:-1])
    assert found["sequence_accuracy"] == pytest.approx(expected, rel=1e-12)


def test_metrics_agree_with_keras():
    label, probability = sequences()
    found = values(TokenMetrics(), label, probability)
    accuracy = keras.metrics.SparseCategoricalAccuracy()
    entropy = keras.metrics.SparseCategoricalCrossentropy()
    for metric in (accuracy, entropy):
        metric.update_state(np.where(label < 0, 0, label), probability, sample_weight=label >= 0)
    assert found["token_accuracy"] == pytest.approx(float(accuracy.result()), rel=1e-6)
    assert found["cross_entropy"] == pytest.approx(float(entropy.result()), rel=1e-5)


def test_sequence_is_correct_if_all_its_tokens_are():
    certain = np.eye(3)[[[0, 1, 2], [0, 1, 1], [2, 0, 0], [1, 1, 1]]]
    found = values(TokenMetrics(), [[0, 1, 2], [0, 1, 2], [2, -1, -1], [-1, -1, -1]], certain)
    assert found["sequence_accuracy"] == 2 / 3  # the last row has no tokens
    assert found["token_accuracy"] == 6 / 7


def test_certain_errors_keep_the_cross_entropy_finite():
    certain = np.array([[[0, 1], [0, 1]]], np.float32)
    found = values(TokenMetrics(), [[0, 1]], certain)
    assert found["cross_entropy"] == pytest.approx(log_loss([0, 1], certain[0]), rel=1e-6)


def test_half_precision_probabilities_are_computed_in_float32():
    label, probability = sequences()
    half = probability.astype(np.float16)
    assert values(TokenMetrics(), label, half) == values(TokenMetrics(), label, half.astype(np.float32))


def test_ragged_rows_equal_padded_rows():
    label, probability = sequences(dtype=np.float64)
    lengths = (label >= 0).sum(axis=1)
    ragged, predictions = np.empty(len(label), object), np.empty(len(label), object)
    for place, length in enumerate(lengths):
        ragged[place] = label[place, :length].tolist()
        predictions[place] = probability[place, :length].tolist()
    expected = values(TokenMetrics(), label, probability)
    assert values(TokenMetrics(), ragged, predictions) == pytest.approx(expected)
    assert values(TokenMetrics(), ragged, probability) == pytest.approx(expected)
    longer = np.concatenate([probability, probability[:, :2]], axis=1)  # the batch had longer rows
    assert values(TokenMetrics(), ragged, longer) == pytest.approx(expected)


def test_cross_entropy_of_letters_equals_the_entropy_of_their_frequencies():
    path = SHARED_DATA / "mt" / "debian_en_fr.tsv.gz"
    if not path.exists():
        pytest.skip(f"no parallel text at {path}")
    with gzip.open(path, "rt", encoding="utf-8") as file:
        texts = [next(file).split("\t")[1].encode()[:80] for _ in range(300)]
    label = np.empty(len(texts), object)
    label[:] = [list(text) for text in texts]
    counts = np.bincount(np.concatenate(label), minlength=256)
    share = counts / counts.sum()
    probability = np.broadcast_to(share, (len(texts), max(map(len, texts)), 256))
    found = values(TokenMetrics(), label, probability)
    entropy = -(share[share > 0] * np.log(share[share > 0])).sum()
    assert found["cross_entropy"] == pytest.approx(entropy, rel=1e-9)
    assert found["token_accuracy"] == pytest.approx(share.max(), rel=1e-12)


def test_rows_of_only_padding_have_no_values():
    found = values(TokenMetrics(), [[-1, -1]], np.full((1, 2, 3), 1 / 3))
    assert all(np.isnan(value) for value in found.values())


def test_no_rows_give_no_values():
    family = TokenMetrics()
    empty = rows(np.zeros((0, 4), int), np.zeros((0, 4, 3)))
    assert family.sums(empty).shape == (0, 6)
    assert all(np.isnan(value) for value in family.values(total(family, empty)).values())


@given(st.integers(0, 5), st.lists(st.integers(0, 30), max_size=4), st.randoms())
@settings(max_examples=30)
def test_sums_of_parts_in_any_order_equal_the_whole(seed, cuts, random):
    label, probability = sequences(seed, count=30)
    family = TokenMetrics()
    parts = [
        total(family, rows(part, scores))
        for part, scores in zip(np.split(label, sorted(cuts)), np.split(probability, sorted(cuts)))
    ]
    random.shuffle(parts)
    assert sum(parts) == pytest.approx(total(family, rows(label, probability)), rel=1e-12)


@pytest.mark.parametrize(
    ("label", "probability", "message"),
    [
        ([[0, 3]], np.full((1, 2, 3), 1 / 3), "a label is 3, but the predictions are of the 3 classes"),
        ([[0, 1, 2]], np.full((1, 2, 3), 1 / 3), "labels of 3 tokens a row do not fit predictions of 2"),
        ([0], np.full((1, 2, 3), 1 / 3), "labels of tokens are"),
        ([[0, 1]], np.full((1, 2), 0.5), r"but have the shape \(2,\)"),
    ],
)
def test_wrong_shapes_are_an_error_in_one_line(label, probability, message):
    with pytest.raises(DataError, match=message):
        TokenMetrics().sums(rows(label, probability))


def test_token_accuracy_of_keras_leaves_padding_out():
    random = np.random.default_rng(0)
    label, scores = random.integers(0, 4, (6, 5)), random.random((6, 5, 4))
    counted, right = label != 0, label == scores.argmax(-1)
    metric = keras.metrics.deserialize(keras.metrics.serialize(TokenAccuracy(ignore_class=0)))
    metric.update_state(label[:3], scores[:3])
    metric.update_state(label[3:], scores[3:])
    assert float(metric.result()) == pytest.approx(right[counted].mean())
    for weight in (random.random(6), random.random((6, 1)), random.random((6, 5))):
        metric.reset_state()
        metric.update_state(label, scores, weight)
        each = np.broadcast_to(weight.reshape(6, -1), (6, 5)) * counted
        assert float(metric.result()) == pytest.approx((each * right).sum() / each.sum())
