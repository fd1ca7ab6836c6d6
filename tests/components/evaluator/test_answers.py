"""The answers of a served model are judged by references, beside the losses of the trained model."""

from types import SimpleNamespace

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import sacrebleu
import tensorflow as tf

import kerasline as kl
from kerasline.components.core.errors import ParameterError
from tests.components import answering

FEW = {"replicates": 20, "small_slice_rows": 5}


def exported(given, answer, folder, **parameters):
    return kl.Exporter(given.prepared, given.model, given.examples, answer=answer, **parameters).execute(folder)


def evaluated(given, saved_model, folder, **parameters):
    """Evaluate, and return the entries of all rows by output and metric as `values`."""
    stage = kl.Evaluator(given.examples, given.prepared, given.model, saved_model=saved_model, **{**FEW, **parameters})
    done = stage.execute(folder)
    done.document = done.evaluation.read_json("metrics.json")
    done.entries = {(e["output"], e["slice"], e["metric"]): e for e in done.document["metrics"]}
    done.values = {(output, metric): e["value"] for (output, cut, metric), e in done.entries.items() if not cut}
    return done


@pytest.fixture(scope="module")
def translator(tmp_path_factory):
    return answering.translator(tmp_path_factory.mktemp("translator"))


@pytest.fixture(scope="module")
def translating(translator, tmp_path_factory):
    return exported(translator, answering.translate, tmp_path_factory.mktemp("translating")).saved_model


@pytest.fixture(scope="module")
def judged(translator, translating, tmp_path_factory):
    return evaluated(
        translator,
        translating,
        tmp_path_factory.mktemp("judged"),
        baseline=translating,
        task="text",
        reference="target",
        slices=["length"],
        thresholds={"translation/wer": {"max": 0.01}, "bleu": {"min": 0, "max_drop": 0.5}, "next/loss": {"max": 9}},
    )


def test_generated_texts_are_judged_by_the_reference_column(translator, judged):
    expected = answering.translate_by_numpy(translator.model.load(), translator.columns["test"]["source"])
    bleu = sacrebleu.corpus_bleu(expected, [translator.columns["test"]["target"]]).score
    assert judged.values["translation", "bleu"] == pytest.approx(bleu)
    right = [a == b for a, b in zip(expected, translator.columns["test"]["target"])]
    assert judged.values["translation", "exact_match"] == pytest.approx(np.mean(right))


def test_answers_are_judged_beside_the_loss_of_the_training(translator, judged):
    columns = {name: tf.constant(translator.columns["test"][name]) for name in ("source", "target")}
    made = translator.prepared.load()(columns)
    loss = translator.model.load().evaluate(
        {name: made[name] for name in ("source_ids", "target_in")}, made["target_out"], batch_size=60, verbose=0
    )
    assert judged.values["next", "loss"] == pytest.approx(loss, rel=1e-5)
    assert judged.document["outputs"]["translation"]["task"] == "text"


def test_thresholds_slices_intervals_and_baseline_apply_to_answers(judged):
    entry = judged.entries["translation", "", "bleu"]
    assert entry["low"] < entry["value"] < entry["high"] and (entry["baseline"], entry["change"]) == (entry["value"], 0)
    assert {cut for output, cut, _ in judged.entries if output == "translation"} == {"", "long", "short"}
    (refusal,) = judged.blessing.refusals()
    assert "wer" in refusal


def test_samples_show_the_worst_and_random_rows(judged):
    samples = judged.evaluation.read_json("samples/samples.json")["groups"]
    (group,) = samples
    assert (group["output"], group["metric"], group["direction"]) == ("translation", "chrf", "up")
    worst = [row for row in group["rows"] if row["kind"] == "worst"]
    scores = [sacrebleu.sentence_chrf(row["answer"], [row["reference"]]).score for row in group["rows"]]
    assert [row["score"] for row in group["rows"]] == pytest.approx(scores)
    table = pq.read_table(judged.evaluation.path / "predictions").to_pylist()
    every = [sacrebleu.sentence_chrf(r["prediction.translation"], [r["label.translation"]]).score for r in table]
    assert [row["score"] for row in worst] == pytest.approx(sorted(every)[:8])
    assert worst[0]["columns"]["source"] and worst[0]["answers"]["translation"] == worst[0]["answer"]
    assert pq.read_table(judged.evaluation.path / "samples/samples.parquet").num_rows == len(group["rows"])


