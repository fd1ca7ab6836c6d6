"""Vocabularies by information about the label: tensorflow-transform's own cases, and scikit-learn's metrics."""

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import adjusted_mutual_info_score, mutual_info_score
from sklearn.metrics.cluster import expected_mutual_information

from kerasline.components.core.errors import DataError
from kerasline.components.preprocessing.layers.categories import FrequencyLookup
from kerasline.components.preprocessing.layers.mutual_information import mutual_information

PREDICTORS = [f"good_predictor_of_{c}" if c != "w" else "weak_predictor_of_1" for c in "00012221" + "1w0111w"]
CLASSES = [0, 0, 0, 1, 2, 2, 2, 1, 1, 1, 0, 1, 1, 1, 0]
WORDS = ["hello"] * 3 + ["goodbye"] + ["aaaaa"] * 2 + ["goodbye"] * 2 + ["aaaaa"] * 2 + ["goodbye"] * 2
WORD_LABELS = [1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0]
BY_WEIGHT = np.repeat(["informative_1", "informative_0", "uninformative", "informative_by_weight"], 2).tolist()
BY_WEIGHT_LABELS, WEIGHTS = [1, 1, 0, 0, 0, 1, 0, 1], [1.0] * 7 + [5.0]
INFORMATIVE = ["informative"] * 3 + ["uninformative"] * 4 + ["uninformative_rare"] * 2

# testVocabulary of tensorflow-transform's vocabulary_integration_test.py: values, labels, weights, adjusted, expected.
TFT_CASES = {
    "unadjusted_mi_binary_label": (
        INFORMATIVE,
        [1, 1, 1, 0, 1, 1, 0, 0, 1],
        None,
        False,
        {"informative": 1.7548264, "uninformative": 0.33985, "uninformative_rare": 0.169925},
    ),
    "unadjusted_mi_multi_class_label": (
        PREDICTORS,
        CLASSES,
        None,
        False,
        {
            "good_predictor_of_2": 6.9656613,
            "good_predictor_of_1": 6.5969828,
            "good_predictor_of_0": 6.339692,
            "weak_predictor_of_1": 0.684463,
        },
    ),
    "unadjusted_mi_binary_label_with_weights": (
        BY_WEIGHT,
        BY_WEIGHT_LABELS,
        WEIGHTS,
        False,
        {
            "informative_0": 3.1698803,
            "informative_1": 1.1698843,
            "informative_by_weight": 0.6096405,
            "uninformative": 0.169925,
        },
    ),
    "adjusted_mi_binary_label": (
        WORDS,
        WORD_LABELS,
        None,
        True,
        {"goodbye": 1.4070794, "aaaaa": 0.9987448, "hello": 0.5017178},
    ),
    "adjusted_mi_multi_class_label": (
        PREDICTORS,
        CLASSES,
        None,
        True,
        {
            "good_predictor_of_1": 5.4800901,
            "good_predictor_of_2": 5.3861019,
            "good_predictor_of_0": 4.9054722,
            "weak_predictor_of_1": -0.9748023,
        },
    ),
    "adjusted_mi_binary_label_with_weights": (
        BY_WEIGHT,
        BY_WEIGHT_LABELS,
        WEIGHTS,
        True,
        {
            "informative_0": 2.3029856,
            "informative_1": 0.3029896,
            "informative_by_weight": 0.1713041,
            "uninformative": -0.6969697,
        },
    ),
    "labels_weight_and_frequency": (
        WORDS,
        WORD_LABELS,
        [0.3, 0.4, 0.3, 1.2, 0.6, 0.7, 1.0, 1.0, 0.6, 0.7, 1.0, 1.0],
        False,
        {"aaaaa": 1.5637185, "goodbye": 0.8699492, "hello": 0.6014302},
    ),
    "int64_with_label": (
        [3, 3, 3, 1, 2, 2, 1, 1, 2, 2, 1, 1],
        WORD_LABELS,
        None,
        False,
        {"1": 1.9753224, "2": 1.6600707, "3": 1.2450531},
    ),
}


