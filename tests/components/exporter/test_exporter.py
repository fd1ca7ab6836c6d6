"""The signatures of exported models agree with Keras in a process without kerasline, and describe themselves."""

import hashlib
import json
import pickle
import subprocess
import sys

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from kerasline import Exporter, ModelBuilder, Transform
from tests.components.exporter.conftest import BATCHES, KINDS, examples_of

PLAIN = """
import pickle, sys
import tensorflow as tf
given = pickle.load(open(sys.argv[2], "rb"))
loaded = tf.saved_model.load(sys.argv[1])
assert not [name for name in sys.modules if name.startswith(("components", "pipeline"))]
found = []
for name, arguments in given:
    answer = loaded.signatures[name](**{k: tf.constant(v) for k, v in arguments.items()})
    found.append({k: v.numpy() for k, v in answer.items()})
pickle.dump(found, open(sys.argv[3], "wb"))
"""


def call_signatures(saved_model, folder, *questions):
    """Call signatures, given as (name, arguments), with plain TensorFlow in another process."""
    (folder / "questions").write_bytes(pickle.dumps(questions))
    command = [sys.executable, "-c", PLAIN, str(saved_model.path), str(folder / "questions"), str(folder / "answers")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stderr
    return pickle.loads((folder / "answers").read_bytes())


def as_example(row):
    """Return a row as a tf.Example without its missing values."""
    features = {}
    for name, value in row.items():
        values = value if isinstance(value, list) else [value]
        if value is None or name == "kind":
            continue
        if isinstance(values[0], str):
            kind = {"bytes_list": tf.train.BytesList(value=[v.encode() for v in values])}
        elif isinstance(values[0], int):
            kind = {"int64_list": tf.train.Int64List(value=values)}
        else:
            kind = {"float_list": tf.train.FloatList(value=values)}
        features[name] = tf.train.Feature(**kind)
    return tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString()


@pytest.mark.slow
def test_every_signature_agrees_with_keras_on_missing_values(exported, expected, tmp_path):
    serialised = np.array([as_example(row) for row in BATCHES["test"].to_pylist()], object)
    raw, examples, made, features, one = call_signatures(
        exported,
        tmp_path,
        ("serving_default", expected.raw),
        ("serve_tf_examples", {"examples": serialised}),
        ("predict_preprocessed", expected.made),
        ("transform_features", expected.raw),
        ("serving_default", {name: values[:1] for name, values in expected.raw.items()}),
    )
    for answer in (raw, examples, made):
        np.testing.assert_allclose(answer["scores"], expected.scores, atol=1e-6)
        classes = [text.decode() for text in answer["label"]]
        vocabulary = json.loads((exported.path / "kerasline.json").read_text())["class_names"]
        assert classes == [vocabulary[k] for k in expected.scores.argmax(1)]
    for name, values in expected.made.items():
        np.testing.assert_allclose(features[name], values, atol=1e-6)
    np.testing.assert_allclose(one["scores"], expected.scores[:1], atol=1e-6)


def test_empty_list_in_a_tf_example_is_a_missing_value(exported):
    serve = tf.saved_model.load(str(exported.path)).signatures["serve_tf_examples"]
    empty = tf.train.Example()
    for name, kind in {"amount": "float_list", "code": "int64_list", "word": "bytes_list"}.items():
        getattr(empty.features.feature[name], kind).SetInParent()
    answers = serve(examples=tf.constant([empty.SerializeToString(), tf.train.Example().SerializeToString()]))["scores"]
    np.testing.assert_array_equal(answers[0], answers[1])


def test_tf_example_with_too_many_values_names_the_feature(exported):
    serve = tf.saved_model.load(str(exported.path)).signatures["serve_tf_examples"]
    long = as_example({"point": [1.0, 2.0, 3.0, 4.0]})
    with pytest.raises(tf.errors.InvalidArgumentError, match="feature point: expected at most 3 values, received more"):
        serve(examples=tf.constant([long]))


def test_warm_up_requests_are_real_rows(exported, expected, tmp_path):
    from tensorflow.core.framework import tensor_pb2  # noqa: F401  the serving protos want it known first

    prediction_log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    file = exported.path / "assets.extra" / "tf_serving_warmup_requests"
    requests = [
        prediction_log.PredictionLog.FromString(record.numpy()).predict_log.request
        for record in tf.data.TFRecordDataset(str(file))
    ]
    questions = [
        (r.model_spec.signature_name, {name: tf.make_ndarray(tensor) for name, tensor in r.inputs.items()})
        for r in requests
    ]
    assert [name for name, _ in questions] == ["serving_default"] * 2 + ["serve_tf_examples"] * 2
    for (_, arguments), answer in zip(questions, call_signatures(exported, tmp_path, *questions)):
        rows = len(next(iter(arguments.values())))
        assert rows in (1, 64)
        np.testing.assert_allclose(answer["scores"], expected.scores[:rows], atol=1e-6)


def test_no_warm_up_of_missing_values_if_the_model_refuses_them(tmp_path):
    def strict():
        word = keras.Input((), name="word", dtype="string")
        coded = keras.layers.StringLookup(vocabulary=["a", "b"], num_oov_indices=0, output_mode="one_hot")(word)
        return keras.Model({"word": word}, {"x": coded})

    batch = pa.RecordBatch.from_pydict({"word": ["a", "b"] * 8, "y": [0.0, 1.0] * 8})
    examples = examples_of(tmp_path / "examples", {"train": batch, "eval": batch})
    prepared = Transform(examples, function=strict, label="y").execute(tmp_path / "t").preprocessing

    def build(inputs, hp):
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs["x"]))
        model.compile("sgd", "mse")
        return model

    model = ModelBuilder(prepared, function=build).execute(tmp_path / "m").model
    without = Exporter(prepared, model).execute(tmp_path / "without").saved_model
    assert not (without.path / "assets.extra" / "tf_serving_warmup_requests").exists()
    assert "does not answer serving_default" in without.read_json("kerasline.json")["warm_up"]
    with_rows = Exporter(prepared, model, examples, split="train").execute(tmp_path / "with").saved_model
    assert (with_rows.path / "assets.extra" / "tf_serving_warmup_requests").exists()


