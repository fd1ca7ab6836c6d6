"""The Evaluator on real small models, against Keras and scikit-learn."""

import math

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn import metrics as theirs

from kerasline import Exporter
from kerasline.components.core.errors import ArtifactError, DataError, KeraslineError, ParameterError, UserCodeError
from kerasline.components.metrics.base import SumMetrics, divided
from kerasline.components.metrics.baseline_comparison import NAMES as COMPARISONS
from tests.components.evaluator.conftest import dense
from tests.components.evaluator.problems import evaluated, predictions, problem


def sigmoid(logits):
    return 1 / (1 + np.exp(-logits.astype(np.float64)))


def recompiled(given, folder, model, label="label", columns=None, **how):
    """The same rows with another model."""
    return problem(folder, {**given.columns, **(columns or {})}, model, label, **how)


# Yes and no


def test_logits_and_probabilities_give_the_same_metrics(cancer, tmp_path):
    x = keras.Input((6,), name="x")
    sure = keras.Model({"x": x}, keras.layers.Activation("sigmoid", name="scores")(cancer.keras_model({"x": x})))
    sure.compile(loss="binary_crossentropy")
    ours = evaluated(cancer, tmp_path / "logits").values
    same = evaluated(recompiled(cancer, tmp_path / "p", sure), tmp_path / "sigmoid").values
    scores, label = sigmoid(cancer.answers[:, 0]), cancer.columns["label"]
    expected = {
        "accuracy": theirs.accuracy_score(label, scores > 0.5),
        "roc_auc": theirs.roc_auc_score(label, scores),
        "pr_auc": theirs.average_precision_score(label, scores),
        "log_loss": theirs.log_loss(label, scores),
        "brier": theirs.brier_score_loss(label, scores),
        "loss": theirs.log_loss(label, scores),
    }
    for name, value in expected.items():
        assert ours[name] == pytest.approx(value, rel=1e-5), name
    for name, value in same.items():
        assert ours[name] == pytest.approx(value, rel=1e-4), name


