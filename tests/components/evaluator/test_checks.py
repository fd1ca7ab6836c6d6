"""Wrong parameters of Evaluator, found without data and without a trained model."""

import subprocess
import sys

import pyarrow as pa
import pytest

import kerasline as kl
from kerasline.components.core.errors import ParameterError
from kerasline.components.core.parameters import parse_value
from kerasline.components.evaluator.checks import check_columns, check_parameters, check_thresholds
from kerasline.components.evaluator.settings import EvaluatorSettings, Slicing, Thresholds
from kerasline.components.metrics.base import SumMetrics
from kerasline.components.models.tasks import Output

NAMES, PAIRS = pa.list_(pa.string()), pa.list_(pa.list_(pa.int64()))
SCHEMA = pa.schema({"town": pa.string(), "fare": pa.float32(), "tags": NAMES, "pairs": PAIRS})
BINARY, NUMBER = Output("tip", "binary", ("0", "1")), Output("fare", "regression")


class Bias(SumMetrics):
    directions = {"bias": None}


def settings(thresholds=None, slices=(), **given):
    return EvaluatorSettings(
        thresholds=parse_value("Evaluator.thresholds", Thresholds, thresholds or {}),
        slices=parse_value("Evaluator.slices", list[Slicing], slices),
        **given,
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"task": "binry"}, "Evaluator.task: no task 'binry'; did you mean 'binary'?"),
        ({"task": {"tip": "binry"}}, "Evaluator.task: no task 'binry'; did you mean 'binary'?"),
        ({"task": "ranking"}, "Evaluator.query: the task 'ranking' needs the column that identifies the query"),
        ({"task": "detection"}, "Evaluator.decode: the task 'detection' needs a function that returns boxes"),
        ({"text_metrics": ["blue"]}, "Evaluator.text_metrics: no metric of texts 'blue'; did you mean 'bleu'?"),
        ({"detection_columns": {"box": "b"}}, "Evaluator.detection_columns: no name of a column 'box'; did you mean"),
        (
            {"thresholds": {"accuracy": {"min": 0.5, "slices": ["twon"]}}, "slices": ["town", "town*fare"]},
            "Evaluator.thresholds: 'accuracy' has bounds for slices by 'twon'; did you mean 'town'?",
        ),
        (
            {"thresholds": {"accuracy": {"min": 0.5, "slices": True}}},
            "Evaluator.thresholds: 'accuracy' has bounds for slices, but Evaluator.slices is empty",
        ),
        (
            {"thresholds": {"accuracy": {"max_drop": 0.1}}},
            "Evaluator.thresholds: 'accuracy' has max_drop, but no baseline is connected",
        ),
        (
            {"thresholds": {"latency_ms": {"max": 1, "slices": True}}, "slices": ["town"]},
            "Evaluator.thresholds: 'latency_ms' is measured once",
        ),
    ],
)
def test_parameters_that_contradict_each_other(given, message):
    with pytest.raises(ParameterError) as raised:
        check_parameters(settings(**given), has_baseline=False)
    assert str(raised.value).startswith(message) and "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"slices": ["twon"]}, "Evaluator.slices: no column 'twon'; did you mean 'town'?"),
        ({"slices": ["town", "town*fair"]}, "Evaluator.slices: no column 'fair'; did you mean 'fare'?"),
        ({"slices": ["town", "town"]}, "Evaluator.slices: 'town' is given twice"),
        ({"slices": ["pairs"]}, "Evaluator.slices: 'pairs' holds lists of lists"),
        ({"slices": [{"column": "town", "buckets": 3}]}, "Evaluator.slices: 'town' holds string; buckets are for"),
        ({"slices": [{"column": "fare"}]}, "Evaluator.slices: 'fare': give one of `buckets` and `edges`"),
        ({"task": "detection"}, "Evaluator.detection_columns: no column 'boxes'; known: fare, pairs, tags, town"),
    ],
)
def test_columns_that_the_data_does_not_have(given, message):
    with pytest.raises(ParameterError) as raised:
        check_columns(settings(**given), SCHEMA)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({"acuracy": {"min": 0}}, "the model has no metric 'acuracy'; did you mean 'accuracy'?"),
        ({"tip/r2": {"min": 0}}, "the model has no metric 'tip/r2'; did you mean"),
        ({"auc_2": {"min": 0}}, "the model has no metric 'auc_2'; did you mean"),
        ({"fare/loss": {"min": 0}}, "the model has no metric 'fare/loss'"),
        (
            {"bias": {"max_drop": 0}},
            "max_drop is set for 'bias', a metric for which neither higher nor lower is better",
        ),
    ],
)
def test_metrics_that_the_model_does_not_have(bounds, message):
    with pytest.raises(ParameterError, match="Evaluator.thresholds: ") as raised:
        check_thresholds(settings(bounds, metrics=[Bias()]), [BINARY, NUMBER], ["tip"], lambda: {"tip": ["auc"]})
    assert message in str(raised.value)


