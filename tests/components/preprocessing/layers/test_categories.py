"""FrequencyLookup and Cross, compared with Keras's StringLookup, collections.Counter and plain Python."""

import collections
import functools
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasline.components.preprocessing.layers.categories import ClassIndex, Cross, FrequencyLookup
from tests.components.preprocessing.layers.round_trip import adapted, round_trips

WORDS = np.array(["b", "a", "c", "b", "", "z", "é", "c", "b", "é", "", "a b\nc"], dtype=object)
CODES = np.array([7, -1, 7, 30, 4, 4, 7, -1, 2**40, -5, 30])
QUERIES = np.array(["b", "", "unseen", "other", "é", "c"], dtype=object)
MODES = ("int", "one_hot", "multi_hot", "count")


def by_frequency(values, least=1):
    counts = collections.Counter(values)
    return [v for v in sorted(counts, key=lambda v: (counts[v], v), reverse=True) if counts[v] >= least]


def test_indices_are_missing_unknown_then_values_by_count():
    layer = adapted(FrequencyLookup(), WORDS)
    expected = by_frequency(word for word in WORDS if word)
    assert layer.vocabulary == expected == ["b", "é", "c", "z", "a b\nc", "a"]
    assert layer(np.array(["", "unseen", *expected])).numpy().tolist() == list(range(len(expected) + 2))


@pytest.mark.parametrize("bins", [1, 2, 7])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("shape", [(-1,), (-1, 1), (-1, 3)])
def test_indices_agree_with_keras_string_lookup(bins, mode, shape):
    words = WORDS[:-1]
    layer = adapted(FrequencyLookup(hash_bins=bins, output_mode=mode), words)
    keras_own = keras.layers.StringLookup(mask_token="", num_oov_indices=bins, output_mode=mode)
    keras_own.adapt(words)
    queries = QUERIES.reshape(shape)
    if mode in ("multi_hot", "count") and shape == (-1,):  # there Keras takes all rows for one
        expected = keras_own(queries[:, None])
    else:
        expected = keras_own(queries)
    np.testing.assert_array_equal(layer(queries), expected)
    symbolic = layer(keras.Input(queries.shape[1:], dtype="string"))
    assert symbolic.shape == (None, *expected.shape[1:])
    assert symbolic.dtype == ("int64" if mode == "int" else "float32")


def test_rare_values_and_those_beyond_the_limit_are_unknown():
    words = np.array(list("aaaabbbccd"))
    assert adapted(FrequencyLookup(min_count=2), words).vocabulary == ["a", "b", "c"]
    assert adapted(FrequencyLookup(max_tokens=2), words).vocabulary == ["a", "b"]
    layer = adapted(FrequencyLookup(max_tokens=1, min_count=2, hash_bins=5), words)
    shared = [word.encode() for word in "bcd"]
    expected = tf.strings.to_hash_bucket_fast(shared, 5) + 1
    np.testing.assert_array_equal(layer(np.array(["a", *"bcd"])), [6, *expected])


@pytest.mark.parametrize("dtype", ["int64", "int32", "int16"])
def test_integers_count_as_their_strings(dtype):
    codes = CODES if dtype == "int64" else np.where(CODES > 30, 300, CODES).astype(dtype)
    layer = adapted(FrequencyLookup(hash_bins=3), codes)
    expected = by_frequency(codes[codes != -1].tolist())
    assert layer.vocabulary == [str(code) for code in expected]
    np.testing.assert_array_equal(layer(np.array([-1, *expected], dtype)), [0, *range(4, len(expected) + 4)])
    unseen = np.array([99, -99, 11111], dtype)
    np.testing.assert_array_equal(layer(unseen), layer(unseen.astype(str)))


def test_unsigned_integers_and_booleans_are_never_missing():
    assert adapted(FrequencyLookup(), np.array([255, 1, 255], "uint8")).vocabulary == ["255", "1"]
    layer = adapted(FrequencyLookup(), np.array([True, False, True]))
    assert layer.vocabulary == ["1", "0"] and layer(np.array([False, True])).numpy().tolist() == [3, 2]


def test_string_minus_one_is_a_value():
    assert adapted(FrequencyLookup(), np.array(["-1", "-1", "x"])).vocabulary == ["-1", "x"]


def test_padding_of_lists_has_no_column():
    rows = np.array([["a", "b", "a"], ["b", "", ""], ["", "", ""]])
    layer = adapted(FrequencyLookup(output_mode="count"), rows)
    np.testing.assert_array_equal(layer(rows), [[0, 1, 2], [0, 1, 0], [0, 0, 0]])
    codes = np.array([[3, 3, -1], [4, -1, -1]])
    layer = adapted(FrequencyLookup(output_mode="multi_hot"), codes)
    np.testing.assert_array_equal(layer(codes), [[0, 1, 0], [0, 0, 1]])


