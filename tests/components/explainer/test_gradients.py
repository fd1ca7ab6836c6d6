"""Integrated gradients against their closed forms and the axiom of completeness."""

import io
from dataclasses import replace

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from PIL import Image

from kerasline.components.core.errors import ParameterError
from kerasline.components.explainer.gradients import IntegratedGradients, MeanAttributions
from kerasline.components.explainer.subject import Subject, Target
from tests.components.explainer.conftest import DIABETES, trained

QUICK = {"features": [], "repeats": 1}


def subject_of(problem):
    return Subject(Target(problem.model.path, problem.prepared.path, problem.examples.path))


def attributed(problem, *, steps=64, baseline="zeros", rows=20):
    subject = subject_of(problem)
    table = problem.examples.read("test").slice(0, rows)
    raw = subject.raw(table)
    gradients = IntegratedGradients(subject, steps=steps, baseline=baseline, first=raw)
    if baseline == "mean":
        gradients.set_means([(raw, np.ones(rows))])
    return subject, raw, gradients, gradients.attribute(raw)


@pytest.mark.parametrize("baseline", ["zeros", "mean", {"x": [1.0, -2.0, 0.5, 3.0]}])
def test_attributions_of_a_linear_model_are_weight_times_distance(diabetes, baseline):
    subject, raw, _, found = attributed(diabetes, baseline=baseline)
    x = subject.features(raw)["x"].numpy()
    start = (
        {"zeros": np.zeros(4), "mean": x.mean(0)}[baseline] if isinstance(baseline, str) else np.array(baseline["x"])
    )
    weight = subject.model.get_weights()[0][:, 0]
    np.testing.assert_allclose(found.values["x"], weight * (x - start), rtol=1e-5, atol=1e-4)
    np.testing.assert_allclose(found.missing, 0, atol=1e-3)  # of answers around 150


def test_attributions_sum_to_the_difference_of_the_scores(tumours):
    """Return F(x) - F(baseline), computed by the model on preprocessed rows."""
    subject, raw, _, found = attributed(tumours, steps=64)
    score = lambda x: tf.sigmoid(subject.model({"x": x})).numpy()[:, 0]  # noqa: E731
    x = subject.features(raw)["x"].numpy()
    np.testing.assert_allclose(found.values["x"].sum(1), score(x) - score(np.zeros_like(x)), atol=2e-5)
    np.testing.assert_allclose(found.missing, 0, atol=2e-5)


@pytest.mark.slow
def test_more_steps_improve_completeness(penguins):
    """Where a network has kinks."""
    errors = [np.abs(attributed(penguins, steps=steps)[3].missing).max() for steps in (2, 16, 256)]
    assert errors[0] > errors[1] > 8 * errors[2] and errors[2] < 5e-3


def test_ignored_inputs_have_zero_attribution(tumours):
    assert not attributed(tumours)[3].values["x"][:, -1].any()


def cubic_model(inputs, hp):
    squared = inputs["x"] ** 3
    model = keras.Model(
        inputs, keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", trainable=False)(squared)
    )
    model.compile("sgd", "mse")
    return model


def test_two_quadrature_points_are_exact_for_a_cubic(diabetes):
    """Of sum(x^3) from zero, each attribution is the cube; two gradients by another rule are off."""
    subject = subject_of(diabetes)
    subject.served = replace(subject.served, model=cubic_model({"x": keras.Input((4,), name="x")}, {}))
    raw = subject.raw(diabetes.examples.read("test").slice(0, 10))
    # The output has another name; scores are taken of what the model gives, whatever it is called.
    subject.output = subject.model.output_names[0]
    found = IntegratedGradients(subject, steps=2, baseline="zeros", first=raw).attribute(raw)
    np.testing.assert_allclose(found.values["x"], subject.features(raw)["x"].numpy() ** 3, rtol=1e-4, atol=1e-6)


