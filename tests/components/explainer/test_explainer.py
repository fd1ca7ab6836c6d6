"""Explainer's output, displayed metrics, progress and errors."""

import json
import math
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from kerasline import Transform
from kerasline.components.core.errors import DataError, ParameterError, UserCodeError
from kerasline.components.explainer.explained_output import ExplainedOutput
from tests.components.explainer.conftest import DIABETES, TUMOUR, Served, matrix, trained, tumour_preprocessing

QUICK = {"integrated_gradients": "off", "worst": 2, "repeats": 1, "features": []}


def test_explanation_has_all_documented_entries(penguins, explain):
    found = explain(penguins, repeats=2)
    assert set(found.json) >= {
        "version",
        "split",
        "rows",
        "sampled",
        "seed",
        "output",
        "permutation",
        "integrated_gradients",
        "partial_dependence",
        "worst",
    }
    assert set(found.permutation) == {"metric", "direction", "value", "repeats", "features"}
    for feature in found.permutation["features"]:
        assert feature["low"] <= feature["importance"] <= feature["high"]
    assert {"steps", "baseline", "features", "completeness_error"} <= set(found.integrated_gradients)
    for curve in found.partial_dependence:
        assert len(curve["x"]) == len(curve["y"]) == len(curve["low"]) == len(curve["high"]) >= 2
    first = found.worst["rows"][0]
    shown = {"tokens", "columns", "media", "answers", "answer_media"}
    assert set(first) == {"place", "loss", "label", "prediction", "score", "attribution", *shown}
    assert found.rows == len(penguins.splits["test"]["island"]) and len(found.worst["rows"]) == 20
    text = (found.folder / "explanation.json").read_text()
    json.loads(text, parse_constant=lambda constant: pytest.fail(f"{constant} is no JSON"))


def test_displayed_metrics_are_few_and_short(penguins, explain):
    found = explain(penguins, **QUICK)
    best = found.permutation["features"][0]
    assert found.metrics == {
        "rows": 100,
        "most_important": f"{best['feature']} ({best['importance']:.2g})",
        "worst_loss": found.worst["rows"][0]["loss"],
    }


def test_progress_names_the_current_step(penguins, explain):
    progress = explain(penguins, repeats=1).progress
    ends = [line for line in progress if line.startswith("permutation importance")]
    assert ends[-1] == "permutation importance 6 of 6: sex"
    assert any(line.startswith("partial dependence 6 of 6: ") for line in progress)
    assert any(line == "worst rows, part 1 of 1: rows 0 to 100 of 100" for line in progress)


def test_mean_loss_of_the_rows_agrees_with_keras(penguins, weighted_tumours, explain):
    from kerasline.components.data.training_input import dataset

    for problem in (penguins, weighted_tumours):
        data = dataset(problem.examples, "test", problem.prepared, batch_size=1000, work_dir=problem.folder)
        model = problem.model.load()
        features, label, *weight = next(iter(data))
        known = model.evaluate(features, label, verbose=0, return_dict=True)["loss"] if not weight else None
        if weight:  # Keras divides by the rows, we by their weight: every row counts by its share
            each = keras.losses.BinaryCrossentropy(from_logits=True, reduction=None)(label[:, None], model(features))
            known = np.average(each, weights=weight[0])
        assert explain(problem, **QUICK).permutation["value"] == pytest.approx(float(known), rel=1e-5)


def masking_preprocessing():
    steps = keras.Input((3,), name="steps")
    return keras.Model({"steps": steps}, {"x": keras.layers.Masking()(steps[..., None])})


def mean_of_steps_model(inputs, hp):
    mean = keras.layers.GlobalAveragePooling1D()(inputs["x"])
    model = keras.Model(inputs, keras.layers.Dense(1)(mean))
    model.compile("sgd", "mse")
    return model


def test_explained_model_gets_no_masks_of_the_preprocessing_as_in_training(tmp_path, explain):
    steps = np.array([[1, 0, 0], [2, 4, 0], [1, 2, 3], [5, 0, 0]], "float32")
    columns = {"steps": steps.tolist(), "y": np.arange(4, dtype="float32")}
    problem = trained(tmp_path / "m", {"train": columns}, masking_preprocessing, mean_of_steps_model, label="y")
    found = explain(problem, split="train", **QUICK)
    predictions = problem.model.load().predict({"x": steps[..., None]}, verbose=0)[:, 0]
    assert found.permutation["value"] == pytest.approx(np.mean((predictions - columns["y"]) ** 2), rel=1e-5)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"metric": "accurcy"}, "Explainer.metric: no metric 'accurcy'; did you mean 'accuracy'"),
        ({"output": "benin"}, "Explainer.output: the model has no output 'benin'; did you mean 'benign'"),
        ({"metric": lambda label, prediction: label}, "must be defined at the top level of its file"),
    ],
)
def test_unknown_names_get_a_suggestion(tumours, explain, given, message):
    with pytest.raises(ParameterError, match=message) as error:
        explain(tumours, **given, **QUICK)
    assert "\n" not in str(error.value)


def test_unknown_split_gets_a_suggestion(tumours, explain):
    with pytest.raises(ParameterError, match="no split 'tests'; did you mean 'test'"):
        explain(tumours, split="tests", **QUICK)