def test_unjudged_pictures_are_among_the_samples(tmp_path):
    painter = answering.painter(tmp_path)
    saved_model = exported(painter, answering.paint, tmp_path / "x").saved_model
    done = evaluated(painter, saved_model, tmp_path / "e", samples=3)
    (group,) = done.evaluation.read_json("samples/samples.json")["groups"]
    files = [done.evaluation.path / row["answer_media"]["picture"] for row in group["rows"]]
    assert len(files) == 3 and all(file.read_bytes()[:4] == b"\x89PNG" for file in files)


def test_predictions_hold_the_answers_as_strings(judged):
    folder = judged.evaluation.path / "predictions"
    table = pq.read_table(folder)
    assert str(table.schema.field("prediction.translation").type) == "string"
    assert str(table.schema.field("label.translation").type) == "string"


def test_baseline_without_the_answer_is_nothing_to_compare_with(translator, translating, tmp_path):
    network = kl.Exporter(translator.prepared, translator.model).execute(tmp_path / "network").saved_model
    done = evaluated(
        translator,
        translating,
        tmp_path / "e",
        baseline=network,
        reference={"translation": "target"},
        text_metrics=["wer"],
        thresholds={"wer": {"max_drop": 0.1}},
    )
    assert done.entries["translation", "", "wer"]["baseline"] is None
    assert done.entries["next", "", "loss"]["baseline"] is not None
    assert not done.blessing.blessed


def half(answers, batch):
    """Drop the objects of class 1."""
    kept = answers["classes"] == 0
    rows = range(batch.num_rows)
    return {
        "predicted_boxes": [answers["boxes"][row][kept[row]].tolist() for row in rows],
        "predicted_classes": [answers["classes"][row][kept[row]].tolist() for row in rows],
        "scores": [answers["scores"][row][kept[row]].tolist() for row in rows],
    }


def test_detections_are_judged_by_the_true_boxes(tmp_path):
    detector = answering.detector(tmp_path)
    saved_model = exported(detector, answering.detect, tmp_path / "x").saved_model
    assert list(saved_model.inputs) == ["image"]
    done = evaluated(detector, saved_model, tmp_path / "e", task="detection", thresholds={"ap_50": {"min": 0.9}})
    assert done.values["boxes", "ap"] == 1 and done.blessing.blessed
    classes = {row["class"]: row for row in done.document["per_class"] if row["metric"] == "ap_50"}
    true = detector.columns["test"].column("classes").combine_chunks().flatten().to_numpy()
    assert {kind: row["rows"] for kind, row in classes.items()} == {"0": (true == 0).sum(), "1": (true == 1).sum()}
    (group,) = done.evaluation.read_json("samples/samples.json")["groups"]
    assert group["metric"] == "f1" and {row["score"] for row in group["rows"]} == {1}
    assert all((done.evaluation.path / row["picture"]).exists() for row in group["rows"])

    done = evaluated(detector, saved_model, tmp_path / "half", task={"boxes": "detection"}, decode=half)
    assert done.values["boxes", "ap"] == pytest.approx(0.5)  # the mean over both classes
    assert ("add", "loss") in done.values


def test_worst_rows_of_an_explanation_show_the_answers(translator, translating, tmp_path):
    stage = kl.Explainer(
        translator.examples,
        translator.prepared,
        translator.model,
        saved_model=translating,
        worst=2,
        repeats=1,
        integrated_gradients="off",
    )
    rows = stage.execute(tmp_path).explanation.read_json("explanation.json")["worst"]["rows"]
    expected = answering.translate_by_numpy(translator.model.load(), [row["columns"]["source"] for row in rows])
    assert [row["answers"]["translation"] for row in rows] == expected