def test_image_of_any_size_omits_only_serve_tf_examples(tmp_path):
    def images():
        image = keras.Input((None, None, 1), name="image")
        return keras.Model({"image": image}, {"x": keras.layers.Resizing(4, 4)(image)})

    pictures = pa.FixedShapeTensorArray.from_numpy_ndarray(np.zeros((8, 6, 6, 1), "float32"))
    batch = pa.RecordBatch.from_arrays([pictures, pa.array([0.0, 1.0] * 4)], ["image", "y"])
    examples = examples_of(tmp_path / "examples", {"train": batch, "eval": batch})
    prepared = Transform(examples, function=images, label="y").execute(tmp_path / "t").preprocessing

    def build(inputs, hp):
        model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(inputs["x"])))
        model.compile("sgd", "mse")
        return model

    model = ModelBuilder(prepared, function=build).execute(tmp_path / "m").model
    done = Exporter(prepared, model).execute(tmp_path / "e").saved_model
    manifest = done.read_json("kerasline.json")
    assert set(manifest["signatures"]) == {"serving_default", "predict_preprocessed", "transform_features"}
    assert "'image' is of shape (None, None, 1)" in manifest["left_out"]["serve_tf_examples"]
    served = tf.saved_model.load(str(done.path)).signatures["serving_default"](image=tf.zeros((2, 9, 7, 1)))
    assert list(served.values())[0].shape == (2, 1)


def test_rows_that_depend_on_each_other_are_reported(tmp_path):
    def raw():
        x = keras.Input((2,), name="x")
        return keras.Model({"x": x}, {"x": keras.layers.Rescaling(2.0)(x)})

    def build(inputs, hp):
        centred = inputs["x"] - keras.ops.mean(inputs["x"], axis=0, keepdims=True)
        model = keras.Model(inputs, keras.layers.Dense(1)(centred))
        model.compile("sgd", "mse")
        return model

    batch = pa.RecordBatch.from_pydict({"x": [[0.0, 1.0], [2.0, 5.0]] * 4, "y": [0.0, 1.0] * 4})
    examples = examples_of(tmp_path / "examples", {"train": batch})
    prepared = Transform(examples, function=raw, label="y").execute(tmp_path / "t").preprocessing
    model = ModelBuilder(prepared, function=build).execute(tmp_path / "m").model
    done = Exporter(prepared, model).execute(tmp_path / "e")
    assert "of a row differs" in done.saved_model.read_json("kerasline.json")["row_dependence"]
    assert "depend on each other" in done.metrics["rows"]