def test_accuracy_of_a_regression_is_refused(diabetes, explain):
    with pytest.raises(ParameterError, match="accuracy is for classes, and this output gives numbers"):
        explain(diabetes, metric="accuracy", **QUICK)


def test_preprocessing_without_a_label_is_refused(tumours, tmp_path, explain):
    prepared = Transform(tumours.examples, function=tumour_preprocessing).execute(tmp_path).preprocessing
    problem = SimpleNamespace(**{**vars(tumours), "prepared": prepared})
    with pytest.raises(DataError, match="there is no label .* Transform.label"):
        explain(problem, **QUICK)


def one_number(label, prediction):
    return 0.5


def broken(label, prediction):
    return 1 / 0


@pytest.mark.parametrize(
    ("metric", "message"),
    [(one_number, "must return a number for each of 269 rows"), (broken, "ZeroDivisionError: division by zero")],
)
def test_errors_of_a_custom_metric_are_user_code_errors(tumours, explain, metric, message):
    with pytest.raises(UserCodeError, match=message):
        explain(tumours, metric=metric, **QUICK)


@keras.saving.register_keras_serializable("test_explainer")
def mean_of_the_batch(label, prediction):
    return keras.ops.mean(keras.ops.square(label - prediction))


def model_with_the_loss_of_a_batch(inputs, hp):
    model = keras.Model(inputs, keras.layers.Dense(1, name="progression")(inputs["x"]))
    model.compile("sgd", mean_of_the_batch)
    return model


def test_loss_of_the_whole_batch_needs_a_metric(diabetes, tmp_path, explain):
    from tests.components.explainer.conftest import diabetes_preprocessing

    problem = trained(
        tmp_path / "p",
        diabetes.splits,
        diabetes_preprocessing,
        model_with_the_loss_of_a_batch,
        label="progression",
        epochs=1,
    )
    with pytest.raises(ParameterError, match="one value for a batch, not one per row; name a metric"):
        explain(problem, **QUICK)
    named = explain(problem, metric="mean_squared_error", **QUICK)
    target = np.asarray(diabetes.splits["test"]["progression"], "float64")
    squared = (Served(problem, DIABETES).output(matrix(problem, DIABETES))[:, 0] - target) ** 2
    assert named.worst["by"] == "mean_squared_error"
    assert [row["place"] for row in named.worst["rows"]] == np.argsort(-squared, kind="stable")[:2].tolist()
    np.testing.assert_allclose([row["loss"] for row in named.worst["rows"]], np.sort(squared)[:-3:-1], rtol=1e-4)
    more = explain(problem, metric=minus_squared_error, direction="maximize", **QUICK).worst
    assert [row["place"] for row in more["rows"]] == [row["place"] for row in named.worst["rows"]]
    np.testing.assert_allclose([row["loss"] for row in more["rows"]], -np.sort(squared)[:-3:-1], rtol=1e-4)


def minus_squared_error(label, prediction):
    return -((label.reshape(-1) - prediction.reshape(-1)) ** 2)


@pytest.mark.parametrize(
    ("loss", "label", "output", "names", "task"),
    [
        ("binary_crossentropy", (None,), (None, 1), None, "binary"),
        ("mse", (None,), (None, 1), ["no", "yes"], "binary"),
        ("mse", (None,), (None, 1), None, "regression"),
        ("mse", (None, 3), (None, 3), None, "regression"),
        ("binary_crossentropy", (None, 3), (None, 3), None, "multi_label"),
        ("categorical_crossentropy", (None, 3), (None, 3), None, "multi_class"),
        ("sparse_categorical_crossentropy", (None,), (None, 3), ["a", "b", "c"], "multi_class"),
    ],
)
def test_task_of_an_output_follows_from_its_loss_and_label(loss, label, output, names, task):
    from kerasline.components.models.compile_config import CompiledLoss
    from kerasline.components.models.losses import unreduced_loss

    found = ExplainedOutput.of(
        CompiledLoss(unreduced_loss(loss)),
        keras.KerasTensor(label, "float32"),
        keras.KerasTensor(output, "float32"),
        names,
    )
    assert found.task == task and not found.from_logits


def test_logits_become_probabilities():
    from kerasline.components.models.compile_config import CompiledLoss

    label, output = keras.KerasTensor((None,), "int64"), keras.KerasTensor((None, 3), "float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=None)
    answers = ExplainedOutput.of(CompiledLoss(loss), label, output, None)
    logits = np.array([[1.0, 2.0, 4.0]], "float32")
    known = [math.exp(value) / sum(math.exp(v) for v in (1, 2, 4)) for value in (1, 2, 4)]
    np.testing.assert_allclose(answers.by_unit(logits)[0], known, rtol=1e-6)
    word, score = answers.prediction_as_text(np.array(known))
    assert word == "2" and score == pytest.approx(known[2])


def test_parameters_can_be_set_on_the_command_line(tumours):
    from kerasline import Explainer

    stage = Explainer(tumours.examples, tumours.prepared, tumours.model)
    stage.with_parameters(
        {
            "metric": "accuracy",
            "features": json.dumps(TUMOUR[:2]),
            "most_rows": "50",
            "baseline": "mean",
            "integrated_gradients": "off",
        }
    )
    given = stage.settings
    assert (given.metric, given.features, given.most_rows, given.baseline) == ("accuracy", TUMOUR[:2], 50, "mean")
