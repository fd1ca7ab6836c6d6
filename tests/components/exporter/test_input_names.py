"""Columns of any name reach clients under that name, in every signature and format."""

import json
import string
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

import kerasline as kl
from kerasline.components.core.errors import UserCodeError
from kerasline.components.exporter import input_names
from kerasline.components.models.predictors import SavedModelPredictor

NAMES = [
    "sepal length", "größe", "a(cm)", "a:b", "class", "self", "a-b", "a_b", "A_B", "_a", " ", "1st", "😀", "x" * 300,
    "a/b", "a.b", "/", "a\nb", "'q'", '"', "\\d", "{x}", "input_1", "inputs", "instances", "examples", "b64", "name",
    "training", "mask", "label", "total", "é", "e\u0301", "None", "0",
]  # fmt: skip
FRESH = """
import json, sys
import tensorflow as tf
loaded = tf.saved_model.load(sys.argv[1])
rows = {name: tf.constant(values) for name, values in json.loads(sys.argv[2]).items()}
by_keyword = loaded.signatures["serving_default"](**rows)
by_dict = loaded.serving_default(rows)
print(json.dumps([{k: v.numpy().tolist() for k, v in one.items()} for one in (by_keyword, by_dict)]))
"""


def weight_of(position):
    return float(position + 1)


def doubled(names):
    """A preprocessing that doubles each column. The names of its `keras.Input`s are not those of the columns."""

    def preprocessing():
        inputs = {name: keras.Input((1,), name=f"column_{number}") for number, name in enumerate(names)}
        return keras.Model(inputs, {name: keras.layers.Rescaling(2.0)(tensor) for name, tensor in inputs.items()})

    return preprocessing


def weighted_total(names):
    """A model that adds its inputs, each with its own weight."""

    def build_model(inputs, hp):
        weighted = [keras.layers.Rescaling(weight_of(number))(inputs[name]) for number, name in enumerate(names)]
        total = keras.layers.Add()(weighted) if len(weighted) > 1 else weighted[0]
        scored = keras.layers.Dense(1, kernel_initializer="ones", use_bias=False)(total)
        model = keras.Model(inputs, {"total": scored})
        model.compile("sgd", "mse")
        return model

    return build_model


def rows_of(names):
    return {name: [float(number), float(-number) - 0.5] for number, name in enumerate(names)}


def exported(names, folder, **exporter):
    """Return a SavedModel of columns with these names, and the rows that it has seen."""
    rows = rows_of(names)
    target = "target" + "_" * max(map(len, names))
    examples = kl.InMemoryExampleGen({**rows, target: [0.0, 1.0]}, splits={"train": 1}).execute(folder / "e").examples
    prepared = kl.Transform(examples, function=doubled(names), label=target).execute(folder / "t").preprocessing
    model = kl.ModelBuilder(prepared, function=weighted_total(names)).execute(folder / "m").model
    done = kl.Exporter(prepared, model, examples, split="train", **exporter).execute(folder / "x")
    return done, examples, {name: np.array(values, "float32")[:, None] for name, values in rows.items()}


def total_of(rows):
    return sum(2 * weight_of(number) * values for number, values in enumerate(rows.values()))


def as_examples(rows):
    protos = []
    for row in range(2):
        example = tf.train.Example()
        for name, values in rows.items():
            example.features.feature[name].float_list.value.append(values[row, 0])
        protos.append(example.SerializeToString())
    return np.array(protos, object)


def check_signatures(saved_model, rows):
    """Check each signature against the formula, in a session, as TensorFlow Serving calls it."""

    def ask(signature, values):
        return SavedModelPredictor(saved_model.path, signature)(values)

    doubled_rows = {name: 2 * values for name, values in rows.items()}
    total = total_of(rows)
    np.testing.assert_allclose(ask("serving_default", rows)["total"], total, rtol=1e-5)
    np.testing.assert_allclose(ask("predict_preprocessed", doubled_rows)["total"], total, rtol=1e-5)
    np.testing.assert_allclose(ask("serve_tf_examples", {"examples": as_examples(rows)})["total"], total, rtol=1e-5)
    transformed = ask("transform_features", rows)
    assert transformed.keys() == rows.keys()
    for name, values in doubled_rows.items():
        np.testing.assert_array_equal(transformed[name], values)