def test_keras_metrics_agree_with_model_evaluate(cancer, tmp_path):
    done = evaluated(cancer, tmp_path, metrics=["Precision", {"name": "AUC", "curve": "PR", "from_logits": True}])
    whole = cancer.keras_model.evaluate(
        {"x": cancer.columns["x"]}, cancer.columns["label"], verbose=0, return_dict=True
    )
    scores, label = sigmoid(cancer.answers[:, 0]), cancer.columns["label"]
    assert done.values["auc"] == pytest.approx(whole["auc"], rel=1e-5)
    # The second of a name is numbered. Keras's area under the curve is of 200 thresholds.
    assert done.values["auc_1"] == pytest.approx(theirs.average_precision_score(label, scores), abs=0.01)
    assert done.values["precision"] == pytest.approx(theirs.precision_score(label, scores > 0.5))
    assert done.values["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    entry = done.entries["", "", "auc"]
    assert entry["interval"] == "jackknife" and entry["low"] < entry["value"] < entry["high"]
    assert done.document["outputs"]["scores"]["metrics"][0] == "accuracy"


def test_slice_metrics_equal_those_of_its_rows_alone(cancer, tmp_path):
    done = evaluated(cancer, tmp_path, slices=["site", {"column": "size", "buckets": 3}])
    site = np.array([s or "(missing)" for s in cancer.columns["site"]])
    scores, label = sigmoid(cancer.answers[:, 0]), cancer.columns["label"]
    for one in ("north", "south", "(missing)"):
        inside = site == one
        entry = done.entries["site", one, "roc_auc"]
        assert entry["value"] == pytest.approx(theirs.roc_auc_score(label[inside], scores[inside]))
        assert entry["rows"] == inside.sum() and entry["small"] == (inside.sum() < 100)
        if entry["small"]:
            assert entry["difference"] is None and entry["p_value"] is None
        else:
            rest = theirs.roc_auc_score(label[~inside], scores[~inside])
            assert entry["difference"] == pytest.approx(entry["value"] - rest)
            assert 0 <= entry["p_value"] <= entry["p_corrected"] <= 1
        auc = keras.metrics.AUC(from_logits=True)
        auc.update_state(label[inside][:, None], cancer.answers[inside])
        assert done.entries["site", one, "auc"]["value"] == pytest.approx(float(auc.result()), rel=1e-5)
    assert done.document["slicings"] == [
        {"name": "site", "slices": 3, "left_out": 0},
        {"name": "size", "slices": 3, "left_out": 0},
    ]
    gaps = done.document["fairness"]
    assert {gap["slicing"] for gap in gaps} == {"size", "site"}
    assert {gap["slices"] for gap in gaps if gap["slicing"] == "site"} == {2}  # without the small one


def test_row_with_a_list_counts_in_the_slice_of_each_value(cancer, tmp_path):
    done = evaluated(cancer, tmp_path, slices=["tags", "tags*site"])
    scores, label = sigmoid(cancer.answers[:, 0]), cancer.columns["label"]
    for tag in ("a", "b"):
        inside = np.array([tag in tags for tags in cancer.columns["tags"]])
        entry = done.entries["tags", tag, "roc_auc"]
        assert entry["rows"] == inside.sum()
        assert entry["value"] == pytest.approx(theirs.roc_auc_score(label[inside], scores[inside]))
        both = inside & (np.array(cancer.columns["site"]) == "north")
        entry = done.entries["tags*site", f"{tag}, north", "log_loss"]
        assert entry["value"] == pytest.approx(theirs.log_loss(label[both], scores[both]), rel=1e-5)


def nobody(batch):
    return [None] * batch.num_rows


def first_rows(batch):
    return ["positive" if one else None for one in batch.column("label").to_pylist()]


def test_slices_without_rows_or_with_one_class_are_accepted(cancer, tmp_path):
    done = evaluated(cancer, tmp_path, slices=[nobody, first_rows], small_slice_rows=1)
    assert done.document["slicings"][0] == {"name": "nobody", "slices": 0, "left_out": 0}
    assert done.entries["first_rows", "positive", "roc_auc"]["value"] is None
    assert done.entries["first_rows", "positive", "recall"]["value"] == pytest.approx(done.values["recall"])


def test_gate_on_slices_without_the_metric_refuses_the_model(cancer, tmp_path):
    gate = {"roc_auc": {"min": 0.1, "slices": ["first_rows"]}, "accuracy": {"min": 0.1, "slices": ["nobody"]}}
    found = evaluated(cancer, tmp_path / "refused", slices=[nobody, first_rows], thresholds=gate)
    assert not found.blessing.blessed
    assert found.metrics["blessed"] == (
        "no: no slice of 1 rows or more by first_rows has roc_auc; no slice of 1 rows or more by nobody has accuracy"
    )
    gate = {name: {**bounds, "if_unmeasured": "pass"} for name, bounds in gate.items()}
    found = evaluated(cancer, tmp_path / "passed", slices=[nobody, first_rows], thresholds=gate)
    assert found.blessing.blessed and found.metrics["blessed"].startswith("yes; not measured: roc_auc at least 0.1")


def test_max_drop_without_a_baseline_refuses_the_model(cancer, tmp_path):
    found = evaluated(cancer, tmp_path, thresholds={"accuracy": {"max_drop": 0.1}})
    assert found.metrics["blessed"].startswith("no: accuracy has no baseline to compare with")


def test_weights_count_as_in_scikit_learn_and_keras(cancer, tmp_path):
    model = keras.models.clone_model(cancer.keras_model)
    model.set_weights(cancer.keras_model.get_weights())
    model.compile(
        loss=keras.losses.BinaryCrossentropy(from_logits=True),
        weighted_metrics=[
            keras.metrics.AUC(from_logits=True, name="auc"),
            keras.metrics.MeanSquaredError(name="mse"),
        ],
    )
    weighed = recompiled(cancer, tmp_path / "p", model, weight="weight")
    done = evaluated(weighed, tmp_path / "e", slices=["site"])
    label, weight = cancer.columns["label"], cancer.columns["weight"]
    scores = sigmoid(cancer.answers[:, 0])
    for rows, where in (
        (np.full(len(label), True), ("", "")),
        (np.array(cancer.columns["site"]) == "north", ("site", "north")),
    ):
        given = {"y_true": label[rows], "sample_weight": weight[rows]}
        expected = {
            "accuracy": theirs.accuracy_score(y_pred=scores[rows] > 0.5, **given),
            "f1": theirs.f1_score(y_pred=scores[rows] > 0.5, **given),
            "roc_auc": theirs.roc_auc_score(y_score=scores[rows], **given),
            "log_loss": theirs.log_loss(y_pred=scores[rows], **given),
        }
        for name, value in expected.items():
            assert done.entries[*where, name]["value"] == pytest.approx(value, rel=1e-5), name
        assert done.entries[*where, "accuracy"]["interval"] == "bootstrap"
        assert done.entries[*where, "accuracy"]["weight"] == pytest.approx(weight[rows].sum(), rel=1e-6)
    whole = model.evaluate(
        {"x": cancer.columns["x"]}, label, sample_weight=weight, verbose=0, return_dict=True, batch_size=569
    )
    for name in ("auc", "mse", "loss"):
        assert done.values[name] == pytest.approx(whole[name], rel=1e-4)
    assert done.document["weighted"] is True


# Several classes


def test_softmax_logits_and_one_hot_labels_give_the_same_metrics(digits, tmp_path):
    x = keras.Input((64,), name="x")
    inner, last = digits.keras_model.layers[-2], digits.keras_model.layers[-1]
    logits = keras.layers.Dense(10, name="scores")
    raw = keras.Model({"x": x}, logits(inner(x)))
    logits.set_weights(last.get_weights())
    raw.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    hot = keras.models.clone_model(digits.keras_model)
    hot.set_weights(digits.keras_model.get_weights())
    hot.compile(
        loss="categorical_crossentropy", metrics=["accuracy", keras.metrics.F1Score(average="macro", name="f1")]
    )
    label = digits.columns["label"]
    one_hot = {"hot": np.eye(10, dtype="float32")[label]}
    ours = evaluated(digits, tmp_path / "a", top_k=3)
    others = [
        evaluated(recompiled(digits, tmp_path / "p1", raw), tmp_path / "b", top_k=3),
        evaluated(recompiled(digits, tmp_path / "p2", hot, "hot", one_hot), tmp_path / "c", top_k=3),
    ]
    scores = digits.answers.astype(np.float64)
    scores /= scores.sum(1, keepdims=True)
    predicted = scores.argmax(1)
    expected = {
        "accuracy": theirs.accuracy_score(label, predicted),
        "macro_f1": theirs.f1_score(label, predicted, average="macro"),
        "top_3_accuracy": theirs.top_k_accuracy_score(label, scores, k=3),
        "log_loss": theirs.log_loss(label, scores),
        "balanced_accuracy": theirs.balanced_accuracy_score(label, predicted),
    }
    whole = digits.keras_model.evaluate({"x": digits.columns["x"]}, label, verbose=0, return_dict=True)
    assert whole["accuracy"] == pytest.approx(expected["accuracy"], rel=1e-6)
    assert ours.values["loss"] == pytest.approx(whole["loss"], rel=1e-5)
    for done in (ours, *others):
        for name, value in expected.items():
            assert done.values[name] == pytest.approx(value, rel=1e-5), name
        confusion = done.document["confusion"]["scores"]
        assert confusion["classes"] == [str(k) for k in range(10)]
        np.testing.assert_array_equal(confusion["counts"], theirs.confusion_matrix(label, predicted))
    assert others[1].values["f1"] == pytest.approx(expected["macro_f1"], rel=1e-5)


def test_label_outside_the_classes_is_an_error(digits, tmp_path):
    label = digits.columns["label"].copy()
    label[5] = -1
    with pytest.raises(DataError, match=r"a label is -1, where classes are those of \[0, 10\)"):
        evaluated(recompiled(digits, tmp_path / "p", digits.keras_model, columns={"label": label}), tmp_path / "e")


# Several labels, numbers, outputs


def test_several_labels_per_row_agree_with_scikit_learn(digits, tmp_path):
    digit = digits.columns["label"]
    labels = np.stack([digit % 2, digit > 4, np.isin(digit, [2, 3, 5, 7])], 1).astype("float32")
    model = dense(64, 3, "sigmoid")
    model.compile("adam", "binary_crossentropy")
    model.fit({"x": digits.columns["x"]}, labels, epochs=3, verbose=0)
    given = recompiled(
        digits, tmp_path / "p", model, "labels", {"labels": labels}, class_names=["odd", "large", "prime"]
    )
    done = evaluated(given, tmp_path / "e", decision_thresholds=[0.4])
    scores = given.answers
    assert done.document["outputs"]["scores"]["task"] == "multi_label"
    expected = {
        "subset_accuracy": theirs.accuracy_score(labels, scores > 0.4),
        "hamming_loss": theirs.hamming_loss(labels, scores > 0.4),
        "micro_f1": theirs.f1_score(labels, scores > 0.4, average="micro"),
        "macro_recall": theirs.recall_score(labels, scores > 0.4, average="macro"),
    }
    for name, value in expected.items():
        assert done.values[name] == pytest.approx(value, rel=1e-6), name
    each = {(e["class"], e["metric"]): e for e in done.document["per_class"]}
    precision = theirs.precision_score(labels, scores > 0.4, average=None)
    for place, name in enumerate(("odd", "large", "prime")):
        entry = each[name, "precision"]
        assert entry["value"] == pytest.approx(precision[place]) and entry["rows"] == labels[:, place].sum()
        assert entry["low"] <= entry["value"] <= entry["high"]


def test_several_numbers_per_row_far_from_zero_are_accurate(digits, tmp_path):
    ink = digits.columns["x"].reshape(-1, 8, 8).sum(2)[:, :3] + [0, 1e3, 1e4]
    model = dense(64, 3, hidden=0)
    model.compile("adam", "mse", metrics=["mae"])
    model.layers[-1].set_weights([np.full((64, 3), 0.1, "float32"), np.float32([0, 1e3, 1e4])])
    given = recompiled(digits, tmp_path / "p", model, "ink", {"ink": ink.astype("float32")})
    done = evaluated(given, tmp_path / "e")
    label, answers = ink.astype("float32").astype(float), given.answers.astype(float)
    expected = {
        "mean_squared_error": theirs.mean_squared_error(label, answers),
        "r2": theirs.r2_score(label, answers),
        "root_mean_squared_error": theirs.root_mean_squared_error(label, answers),
        "mean_absolute_percentage_error": theirs.mean_absolute_percentage_error(label, answers),
        "quantile_loss_0.9": theirs.mean_pinball_loss(label, answers, alpha=0.9),
        "residual_q50": np.quantile(answers - label, 0.5, method="inverted_cdf"),
        "loss": theirs.mean_squared_error(label, answers),
    }
    for name, value in expected.items():
        assert done.values[name] == pytest.approx(value, rel=1e-4, abs=1e-4), name
    assert done.document["residuals"]["scores"]["quantiles"] == [0.05, 0.25, 0.5, 0.75, 0.95]
    assert "mae" in done.values or "mean_absolute_error" in done.values


def test_regression_works_without_replicates_and_with_saved_model(digits, tmp_path):
    label = digits.columns["x"].sum(1)
    model = dense(64, 1)
    model.compile("adam", "mse")
    given = recompiled(digits, tmp_path / "p", model, "ink", {"ink": label})
    saved_model = Exporter(given.preprocessing, given.model).execute(tmp_path / "x").saved_model
    found = evaluated(given, tmp_path / "e", replicates=0, saved_model=saved_model, baseline=saved_model)
    expected = theirs.mean_squared_error(label, given.answers[:, 0])
    assert found.values["mean_squared_error"] == pytest.approx(expected, rel=1e-5)
    assert found.entries["", "", "mean_squared_error"]["interval"] is None
    (form,) = found.document["forms"]
    exported = {one["metric"]: one["value"] for one in form["metrics"]}
    assert exported["mean_squared_error"] == pytest.approx(expected, rel=1e-5)


def two_outputs(digits, folder, loss=("sparse_categorical_crossentropy", "mse"), **how):
    x = keras.Input((64,), name="x")
    outputs = {
        "digit": keras.layers.Dense(10, activation="softmax", name="digit")(x),
        "ink": keras.layers.Dense(1, name="ink")(x),
    }
    model = keras.Model({"x": x}, outputs)
    model.compile("adam", {n: one for n, one in zip(outputs, loss) if one}, metrics={"ink": ["mae"]})
    columns = {"digit": digits.columns["label"], "ink": digits.columns["x"].sum(1)}
    if all(loss):
        model.fit({"x": digits.columns["x"]}, columns, epochs=2, verbose=0)
    return recompiled(digits, folder, model, ["digit", "ink"], columns, **how)


def test_each_of_two_outputs_has_its_own_metrics(digits, tmp_path):
    given = two_outputs(digits, tmp_path / "p")
    done = evaluated(given, tmp_path / "e", thresholds={"digit/accuracy": {"min": 0.01}, "ink/r2": {"min": 2}})
    answers = given.answers
    accuracy = theirs.accuracy_score(given.columns["digit"], answers["digit"].argmax(1))
    assert done.entries["digit", "", "", "accuracy"]["value"] == pytest.approx(accuracy)
    error = theirs.mean_absolute_error(given.columns["ink"], answers["ink"][:, 0])
    assert done.entries["ink", "", "", "mean_absolute_error"]["value"] == pytest.approx(error, rel=1e-5)
    assert done.metrics["digit/accuracy"] == pytest.approx(accuracy)
    assert "ink/r2 is" in done.metrics["blessed"] and "digit" not in done.metrics["blessed"]


def test_output_without_a_loss_is_not_evaluated(digits, tmp_path):
    done = evaluated(two_outputs(digits, tmp_path / "p", loss=(None, "mse")), tmp_path / "e")
    assert list(done.document["outputs"]) == ["ink"]


def test_half_precision_predictions_are_accepted(digits, tmp_path):
    x = keras.Input((64,), name="x")
    model = keras.Model(
        {"x": x}, keras.layers.Dense(10, activation="softmax", name="scores", dtype="mixed_bfloat16")(x)
    )
    model.compile(loss="sparse_categorical_crossentropy")
    given = recompiled(digits, tmp_path / "p", model)
    done = evaluated(given, tmp_path / "e")
    predicted = np.asarray(given.answers, np.float32).argmax(1)
    assert done.values["accuracy"] == pytest.approx(theirs.accuracy_score(digits.columns["label"], predicted), abs=0.01)


# The user's own


def surprise(label, prediction):
    return np.abs(label - prediction)


class LogOdds(SumMetrics):
    """The mean of the log odds of the answers."""

    directions = {"mean_log_odds": None}

    def sums(self, rows):
        kept = np.clip(rows.prediction.astype(np.float64), 1e-7, 1 - 1e-7)
        return np.stack([np.ones(len(rows)), np.log(kept) - np.log1p(-kept)], axis=1)

    def values(self, sums):
        return {"mean_log_odds": divided(sums[..., 1], sums[..., 0])}


def accuracy(label, prediction):
    return label == prediction


def one_number(label, prediction):
    return 3.0


def divides(label, prediction):
    raise ValueError("no such thing")


def test_custom_functions_and_metrics_are_computed(cancer, tmp_path):
    done = evaluated(cancer, tmp_path, metrics=[surprise, LogOdds()], slices=["site"])
    logits, label = cancer.answers[:, 0], cancer.columns["label"]
    assert done.values["surprise"] == pytest.approx(np.abs(label - sigmoid(logits)).mean(), rel=1e-5)
    assert done.values["mean_log_odds"] == pytest.approx(logits.mean(), rel=1e-3)
    north = np.array(cancer.columns["site"]) == "north"
    entry = done.entries["site", "north", "surprise"]
    assert entry["value"] == pytest.approx(np.abs(label - sigmoid(logits))[north].mean(), rel=1e-5)
    assert entry["interval"] == "bootstrap" and entry["low"] < entry["value"] < entry["high"]


@pytest.mark.parametrize(
    ("metrics", "error", "message"),
    [
        ([one_number], UserCodeError, r"one_number\(\) must return one number for each of \d+ rows"),
        (
            [divides],
            UserCodeError,
            r"divides\(\) raised ValueError: no such thing \(.*test_evaluator.py, line \d+\)",
        ),
        ([accuracy], ParameterError, "there is already a metric 'accuracy'"),
        ([LogOdds(), LogOdds()], ParameterError, "there is already a metric 'LogOdds'"),
        (["Precisoin"], KeraslineError, "Evaluator.metrics.*Precision"),
    ],
)
def test_errors_in_custom_metrics_are_one_line(cancer, tmp_path, metrics, error, message):
    with pytest.raises(error, match=message) as raised:
        evaluated(cancer, tmp_path, metrics=metrics)
    assert "\n" not in str(raised.value)


# Rankings, texts, tokens, objects


def test_queries_over_several_shards_are_ranked_with_any_column_name(digits, tmp_path):
    random = np.random.default_rng(0)
    label = digits.columns["label"]
    query = random.permutation(np.arange(len(label)) % 120)
    model = dense(64, 1)
    model.compile("adam", "mse")
    model.fit({"x": digits.columns["x"]}, label, epochs=2, verbose=0)
    # Predictions have a column of that name too.
    given = recompiled(digits, tmp_path / "p", model, columns={"row": [f"q{q}" for q in query]}, shards=4)
    done = evaluated(given, tmp_path / "e", query="row", ndcg_at=[3])
    score = given.answers[:, 0]
    for name, at in (("ndcg", None), ("ndcg_at_3", 3)):
        each = [theirs.ndcg_score([label[query == q]], [score[query == q]], k=at) for q in range(120)]
        assert done.values[name] == pytest.approx(np.mean(each), rel=1e-6)
    assert done.document["outputs"]["scores"]["task"] == "ranking" and done.document["rows"] == len(label)


def as_text(raw, batch):
    return [f"the number {k}" for k in raw.argmax(1)]


def test_texts_are_decoded_and_compared_with_a_reference(digits, tmp_path):
    label = digits.columns["label"]
    given = recompiled(digits, tmp_path / "p", digits.keras_model, columns={"text": [f"the number {k}" for k in label]})
    done = evaluated(given, tmp_path / "e", task="text", decode=as_text, reference="text", text_metrics=["wer", "bleu"])
    wrong = np.mean(digits.answers.argmax(1) != label)
    assert done.values["wer"] in (pytest.approx(wrong / 3), pytest.approx(100 * wrong / 3))
    table = predictions(done)
    assert table["label.scores"].to_pylist() == [f"the number {k}" for k in label]
    assert table["prediction.scores"].to_pylist() == as_text(digits.answers, None)


def test_token_metrics_are_summed_during_prediction(digits, tmp_path):
    x = keras.Input((64,), name="x")
    steps = keras.layers.Reshape((8, 8))(x)
    model = keras.Model({"x": x}, keras.layers.Dense(5, activation="softmax", name="scores")(steps))
    tokens = np.clip(digits.columns["x"].reshape(-1, 8, 8).mean(2) + 2, 0, 4).astype("int64")
    tokens[:, 6:] = -1
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(ignore_class=-1))
    given = recompiled(digits, tmp_path / "q", model, "tokens", {"tokens": tokens})
    done = evaluated(given, tmp_path / "e")
    scores, there = given.answers, tokens >= 0
    right_ones = np.take_along_axis(scores, tokens.clip(0)[..., None], 2)[..., 0]
    loss = -np.log(np.maximum(right_ones, np.finfo(np.float32).eps))[there].mean()
    assert done.values["perplexity"] == pytest.approx(np.exp(loss), rel=1e-4)
    right = (scores.argmax(2) == tokens)[there].mean()
    assert right in [pytest.approx(value) for value in done.values.values()]


