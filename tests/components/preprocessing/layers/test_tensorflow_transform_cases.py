"""Cases of tensorflow-transform's tests of vocabularies and buckets, by the name that they have there.

Ours differ by choice where the tests say so: 0 is a missing value and 1 an unknown one, numbers are ordered as numbers,
line breaks are kept, `min_count` counts rows also where the label decides the order, and coverage has no threshold.
"""

import numpy as np
import pytest

from kerasline.components.preprocessing.layers import BucketIds, BucketsPerKey, FrequencyLookup, QuantileTransform

HELLO = [["hello", "hello", "world"], ["hello", "goodbye", "world"], ["hello", "goodbye", "foo"]]
WORDS = ["hello"] * 3 + ["goodbye"] + ["aaaaa"] * 2 + ["goodbye"] * 2 + ["aaaaa"] * 2 + ["goodbye"] * 2
WORD_LABELS = [1, 1, 1, 1, 1, 1, 0, 0, 1, 1, 1, 0]
LINES = ["hello", "world", "hello", "hello", "goodbye", "world", "aaaaa", " ", "", "\n", "hi \n ho \n", "\r"]
CROSSED = [["a_X_1", "a_X_1", "a_X_2", "b_X_1", "b_X_2"], ["a_X_1", "a_X_1", "a_X_2", "a_X_2"]]
BY_LETTER = [
    ["0_X_a", "0_X_a", "5_X_a", "6_X_a", "6_X_a", "0_X_a"],
    ["0_X_a", "2_X_a", "2_X_a", "2_X_a", "0_X_a", "5_X_a"],
    ["1_X_b", "1_X_b", "3_X_b", "3_X_b", "0_X_b", "1_X_b", "1_X_b"],
]
BY_INFORMATION = {"order": "mutual_information"}
OOV, MISSING = None, "missing"