def classifier(folder):
    random = np.random.default_rng(2)

    def rows(count):
        kind = random.integers(0, 3, count)
        x = np.eye(3, dtype=np.float32)[kind] + random.normal(0, 0.6, (count, 3)).astype(np.float32)
        return {"x": list(x), "kind": [["ant", "bee", "fly"][k] for k in kind], "size": np.exp(x[:, 0])}

    def preprocessing():
        x, kind = keras.Input((3,), name="x"), keras.Input((), name="kind", dtype="string")
        size = keras.Input((1,), name="size")
        lookup = keras.layers.StringLookup(vocabulary=["ant", "bee", "fly"], num_oov_indices=0, name="kinds")
        return keras.Model(
            {"x": x, "kind": kind, "size": size},
            {"x": keras.layers.Identity()(x), "kind": lookup(kind), "log_size": keras.ops.log(size)},
        )

    def build_model(inputs, hp):
        scores = keras.layers.Dense(3, kernel_initializer="identity", name="scores")(inputs["x"])
        model = keras.Model(inputs, scores)
        model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        return model

    return answering.untrained(folder, {"train": rows(30), "test": rows(90)}, preprocessing, build_model, "kind")


def test_classifier_answers_are_judged_by_name_number_and_preprocessed_column(tmp_path):
    given = classifier(tmp_path)
    names = given.prepared.facts["class_names"]

    def answer(model, features):
        scores = tf.nn.softmax(model(features))
        label = tf.gather(tf.constant(names), tf.argmax(scores, -1))
        return {
            "label": label,
            "scores": scores,
            "log_size": features["x"][:, :1],
            "certainty": tf.reduce_max(scores, -1),
        }

    saved_model = exported(given, answer, tmp_path / "x").saved_model
    references = {"label": "kind", "scores": "kind", "log_size": "log_size"}
    done = evaluated(
        given,
        saved_model,
        tmp_path / "e",
        task={"scores": "multi_class"},
        reference=references,
        text_metrics=["exact_match"],
    )
    table = given.examples.read("test").to_pylist()
    right = np.mean([["ant", "bee", "fly"][np.argmax(row["x"])] == row["kind"] for row in table])
    assert done.values["label", "exact_match"] == pytest.approx(right)
    assert done.values["log_size", "root_mean_squared_error"] == pytest.approx(0, abs=1e-5)
    assert "certainty" not in done.document["outputs"]


def check(given, saved_model, **parameters):
    stage = kl.Evaluator(given.examples, given.prepared, given.model, saved_model=saved_model, **parameters)
    inputs = SimpleNamespace(
        examples=given.examples,
        preprocessing=given.prepared,
        model=given.model,
        saved_model=saved_model,
        baseline=None,
        judges={},
    )
    stage.check(inputs)


def test_wrong_parameters_are_found_before_training(translator):
    exporter = kl.Exporter(translator.prepared, translator.model, translator.examples, answer=answering.translate)
    inputs = SimpleNamespace(preprocessing=translator.prepared, model=translator.model, examples=translator.examples)
    planned = exporter.preview(inputs)["saved_model"]
    check(translator, planned, task="text", reference="target", thresholds={"translation/bleu": {"min": 1}})
    for parameters, message in (
        ({"reference": "targt"}, "the data has no column 'targt'; did you mean 'target'"),
        ({"reference": {"translatio": "target"}}, "no answer 'translatio'; did you mean 'translation'"),
        ({"task": "text"}, "the answer 'translation' has none; name the column with the true value"),
        ({"task": "regression", "reference": "target"}, "the answers translation; name those to judge"),
        ({"reference": "target", "thresholds": {"bley": {"min": 1}}}, "no metric 'bley'; did you mean"),
    ):
        with pytest.raises(ParameterError, match=message):
            check(translator, planned, **parameters)


def test_answers_that_nothing_judges_are_noted(translator, translating, tmp_path):
    done = evaluated(translator, translating, tmp_path)
    assert done.document["notes"] == ["not judged: the answers translation; name their `task` or `reference`"]