def as_boxes(raw, batch):
    """The digit found in a box that is right by half its width."""
    count = batch.num_rows
    return {
        "predicted_boxes": [[[0.0, 0.0, 2.0, 2.0]]] * count,
        "predicted_classes": [[int(k)] for k in raw.argmax(1)],
        "scores": [[float(s)] for s in raw.max(1)],
    }


def test_detections_are_decoded_and_matched(digits, tmp_path):
    label = digits.columns["label"]
    columns = {"boxes": [[[0.0, 0.0, 2.0, 2.0]]] * len(label), "classes": [[int(k)] for k in label]}
    given = recompiled(digits, tmp_path / "p", digits.keras_model, columns=columns)
    done = evaluated(
        given, tmp_path / "e", task="detection", decode=as_boxes, replicates=20, detection_columns={"boxes": "boxes"}
    )
    # One box in one place a row: the average precision of a class is that of its scores at 101 steps of recall.
    scores, predicted, found = digits.answers.max(1), digits.answers.argmax(1), []
    for k in range(10):
        order = np.argsort(-scores[predicted == k], kind="stable")
        right = (label == k)[predicted == k][order]
        precision, recall = np.cumsum(right) / np.arange(1, len(right) + 1), np.cumsum(right) / np.sum(label == k)
        best = np.maximum.accumulate(precision[::-1])[::-1]
        places = np.searchsorted(recall, np.linspace(0, 1, 101), side="left")
        found.append(np.mean(np.append(best, 0)[places]))
    name = next(n for n in done.values if "50" in n or n.startswith("mean_average"))
    assert done.values[name] == pytest.approx(np.mean(found), abs=5e-3)