# By the name of the test case: values, the layer's options, label, weights, and the expected index in the vocabulary.
VOCABULARIES = {
    "varlen_feature": (
        [["world", "hello", "hello"], ["hello", "world", "foo"], [], ["hello"]],
        {"max_tokens": 2},
        None,
        None,
        [[1, 0, 0], [0, 1, OOV], [], [0]],
    ),
    "vector_feature": (
        [["world", "hello", "hello"], ["hello", "world", "moo"], ["hello", "hello", "foo"], ["world", "foo", "moo"]],
        {"max_tokens": 2},
        None,
        None,
        [[1, 0, 0], [0, 1, OOV], [0, 0, OOV], [1, OOV, OOV]],
    ),
    "vector_feature_with_labels": (
        [["world", "hello", "hi"], ["hello", "world", "moo"], ["hello", "bye", "foo"], ["world", "foo", "moo"]],
        {"max_tokens": 2, **BY_INFORMATION},
        [1, 0, 1, 0],
        None,
        [[OOV, OOV, 1], [OOV, OOV, 0], [OOV, OOV, OOV], [OOV, OOV, 0]],
    ),
    "varlen_integer_feature_with_labels": (
        [[0, 1, 3, 2], [1, 2, 4], [0, 4, 2], [2]],
        {"max_tokens": 2, **BY_INFORMATION},
        [1, 0, 1, 0],
        None,
        [[0, OOV, 1, OOV], [OOV, OOV, OOV], [0, OOV, OOV], [OOV]],
    ),
    "varlen_feature_with_some_empty_feature_values": (
        [["world", "hello", "hi", "moo"], [], ["world", "hello", "foo"], []],
        {"max_tokens": 2, **BY_INFORMATION},
        [1, 0, 1, 0],
        None,
        [[0, 1, OOV, OOV], [], [0, 1, OOV], []],
    ),
    "string_feature_with_label_top_2": (
        [[word] for word in WORDS],
        {"max_tokens": 2, **BY_INFORMATION},
        WORD_LABELS,
        None,
        [[{"hello": OOV, "goodbye": 0, "aaaaa": 1}[word]] for word in WORDS],
    ),
    "string_feature_with_label_top_1": (
        [[word] for word in WORDS],
        {"max_tokens": 1, **BY_INFORMATION},
        WORD_LABELS,
        None,
        [[0 if word == "goodbye" else OOV] for word in WORDS],
    ),
    "labels_and_weights": (
        [[word] for word in WORDS],
        BY_INFORMATION,
        WORD_LABELS,
        [0.3, 0.4, 0.3, 1.2, 0.6, 0.7, 1.0, 1.0, 0.6, 0.7, 1.0, 1.0],
        [[["aaaaa", "goodbye", "hello"].index(word)] for word in WORDS],
    ),
    "whitespace_newlines_and_empty_strings_tfrecord": (
        [[line] for line in LINES],
        {},
        None,
        None,
        [[0], [1], [0], [0], [3], [1], [4], [5], [MISSING], [7], [2], [6]],
    ),
    "positive_and_negative_integers": (
        [[13], [14], [13], [13], [12], [14], [11], [10], [10], [-10], [-10], [-20]],
        {},
        None,
        None,
        [[0], [1], [0], [0], [4], [1], [5], [2], [2], [3], [3], [6]],
    ),
    "rank_2": (
        [[["some", "say"], ["the", "world"]], [["will", "end"], ["in", "fire"]], [["some", "say"], ["in", "ice"]]],
        {},
        None,
        None,
        [[[0, 1], [5, 3]], [[4, 8], [2, 7]], [[0, 1], [2, 6]]],
    ),
    "top_k": (HELLO, {"max_tokens": 2}, None, None, [[0, 0, 1], [0, OOV, 1], [0, OOV, OOV]]),
    "frequency_threshold": (HELLO, {"min_count": 2}, None, None, [[0, 0, 1], [0, 2, 1], [0, 2, OOV]]),
    "empty_vocabulary_from_high_frequency_threshold": (HELLO, {"min_count": 77}, None, None, [[OOV] * 3] * 3),
    "sparse": (
        [["hello"], ["world"], ["hello", "goodbye"], ["hello", "goodbye", " "]],
        {},
        None,
        None,
        [[0], [2], [0, 1], [0, 1, 3]],
    ),
    "ragged": (
        [["hello", " "], ["world"], ["hello", "goodbye"], ["hello", "goodbye", " "]],
        {},
        None,
        None,
        [[0, 2], [3], [0, 1], [0, 1, 2]],
    ),
    "key_fn": (
        [*CROSSED, ["b_X_2"]],
        {"min_count": 3, "coverage_top_k": 1, "coverage_key": "^(.*)_X_"},
        None,
        None,
        [[0, 0, 1, OOV, 2], [0, 0, 1, 1], [2]],
    ),
    "key_fn_and_multi_coverage_top_k": (
        [CROSSED[0], [*CROSSED[1], "a_X_3"], ["b_X_2"]],
        {"min_count": 300, "coverage_top_k": 2, "coverage_key": "^(.*)_X_"},
        None,
        None,
        [[0, 0, 1, 3, 2], [0, 0, 1, 1, OOV], [2]],
    ),
    "key_fn_and_top_k": (
        [*CROSSED, ["b_X_2", "b_X_2", "b_X_2", "b_X_2", "c_X_1"]],
        {"max_tokens": 2, "coverage_top_k": 1, "coverage_key": "^(.*)_X_"},
        None,
        None,
        [[1, 1, OOV, OOV, 0], [1, 1, OOV, OOV], [0, 0, 0, 0, 2]],
    ),
    "key_fn_multi_coverage_top_k": (
        BY_LETTER,
        {"min_count": 4, "coverage_top_k": 2, "coverage_key": "_X_(.*)$"},
        None,
        None,
        [[0, 0, OOV, OOV, OOV, 0], [0, 2, 2, 2, 0, OOV], [1, 1, 3, 3, OOV, 1, 1]],
    ),
    "key_fn_and_labels": (  # their threshold bounds the information, ours the rows
        [[word] for word in ["aaa"] * 3 + ["aab"] + ["aba"] * 2 + ["aab"] * 2 + ["aba"] + ["abc"] * 2 + ["aab"]],
        {"min_count": 5, "coverage_top_k": 1, "coverage_key": "^..", **BY_INFORMATION},
        [1, 1, 1, 1, 0, 1, 0, 0, 0, 1, 1, 0],
        None,
        [[0]] * 3 + [[OOV]] * 6 + [[1]] * 2 + [[OOV]],
    ),
}


def padded(rows, filler):
    """Return rows as an array: lists padded to the longest."""
    longest = max(map(len, rows))
    return np.array([[*row, *[filler] * (longest - len(row))] for row in rows], object)