def test_metrics_that_the_model_has():
    names = ["accuracy", "tip/loss", "loss", "r2", "fare/r2", "auc", "tip/auc", "megabytes", "bias", "tip/bias"]
    given = settings({name: {"min": 0} for name in names}, metrics=[Bias()])
    check_thresholds(given, [BINARY, NUMBER], ["tip"], lambda: {"tip": ["auc"]})


def test_checks_import_neither_tensorflow_nor_beam():
    code = (
        "import sys, kerasline.components.evaluator.checks; "
        "print(*{'tensorflow', 'keras', 'apache_beam', 'pandas'} & set(sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == ""


def preprocessing():
    import keras

    x = keras.Input((1,), name="x")
    return keras.Model({"x": x}, {"x": keras.layers.Rescaling(1.0)(x)})


def build_model(inputs, hp):
    import keras

    model = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid", name="chance")(inputs["x"]))
    model.compile("sgd", "binary_crossentropy", metrics=["AUC", "mae"])
    return model


@pytest.fixture(scope="module")
def untrained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("untrained")
    rows = {"x": [1.0, 2.0, 3.0], "y": [0, 1, 1], "town": ["a", "b", "a"]}
    data = kl.InMemoryExampleGen(rows, splits={"train": 1}).execute(folder / "data").examples
    prepared = kl.Transform(data, function=preprocessing, label="y").execute(folder / "transform").preprocessing
    return data, prepared, kl.ModelBuilder(prepared, function=build_model).execute(folder / "model").model


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"thresholds": {"acuracy": {"min": 0.5}}}, "Evaluator.thresholds: the model has no metric 'acuracy'"),
        ({"metrics": ["Precisoin"]}, "Evaluator.metrics: Keras has no metric 'Precisoin'; did you mean 'Precision'?"),
        ({"task": {"chanse": "binary"}}, "Evaluator.task: the model has no output 'chanse'; did you mean 'chance'?"),
        ({"slices": ["twon"]}, "Evaluator.slices: no column 'twon'; did you mean 'town'?"),
        ({"split": "tset"}, "Evaluator.split: the data has no split 'tset'"),
    ],
)
def test_evaluator_is_checked_against_the_untrained_model(untrained, given, message):
    stage = kl.Evaluator(*untrained, **{"split": "train", **given})
    with pytest.raises(ParameterError) as raised:
        stage.check(stage.input_artifacts(stage.inputs))
    assert str(raised.value).startswith(message)


def test_thresholds_on_compiled_metrics_pass_the_check(untrained):
    thresholds = {name: {"min": 0} for name in ("accuracy", "loss", "auc", "mae", "precision")}
    stage = kl.Evaluator(*untrained, split="train", thresholds=thresholds, metrics=["Precision"], slices=["town"])
    stage.check(stage.input_artifacts(stage.inputs))


def test_max_drop_without_a_baseline_is_found_before_other_stages_run(untrained):
    stage = kl.Evaluator(
        *untrained[:2], kl.Trainer(*untrained), split="train", thresholds={"accuracy": {"max_drop": 0.1}}
    )
    with pytest.raises(ParameterError, match="'accuracy' has max_drop, but no baseline is connected"):
        stage.check(stage.input_artifacts(stage.inputs))
