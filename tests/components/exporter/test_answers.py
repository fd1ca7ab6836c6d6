"""A served model answers by the user's function, and takes only the columns that the answers depend on."""

import io
import json
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from PIL import Image

import kerasline as kl
from kerasline.components.core.errors import ParameterError, UserCodeError
from kerasline.components.exporter.tf_examples import tf_examples
from tests.components import answering


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    return answering.translator(tmp_path_factory.mktemp("translator"))


@pytest.fixture(scope="module")
def translating(translator, tmp_path_factory):
    answers = {"serving_default": answering.translate, "scores": lambda model, features: {"next": model(features)}}
    stage = kl.Exporter(translator.prepared, translator.model, translator.examples, answer=answers)
    return stage.execute(tmp_path_factory.mktemp("translating")).saved_model


@pytest.fixture(scope="module")
def expected(translator):
    """Return the translations of the test rows, decoded by NumPy."""
    return answering.translate_by_numpy(translator.model.load(), translator.columns["test"]["source"])


def test_every_signature_returns_the_decoded_answers(translator, translating, expected):
    sources = np.array([text.encode() for text in translator.columns["test"]["source"]], object)
    signatures = tf.saved_model.load(str(translating.path)).signatures
    features = signatures["transform_features"](source=tf.constant(sources))
    for found in (
        signatures["serving_default"](source=tf.constant(sources)),
        signatures["serve_tf_examples"](examples=tf.constant(tf_examples({"source": sources}))),
        signatures["predict_preprocessed"](**features),
    ):
        assert [text.decode() for text in found["translation"].numpy()] == expected


def test_only_the_columns_that_the_answers_depend_on_are_inputs(translating):
    facts = translating.manifest
    assert list(facts["inputs"]) == ["source"] and list(facts["preprocessed_inputs"]) == ["source_ids"]
    assert (facts["outputs"], facts["texts"], facts["answered_by"]) == (["translation"], ["translation"], "translate()")


def test_costs_of_an_answer_are_recorded(translating):
    costs = translating.manifest["answer_costs"]
    assert costs["flops"] > 0 and costs["memory_bytes"] > 0
    assert [loop["iterations"] for loop in costs["loops"]] == [None]  # its condition bounds it, which is not analysed


def test_further_signature_takes_what_its_function_reads(translator, translating):
    scores = tf.saved_model.load(str(translating.path)).signatures["scores"]
    columns = {name: tf.constant(translator.columns["test"][name]) for name in ("source", "target")}
    features = translator.prepared.load_features()(columns)
    np.testing.assert_allclose(scores(**columns)["next"], translator.model.load()(features), atol=1e-5)


def test_texts_are_strings_in_bulk_answers(translator, translating, expected, tmp_path):
    stage = kl.BulkInferrer(translating, translator.examples, split="test", keep=["source"])
    table = stage.execute(tmp_path).predictions.read("test")
    assert table.schema.field("translation").type == pa.string()
    by_source = dict(zip(translator.columns["test"]["source"], expected))
    assert all(row["translation"] == by_source[row["source"]] for row in table.to_pylist())


def test_encoded_images_stay_bytes_and_depend_on_their_row_alone(tmp_path):
    painter = answering.painter(tmp_path)
    stage = kl.Exporter(painter.prepared, painter.model, painter.examples, answer=answering.paint)
    saved_model = stage.execute(tmp_path / "x").saved_model
    assert sorted(saved_model.inputs) == ["kind", "seed"] and saved_model.manifest["texts"] == []
    predictions = kl.BulkInferrer(saved_model, painter.examples, split="test", keep=["kind", "seed"])
    table = predictions.execute(tmp_path / "b").predictions.read("test")
    assert table.schema.field("picture").type == pa.binary()
    row = table.to_pylist()[5]
    assert Image.open(io.BytesIO(row["picture"])).size == (2, 2)
    serve = tf.saved_model.load(str(saved_model.path)).signatures["serving_default"]
    alone = serve(kind=tf.constant([[row["kind"]]], tf.int64), seed=tf.constant([[row["seed"]]], tf.int64))
    assert alone["picture"].numpy()[0] == row["picture"]


def test_forms_are_judged_by_their_answers(translator, tmp_path):
    def refuse_half(model, features, prepared):
        found = answering.translate(model, features, prepared)["translation"]
        half = model.get_layer("next").dtype_policy.name == "float16"
        return {"translation": tf.strings.join([found, "!"]) if half else found}

    def exported(most, name):
        stage = kl.Exporter(
            translator.prepared,
            translator.model,
            translator.examples,
            answer=refuse_half,
            forms=["float16", "int8_weights", "litert", "onnx"],
            task="text",
            reference="target",
            max_quality_loss={"wer": most},
        )
        forms = stage.execute(tmp_path / name).model_forms.read_json("forms.json")["forms"]
        return {form["name"]: form for form in forms}

    forms = exported(0.05, "strict")
    assert forms["float16"]["state"] == "refused" and "translation/wer is" in forms["float16"]["why"]
    assert forms["int8_weights"]["state"] == "written"
    assert "LiteRT does not have the operations that it uses: SelectV2, StringJoin" in forms["litert"]["why"]
    assert "ONNX does not have the operations that it uses: " in forms["onnx"]["why"]
    assert {metric["metric"] for metric in forms["int8_weights"]["metrics"]} >= {"bleu", "wer"}


