"""Further forms of a model: each predicts like the model, with the library that runs it."""

import importlib.util
import json
import pickle
import subprocess
import sys

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from sklearn.metrics import accuracy_score, log_loss

from kerasline import Exporter, ModelBuilder, Transform
from kerasline.components.core.errors import ArtifactError, ParameterError
from tests.components.evaluator.conftest import dense
from tests.components.evaluator.problems import problem
from tests.components.exporter.conftest import BATCHES, examples_of

ALL = ["float16", "bfloat16", "int8_weights", "int4_weights", "int8", "litert", "onnx"]
# How far scores may be off: the spacing of numbers near 1 of 10, 7 and 7 bits, some layers deep.
TOLERANCE = {"float16": 0.01, "bfloat16": 0.05, "int8_weights": 0.1, "int8": 0.1, "litert": 1e-5, "onnx": 1e-5}
TOLERANCE["int4_weights"] = 0.5

PLAIN = """
import pickle, sys
folder, made, answers = sys.argv[1:]
made = pickle.load(open(made, "rb"))
if "litert" in folder:
    from ai_edge_litert.interpreter import Interpreter
    run = Interpreter(model_path=folder + "/model.tflite").get_signature_runner("predict_preprocessed")
    found = run(**{name: made[name] for name in run.get_input_details()})
else:
    import onnxruntime
    session = onnxruntime.InferenceSession(folder + "/model.onnx")
    given = {tensor.name: made[tensor.name] for tensor in session.get_inputs()}
    found = dict(zip([t.name for t in session.get_outputs()], session.run(None, given)))
assert "tensorflow" not in sys.modules
pickle.dump(found, open(answers, "wb"))
"""