def test_embeddings_are_attributed_and_the_model_is_unchanged(penguins):
    subject, raw, gradients, found = attributed(penguins, steps=1024)
    assert gradients.features == ["x", "island_vector"]
    features = subject.features(raw)
    assert "call" not in vars(subject.model.get_layer("island_vector"))
    # From zeros: the score of the predicted class, where island's vector and the numbers are all zero.
    scores = subject.model(features).numpy()
    rows, target = np.arange(len(scores)), scores.argmax(1)
    hidden, last = subject.model.layers[-2].get_weights(), subject.model.layers[-1].get_weights()
    start = np.maximum(hidden[1], 0) @ last[0] + last[1]
    start = np.exp(start) / np.exp(start).sum()
    total = found.values["x"].sum(1) + found.values["island_vector"]
    np.testing.assert_allclose(total, scores[rows, target] - start[target], atol=2e-3)
    assert np.abs(found.values["island_vector"]).max() > 0.01


WORDS = ["alas", "be", "can", "do", "every", "few", "go"]


def text_preprocessing():
    text = keras.Input((), name="text", dtype="string")
    words = keras.layers.TextVectorization(vocabulary=WORDS, output_sequence_length=6)(text)
    return keras.Model({"text": text}, {"words": words})


def text_model(inputs, hp):
    vectors = keras.layers.Embedding(len(WORDS) + 2, 4, name="vectors", mask_zero=True)(inputs["words"])
    model = keras.Model(inputs, keras.layers.Dense(1, name="score")(keras.layers.GlobalAveragePooling1D()(vectors)))
    model.compile("adam", "mse")
    return model


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    random = np.random.default_rng(0)
    sentences = [" ".join(random.choice(WORDS, random.integers(1, 6))) for _ in range(60)]
    columns = {"text": sentences, "score": [float(len(text)) for text in sentences]}
    return trained(
        tmp_path_factory.mktemp("texts"),
        {"train": columns, "test": columns},
        text_preprocessing,
        text_model,
        label="score",
    )


def test_each_token_has_an_attribution_and_masked_ones_have_none(texts):
    """The model is linear in the vectors: a word counts w . E[word] / words of the text, padding nothing."""
    subject, raw, _, found = attributed(texts)
    words = subject.features(raw)["words"].numpy()
    vectors, weight, _ = subject.model.get_weights()
    there = words > 0
    known = np.where(there, (vectors @ weight)[words, 0] / there.sum(1, keepdims=True), 0)
    np.testing.assert_allclose(found.values["vectors"], known, rtol=1e-4, atol=1e-6)
    means = MeanAttributions()
    means.add(found, np.ones(len(words)))
    (entry,) = means.as_json()
    np.testing.assert_allclose(entry["places"], np.abs(known).mean(0), rtol=1e-4, atol=1e-6)
    assert entry["feature"] == "vectors" and entry["mean_absolute"] == pytest.approx(
        np.abs(known).sum(1).mean(), rel=1e-4
    )


def test_worst_rows_have_the_attributions_of_their_words(texts, explain):
    found = explain(texts, repeats=1, features=[])
    columns, (subject, *_) = texts.splits["test"], attributed(texts)
    vectors, weight, _ = subject.model.get_weights()
    for row in found.worst["rows"]:
        words, values = zip(*row["tokens"]["words"])
        known = columns["text"][row["place"]].split()
        assert [word.strip() for word in words] == known
        ids = [WORDS.index(word) + 2 for word in known]
        np.testing.assert_allclose(values, (vectors @ weight)[ids, 0] / len(ids), rtol=1e-4, atol=1e-6)


def digits():
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = (data.images / 16 * 255).astype(np.uint8)[..., None]
    return pixels[:400], data.target[:400]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels[..., 0]).save(buffer, "PNG")
    return buffer.getvalue()


def tensor_columns():
    pixels, labels = digits()
    return {"picture": pa.FixedShapeTensorArray.from_numpy_ndarray(pixels), "label": labels}


def flat_preprocessing():
    picture = keras.Input((8, 8, 1), name="picture", dtype="uint8")
    return keras.Model(
        {"picture": picture}, {"pixels": keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(picture))}
    )


def linear_digits(inputs, hp):
    model = keras.Model(inputs, keras.layers.Dense(10, name="digit")(inputs["pixels"]))
    model.compile("adam", "mse")
    return model


def one_hot_columns():
    columns = tensor_columns()
    hot = np.eye(10, dtype=np.float32)[columns.pop("label")]
    return {**columns, "digit": pa.FixedShapeTensorArray.from_numpy_ndarray(hot)}