def test_every_signature_takes_columns_of_any_name(tmp_path):
    done, examples, rows = exported(NAMES, tmp_path)
    check_signatures(done.saved_model, rows)
    assert list(done.saved_model.read_json("kerasline.json")["inputs"]) == list(rows)
    predictions = kl.BulkInferrer(done.saved_model, examples).execute(tmp_path / "p").predictions.read("train")
    np.testing.assert_allclose(predictions["total"], total_of(rows)[:, 0], rtol=1e-5)


names = st.text(max_size=30) | st.text(string.printable, max_size=5) | st.sampled_from(NAMES)


def is_name(text: str) -> bool:
    """Return whether a column may have this name: not empty, and without lone surrogates."""
    return bool(text) and text.encode("utf-8", "ignore").decode() == text


@pytest.mark.slow
@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(names.filter(is_name), min_size=1, max_size=12, unique=True))
@example(["self"])
@example(["a-b", "a_b"])
@example(["_", "__"])
@example(["input_0", "input_1", "input_x_0"])
def test_every_signature_takes_names_of_any_text(tmp_path_factory, columns):
    done, _, rows = exported(columns, tmp_path_factory.mktemp("names"))
    check_signatures(done.saved_model, rows)


@pytest.mark.slow
def test_plain_tensorflow_calls_a_signature_with_the_names_as_keywords(tmp_path):
    columns = ["sepal length", "größe", "a(cm)", "class", "_a", "input_1"]
    done, _, rows = exported(columns, tmp_path)
    given = json.dumps({name: values.tolist() for name, values in rows.items()})
    command = [sys.executable, "-c", FRESH, str(done.saved_model.path), given]
    answered = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stdout
    for answer in json.loads(answered):
        np.testing.assert_allclose(answer["total"], total_of(rows), rtol=1e-5)


@pytest.mark.slow
def test_rest_and_grpc_take_columns_of_any_name(tmp_path):
    """InfraValidator's clients send the names over both protocols, in rows and in columns."""
    columns = ["sepal length", "größe", "a/b", "self", "a-b", "a_b", "instances", "b64", "\n"]
    done, examples, _ = exported(columns, tmp_path)
    validated = kl.InfraValidator(done.saved_model, examples, split="train", requests=2, rows=2).execute(tmp_path / "v")
    assert validated.blessing.blessed, validated.blessing.refusals()
    assert validated.validation.read_json("validation.json")["problems"] == []


@pytest.mark.slow
def test_litert_and_onnx_take_columns_of_any_name(tmp_path):
    from kerasline.components.exporter.form_predictors import PreprocessedPredictor

    pytest.importorskip("tf2onnx")
    columns = [name for name in NAMES if name != "total"]
    done, _, rows = exported(columns, tmp_path, forms=["litert", "onnx"])
    assert {form["state"] for form in done.model_forms.read_json("forms.json")["forms"]} == {"written"}
    for form in ("litert", "onnx"):
        predictor = PreprocessedPredictor(done.model_forms.form(form), tmp_path / "t" / "preprocessing")
        np.testing.assert_allclose(predictor(rows)["total"], total_of(rows), rtol=1e-5)


def test_onnx_refuses_an_input_and_an_output_of_one_name(tmp_path):
    pytest.importorskip("tf2onnx")
    done, _, _ = exported(["total", "b"], tmp_path, forms=["onnx"])
    (form,) = done.model_forms.read_json("forms.json")["forms"]
    assert form["why"] == "an ONNX file cannot have an input and an output of one name: 'total'"