@pytest.fixture(scope="module")
def done(trained, tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    return Exporter(
        trained.prepared, trained.model, trained.examples, forms=ALL, max_quality_loss={"accuracy": 0.1}
    ).execute(folder)


def form_entry(done, name):
    return next(f for f in done.model_forms.read_json("forms.json")["forms"] if f["name"] == name)


def answers(done, name, expected, folder):
    """Return the scores of the test rows by a form."""
    form = done.model_forms.form(name)
    if form_entry(done, name)["takes"] == "raw":
        serve = tf.saved_model.load(str(form)).signatures["serving_default"]
        return serve(**{k: tf.constant(v) for k, v in expected.raw.items()})["scores"].numpy()
    (folder / "made").write_bytes(pickle.dumps(expected.made))
    command = [sys.executable, "-c", PLAIN, str(form), str(folder / "made"), str(folder / "answers")]
    ran = subprocess.run(command, capture_output=True, text=True, cwd=folder)
    assert ran.returncode == 0, ran.stderr
    return pickle.loads((folder / "answers").read_bytes())["scores"]


@pytest.mark.parametrize("name", ALL)
def test_form_predicts_like_the_model_and_reports_its_metrics(done, trained, expected, tmp_path, name):
    scores = answers(done, name, expected, tmp_path)
    assert scores.dtype == np.float32
    np.testing.assert_allclose(scores, expected.scores, atol=TOLERANCE[name])
    form = form_entry(done, name)
    largest = np.abs(scores.astype(float) - expected.scores).max()
    assert form["largest_difference"] == pytest.approx(largest, abs=1e-6) and form["rows"] == 150
    classes = trained.prepared.facts["class_names"]
    truth = [classes.index(kind.as_py()) for kind in BATCHES["test"].column("kind")]
    metrics = {metric["metric"]: metric for metric in form["metrics"]}
    own, theirs = (accuracy_score(truth, s.argmax(1)) for s in (expected.scores, scores))
    assert metrics["accuracy"]["value"] == pytest.approx(theirs)
    assert metrics["accuracy"]["difference"] == pytest.approx(theirs - own)
    assert metrics["accuracy"]["lost"] == pytest.approx(own - theirs)
    exact = scores.astype(float) / scores.sum(1, keepdims=True, dtype=float)
    assert metrics["log_loss"]["value"] == pytest.approx(log_loss(truth, exact), rel=0.01)
    own, theirs = (cross_entropy(s.astype(float), truth) for s in (expected.scores, scores))
    assert metrics["loss"]["value"] == pytest.approx(theirs, rel=0.01)
    assert metrics["loss"]["lost"] == metrics["loss"]["difference"] == pytest.approx(theirs - own, abs=1e-4)
    assert form["latency_ms"]["1"] > 0 and form["latency_ms"]["64"] > 0 and form["megabytes"] > 0


def cross_entropy(scores, truth):
    """Compute Keras's sparse_categorical_crossentropy, with normalized rows and probabilities of at least 1e-7."""
    clipped = np.clip(scores, 1e-7, 1 - 1e-7)
    return -np.log((clipped / clipped.sum(1, keepdims=True))[range(len(truth)), truth]).mean()


def variables(folder):
    return {tuple(v.shape): v.dtype.name for v in tf.saved_model.load(str(folder)).variables}


@pytest.mark.parametrize(
    ("name", "dtype"), [("float16", "float16"), ("bfloat16", "bfloat16"), ("int8", "int8"), ("int4_weights", "int8")]
)
def test_smaller_forms_store_smaller_weights(done, name, dtype):
    found = variables(done.model_forms.form(name))
    assert dtype in found.values() and found != variables(done.saved_model.path)


def test_forms_are_not_inside_the_saved_model(done, exported):
    """TensorFlow Serving loads the whole folder that is pushed: forms are not in it."""
    names = [{p.name for p in model.path.iterdir()} for model in (done.saved_model, exported)]
    assert names[0] == names[1] and not done.saved_model.path.joinpath("forms").exists()


def test_forms_declare_preprocessed_inputs_and_have_distinct_digests(done):
    manifests = {name: json.loads((done.model_forms.form(name) / "kerasline.json").read_text()) for name in ALL}
    assert manifests["onnx"]["takes"] == manifests["litert"]["takes"] == "preprocessed_inputs"
    assert manifests["onnx"]["signatures"] == [] and "serve_tf_examples" in manifests["int8"]["signatures"]
    digests = {m["digest"] for m in manifests.values()} | {done.saved_model.read_json("kerasline.json")["digest"]}
    assert len(digests) == len(ALL) + 1


def test_form_is_refused_if_a_bounded_metric_is_undefined(tmp_path):
    model = dense(6, 1, "sigmoid")
    model.compile(loss="binary_crossentropy")
    columns = {"x": np.random.default_rng(0).random((40, 6)).astype("float32"), "label": np.zeros(40, np.int64)}
    given = problem(tmp_path / "p", columns, model, "label")
    done = Exporter(
        given.preprocessing, given.model, given.examples, forms=["float16"], max_quality_loss={"roc_auc": 0.5}
    ).execute(tmp_path / "x")
    assert done.metrics["float16"].startswith("refused: scores/roc_auc is undefined for these rows")


def test_form_that_loses_too_much_quality_is_refused_and_removed(done, trained, tmp_path):
    # Which of them loses by its coarser numbers, and how much, depends on the processor that trained.
    losses = {
        (name, metric["metric"]): metric["lost"]
        for name in ("float16", "bfloat16", "int8_weights", "int4_weights", "int8")
        for metric in form_entry(done, name)["metrics"]
        if metric["metric"] in ("log_loss", "brier", "loss")
    }
    (coarse, metric), lost = max(losses.items(), key=lambda item: item[1])
    assert lost > 1e-6
    found = Exporter(
        trained.prepared, trained.model, trained.examples, forms=[coarse, "onnx"], max_quality_loss={metric: lost / 2}
    ).execute(tmp_path)
    assert form_entry(found, "onnx")["state"] == "written"
    why = form_entry(found, coarse)["why"]
    assert f"{metric} is " in why and why.endswith(f"allowed is {lost / 2:g}"), why
    assert found.metrics[coarse] == f"refused: {why}"
    assert not (found.model_forms.path / coarse).exists()
    with pytest.raises(ArtifactError, match=f"no form '{coarse}'; known: onnx"):
        found.model_forms.form(coarse)


def test_bound_needs_examples_and_a_known_metric(trained, tmp_path):
    bound = {"acuracy": 0.1}
    with pytest.raises(ParameterError, match="no examples to measure it on"):
        Exporter(trained.prepared, trained.model, max_quality_loss=bound).execute(tmp_path / "a")
    with pytest.raises(ParameterError, match="no metric 'acuracy'; did you mean 'accuracy'"):
        Exporter(trained.prepared, trained.model, trained.examples, forms=["bfloat16"], max_quality_loss=bound).execute(
            tmp_path / "b"
        )


def model_of_words(folder, preprocessing, build):
    """Return examples with the columns `word` and `y`, and the adapted preprocessing and untrained model of them."""
    batch = pa.RecordBatch.from_pydict({"word": ["a", "b"] * 4, "y": [0.0] * 8})
    examples = examples_of(folder / "examples", {"train": batch, "eval": batch})
    prepared = Transform(examples, function=preprocessing, label="y").execute(folder / "t").preprocessing
    return examples, prepared, ModelBuilder(prepared, function=build).execute(folder / "m").model


def test_model_that_reads_text_has_no_litert_or_int8_form(tmp_path):
    def as_it_is():
        word = keras.Input((1,), name="word", dtype="string")
        return keras.Model({"word": word}, {"word": keras.ops.reshape(word, (-1, 1))})

    def build(inputs, hp):
        x = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="multi_hot")(inputs["word"])
        total = keras.ops.sum(x, axis=-1, keepdims=True)
        model = keras.Model(inputs, keras.layers.BatchNormalization(name="y")(total))
        model.compile("sgd", "mse")
        return model

    _, prepared, model = model_of_words(tmp_path, as_it_is, build)
    found = Exporter(prepared, model, forms=["litert", "int8"]).execute(tmp_path / "e")
    assert "input 'word' of the model is text" in form_entry(found, "litert")["why"]
    assert "the model has no layer to quantise" in form_entry(found, "int8")["why"]