@pytest.fixture(scope="module")
def flat_digits(tmp_path_factory):
    columns = one_hot_columns()
    cut = lambda part: {name: values[part] for name, values in columns.items()}  # noqa: E731
    splits = {"train": cut(slice(0, 300)), "test": cut(slice(300, 400))}
    return trained(tmp_path_factory.mktemp("flat"), splits, flat_preprocessing, linear_digits, label="digit", epochs=10)


def test_flattened_pixels_are_attributed_to_the_raw_image(flat_digits):
    """The score is the largest number; the model is linear, so a pixel counts its weight times pixel / 255."""
    subject, raw, gradients, found = attributed(flat_digits)
    assert gradients.features == ["picture"] and gradients.image_of("picture") == "picture"
    pixels = raw["picture"].numpy().reshape(20, 64) / 255
    weight, bias = subject.model.get_weights()
    target = (pixels @ weight + bias).argmax(1)
    known = (pixels * weight[:, target].T).reshape(20, 8, 8, 1)
    np.testing.assert_allclose(found.values["picture"], known, rtol=1e-3, atol=1e-5)


def test_images_of_worst_rows_are_red_where_pixels_raise_the_score(flat_digits, explain):
    found = explain(flat_digits, worst=3, **QUICK)
    subject = subject_of(flat_digits)
    weight, bias = subject.model.get_weights()
    for row in found.worst["rows"]:
        path, over = row["media"]["picture"], row["attribution"]["picture"]
        assert path == f"worst/{row['place']}-picture.png" and over == f"worst/{row['place']}-picture-attribution.png"
        pixels = np.asarray(Image.open(found.folder / path))
        whole = flat_digits.splits["test"]["picture"].to_numpy_ndarray()[row["place"]]
        np.testing.assert_array_equal(pixels, whole[..., 0])
        flat = whole.reshape(64) / 255
        heat = (flat * weight[:, (flat @ weight + bias).argmax()]).reshape(8, 8)
        colours = np.asarray(Image.open(found.folder / over)).astype(int)
        assert colours.shape == (8, 8, 3)
        for place, sign in ((heat.argmax(), 1), (heat.argmin(), -1)):
            red, _, blue = colours.reshape(64, 3)[place]
            assert heat.reshape(64)[place] * sign <= 0.01 or (red - blue) * sign > 0


def encoded_preprocessing():
    from kerasline.components.preprocessing.layers.image import ImageDecoding

    picture = keras.Input((), name="picture", dtype="string")
    decoded = ImageDecoding((8, 8), channels=1)(picture)
    return keras.Model({"picture": picture}, {"image": keras.layers.Rescaling(1 / 255)(decoded)})


def convolutions(inputs, hp):
    x = keras.layers.Conv2D(4, 3, activation="relu")(inputs["image"])
    model = keras.Model(inputs, keras.layers.Dense(10, activation="softmax", name="label")(keras.layers.Flatten()(x)))
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


@pytest.mark.slow
def test_encoded_images_are_attributed_to_their_decoded_pixels(tmp_path, explain):
    pixels, labels = digits()
    columns = {"picture": [png(image) for image in pixels[:80]], "label": labels[:80]}
    problem = trained(
        tmp_path / "p", {"train": columns, "test": columns}, encoded_preprocessing, convolutions, label="label"
    )
    found = explain(problem, worst=2, **QUICK)
    (feature,) = found.integrated_gradients["features"]
    assert feature["feature"] == "image" and found.integrated_gradients["completeness_error"] < 1e-3
    for row in found.worst["rows"]:
        assert Image.open(found.folder / row["attribution"]["picture"]).size == (8, 8)
        np.testing.assert_array_equal(
            np.asarray(Image.open(found.folder / row["media"]["picture"]).convert("L")),
            pixels[row["place"], ..., 0],
        )
    assert (
        found.permutation["features"][0]["feature"] == "picture" and found.permutation["features"][0]["importance"] > 0
    )


def numbers_without_a_gradient():
    place = keras.Input((1,), name="age")
    return keras.Model({"age": place}, {"bin": keras.layers.Discretization(num_bins=4)(place)})


def model_without_a_gradient(inputs, hp):
    one_hot = keras.layers.CategoryEncoding(4, output_mode="one_hot")(inputs["bin"])
    model = keras.Model(inputs, keras.layers.Dense(1, name="progression")(one_hot))
    model.compile("adam", "mse")
    return model


