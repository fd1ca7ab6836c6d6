"""Check what a pipeline of the matrix wrote, with TensorFlow, NumPy and jiwer, in a process that has not run it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from tests.matrix.pipelines import SPECIES, TASKS, VOCABULARY

TOLERANCE = {"float16": 0.02, "int8_weights": 0.2, "int8": 0.3}


def check(combination: dict, outputs: dict[str, dict[str, str]]) -> None:
    """Assert that the exported model answers as Keras does, and that the reported metrics are those of the answers.

    Args:
        combination: a choice for each key of `combinations.CHOICES`.
        outputs: paths of the artifacts, by node and name.
    """
    import kerasline as kl
    from kerasline.components.data.model_inputs import feed

    rows = kl.Examples(outputs["ExampleGen"]["examples"]).read("test")
    features = kl.Preprocessing(outputs["Transform"]["preprocessing"]).load_features()
    model = kl.Model(outputs["Trainer"]["trained_model"]).load()
    raw = feed(rows, features.input)
    answers = _by_name(combination, model(features(raw, training=False), training=False))
    columns = {name: np.array(rows[name].to_pylist()) for name in rows.column_names}
    exported = outputs["Exporter"]["saved_model"]
    served = _served(exported, "serving_default", raw)
    _check_equal(answers, served, 1e-5)
    prepared = _served(exported, "transform_features", raw)
    _check_equal(answers, _served(exported, "predict_preprocessed", prepared), 1e-5)
    if combination["task"] == "text_classes":
        names = answers["species"].argmax(axis=1)
        assert [name.decode() for name in served["label"]] == [_class_names(outputs)[number] for number in names]
    _check_form(combination, outputs, raw, prepared, answers)
    _check_metrics(combination, outputs, columns, answers)
    if combination["explainer"] == "with":
        explanation = json.loads(Path(outputs["Explainer"]["explanation"], "explanation.json").read_text())
        assert {f"x{number}" for number in range(combination["inputs"])} <= _explained(explanation)


def _by_name(combination: dict, answers) -> dict[str, np.ndarray]:
    label = TASKS[combination["task"]].label
    named = answers if isinstance(answers, dict) else {label: answers}
    return {name: np.asarray(values) for name, values in named.items()}


def _served(path: str, signature: str, inputs: dict) -> dict[str, np.ndarray]:
    """Return the answers of a signature of a SavedModel. It ignores inputs that it does not have."""
    import tensorflow as tf

    call = tf.saved_model.load(path).signatures[signature]
    names = call.structured_input_signature[1]
    answers = call(**{name: tf.convert_to_tensor(inputs[name]) for name in names})
    return {name: value.numpy() for name, value in answers.items()}


def _check_equal(expected: dict, received: dict, tolerance: float) -> None:
    for name, values in expected.items():
        np.testing.assert_allclose(received[name], values, rtol=tolerance, atol=tolerance, err_msg=name)


def _check_form(combination: dict, outputs: dict, raw: dict, prepared: dict, answers: dict) -> None:
    """Check the answers of the further form of the model."""
    form = combination["form"]
    folder = Path(outputs["Exporter"]["model_forms"], form)
    if form in TOLERANCE:
        _check_equal(answers, _served(str(folder), "serving_default", raw), TOLERANCE[form])
    elif form == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(folder / "model.onnx"))
        names = [output.name for output in session.get_outputs()]
        _check_equal(answers, dict(zip(names, session.run(names, prepared))), 1e-4)
    elif form == "litert":
        from ai_edge_litert.interpreter import Interpreter

        runner = Interpreter(str(folder / "model.tflite")).get_signature_runner()
        received = runner(**prepared)
        _check_equal(answers, received, 1e-4)


def _check_metrics(combination: dict, outputs: dict, columns: dict, answers: dict) -> None:
    """Compare reported metrics with NumPy's and jiwer's."""
    evaluation = json.loads(Path(outputs["Evaluator"]["evaluation"], "metrics.json").read_text())
    rows = [row for row in evaluation["metrics"] if not row["slicing"]]
    reported = {(row["output"], row["metric"]): row["value"] for row in rows}
    weight = columns["weight"] if combination["evaluator"] == "weights" else None
    for output, values in answers.items():
        metric, of_rows = _measured(combination["task"], output, values, columns, outputs)
        np.testing.assert_allclose(reported[output, metric], np.average(of_rows, weights=weight), rtol=1e-4)
    if combination["evaluator"] == "slices":
        assert {name for row in evaluation["metrics"] if (name := row["slicing"])} == {"region", "x0"}
    if combination["evaluator"] == "baseline" and combination["way"] != "second_run":
        assert all(row["baseline"] is not None for row in rows if row["metric"] == "loss")


def _measured(task: str, output: str, answer: np.ndarray, columns: dict, outputs: dict) -> tuple[str, np.ndarray]:
    """Return the name of a metric of an output, and its value for each row."""
    if task == "text":
        import jiwer

        texts = [" ".join(VOCABULARY[token] for token in row) for row in answer.argmax(axis=-1)]
        return "wer", np.array([jiwer.wer(*both) for both in zip(columns["sentence"].tolist(), texts)])
    label = columns[output]
    if task == "binary":
        return "accuracy", (answer[:, 0] > 0.5) == label
    if output == "species":
        return "accuracy", np.array(_class_names(outputs))[answer.argmax(axis=1)] == label
    if output == "grade":
        return "accuracy", answer.argmax(axis=1) == label
    if task == "multi_label":
        return "subset_accuracy", ((answer > 0.5) == label).all(axis=1)
    if task == "tokens":
        return "token_accuracy", (answer.argmax(axis=-1) == label).mean(axis=1)
    return "mean_squared_error", (answer[:, 0] - label) ** 2


def _class_names(outputs: dict) -> list[str]:
    """Return the names of the classes in the order of the label's lookup."""
    facts = json.loads(Path(outputs["Transform"]["preprocessing"], "preprocessing.json").read_text())
    assert sorted(facts["class_names"]) == SPECIES
    return facts["class_names"]


def _explained(explanation: dict) -> set[str]:
    """Return the columns whose importance was measured."""
    return {row["feature"] for row in explanation["permutation"]["features"]}
