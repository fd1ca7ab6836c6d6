"""BagOfWords and TfIdf, compared with scikit-learn's vectorizers."""

import functools
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer

from kerasline.components.preprocessing.layers.text import BagOfWords, TfIdf
from tests.components.preprocessing.layers.round_trip import adapted, round_trips

TEXTS = np.array(
    [
        "The cat sat on the mat.",
        "A cat, a dog: the DOG's dog!",
        "don't stop",
        "x",
        "ÜBER straße  ΟΔΟΣ İstanbul",
        "snake_case and 4 or 42 or ٤٢",
        "日本語 テキスト",
        "tabs\tand\r\nlines\x0b\x1c\u2003\u2028and",
        "the the the cat",
    ],
    dtype=object,
)
UNSEEN = np.array(["the unseen cat", "nothing of it", "", "DOG dog"], dtype=object)

OPTIONS = [
    ({}, {}),
    ({"ngrams": (1, 2)}, {"ngram_range": (1, 2)}),
    ({"ngrams": (2, 3)}, {"ngram_range": (2, 3)}),
    ({"min_documents": 2}, {"min_df": 2}),
    ({"split": "character"}, {"analyzer": "char"}),
    ({"split": "character", "ngrams": (2, 4)}, {"analyzer": "char", "ngram_range": (2, 4)}),
]
WEIGHTS = [
    ({}, {}),
    ({"norm": "l1"}, {"norm": "l1"}),
    ({"norm": None, "smooth": False}, {"norm": None, "smooth_idf": False}),
    ({"tf": "log"}, {"sublinear_tf": True}),
]


def assert_same(layer, vectorizer, texts, rtol=1e-5):
    """Compare the columns of the layer with those of scikit-learn for the same tokens."""
    assert sorted(layer.vocabulary) == sorted(vectorizer.vocabulary_)
    places = [vectorizer.vocabulary_[token] for token in layer.vocabulary]
    want = vectorizer.transform(texts).toarray()[:, places]
    np.testing.assert_allclose(layer(texts), want, rtol=rtol, atol=1e-6)


@pytest.mark.parametrize(("ours", "theirs"), OPTIONS)
def test_counts_agree_with_scikit_learn(ours, theirs):
    for binary in (False, True):
        layer = adapted(BagOfWords(**ours, output="binary" if binary else "count"), TEXTS)
        vectorizer = CountVectorizer(**theirs, binary=binary).fit(TEXTS)
        assert_same(layer, vectorizer, TEXTS, rtol=0)
        assert_same(layer, vectorizer, UNSEEN, rtol=0)


@pytest.mark.parametrize(("ours", "theirs"), OPTIONS[:2] + OPTIONS[3:5])
@pytest.mark.parametrize(("weight", "their_weight"), WEIGHTS)
def test_weights_agree_with_scikit_learn(ours, theirs, weight, their_weight):
    layer = adapted(TfIdf(**ours, **weight), TEXTS[:, None])
    vectorizer = TfidfVectorizer(**theirs, **their_weight).fit(TEXTS)
    assert_same(layer, vectorizer, TEXTS)
    assert_same(layer, vectorizer, UNSEEN)


@pytest.mark.parametrize("smooth", [True, False])
def test_weights_have_the_form_of_tensorflow_transform(smooth):
    """tft.tfidf: the share of a term in its document times log((n + 1) / (d + 1)) + 1, or log(n / d) + 1."""
    layer = adapted(TfIdf(tf="share", norm=None, smooth=smooth), TEXTS[:, None])
    counter = CountVectorizer(vocabulary=layer.vocabulary)
    counts = counter.fit_transform(TEXTS).toarray()
    documents = (TEXTS != "").sum()
    more = int(smooth)
    rarity = np.log((documents + more) / ((counts > 0).sum(axis=0) + more)) + 1
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    np.testing.assert_allclose(layer(TEXTS), shares * rarity, rtol=1e-5, atol=1e-7)


def test_most_frequent_tokens_are_kept_by_count_then_alphabetically():
    texts = np.array(["bb bb bb cc cc", "aa aa dd", "cc"])
    layer = adapted(BagOfWords(max_tokens=3), texts)
    assert layer.vocabulary == ["cc", "bb", "aa"]
    assert set(layer.vocabulary) == set(CountVectorizer(max_features=3).fit(texts).vocabulary_)
    # Tokens in too few texts do not displace others.
    assert adapted(BagOfWords(max_tokens=1, min_documents=2), texts).vocabulary == ["cc"]