def adapted_state(layer, values, labels, weights=None, parts=2):
    """Adapt a layer on parts of the data and return the merged state."""
    layer.call_symbolically(values)
    rows, pieces = np.arange(len(values)), []
    for piece in np.array_split(rows, parts):
        state = layer.new_state()
        beside = {} if weights is None else {"sample_weight": np.array(weights)[piece]}
        state.add(values[piece], label=np.array(labels)[piece], positions=piece, **beside)
        pieces.append(state)
    for other in pieces[1:]:
        pieces[0].merge(other)
    layer.set_state(pieces[0])
    return pieces[0]


@pytest.mark.parametrize("case", TFT_CASES)
def test_information_equals_that_of_tensorflow_transform(case):
    values, labels, weights, adjusted, expected = TFT_CASES[case]
    values = np.array(values, object if isinstance(values[0], str) else None)
    layer = FrequencyLookup(
        order="adjusted_mutual_information" if adjusted else "mutual_information",
        sample_weight="weight" if weights else None,
    )
    state = adapted_state(layer, values, labels, weights)
    assert layer.vocabulary == list(expected)
    # Theirs has probabilities clipped to 1e-6.
    assert [score for _, score in state.readable()] == pytest.approx(list(expected.values()), abs=3e-4)


def test_information_agrees_with_scikit_learn():
    random = np.random.default_rng(3)
    value, label = random.integers(0, 5, 400), random.integers(0, 3, 400)
    label[value == 2] = 1
    joint = np.array([[np.sum((value == v) & (label == c)) for c in range(3)] for v in range(5)])
    plain = mutual_information(joint, joint.sum(axis=0), adjusted=False)
    mutual = mutual_info_score(value, label)
    assert plain.sum() / 400 * np.log(2) == pytest.approx(mutual)
    adjusted = mutual_information(joint, joint.sum(axis=0), adjusted=True)
    expected = expected_mutual_information(joint, 400)
    assert (plain - adjusted).sum() / 400 * np.log(2) == pytest.approx(expected)
    mean = np.mean([stats.entropy(joint.sum(axis=axis)) for axis in (0, 1)])
    assert (mutual - expected) / (mean - expected) == pytest.approx(adjusted_mutual_info_score(value, label))


def test_value_counts_once_in_a_row_of_a_list():
    """As tensorflow-transform's test case varlen_feature_with_labels."""
    rows = [["hello", "world", "bye", "moo"], ["world", "moo", "foo", ""], ["hello", "foo", "moo", ""]]
    values = np.array([*rows, ["moo", "moo", "", ""]], object)
    layer = FrequencyLookup(order="mutual_information", max_tokens=2)
    adapted_state(layer, values, [1, 0, 1, 0])
    assert layer.vocabulary == ["hello", "bye"]


def test_multiclass_label_of_a_list_orders_as_tensorflow_transform():
    """As its test case varlen_with_multiclass_labels."""
    rows = [[1, 2, 3, 5], [1, 4, 5], [1, 2], [1, 2], [1, 3, 5], [1, 4, 3], [1, 3]]
    values = np.array([row + [-1] * (4 - len(row)) for row in rows])
    layer = FrequencyLookup(order="mutual_information", max_tokens=4)
    adapted_state(layer, values, [1, 0, 1, 1, 4, 5, 4])
    assert layer.vocabulary == ["2", "4", "3", "5"]


def test_rows_without_a_label_do_not_take_part():
    layer = FrequencyLookup(order="mutual_information")
    layer.adapt(["a", "b", "c"], label=np.array(["yes", "no", None], object))
    assert layer.vocabulary == ["b", "a"]


def test_label_of_too_many_values_is_refused():
    layer = FrequencyLookup(order="mutual_information")
    with pytest.raises(DataError, match="expected a label of at most 1000 classes"):
        layer.adapt(np.array(["a"] * 1001, object), label=np.arange(1001) / 7)


def test_missing_or_unexpected_label_is_refused():
    with pytest.raises(ValueError, match="invalid label: expected an array .* received None"):
        FrequencyLookup(order="mutual_information").adapt(["a"])
    with pytest.raises(ValueError, match=r"invalid label: expected None, received \[1\]"):
        FrequencyLookup().adapt(["a"], label=[1])