def test_higher_ranks_are_counted_along_the_last_axis():
    cube = np.array([[["a", "b"], ["b", "b"]]])
    layer = adapted(FrequencyLookup(output_mode="count"), cube, parts=1)
    np.testing.assert_array_equal(layer(cube), [[[0, 1, 1], [0, 2, 0]]])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("values", [np.array(["", ""], dtype=object), np.array([-1, -1]), np.array([], "U1")])
def test_without_values_everything_is_unknown(mode, values, tmp_path):
    layer = adapted(FrequencyLookup(output_mode=mode), values, parts=2)
    assert layer.vocabulary == []
    expected = [0, 1] if mode == "int" else [[0.0], [1.0]]
    np.testing.assert_array_equal(layer(np.array(["", "x"])), expected)
    word = keras.Input((1,), name="word", dtype="string")
    model = keras.Model({"word": word}, {"out": layer(word)})
    round_trips(model, {"word": np.array([["x"], [""]])}, tmp_path)


def test_one_row_and_a_column_of_one_value_are_enough():
    for words in (np.array(["x"]), np.array(["x"] * 9)):
        assert adapted(FrequencyLookup(), words, parts=1)(words[:1]).numpy() == [2]


def test_invalid_utf_8_is_unknown():
    words = np.array([b"\xff", b"\xff", b"a"], dtype=object)
    layer = adapted(FrequencyLookup(), words)
    assert layer.vocabulary == ["a"] and layer(words).numpy().tolist() == [1, 1, 2]


@settings(max_examples=30)
@given(st.lists(st.lists(st.text(max_size=2), max_size=6), min_size=1, max_size=5), st.randoms())
def test_any_partition_merged_in_any_order_equals_one_pass(parts, random):
    layer, states = FrequencyLookup(max_tokens=6, min_count=2), []
    for part in [*parts, sum(parts, [])]:
        states.append(layer.new_state())
        states[-1].add(np.array([text.encode() for text in part], dtype=object))
    whole = states.pop()
    states = pickle.loads(pickle.dumps(states))
    random.shuffle(states)
    merged = functools.reduce(lambda one, other: one.merge(other) or one, states)
    counts = collections.Counter(filter(None, sum(parts, [])))
    assert merged.readable() == whole.readable() == [(v, counts[v]) for v in by_bytes(counts)]


def by_bytes(counts):
    """Encode as UTF-8, which sorts like code points."""
    kept = [value for value in counts if counts[value] >= 2]
    return sorted(kept, key=lambda value: (counts[value], value.encode()), reverse=True)[:6]


def test_crossed_strings_are_joined_and_empty_if_one_is_missing():
    left, right = np.array(["a", "", "c", "d"]), np.array([1, 2, -1, -20])
    joined = Cross()([left, right])
    assert joined.numpy().tolist() == [b"a_X_1", b"", b"", b"d_X_-20"]
    third = np.array([b"\xff", b"x", b"y", b"z"], dtype=object)
    assert Cross("|")([left, right, third]).numpy().tolist() == [b"a|1|\xff", b"", b"", b"d|-20|z"]


def test_cross_is_hashed_or_looked_up():
    left, right = (keras.Input((1,), dtype=dtype) for dtype in ("string", "int64"))
    joined = Cross(name="joined")([left, right])
    assert joined.shape == (None, 1) and joined.dtype == "string"
    lookup = FrequencyLookup(name="index")
    hashing = keras.layers.Hashing(50, mask_value="", name="bucket")
    model = keras.Model([left, right], [lookup(joined), hashing(joined)])
    state = lookup.new_state()
    state.add(Cross()([WORDS[:11, None], CODES[:, None]]).numpy())
    lookup.set_state(state)
    pairs = [f"{word}_X_{code}" for word, code in zip(WORDS, CODES) if word and code != -1]
    assert lookup.vocabulary == by_frequency(pairs)
    index, bucket = model([tf.constant([["b"], ["b"], [""]]), tf.constant([[7], [-1], [7]], tf.int64)])
    assert index.numpy().ravel().tolist() == [2 + lookup.vocabulary.index("b_X_7"), 0, 0]
    expected = keras.layers.Hashing(50, mask_value="")(np.array(["b_X_7"])).numpy()
    assert bucket.numpy().ravel().tolist() == [expected[0], 0, 0]