def test_forms_of_a_detector_are_judged_by_average_precision(tmp_path):
    detector = answering.detector(tmp_path)

    def detect(model, features):
        found = answering.detect(model, features)
        missed = 4.0 if model.get_layer("heat").dtype_policy.name == "float16" else 0.0
        return {"corners": found["boxes"] + missed, "kinds": found["classes"], "scores": found["scores"]}

    def stage(**more):
        return kl.Exporter(
            detector.prepared,
            detector.model,
            detector.examples,
            answer=detect,
            forms=["float16", "bfloat16"],
            task="detection",
            **{"detection_columns": {"predicted_boxes": "corners", "predicted_classes": "kinds"}, **more},
        )

    done = stage(max_quality_loss={"ap_50": 0.1}).execute(tmp_path / "forms")
    refused, written = done.model_forms.read_json("forms.json")["forms"]
    assert refused["state"] == "refused" and "corners/ap_50 is" in refused["why"]
    assert written["state"] == "written"
    values = {metric["metric"]: metric["value"] for metric in written["metrics"]}
    assert values["ap"] == 1  # the boxes are exact

    inputs = SimpleNamespace(preprocessing=detector.prepared, model=detector.model, examples=detector.examples)
    for more, message in (
        ({"detection_columns": {}}, "Exporter.detection_columns: the served model has no answer 'boxes'; "),
        ({"detection_columns": {"corners": "boxes"}}, "Exporter.detection_columns: no name of a column 'corners'"),
        ({"detection_columns": {"boxes": "box"}}, "Exporter.detection_columns: no column 'box'; did you mean 'boxes'"),
        ({"max_quality_loss": {"map": 0.1}}, "Exporter.max_quality_loss: no metric 'map'"),
    ):
        with pytest.raises(ParameterError, match=message):
            stage(**more).check(inputs)


def test_digest_depends_on_the_answering_function(translator, translating, tmp_path):
    def exported(answer, name):
        stage = kl.Exporter(translator.prepared, translator.model, translator.examples, answer=answer)
        return stage.execute(tmp_path / name).saved_model.manifest["digest"]

    def shouted(model, features, prepared):
        return {"translation": tf.strings.upper(answering.translate(model, features, prepared)["translation"])}

    same = [exported(answering.translate, name) for name in ("a", "b")]
    assert same[0] == same[1] != exported(shouted, "c")


def _raises(model, features):
    raise ValueError("no such thing")


@pytest.mark.parametrize(
    "answer, message",
    [
        (
            lambda model, features: {"x": features["sourc_ids"]},
            "no feature 'sourc_ids'; did you mean 'source_ids'",
        ),
        (
            lambda model, features: features["source_ids"],
            "must return a dict of tensors by name, it returned Symb",
        ),
        (
            lambda model, features: {"x": tf.reduce_sum(features["source_ids"])},
            "of shape ().*one entry per row",
        ),
        (lambda model, features: {"x": tf.zeros([3])}, "answer 'x' is of shape"),
        (lambda model, features: {"x": "text"}, "answer 'x' is of shape"),
        (lambda model, features: {"x": object()}, "answer 'x' is no tensor but object"),
        (lambda model, features: {"x": tf.RaggedTensor.from_tensor(features["source_ids"])}, "expected a dense tensor"),
        (
            lambda model, features: {"x": model({"a": features["source_ids"], **features})},
            r"Expected: \{'source_ids': .*Received: inputs=\{'a': .*test_answers.py, line",
        ),
        (_raises, "_raises.. raised ValueError: no such thing .*test_answers.py, line"),
    ],
)
def test_wrong_answering_function_is_found_before_training(translator, answer, message):
    stage = kl.Exporter(translator.prepared, translator.model, translator.examples, answer=answer)
    inputs = SimpleNamespace(preprocessing=translator.prepared, model=translator.model, examples=translator.examples)
    with pytest.raises(UserCodeError, match=message):
        stage.check(inputs)


def test_signatures_that_cannot_be_written_are_refused(translator):
    inputs = SimpleNamespace(preprocessing=None, model=None, examples=None)
    stage = kl.Exporter(translator.prepared, translator.model, answer={"scores": answering.translate})
    with pytest.raises(ParameterError, match="expected a function for 'serving_default' among the signatures"):
        stage.check(inputs)
    both = {"serving_default": answering.translate, "serve_tf_examples": answering.translate}
    with pytest.raises(ParameterError, match="'serve_tf_examples' is written for 'serving_default' already"):
        kl.Exporter(translator.prepared, translator.model, answer=both).check(inputs)


def test_quality_limit_needs_a_reference(translator):
    stage = kl.Exporter(
        translator.prepared,
        translator.model,
        translator.examples,
        answer=answering.translate,
        forms=["float16"],
        max_quality_loss={"bleu": 1},
    )
    inputs = SimpleNamespace(preprocessing=translator.prepared, model=translator.model, examples=translator.examples)
    with pytest.raises(ParameterError, match="Exporter.reference: name the column with the true value"):
        stage.check(inputs)


def test_forms_of_answers_are_bounded_by_the_loss_of_training(translator, tmp_path):
    done = kl.Exporter(
        translator.prepared,
        translator.model,
        translator.examples,
        answer=answering.translate,
        forms=["float16", "int4_weights"],
        max_quality_loss={"loss": 1e-6},
        measure_seconds=0.1,
    ).execute(tmp_path)
    assert "loss is " in done.metrics["int4_weights"] and "allowed is 1e-06" in done.metrics["int4_weights"]


def test_warm_up_requests_hold_only_the_inputs_of_the_answers(translating):
    requests = list(tf.data.TFRecordDataset(str(translating.path / "assets.extra/tf_serving_warmup_requests")))
    assert requests and all(b"target" not in request.numpy() for request in requests)
    assert json.loads((translating.path / "kerasline.json").read_text())["warm_up"] == "requests"