# Other models


@pytest.fixture(scope="module")
def exported(cancer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    return Exporter(cancer.preprocessing, cancer.model).execute(folder).saved_model


@pytest.fixture(scope="module")
def older(cancer, tmp_path_factory):
    """A model that is worse in a way of its own, exported."""
    folder = tmp_path_factory.mktemp("older")
    model = keras.models.clone_model(cancer.keras_model)
    random = np.random.default_rng(5)
    model.set_weights([w + random.normal(0, 0.15, w.shape) for w in cancer.keras_model.get_weights()])
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    given = recompiled(cancer, folder / "p", model)
    return Exporter(given.preprocessing, given.model).execute(folder / "e").saved_model, model


def test_saved_model_gives_the_same_predictions(cancer, exported, tmp_path):
    done = evaluated(
        cancer, tmp_path, saved_model=exported, thresholds={"megabytes": {"max": 100}, "latency_ms": {"max": 60_000}}
    )
    (form,) = done.document["forms"]
    assert form["rows"] == 569 and form["largest_difference"] < 1e-5 and form["megabytes"] > 0
    names = {one["metric"] for one in form["metrics"]}
    assert {"accuracy", "roc_auc", "log_loss"} <= names
    assert all(abs(one["difference"]) < 1e-5 for one in form["metrics"] if one["difference"] is not None)
    assert done.blessing.blessed and done.metrics["latency_ms"] > 0


def test_baseline_is_compared_row_by_row(cancer, older, tmp_path):
    baseline, model = older
    done = evaluated(cancer, tmp_path, baseline=baseline, slices=["site"], thresholds={"loss": {"max_drop": -1.0}})
    x, label = cancer.columns["x"], cancer.columns["label"]
    ours, others = (sigmoid(m.predict({"x": x}, verbose=0)[:, 0]) for m in (cancer.keras_model, model))
    auc = keras.metrics.AUC(from_logits=True)
    north = np.array(cancer.columns["site"]) == "north"
    for rows, where in ((np.full(len(label), True), ("", "")), (north, ("site", "north"))):
        auc.reset_state()
        auc.update_state(label[rows][:, None], model.predict({"x": x[rows]}, verbose=0))
        expected = {
            "accuracy": theirs.accuracy_score(label[rows], others[rows] > 0.5),
            "roc_auc": theirs.roc_auc_score(label[rows], others[rows]),
            "log_loss": theirs.log_loss(label[rows], others[rows]),
            "loss": theirs.log_loss(label[rows], others[rows]),
            "auc": float(auc.result()),
        }
        for name, value in expected.items():
            entry = done.entries[*where, name]
            assert entry["baseline"] == pytest.approx(value, rel=1e-4), name
            assert entry["change"] == pytest.approx(entry["value"] - value, abs=1e-5), name
            assert entry["change_low"] < entry["change"] < entry["change_high"], name
    entry = done.entries["", "", "log_loss"]
    alone = evaluated(recompiled(cancer, tmp_path / "p", model), tmp_path / "alone").entries["", "", "log_loss"]
    apart = math.hypot(*(one["high"] - one["low"] for one in (entry, alone)))
    assert entry["change_high"] - entry["change_low"] < 0.9 * apart
    rule = done.blessing.read_json("blessing.json")["rules"][0]
    assert not rule["kept"] and rule["value"] == pytest.approx(entry["change"], abs=1e-4)


def test_model_as_its_own_baseline_has_no_change(cancer, exported, tmp_path):
    done = evaluated(cancer, tmp_path, baseline=exported, thresholds={"auc": {"max_drop": 0.0001, "confidence": 0.9}})
    for entry in done.document["metrics"]:
        if entry["metric"] not in COMPARISONS:
            assert entry["change"] == pytest.approx(0, abs=1e-5), entry["metric"]
    assert [done.values[name] for name in COMPARISONS] == pytest.approx([0, 0, 0, 0], abs=1e-5)
    assert done.blessing.blessed


def test_flips_from_the_baseline_have_intervals_slices_and_bounds(cancer, older, tmp_path):
    baseline, model = older
    bounds = {"flip_rate": {"max": 0.5, "confidence": 0.9}, "accuracy": {"max_relative_drop": -1.0}}
    done = evaluated(cancer, tmp_path, baseline=baseline, slices=["site"], thresholds=bounds)
    ours, others = (m.predict({"x": cancer.columns["x"]}, verbose=0)[:, 0] > 0 for m in (cancer.keras_model, model))
    north = np.array(cancer.columns["site"]) == "north"
    for rows, where in ((np.full(len(ours), True), ("", "")), (north, ("site", "north"))):
        expected = {
            "flip_rate": np.mean(ours[rows] != others[rows]),
            "negative_to_positive_rate": np.mean(ours[rows] & ~others[rows]),
            "positive_to_negative_rate": np.mean(others[rows] & ~ours[rows]),
        }
        for name, value in expected.items():
            entry = done.entries[*where, name]
            assert entry["value"] == pytest.approx(value) and entry["low"] <= value <= entry["high"]
            assert entry["change"] is None and entry["baseline"] is None
    assert [rule["kept"] for rule in done.blessing.read_json("blessing.json")["rules"]] == [True, False]
    assert "worse allowed" in done.metrics["blessed"] and "-100%" in done.metrics["blessed"]


def test_flips_without_a_baseline_are_an_error(cancer, tmp_path):
    with pytest.raises(ParameterError, match="'flip_rate' needs a baseline; connect Evaluator.baseline"):
        evaluated(cancer, tmp_path / "none", thresholds={"flip_rate": {"max": 0.1}})


# Thresholds, slices and classes that are named


def test_slices_are_compared_with_a_reference_slice(cancer, tmp_path):
    bounds = {"accuracy": [{"max_gap": 0.9, "slices": ["site"]}, {"min": 0.1, "slices": {"site": ["north"]}}]}
    done = evaluated(cancer, tmp_path, slices=["site"], reference_slices={"site": "south"}, thresholds=bounds)
    site = np.array(cancer.columns["site"])
    right = (sigmoid(cancer.answers[:, 0]) > 0.5) == cancer.columns["label"]
    entry = done.entries["site", "north", "accuracy"]
    assert entry["difference"] == pytest.approx(right[site == "north"].mean() - right[site == "south"].mean())
    assert entry["compared"] == "site=south" and 0 <= entry["p_value"] <= 1
    roc = done.entries["site", "north", "roc_auc"]
    assert roc["difference"] == pytest.approx(roc["value"] - done.entries["site", "south", "roc_auc"]["value"])
    assert done.entries["site", "south", "accuracy"]["difference"] is None
    assert done.blessing.blessed
    rules = done.blessing.read_json("blessing.json")["rules"]
    assert rules[0]["value"] == pytest.approx(abs(entry["difference"]))


def test_operating_points_are_measured_and_bounded(cancer, tmp_path):
    point = {"precision_at_recall": [0.9]}
    bounds = {"precision_at_recall_0.9": {"min": 0.99, "confidence": 0.9}}
    done = evaluated(cancer, tmp_path, slices=["site"], operating_points=point, thresholds=bounds)
    precision, recall, _ = theirs.precision_recall_curve(cancer.columns["label"], sigmoid(cancer.answers[:, 0]))
    entry = done.entries["", "", "precision_at_recall_0.9"]
    assert entry["value"] == pytest.approx(precision[recall >= 0.9].max(), abs=1e-6)
    assert entry["low"] < entry["value"] < entry["high"] and not done.blessing.blessed
    assert 0 < done.entries["site", "north", "threshold_for_precision_at_recall_0.9"]["value"] < 1


def test_operating_points_of_other_tasks_are_refused(digits, tmp_path):
    with pytest.raises(ParameterError, match="only binary outputs have them; the task of this model is multi_class"):
        evaluated(digits, tmp_path, operating_points={"precision_at_recall": [0.9]})


def test_single_classes_are_measured_and_bounded(digits, tmp_path):
    names = [f"digit {k}" for k in range(10)]
    given = problem(tmp_path / "p", digits.columns, digits.keras_model, "label", class_names=names)
    done = evaluated(
        given,
        tmp_path / "e",
        class_metrics=["digit 8"],
        class_weights={"digit 1": 1.0, "digit 8": 3.0},
        thresholds={"recall_of_digit 8": {"min": 0.1}, "roc_auc_of_digit 8": {"min": 0.5, "confidence": 0.9}},
    )
    label, scores = digits.columns["label"], digits.answers
    recall = theirs.recall_score(label, scores.argmax(1), average=None)
    assert done.values["recall_of_digit 8"] == pytest.approx(recall[8])
    assert done.values["class_weighted_recall"] == pytest.approx((recall[1] + 3 * recall[8]) / 4)
    assert done.values["roc_auc_of_digit 8"] == pytest.approx(theirs.roc_auc_score(label == 8, scores[:, 8]))
    expected = theirs.roc_auc_score(label, scores / scores.sum(1, keepdims=True), multi_class="ovr")
    assert done.values["macro_roc_auc"] == pytest.approx(expected, abs=1e-6)
    of_class = {(e["class"], e["metric"]): e for e in done.document["per_class"]}
    entry = of_class["digit 8", "roc_auc"]
    assert entry["low"] < entry["value"] < entry["high"] and entry["rows"] == (label == 8).sum()
    assert entry["value"] == pytest.approx(done.values["roc_auc_of_digit 8"])
    assert done.blessing.blessed


# What is written


def numbers_as_texts(value):
    """Texts inside JSON that read as numbers: scalars of NumPy's that were not converted."""
    if isinstance(value, dict):
        return [
            found
            for key, one in value.items()
            if key not in ("slice", "class", "classes")
            for found in numbers_as_texts(one)
        ]
    if isinstance(value, list):
        return [found for one in value for found in numbers_as_texts(one)]
    if isinstance(value, str):
        try:
            float(value)
        except ValueError:
            return [value] if value in ("True", "False") or "array(" in value else []
        return [value]
    return []


def test_table_and_json_have_the_same_values(cancer, older, exported, tmp_path):
    done = evaluated(
        cancer,
        tmp_path,
        slices=["site"],
        baseline=older[0],
        saved_model=exported,
        metrics=[surprise],
        thresholds={"accuracy": {"min": 0.5, "slices": True, "confidence": 0.9}},
    )
    assert pq.read_table(done.evaluation.path / "metrics.parquet").to_pylist() == done.document["metrics"]
    text = (done.evaluation.path / "metrics.json").read_text()
    assert "NaN" not in text and "Infinity" not in text
    assert numbers_as_texts(done.document) == numbers_as_texts(done.blessing.read_json("blessing.json")) == []


def test_second_run_with_two_workers_gives_the_same_bytes(cancer, tmp_path):
    given = {"slices": ["site", "site*size"], "most_slices": 20}
    first = evaluated(cancer, tmp_path / "a", **given)
    again = evaluated(
        cancer,
        tmp_path / "b",
        beam_options=["--direct_num_workers=2", "--direct_running_mode=multi_threading"],
        **given,
    )
    assert (first.evaluation.path / "metrics.json").read_bytes() == (
        again.evaluation.path / "metrics.json"
    ).read_bytes()
    other = evaluated(cancer, tmp_path / "c", seed=-3, **given)
    assert first.entries["", "", "roc_auc"]["low"] != other.entries["", "", "roc_auc"]["low"]
    assert first.document["notes"] and "most frequent of" in first.document["notes"][0]


def test_every_row_has_a_prediction_in_order(cancer, tmp_path):
    table = predictions(evaluated(cancer, tmp_path, slices=["site"]))
    assert table["row"].to_pylist() == list(range(569))
    np.testing.assert_array_equal(table["label.scores"], cancer.columns["label"])
    np.testing.assert_allclose(table["prediction.scores"], sigmoid(cancer.answers[:, 0]), rtol=1e-5)
    assert table["slice.site"].to_pylist() == [one or "(missing)" for one in cancer.columns["site"]]


# Mistakes


def halves(raw, batch):
    return raw[: len(raw) // 2]


def breaks(raw, batch):
    return raw["scores"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"split": "tset"}, ParameterError, "tset"),
        ({"split": "empty"}, DataError, "split 'empty' has no rows"),
        ({"task": "binry"}, KeraslineError, "binry"),
        ({"task": {"score": "binary"}}, ParameterError, "no output 'score'; did you mean 'scores'"),
        ({"task": {"scores": "binry"}}, KeraslineError, "binry"),
        ({"query": "sites"}, ParameterError, "Evaluator.query: the data has no column 'sites'; did you mean 'site'"),
        ({"slices": ["sight"]}, ParameterError, "Evaluator.slices: no column 'sight'"),
        (
            {"reference": "lable"},
            ParameterError,
            "Evaluator.reference: the data has no column 'lable'; did you mean 'label'",
        ),
        ({"decode": halves, "task": "regression"}, UserCodeError, r"halves\(\) returned \d+ values for \d+ rows"),
        ({"decode": breaks}, UserCodeError, r"breaks\(\) raised IndexError"),
        ({"thresholds": {"acuracy": {"min": 1}}}, ParameterError, "did you mean 'accuracy'"),
        ({"thresholds": {"accuracy": {"slices": True}}}, ParameterError, "expected one of `min`, `max`, `max_drop`"),
        ({"thresholds": {"accuracy": []}}, ParameterError, "Evaluator.thresholds"),
        ({"operating_points": {"precision_at_recall": [90]}}, ParameterError, "Evaluator.operating_points"),
        ({"operating_points": {"precison_at_recall": [0.9]}}, ParameterError, "Evaluator.operating_points"),
        ({"class_metrics": ["yes"]}, ParameterError, "Evaluator.class_metrics: no output has a class 'yes'"),
        ({"reference_slices": {"site": "north"}}, ParameterError, "Evaluator.reference_slices: no slicing 'site'"),
        (
            {"slices": ["site"], "reference_slices": {"site": "nroth"}},
            ParameterError,
            "Evaluator.reference_slices: no measured slice by site 'nroth'; did you mean 'north'",
        ),
        ({"thresholds": {"accuracy": {"max_gap": 0.1}}}, ParameterError, "`max_gap` compares slices"),
        ({"text_options": {"smoothing": "flor"}}, ParameterError, "Evaluator.text_options"),
        ({"thresholds": {"accuracy": {"mn": 0.5}}}, ParameterError, "Evaluator.thresholds.*mn"),
        ({"thresholds": {"megabytes": {"max_drop": 1}}}, ParameterError, "'megabytes' is measured once"),
    ],
)
def test_invalid_parameters_are_errors_in_one_line(cancer, tmp_path, given, error, message):
    with pytest.raises(error, match=message) as raised:
        evaluated(cancer, tmp_path, **given)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("columns", "weight", "message"),
    [
        ({"label": np.arange(569) % 3}, None, "expected 0 or 1 for a binary task, received 2"),
        ({"weight": np.where(np.arange(569) == 9, -1.0, 1.0)}, "weight", "the weight of a row is -1"),
    ],
)
def test_rows_that_cannot_be_evaluated_are_an_error(cancer, tmp_path, columns, weight, message):
    given = recompiled(cancer, tmp_path / "p", cancer.keras_model, columns=columns, weight=weight)
    with pytest.raises(DataError, match=message) as raised:
        evaluated(given, tmp_path / "e")
    assert "\n" not in str(raised.value)


