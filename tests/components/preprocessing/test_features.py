"""One-line features have the outputs of their layers."""

import io
import wave

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.preprocessing import StandardScaler

from kerasline import Transform
from kerasline.components.core.artifacts import Examples
from kerasline.components.core.errors import DataError, ParameterError
from kerasline.components.data.model_inputs import feed
from kerasline.components.preprocessing.features import (
    AsIs,
    Audio,
    Buckets,
    Category,
    Components,
    Cross,
    DateTime,
    Hashed,
    Image,
    Number,
    Text,
)

RANDOM = np.random.default_rng(8)
ROWS = 120
FARE = [None if row % 7 == 0 else float(value) for row, value in enumerate(RANDOM.exponential(10, ROWS))]
COMPANY = [None if row % 11 == 0 else str(word) for row, word in enumerate(RANDOM.choice(["x", "y", "y", "z"], ROWS))]
HOUR = RANDOM.integers(0, 24, ROWS)
TAGS = [list(map(str, RANDOM.choice(["p", "q", "r"], RANDOM.integers(0, 4)))) for _ in range(ROWS)]
TEXTS = [str(text) for text in RANDOM.choice(["the cat sat down", "a dog ran", "the dog", ""], ROWS)]
STARTED = [f"2026-{1 + row % 12:02d}-{1 + row % 28:02d}T{row % 24:02d}:30:00" for row in range(ROWS)]
PIXELS = RANDOM.integers(0, 256, (ROWS, 6, 5, 3), dtype="uint8")
VECTORS = RANDOM.normal(size=(ROWS, 4)).astype("float32")
TABLE = pa.RecordBatch.from_pydict(
    {
        "fare": FARE,
        "company": COMPANY,
        "hour": HOUR,
        "tags": TAGS,
        "text": TEXTS,
        "started": STARTED,
        "png": [tf.io.encode_png(image).numpy() for image in PIXELS],
        "pixels": pa.FixedShapeTensorArray.from_numpy_ndarray(PIXELS),
        "vector": pa.FixedShapeTensorArray.from_numpy_ndarray(VECTORS),
    }
)


def given(make_examples, tmp_path, **features):
    examples = make_examples({"train": TABLE})
    done = Transform(examples, features=features).execute(tmp_path / "out")
    model = done.preprocessing.load()
    raw = {name: tf.convert_to_tensor(v) for name, v in feed(TABLE, model.input).items()}
    return {name: values.numpy() for name, values in model(raw, training=False).items()}, done


def known(values):
    return np.array([np.nan if value is None else value for value in values])


def test_numbers_are_scaled_and_missing_ones_get_the_mean(make_examples, tmp_path):
    ours, done = given(make_examples, tmp_path, plain=Number(column="fare"), fare=Number(indicator=True))
    fare = known(FARE)
    expected = np.nan_to_num(StandardScaler().fit_transform(fare[:, None]))
    np.testing.assert_allclose(ours["plain"], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        ours["fare"], np.concatenate([expected, np.isnan(fare)[:, None]], axis=1), rtol=1e-4, atol=1e-5
    )
    assert done.metrics["passes"] == 1


@pytest.mark.parametrize("scale", ["min_max", "robust", "log", "uniform", "normal", None])
@pytest.mark.parametrize("impute", ["median", "most_frequent", 7.5, None])
def test_all_scales_work_with_all_fill_values(make_examples, tmp_path, scale, impute):
    ours, _ = given(make_examples, tmp_path, fare=Number(scale=scale, impute=impute, clip=(0.1, 0.9)))
    missing = np.isnan(known(FARE))
    assert np.isfinite(ours["fare"][~missing]).all()
    filled = ours["fare"][missing, 0]
    if impute is None:
        assert np.isnan(filled).all()
    elif impute == "median":
        np.testing.assert_allclose(filled, np.median(ours["fare"][~missing]), rtol=1e-5)
    else:
        assert len(set(filled)) == 1 and (impute == "most_frequent" or filled[0] == impute)


def test_buckets_and_hashes_are_zero_for_missing_values(make_examples, tmp_path):
    ours, _ = given(
        make_examples,
        tmp_path,
        fare=Buckets(4),
        edge=Buckets([5.0, 10.0], column="fare", encode="one_hot"),
        company=Hashed(50),
        hour=Hashed(10, encode="one_hot"),
    )
    missing = np.isnan(known(FARE))
    assert (ours["fare"][missing] == 0).all() and set(ours["fare"][~missing, 0]) == {1, 2, 3, 4}
    assert ours["edge"].shape == (ROWS, 4) and (ours["edge"].argmax(1)[missing] == 0).all()
    np.testing.assert_array_equal(ours["edge"].argmax(1)[~missing], 1 + np.searchsorted([5, 10], known(FARE)[~missing]))
    nameless = np.array([word is None for word in COMPANY])
    assert ((ours["company"][:, 0] == 0) == nameless).all()
    assert ours["hour"].shape == (ROWS, 11) and (ours["hour"].sum(1) == 1).all()


def test_categories_are_numbered_by_frequency(make_examples, tmp_path):
    ours, done = given(
        make_examples,
        tmp_path,
        company=Category(),
        hours=Category(column="hour", top=2, unknown=3),
        tags=Category(encode="multi_hot"),
    )
    words = [word for word in COMPANY if word]
    order = sorted(set(words), key=lambda word: (words.count(word), word), reverse=True)
    expected = [0 if word is None else 2 + order.index(word) for word in COMPANY]
    assert ours["company"][:, 0].tolist() == expected
    assert set(ours["hours"][:, 0]) <= set(range(1, 6))
    listed = (done.preprocessing.path / "state" / "tags_index.txt").read_text().split()[::2]
    for row, tags in zip(ours["tags"], TAGS):
        assert {listed[place - 1] for place in np.flatnonzero(row)} == set(tags)