@pytest.mark.parametrize("case", VOCABULARIES)
def test_vocabulary_gives_the_indices_of_tensorflow_transform(case):
    rows, options, label, weights, expected = VOCABULARIES[case]
    is_text = isinstance(np.array(rows[0]).reshape(-1)[0], str)
    values = padded(rows, "" if is_text else -1)
    values = values if is_text else values.astype(np.int64)
    layer = FrequencyLookup(sample_weight=None if weights is None else "w", **options)
    layer.adapt(values, label=label, sample_weight=weights)
    to_ours = {OOV: 1, MISSING: 0}
    indices = np.vectorize(lambda index: to_ours[index] if index in to_ours else index + 2, otypes=[int])
    np.testing.assert_array_equal(layer(values), indices(padded(expected, MISSING)))


def test_hashed_unknown_words_have_the_buckets_of_tensorflow_transform():
    """top_k_and_oov: the hash of words outside of the vocabulary is that of TensorFlow."""
    rows = [["hello", "hello", "world", "world"], ["hello", "tarkus", "toccata"], ["hello", "goodbye", "foo"]]
    layer = FrequencyLookup(max_tokens=1, hash_bins=3)
    layer.adapt(padded(rows, ""))
    assert layer(padded(rows, "")).numpy().tolist() == [[4, 4, 2, 2], [4, 3, 1, 0], [4, 2, 1, 0]]


def test_joint_vocabulary_of_several_features():
    """testJointVocabularyForMultipleFeatures, with the line break that a file of lines cannot hold."""
    columns = [["hello", "good", "goodbye", " "], ["world", "", "hello", "aaaaa"], ["aaaaa", "hello", "\n", "bbbbb"]]
    layer = FrequencyLookup()
    state = layer.new_state()
    state.add(*(np.array(column, object) for column in columns))
    layer.set_state(state)
    assert layer.vocabulary == ["hello", "aaaaa", "world", "goodbye", "good", "bbbbb", " ", "\n"]


def test_integers_of_equal_count_are_ordered_as_numbers():
    """int_feature_with_top_k: they order integers as texts, so that 3 comes before 111."""
    layer = FrequencyLookup(max_tokens=2)
    layer.adapt([111, 2, 2, 3])
    assert layer.vocabulary == ["2", "111"]


@pytest.mark.parametrize("times", [1, 2])
def test_weighted_quantiles(times):
    """testQuantileBucketsWithWeights and testElementwiseQuantileBucketsWithWeights."""
    numbers = np.arange(1.0, 3000)
    layer = QuantileTransform(quantiles=4, sample_weight="w")
    layer.adapt(np.stack([numbers, times * numbers], axis=1), sample_weight=numbers / 100)
    assert layer.references[:, 1:3].numpy().tolist() == [[1732, 2449], [1732 * times, 2449 * times]]
    buckets = BucketIds(3, sample_weight="w")
    buckets.adapt(numbers, sample_weight=numbers / 100)
    expected = 1 + (numbers >= 1732) + (numbers >= 2449)
    np.testing.assert_array_equal(buckets(numbers), expected)


@pytest.mark.parametrize("interleaved", [False, True])
def test_a_bucket_for_each_of_a_hundred_equally_frequent_numbers(interleaved):
    """testBucketizationEqualDistributionInSequence and ...Interleaved."""
    numbers = np.tile(np.arange(1, 101), 100) if interleaved else np.repeat(np.arange(1, 101), 100)
    layer = BucketIds(101)
    layer.adapt(numbers)
    np.testing.assert_array_equal(layer(np.arange(1, 101)), np.arange(2, 102))


@pytest.mark.parametrize(("bins", "expected"), [(2, [1, 1, 2, 2]), (3, [1, 2, 3, 3]), (4, [1, 2, 3, 4])])
def test_tight_sequences(bins, expected):
    """testBucketizationForTightSequence: boundaries between the numbers give the same buckets as theirs on them."""
    layer = BucketIds(bins)
    layer.adapt([1, 2, 3, 4])
    assert layer(np.array([1, 2, 3, 4])).numpy().tolist() == expected


def test_infrequent_keys_have_their_own_buckets():
    """testBucketizePerKeyWithInfrequentKeys, for keys with as many numbers as buckets and more.

    Theirs puts 13 of key e below 12; with fewer numbers than buckets theirs are shifted by one.
    """
    layer = BucketsPerKey(4)
    values, keys = [2, 4, 6, 8, 2, 4, 6, 8, 10, 11, 12, 13], ["d"] * 4 + ["e"] * 8
    layer.adapt(values, keys)
    assert layer([np.array(values), np.array(keys)]).numpy().tolist() == [1, 2, 3, 4, 1, 1, 2, 2, 3, 3, 4, 4]