def test_nan_predictions_are_an_error(cancer, tmp_path):
    x = cancer.columns["x"].copy()
    x[9] = np.nan
    model = dense(6, 1, hidden=0)  # the fused kernel of Dense with relu makes 0 of NaN
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    with pytest.raises(DataError, match="output 'scores' gives NaN for some rows"):
        evaluated(recompiled(cancer, tmp_path / "p", model, columns={"x": x}), tmp_path / "e")


def test_scores_outside_zero_and_one_are_an_error(cancer, tmp_path):
    model = keras.models.clone_model(cancer.keras_model)
    model.set_weights(cancer.keras_model.get_weights())
    model.compile(loss="binary_crossentropy")
    with pytest.raises(DataError, match="expected probabilities.*from_logits=True"):
        evaluated(recompiled(cancer, tmp_path / "p", model), tmp_path / "e")


def test_baseline_with_other_outputs_is_an_error(cancer, digits, tmp_path):
    model = dense(6, 1, name="other")
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True))
    given = recompiled(cancer, tmp_path / "p", model)
    other = Exporter(given.preprocessing, given.model).execute(tmp_path / "x").saved_model
    with pytest.raises(ArtifactError, match="no output 'scores'; it gives other"):
        evaluated(cancer, tmp_path / "e", baseline=other)