def test_manifest_lists_inputs_classes_versions_and_digests(exported):
    manifest = exported.read_json("kerasline.json")
    assert manifest["row_dependence"] is None
    assert manifest["inputs"]["amount"] == {"dtype": "float32", "shape": [None, 1], "missing": "NaN"}
    assert manifest["inputs"]["code"] == {"dtype": "int64", "shape": [None], "missing": -1}
    assert manifest["inputs"]["tags"] == {"dtype": "string", "shape": [None, None], "missing": ""}
    assert manifest["outputs"] == ["scores", "label"] and set(manifest["class_names"]) == set(KINDS)
    assert manifest["versions"]["tensorflow"] == tf.__version__ and manifest["versions"]["keras"] == keras.__version__
    assert manifest["from_logits"] == {"scores": False} and manifest["training"]["steps"] == 130
    figures = manifest["training"]["metrics"]
    assert {"loss", "accuracy", "val_loss", "val_accuracy"} == set(figures) and 0 <= figures["val_accuracy"] <= 1
    files = {p.relative_to(exported.path).as_posix() for p in exported.path.rglob("*") if p.is_file()}
    assert set(manifest["files"]) == files - {"kerasline.json"}
    for name, digest in manifest["files"].items():
        assert hashlib.sha256((exported.path / name).read_bytes()).hexdigest() == digest


def test_labels_and_vocabularies_are_text_assets(exported, trained):
    assert (exported.path / "assets" / "labels.txt").read_text().split() == trained.prepared.facts["class_names"]
    words = (exported.path / "assets" / "vocabulary.words.txt").read_text().splitlines()
    assert words[0] == "[UNK]" and set(words[1:]) == {"a", "b", "c"}


def test_exports_of_one_model_share_a_digest(exported, trained, tmp_path):
    again = Exporter(trained.prepared, trained.model).execute(tmp_path / "again").saved_model
    other = Exporter(trained.prepared, trained.built).execute(tmp_path / "other").saved_model
    digests = [one.read_json("kerasline.json")["digest"] for one in (exported, again, other)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.slow
@pytest.mark.long  # and takes 17 GB
def test_model_larger_than_two_gigabytes_can_be_exported(tmp_path):
    rows, width = 8_600_000, 64

    def as_they_are():
        item = keras.Input((1,), name="item", dtype="int64")
        return keras.Model({"item": item}, {"item": keras.ops.maximum(item, 0)})

    def build(inputs, hp):
        table = keras.layers.Embedding(rows, width, embeddings_initializer="ones", name="table")
        model = keras.Model(inputs, keras.layers.Dense(1, name="y")(keras.layers.Flatten()(table(inputs["item"]))))
        model.compile("sgd", "mse")
        return model

    batch = pa.RecordBatch.from_pydict({"item": list(range(8)), "y": [0.0] * 8})
    examples = examples_of(tmp_path / "examples", {"train": batch, "eval": batch})
    prepared = Transform(examples, function=as_they_are, label="y").execute(tmp_path / "t").preprocessing
    model = ModelBuilder(prepared, function=build).execute(tmp_path / "m").model
    done = Exporter(prepared, model, forms=["litert", "onnx"]).execute(tmp_path / "e")
    assert done.metrics["megabytes"] > 2200
    assert {form["why"] for form in done.model_forms.read_json("forms.json")["forms"]} == {
        "its weights take 2.2 GB, and a LiteRT file holds at most 2 GB",
        "its weights take 2.2 GB, and an ONNX file holds at most 2 GB",
    }
    kernel = model.load().get_layer("y").kernel.numpy()
    (answer,) = call_signatures(done.saved_model, tmp_path, ("serving_default", {"item": np.array([[rows - 1]])}))
    np.testing.assert_allclose(answer["y"], [[kernel.sum()]], rtol=1e-5)