def test_one_line_features_of_columns_of_any_name_train_and_export(tmp_path):
    columns = ["sepal length", "größe", "a", "a_scaled", "a/b", "_a", "😀", "class"]
    rows = rows_of(columns)
    examples = kl.InMemoryExampleGen({**rows, "y": [0.0, 1.0]}, splits={"train": 1}).execute(tmp_path / "e").examples
    features = {name: kl.features.Number() for name in columns}
    prepared = kl.Transform(examples, features=features, label="y").execute(tmp_path / "t").preprocessing
    model = kl.ModelBuilder(prepared, function=weighted_total(columns)).execute(tmp_path / "m").model
    trainer = kl.Trainer(examples, prepared, model, steps=1, batch_size=2, eval_split=None, tensorboard=False)
    trained = trainer.execute(tmp_path / "r").trained_model
    saved_model = kl.Exporter(prepared, trained).execute(tmp_path / "x").saved_model
    raw = {name: np.array(values, "float32")[:, None] for name, values in rows.items()}
    scaled = SavedModelPredictor(saved_model.path, "transform_features")(raw)
    for name, values in raw.items():
        expected = (values - values.mean()) / max(values.std(), 1e-7)
        np.testing.assert_allclose(scaled[name], expected, atol=1e-5)


def test_an_output_named_label_keeps_its_scores(tmp_path):
    """`label`, the text that Exporter adds, does not replace them."""
    rows = {"x": [0.0, 1.0], "y": ["fish", "fowl"]}
    examples = kl.InMemoryExampleGen(rows, splits={"train": 1}).execute(tmp_path / "e").examples

    def preprocessing():
        x, y = keras.Input((1,), name="x"), keras.Input((), name="y", dtype="string")
        classes = keras.layers.StringLookup(vocabulary=["fish", "fowl"], num_oov_indices=0)(y)
        return keras.Model({"x": x, "y": y}, {"x": keras.layers.Rescaling(1.0)(x), "y": classes})

    def build_model(inputs, hp):
        model = keras.Model(inputs, keras.layers.Dense(2, "softmax", name="label")(inputs["x"]))
        model.compile("sgd", "sparse_categorical_crossentropy")
        return model

    prepared = kl.Transform(examples, function=preprocessing, label="y").execute(tmp_path / "t").preprocessing
    model = kl.ModelBuilder(prepared, function=build_model).execute(tmp_path / "m").model
    saved_model = kl.Exporter(prepared, model).execute(tmp_path / "x").saved_model
    answer = SavedModelPredictor(saved_model.path)({"x": np.array([[0.0]], "float32")})
    assert answer.keys() == {"label"} and answer["label"].dtype == np.float32
    assert saved_model.read_json("kerasline.json")["outputs"] == ["label"]


@pytest.mark.parametrize("name, suggestion", [("größe", "gr__e"), ("a b", "a_b"), ("_a", "layer_a")])
def test_a_layer_name_that_tensorflow_refuses_is_reported_before_training(name, suggestion, tmp_path):
    examples = kl.InMemoryExampleGen({"x": [0.0, 1.0], "y": [0.0, 1.0]}, splits={"train": 1})
    examples = examples.execute(tmp_path / "e").examples

    def named():
        x = keras.Input((1,), name="x")
        return keras.Model({"x": x}, {"x": keras.layers.Normalization(name=name)(x)})

    def build_model(inputs, hp):
        model = keras.Model(inputs, keras.layers.Dense(1, name=name)(inputs["x"]))
        model.compile("sgd", "mse")
        return model

    with pytest.raises(UserCodeError, match=rf"named\(\): layer '{name}': expected .* '{suggestion}' for example"):
        kl.Transform(examples, function=named, label="y").execute(tmp_path / "t")
    prepared = kl.Transform(examples, function=doubled(["x"]), label="y").execute(tmp_path / "u").preprocessing
    with pytest.raises(UserCodeError, match=rf"build_model\(\): layer '{name}': expected"):
        kl.ModelBuilder(prepared, function=build_model).execute(tmp_path / "m")


@pytest.mark.parametrize("count", [10, 11, 101])
def test_numbered_names_sort_like_the_names(count):
    names = [f"column {number}" for number in range(count)]
    specs = input_names.with_numbered_names({name: tf.TensorSpec([None], tf.float32) for name in names})
    own = [specs[name].name for name in sorted(names)]
    assert own == sorted(own)