@pytest.mark.parametrize("shape", [(), (1,), (3,)])
def test_saved_and_loaded_model_gives_the_same_outputs(tmp_path, shape):
    word, code = np.tile(WORDS, 3), np.tile(np.append(CODES, 8), 3)
    inputs = {"word": word.reshape(-1, *shape), "code": code.reshape(-1, *shape)}
    raw = {n: keras.Input(shape, name=n, dtype="string" if n == "word" else "int64") for n in inputs}
    layers = {mode: FrequencyLookup(4, hash_bins=2, output_mode=mode, name=mode) for mode in MODES}
    outputs = {mode: adapted(layer, inputs["word"])(raw["word"]) for mode, layer in layers.items()}
    outputs["code"] = adapted(FrequencyLookup(min_count=2, name="codes"), inputs["code"])(raw["code"])
    outputs["both"] = keras.layers.Hashing(20, mask_value="")(Cross("&")([raw["word"], raw["code"]]))
    round_trips(keras.Model(raw, outputs), inputs, tmp_path)


def test_loaded_layer_has_its_vocabulary_and_needs_no_data(tmp_path):
    word = keras.Input((1,), name="word", dtype="string")
    layer = FrequencyLookup(output_mode="one_hot", name="index")
    model = keras.Model({"word": word}, {"out": layer(word)})
    assert model.output["out"].shape == (None, None)
    state = layer.new_state()
    state.add(WORDS)
    layer.set_state(state)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.get_layer("index").vocabulary == layer.vocabulary
    assert loaded.get_layer("index").new_state() is None and loaded.output["out"].shape == (None, 7)


def test_runs_in_tf_data_and_on_empty_batches():
    for mode in MODES:
        layer = adapted(FrequencyLookup(output_mode=mode), WORDS)
        batches = list(tf.data.Dataset.from_tensor_slices(WORDS).batch(5).map(layer))
        np.testing.assert_array_equal(np.concatenate(batches), layer(WORDS))
        assert layer(WORDS[:0]).shape == (0, 7)[: 1 if mode == "int" else 2]
        assert len(layer(np.empty((0, 0), dtype="U1"))) == 0


def test_vocabulary_argument_may_have_integers():
    layer = FrequencyLookup(vocabulary=[30, 7])
    assert layer(np.array([7, 30, 8, -1])).numpy().tolist() == [3, 2, 1, 0] and layer.new_state() is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_tokens": 0}, "FrequencyLookup: invalid max_tokens: expected None or an integer from 1.*, received 0"),
        ({"min_count": 0}, "invalid min_count: .* received 0"),
        ({"hash_bins": -1}, "invalid hash_bins: expected an integer from 0.*, received -1"),
        ({"output_mode": "index"}, "invalid output_mode: expected 'int' or 'one_hot' or 'multi.*, received 'index'"),
        ({"vocabulary": ["a", ""]}, "invalid vocabulary: expected distinct values.* received"),
        ({"vocabulary": [1, "1"]}, "invalid vocabulary: expected distinct values.* received"),
    ],
)
def test_invalid_arguments_raise(options, message):
    with pytest.raises(ValueError, match=message):
        FrequencyLookup(**options)


def test_wrong_input_type_and_missing_vocabulary_raise():
    word, code = keras.Input((1,), dtype="string"), keras.Input((1,), dtype="int64")
    pair, scalar = keras.Input((2,), dtype="string"), keras.Input((), dtype="string")
    with pytest.raises(
        ValueError, match="FrequencyLookup: invalid inputs: expected texts or integers, received 'float32'"
    ):
        FrequencyLookup()(keras.Input((1,)))
    with pytest.raises(ValueError, match="'mine' has no vocabulary yet"):
        FrequencyLookup(name="mine")(np.array(["a"]))
    with pytest.raises(ValueError, match="Cross: invalid inputs: .* received 'float32'"):
        Cross()([word, keras.Input((1,))])
    for wrong in ([word], word, [word, pair], [code, scalar]):
        with pytest.raises(
            ValueError,
            match="Cross: invalid inputs: expected a list of at least two tensors of the same shape, received",
        ):
            Cross()(wrong)
    with pytest.raises(ValueError, match="Cross: invalid separator: expected a str, received 3"):
        Cross(separator=3)


def test_reserved_values_begin_the_vocabulary_whether_seen_or_not():
    layer = adapted(FrequencyLookup(max_tokens=4, reserved=["[START]", "c"]), WORDS)
    assert layer.vocabulary == ["[START]", "c", "b", "é"]
    clone = FrequencyLookup.from_config(layer.get_config())
    assert clone.vocabulary == layer.vocabulary and clone.reserved == ("[START]", "c")
    assert adapted(FrequencyLookup(reserved=[4, 99]), CODES).vocabulary == ["4", "99", "7", "30", "1099511627776", "-5"]
    with pytest.raises(ValueError, match="max_tokens: expected more than the 2 reserved values, received 2"):
        FrequencyLookup(max_tokens=2, reserved=["a", "b"])
    with pytest.raises(ValueError, match="reserved: expected distinct values"):
        FrequencyLookup(reserved=["a", "a"])