def test_inputs_without_gradient_are_omitted_or_refused(diabetes, tmp_path, explain):
    problem = trained(
        tmp_path / "p", diabetes.splits, numbers_without_a_gradient, model_without_a_gradient, label="progression"
    )
    assert explain(problem, **QUICK).integrated_gradients is None
    with pytest.raises(ParameterError, match="the model has no differentiable input"):
        explain(problem, integrated_gradients="on", **QUICK)


def test_baseline_for_an_unknown_input_gets_a_suggestion(tumours, explain):
    with pytest.raises(ParameterError, match="Explainer.baseline: no differentiable input 'xx'; did you mean 'x'"):
        explain(tumours, baseline={"xx": 0.5}, **QUICK)


def test_reported_attribution_is_the_mean_over_the_rows(diabetes, explain):
    found = explain(diabetes, baseline="mean", **QUICK).integrated_gradients
    subject = subject_of(diabetes)
    x = subject.features(subject.raw(diabetes.examples.read("test")))["x"].numpy()
    known = np.abs(subject.model.get_weights()[0][:, 0] * (x - x.mean(0))).mean(0)
    (feature,) = found["features"]
    np.testing.assert_allclose(feature["places"], known, rtol=1e-4)
    assert feature["mean_absolute"] == pytest.approx(known.sum(), rel=1e-4) and len(known) == len(DIABETES)
    assert (found["baseline"], found["steps"], found["rows"]) == ("mean", 64, len(x))


@pytest.mark.parametrize("count", [17, pytest.param(200, marks=pytest.mark.slow)])
def test_of_many_concatenated_inputs_of_all_kinds(count, tmp_path):
    """Numbers, whole numbers, texts through an embedding, and lists of any length. TensorFlow's gradient of a
    concatenation of more than 16 tensors has no static shape."""
    random = np.random.default_rng(0)
    rows = {f"number_{n}": random.normal(size=12).astype("float32") for n in range(count - 3)}
    columns = {
        **rows,
        "whole": random.integers(0, 5, 12),
        "word": random.choice(["a", "b"], 12).tolist(),
        "list": [[1.0] * (1 + n % 3) for n in range(12)],
        "y": random.normal(size=12).astype("float32"),
    }

    def preprocessing():
        raw = {name: keras.Input((1,), name=name) for name in rows}
        raw["whole"] = keras.Input((1,), name="whole", dtype="int64")
        raw["word"] = keras.Input((1,), name="word", dtype="string")
        raw["list"] = keras.Input((None,), name="list")
        outputs = {name: keras.layers.Rescaling(0.5)(tensor) for name, tensor in raw.items() if name in rows}
        outputs["whole"] = keras.ops.cast(raw["whole"], "float16")
        outputs["word"] = keras.layers.StringLookup(vocabulary=["a", "b"])(raw["word"])
        outputs["list"] = keras.ops.nan_to_num(raw["list"])
        return keras.Model(raw, outputs)

    def build_model(inputs, hp):
        parts = [keras.ops.cast(inputs[name], "float32") for name in [*rows, "whole"]]
        parts.append(keras.layers.Embedding(4, 2, name="word_vector")(inputs["word"])[:, 0])
        parts.append(keras.ops.mean(inputs["list"], axis=1, keepdims=True))
        model = keras.Model(inputs, keras.layers.Dense(1, activation="tanh")(keras.layers.Concatenate()(parts)))
        model.compile("sgd", "mse")
        return model

    problem = trained(tmp_path, {"train": columns, "test": columns}, preprocessing, build_model, 1, label="y")
    subject, raw, gradients, found = attributed(problem, steps=64, rows=12)
    assert set(gradients.features) == {*rows, "whole", "list", "word_vector"}
    features = subject.features(raw)
    kernel, offset = subject.model.get_weights()[-2:]
    score = lambda x: np.tanh(x @ kernel + offset)[:, 0]  # noqa: E731
    vectors = subject.model.get_weights()[0][features["word"].numpy()[:, 0]]
    parts = [features[name].numpy() for name in [*rows, "whole"]]
    parts += [vectors, features["list"].numpy().mean(1, keepdims=True)]
    at = np.concatenate(parts, axis=1).astype("float64")
    total = sum(values.reshape(12, -1).sum(1) for values in found.values.values())
    np.testing.assert_allclose(total, score(at) - score(np.zeros_like(at)), atol=2e-4)
