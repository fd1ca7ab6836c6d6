"""The states of Keras's layers add up: any partition, merged in any order, is one pass."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kerasline.components.preprocessing.adaptation import new_state, set_state

NUMBERS = st.lists(
    st.floats(-1e6, 1e6, width=32) | st.just(float("nan")) | st.just(float("inf")), min_size=1, max_size=60
)
WORDS = st.lists(st.sampled_from([b"a", b"b", b"c", b"", "é".encode(), b"\xff\xfe", b"[UNK]"]), min_size=1, max_size=60)


def pieces(draw, values):
    cuts = sorted(draw(st.lists(st.integers(0, len(values)), max_size=5)))
    return draw(st.permutations(np.split(values, cuts)))


def merged(layer, parts):
    whole = new_state(layer)
    for part in parts:
        one = new_state(layer)
        one.add(part)
        whole.merge(one)
    return whole


@given(st.data(), NUMBERS)
def test_normalization_state_equals_one_pass(data, numbers):
    layer = keras.layers.Normalization()
    layer.build((None, 1))
    values = np.array(numbers, "float32")[:, None]
    set_state(layer, merged(layer, pieces(data.draw, values)))
    finite = values[np.isfinite(values)].astype(np.float64)
    np.testing.assert_allclose(layer.mean, [[finite.mean() if len(finite) else 0]], rtol=1e-5, atol=1e-30)
    np.testing.assert_allclose(layer.variance, [[finite.var() if len(finite) else 1]], rtol=1e-4, atol=1e-8)


@given(st.data(), NUMBERS)
def test_discretization_state_equals_one_pass(data, numbers):
    layer = keras.layers.Discretization(num_bins=4)
    layer.build((None, 1))
    set_state(layer, merged(layer, pieces(data.draw, np.array(numbers, "float32")[:, None])))
    known = np.array(numbers, "float32")[~np.isnan(numbers)]
    expected = np.quantile(known, [0.25, 0.5, 0.75], method="inverted_cdf") if len(known) else []
    assert layer.bin_boundaries == np.unique(expected).tolist()


@given(st.data(), WORDS, st.sampled_from(["int", "tf_idf"]), st.sampled_from([None, 2, 3]))
def test_string_lookup_state_equals_one_pass(data, words, mode, most):
    layer = keras.layers.StringLookup(output_mode=mode, max_tokens=most)
    state = merged(layer, pieces(data.draw, np.array(words, object)))
    known = {word for word in words if word not in (b"", b"\xff\xfe", b"[UNK]")}
    expected = sorted(known, key=lambda word: (words.count(word), word), reverse=True)
    expected = expected[: None if most is None else most - 1]
    assert state.readable() == [(word.decode(), words.count(word)) for word in expected]
    if mode == "tf_idf":
        assert state.rows == len(words) and state.documents().tolist() == [words.count(w) for w in expected]


def of_missing_values(layer):
    text = isinstance(layer, keras.layers.StringLookup)
    state = new_state(layer)
    state.add(np.array([b""] * 3, object) if text else np.array([-1, -1]))
    set_state(layer, state)
    return layer(np.array([["a"]]) if text else np.array([[5]])).numpy()


@pytest.mark.parametrize("kind", [keras.layers.StringLookup, keras.layers.IntegerLookup])
def test_all_missing_values_give_an_empty_vocabulary(kind):
    assert of_missing_values(kind()).tolist() == [[0]]
    assert of_missing_values(kind(output_mode="one_hot")).tolist() == [[1, 0]]


def test_all_missing_values_give_an_empty_vocabulary_with_a_mask():
    assert of_missing_values(keras.layers.StringLookup(mask_token="")).tolist() == [[1]]


def test_strings_that_keras_files_cannot_hold_are_not_in_the_vocabulary(tmp_path):
    raw = keras.Input((1,), name="x", dtype="string")
    layer = keras.layers.StringLookup()
    model = keras.Model({"x": raw}, {"y": layer(raw)})
    state = new_state(layer)
    state.add(
        np.array([b"a\nb", b"a\rb", b"nul\0", b"\0", "a\u2028b".encode(), b"plain", b"tab\tted", b"plain"], object)
    )
    set_state(layer, state)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").layers[-1]
    assert loaded.get_vocabulary() == layer.get_vocabulary() == ["[UNK]", "plain", "tab\tted"]


def test_limited_counting_reports_its_maximum_error():
    random = np.random.default_rng(3)
    words = np.char.add("w", random.zipf(1.5, 200_000).astype(str)).astype(object)
    exact, bounded = (new_state(keras.layers.StringLookup()) for _ in range(2))
    bounded.limit(500)
    for part in np.split(words, 20):
        exact.add(part)
        bounded.add(part)
    true, error = dict(exact.readable()), bounded.error
    assert 0 < error <= len(words) / 500 and len(bounded.readable()) <= 500
    assert all(true[word] - error <= count <= true[word] for word, count in bounded.readable())
    assert {word for word, count in true.items() if count > error} <= {word for word, _ in bounded.readable()}