def test_columns_share_a_joint_vocabulary(tmp_path):
    home, away = np.array(["x", "y", "x", ""], object)[:, None], np.array(["y", "z", "y", "y"], object)[:, None]
    layer = adapted(FrequencyLookup(), home, away, parts=2)
    assert layer.vocabulary == by_frequency([word for word in [*home[:, 0], *away[:, 0]] if word])
    inputs = {name: keras.Input((1,), name=name, dtype="string") for name in ("home", "away")}
    first, second = layer([inputs["home"], inputs["away"]])
    model = keras.Model(inputs, {"home": first, "away": second})
    found = model({"home": tf.constant(home), "away": tf.constant(away)})
    assert found["home"].numpy().ravel().tolist() == [3, 2, 3, 0]
    assert found["away"].numpy().ravel().tolist() == [2, 4, 2, 2]
    round_trips(model, {"home": home, "away": away}, tmp_path)


@pytest.mark.parametrize("mode", ["int", "one_hot"])
def test_minus_one_may_be_an_ordinary_integer(mode):
    ratings = np.array([-1, 0, 1, -1, 1, -1])
    layer = adapted(FrequencyLookup(output_mode=mode, may_be_missing=False), ratings)
    assert layer.vocabulary == ["-1", "1", "0"]
    places = np.array([2, 4, 3, 2, 3, 2])  # 0 is missing, 1 unknown
    np.testing.assert_array_equal(layer(ratings), places if mode == "int" else np.eye(4)[places - 1])
    assert FrequencyLookup.from_config(layer.get_config()).vocabulary == ["-1", "1", "0"]


def test_labels_minus_one_and_one_are_classes():
    layer = adapted(ClassIndex(may_be_missing=False), np.array([1, -1, -1]))
    assert layer.vocabulary == ["-1", "1"]
    clone = ClassIndex.from_config(layer.get_config())
    assert clone(np.array([1, -1, 7])).numpy().tolist() == [1, 0, -1]


def test_weights_decide_the_order_as_in_tensorflow_transform():
    """As its test cases string_feature_with_weights and int64_feature_with_weights."""
    weights = [1.0, 0.5, 1.0, 0.26, 0.25, 1.5]
    words = FrequencyLookup(sample_weight="w")
    words.adapt(["hello", "world", "goodbye", "aaaaa", "aaaaa", "goodbye"], sample_weight=weights)
    assert words.vocabulary == ["goodbye", "hello", "aaaaa", "world"]
    numbers = FrequencyLookup(sample_weight="w")
    numbers.adapt([2, 1, 3, 4, 4, 3], sample_weight=weights)
    assert numbers.vocabulary == ["3", "2", "4", "1"]


def test_every_key_is_covered_beyond_the_limit():
    words = ["en_a"] * 5 + ["en_b"] * 4 + ["en_c"] * 3 + ["fr_a"] * 2 + ["fr_b"] + ["de_a"]
    layer = FrequencyLookup(max_tokens=2, coverage_top_k=1, coverage_key="^(..)_")
    layer.adapt(words)
    assert layer.vocabulary == ["en_a", "en_b", "fr_a", "de_a"]
    rare = FrequencyLookup(max_tokens=2, min_count=2, coverage_top_k=2, coverage_key="^(..)_")
    rare.adapt(words)
    assert rare.vocabulary == ["en_a", "en_b", "fr_a", "fr_b", "de_a"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"order": "tfidf"}, "invalid order: expected 'count' or 'mutual_information'"),
        ({"coverage_top_k": 2}, "coverage_top_k and coverage_key together"),
        ({"coverage_top_k": 2, "coverage_key": "("}, "invalid coverage_key: expected a regular expression"),
        ({"coverage_top_k": -1, "coverage_key": "."}, "invalid coverage_top_k: expected an integer from 0"),
    ],
)
def test_invalid_order_or_coverage_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        FrequencyLookup(**options)


def test_minus_one_is_crossed_as_an_ordinary_integer():
    cross = Cross(may_be_missing=False)
    assert cross([np.array(["a", ""]), np.array([-1, -1])]).numpy().tolist() == [b"a_X_-1", b""]
    assert Cross.from_config(cross.get_config()).may_be_missing is False