def test_missing_library_is_reported_before_anything_is_written(trained, tmp_path, monkeypatch):
    find = importlib.util.find_spec
    missing = {"tf2onnx"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda n, *rest: None if n in missing else find(n, *rest))
    with pytest.raises(ParameterError, match=r"onnx needs tf2onnx: pip install 'kerasline\[onnx\]'"):
        Exporter(trained.prepared, trained.model, forms=["onnx"]).execute(tmp_path)
    assert not list(tmp_path.rglob("*.pb"))


def test_one_hot_feature_is_a_model_input(tmp_path):
    def one_hot():
        word = keras.Input((1,), name="word", dtype="string")
        return keras.Model({"word": word}, {"word": keras.layers.StringLookup(output_mode="one_hot")(word)})

    def build(inputs, hp):
        model = keras.Model(inputs, keras.layers.Dense(1, name="y")(inputs["word"]))
        model.compile("sgd", "mse")
        return model

    examples, prepared, model = model_of_words(tmp_path, one_hot, build)
    stage = Exporter(prepared, model, examples, forms=["float16", "litert", "onnx"], split="eval")
    done = stage.execute(tmp_path / "e")
    assert [form_entry(done, form)["state"] for form in stage.settings.forms] == ["written"] * 3
    signatures = tf.saved_model.load(str(done.saved_model.path)).signatures
    words = tf.constant([["a"], ["b"], ["unseen"]])
    made = signatures["transform_features"](word=words)
    answers = signatures["predict_preprocessed"](**made)["y"]
    np.testing.assert_allclose(answers, model.load()(made), rtol=1e-6)
    np.testing.assert_allclose(answers, signatures["serving_default"](word=words)["y"], rtol=1e-6)