def test_crosses_are_missing_if_a_part_is_missing(make_examples, tmp_path):
    ours, _ = given(make_examples, tmp_path, both=Cross(["company", "hour"], buckets=1000))
    nameless = np.array([word is None for word in COMPANY])
    assert ((ours["both"][:, 0] == 0) == nameless).all()
    pairs = {}
    for company, hour, bucket in zip(COMPANY, HOUR, ours["both"][:, 0]):
        assert pairs.setdefault((company, hour), bucket) == bucket


def test_text_features_agree_with_their_layers(make_examples, tmp_path):
    ours, _ = given(make_examples, tmp_path, text=Text(length=3), rare=Text(column="text", encode="tf_idf"))
    assert ours["text"].shape == (ROWS, 3) and ((ours["text"] == 0).all(1) == [text == "" for text in TEXTS]).all()
    there = TfidfVectorizer().fit([text for text in TEXTS if text])  # a missing text is no document
    expected = there.transform(TEXTS).toarray()
    np.testing.assert_allclose(np.sort(ours["rare"], axis=1), np.sort(expected, axis=1), rtol=1e-5, atol=1e-6)


def test_date_features_agree_with_their_layer(make_examples, tmp_path):
    ours, _ = given(
        make_examples,
        tmp_path,
        started=DateTime(["month", "hour"]),
        turn=DateTime(["hour"], column="started", cyclic=True),
    )
    assert ours["started"].tolist() == [[1 + row % 12, row % 24] for row in range(ROWS)]
    angle = 2 * np.pi * (np.arange(ROWS) % 24) / 24
    np.testing.assert_allclose(ours["turn"], np.stack([np.sin(angle), np.cos(angle)], axis=1), atol=1e-5)


def test_vector_features_agree_with_their_layers(make_examples, tmp_path):
    ours, _ = given(make_examples, tmp_path, vector=Components(2, whiten=True), raw=AsIs(column="vector"))
    np.testing.assert_allclose(np.cov(ours["vector"].T), np.eye(2), atol=1e-3)
    np.testing.assert_array_equal(ours["raw"], VECTORS)


def test_encoded_and_decoded_images_agree(make_examples, tmp_path):
    ours, done = given(
        make_examples,
        tmp_path,
        png=Image((6, 5)),
        pixels=Image((6, 5)),
        small=Image((3, 3), column="pixels", augment=["flip", "rotate", "contrast"]),
    )
    np.testing.assert_allclose(ours["png"], PIXELS / 255, rtol=1e-6)
    np.testing.assert_array_equal(ours["pixels"], ours["png"])
    assert ours["small"].shape == (ROWS, 3, 3, 3)


def test_audio_features_agree_with_their_layers(make_examples, tmp_path):
    def tone(hertz):
        samples = (np.sin(2 * np.pi * hertz * np.arange(4000) / 8000) * 20000).astype("<i2")
        buffer = io.BytesIO()
        with wave.open(buffer, "wb") as file:
            file.setnchannels(1), file.setsampwidth(2), file.setframerate(8000)
            file.writeframes(samples.tobytes())
        return buffer.getvalue()

    sounds = {"sound": [tone(hertz) for hertz in (200, 800, 3000)]}
    features = {"sound": Audio(0.5, 8000, mels=20)}
    done = Transform(make_examples({"train": sounds}), features=features).execute(tmp_path / "out")
    bands = done.preprocessing.load()({"sound": tf.constant(sounds["sound"])[:, None]})["sound"].numpy()
    loudest = bands.mean(axis=2).argmax(axis=1)
    assert bands.shape[:2] == (3, 20) and loudest[0] < loudest[1] < loudest[2]


@pytest.mark.parametrize(
    ("features", "message"),
    [
        ({"fair": Number()}, "no column 'fair', which feature 'fair' reads; did you mean 'fare'"),
        ({"company": Number()}, "column 'company' is .*string, but Number expects numbers"),
        ({"fare": Category()}, "column 'fare' is double, but Category expects texts or integers"),
        (
            {"a": Text(column="text"), "b": Category(column="tags"), "c": Text(column="tags")},
            "features read column 'tags' both as",
        ),
    ],
)
def test_unsuitable_columns_are_reported(make_examples, tmp_path, features, message):
    with pytest.raises(DataError, match=message):
        given(make_examples, tmp_path, **features)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Number(scale="z"), "Number.scale: expected .* received 'z'"),
        (lambda: Image((28,)), "Image.size"),
        (lambda: Category(encode="tfidf"), "Category.encode: expected .* received 'tfidf'"),
        (lambda: Transform(Examples("x"), features={"a": 3}), r"Transform.features: expected .* received \{'a': 3\}"),
        (lambda: Cross("ab", buckets=3), "Cross.of: expected .* received 'ab'"),
    ],
)
def test_invalid_arguments_raise_at_construction(make, message):
    with pytest.raises(ParameterError, match=message):
        make()


def test_function_and_features_exclude_each_other(make_examples, tmp_path):
    examples = make_examples({"train": TABLE})
    for options in ({}, {"features": {"fare": Number()}, "function": lambda: None}):
        with pytest.raises(ParameterError, match="Transform: expected one of `function`, `features` and an"):
            Transform(examples, **options).execute(tmp_path / "out")


def test_feature_specifications_import_no_keras():
    import subprocess
    import sys

    module = "kerasline.components.preprocessing.features"
    code = f"import sys, {module}; sys.exit(bool({{'keras', 'tensorflow', 'pyarrow'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert keras is not None