ALPHABET = st.text(st.sampled_from("abB _7é日\n.ßΣ\x85\u3000"), max_size=12)


@settings(max_examples=30)
@given(st.lists(ALPHABET, min_size=1, max_size=8), st.sampled_from([0, 1, 4, 5]))
def test_any_text_is_split_as_by_scikit_learn(texts, option):
    ours, theirs = OPTIONS[option]
    texts = np.array([*texts, "abc abc"], dtype=object)
    layer = adapted(BagOfWords(**ours), texts, parts=1)
    assert_same(layer, CountVectorizer(**theirs).fit(texts), texts, rtol=0)


def state_of(texts, layer):
    state = layer.new_state()
    state.add(np.array(texts, dtype=object))
    return state


@settings(max_examples=20)
@given(st.lists(st.lists(ALPHABET, max_size=4), min_size=1, max_size=5), st.randoms())
def test_any_partition_merged_in_any_order_equals_one_pass(parts, random):
    layer = TfIdf(ngrams=(1, 2), split="character", min_documents=2, max_tokens=20)
    states = [pickle.loads(pickle.dumps(state_of(part, layer))) for part in parts]
    random.shuffle(states)
    merged = functools.reduce(lambda one, other: one.merge(other) or one, states)
    whole = state_of(sum(parts, []), layer)
    assert merged.readable() == whole.readable() and merged.documents == whole.documents
    np.testing.assert_array_equal(merged.documents_with(), whole.documents_with())


def test_long_texts_are_split_in_small_batches():
    texts = np.array(["word " * 100_000, "", "word " * 300_000 + "other", "other other"], dtype=object)
    state = state_of(texts, BagOfWords())
    assert state.readable() == [("word", 400_000), ("other", 3)]
    assert state.documents == 3 and state.documents_with().tolist() == [2, 2]


def test_limited_counting_reports_its_maximum_error():
    words = [f"w{i % 40 if i % 2 else i}" for i in range(1, 2000)]
    state = TfIdf().new_state()
    state.limit(50)
    for word in np.array_split(np.array(words, dtype=object), 10):
        state.add(word)
    found = dict(state.readable())
    assert 0 < len(found) <= 50 and state.error > 0
    assert all(words.count(word) - state.error <= count <= words.count(word) for word, count in found.items())


def test_missing_texts_do_not_count_and_give_zeros():
    texts = np.array(["aa bb", "", "aa", "", "!"], dtype=object)
    layer = adapted(TfIdf(norm=None), texts)
    want = TfidfVectorizer(norm=None).fit(["aa bb", "aa", "!"])
    assert_same(layer, want, np.array(["aa bb"]))
    assert not layer(np.array(["", "!", "unseen"])).numpy().any()


@pytest.mark.parametrize("texts", [[], ["", ""], ["!", "?"]])
def test_without_tokens_there_are_no_columns(texts, tmp_path):
    layer = adapted(TfIdf(), np.array(texts, dtype="U1"), parts=2)
    assert layer.vocabulary == [] and layer(np.array(["some text", ""])).shape == (2, 0)
    text = keras.Input((1,), name="text", dtype="string")
    round_trips(keras.Model({"text": text}, {"out": layer(text)}), {"text": np.array([["a"]])}, tmp_path)


def test_one_row_is_enough():
    layer = adapted(TfIdf(), np.array(["aa bb bb"]), parts=1)
    np.testing.assert_allclose(layer(np.array(["bb aa bb"])), [[2 / 5**0.5, 1 / 5**0.5]], rtol=1e-6)


@pytest.mark.parametrize("split", ["word", "character"])
def test_invalid_utf_8_is_ignored(split):
    texts = np.array([b"abc\xff\xfe", b"\xc3", b"ab\xffcd"], dtype=object)
    layer = adapted(BagOfWords(split=split), texts)
    assert "\ufffd" not in "".join(layer.vocabulary)
    want = CountVectorizer(analyzer="word" if split == "word" else "char", decode_error="replace").fit(texts)
    assert set(layer.vocabulary) == set(want.vocabulary_) - {"\ufffd"}


def test_nul_characters_are_spaces():
    texts = np.array([b"AB\x00BC \x00", b"\x00"], dtype=object)
    assert adapted(BagOfWords(), texts).vocabulary == ["bc", "ab"]
    layer = adapted(BagOfWords(split="character"), texts)
    assert dict(zip(layer.vocabulary, layer(texts)[0].numpy())) == {"a": 1, "b": 2, "c": 1, " ": 2}


@pytest.mark.parametrize("shape", [(), (1,)])
def test_saved_and_loaded_model_gives_the_same_outputs(tmp_path, shape):
    texts = TEXTS.reshape(-1, *shape)
    text = keras.Input(shape, name="text", dtype="string")
    layers = [
        BagOfWords(output="binary", ngrams=(1, 2), name="words"),
        TfIdf(name="weights", tf="log"),
        TfIdf(5, split="character", ngrams=(1, 2), norm="l1", name="characters"),
    ]
    model = keras.Model({"text": text}, {layer.name: adapted(layer, texts)(text) for layer in layers})
    assert model.output["characters"].shape == (None, 5)
    round_trips(model, {"text": np.concatenate([texts, UNSEEN.reshape(-1, *shape)])}, tmp_path)


def test_loaded_layer_has_its_vocabulary_and_needs_no_data(tmp_path):
    text = keras.Input((1,), name="text", dtype="string")
    layer = TfIdf(split="character", name="tf_idf")
    model = keras.Model({"text": text}, {"out": layer(text)})
    assert model.output["out"].shape == (None, None)
    layer.set_state(state_of(["ab\nc\x85", "\u2028"], layer))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    again = loaded.get_layer("tf_idf")
    assert again.vocabulary == layer.vocabulary and "\n" in again.vocabulary and again.new_state() is None
    assert loaded.output["out"].shape == (None, 6)
    np.testing.assert_array_equal(again(TEXTS), layer(TEXTS))


def test_runs_in_tf_data_and_on_empty_batches():
    layer = adapted(TfIdf(), TEXTS)
    batches = list(tf.data.Dataset.from_tensor_slices(TEXTS).batch(4).map(layer))
    np.testing.assert_array_equal(np.concatenate(batches), layer(TEXTS))
    assert layer(TEXTS[:0]).shape == (0, len(layer.vocabulary))


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        (
            BagOfWords,
            {"max_tokens": 0},
            "BagOfWords: invalid max_tokens: expected None or an integer from 1.*, received 0",
        ),
        (TfIdf, {"ngrams": (2, 1)}, r"TfIdf: invalid ngrams: .* received \(2, 1\)"),
        (TfIdf, {"ngrams": 2}, "invalid ngrams: .* received 2"),
        (TfIdf, {"min_documents": 0.5}, "invalid min_documents: .* received 0.5"),
        (TfIdf, {"split": "words"}, "invalid split: expected 'word' or 'character'.*, received 'words'"),
        (TfIdf, {"norm": "max"}, "invalid norm: expected 'l2', 'l1' or None.*, received 'max'"),
        (TfIdf, {"vocabulary": ["a", "b"]}, "invalid idf: expected a number for each of the 2 tokens.*, received None"),
        (BagOfWords, {"output": "tf_idf"}, "invalid output: expected 'count' or 'binary'.*, received 'tf_idf'"),
        (BagOfWords, {"vocabulary": ["a", "a"]}, "invalid vocabulary: expected distinct texts.*, received .*"),
    ],
)
def test_invalid_arguments_raise(kind, options, message):
    with pytest.raises(ValueError, match=message):
        kind(**options)


def test_wrong_input_type_and_missing_vocabulary_raise():
    with pytest.raises(ValueError, match="invalid inputs: expected texts, received 'int64'"):
        TfIdf()(keras.Input((1,), dtype="int64"))
    with pytest.raises(ValueError, match=r"invalid inputs: expected shape \(rows,\) or .* received \(None, 2\)"):
        TfIdf()(keras.Input((2,), dtype="string"))
    with pytest.raises(ValueError, match="TfIdf 'mine' has no vocabulary yet"):
        TfIdf(name="mine")(np.array(["a"]))
