"""Permutation importance compared with scikit-learn and formulas. Ignored columns have importance zero."""

import keras
import numpy as np
import pytest
from sklearn.inspection import permutation_importance
from sklearn.metrics import accuracy_score, log_loss

from kerasline.components.explainer.permutation import importance_of, permutations
from tests.components.explainer.conftest import TUMOUR, Served, matrix, penguin_rows, split_at, trained

QUICK = {"integrated_gradients": "off", "worst": 0, "features": []}


class Probabilities(Served):
    """The tumours' model as scikit-learn's estimators are."""

    def fit(self, values, labels):
        return self

    def probability(self, values):
        return 1 / (1 + np.exp(-self.output(values)[:, 0]))


def minus_log_loss(estimator, values, labels, sample_weight=None):
    return -log_loss(labels, np.float32(estimator.probability(values)).astype("float64"), sample_weight=sample_weight)


def accuracy(estimator, values, labels, sample_weight=None):
    return accuracy_score(labels, estimator.probability(values) > 0.5, sample_weight=sample_weight)


def by_feature(found):
    return {feature["feature"]: feature for feature in found.permutation["features"]}


def compared(problem, scoring, found, *, seed=0, repeats=5, sample_weight=None):
    """Our importances of each permutation, and scikit-learn's, (columns, repeats)."""
    labels = np.asarray(problem.splits["test"]["benign"])
    theirs = permutation_importance(
        Probabilities(problem, TUMOUR),
        matrix(problem, TUMOUR),
        labels,
        scoring=scoring,
        n_repeats=repeats,
        random_state=seed,
        sample_weight=sample_weight,
    )
    ours = by_feature(found)
    return np.array([ours[name]["by_repeat"] for name in TUMOUR]), theirs.importances


@pytest.mark.parametrize("seed", [0, 7])
def test_same_permutations_agree_with_scikit_learn(tumours, explain, seed):
    found = explain(tumours, seed=seed, **QUICK)
    ours, theirs = compared(tumours, minus_log_loss, found, seed=seed)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)
    assert found.permutation["metric"] == "loss" and found.permutation["direction"] == "down"
    labels = tumours.splits["test"]["benign"]
    known = -minus_log_loss(Probabilities(tumours, TUMOUR), matrix(tumours, TUMOUR), labels)
    assert found.permutation["value"] == pytest.approx(known, rel=1e-5)


def test_drop_of_accuracy_agrees_with_scikit_learn(tumours, explain):
    found = explain(tumours, metric="accuracy", **QUICK)
    ours, theirs = compared(tumours, accuracy, found)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)
    assert found.permutation["direction"] == "up" and ours.max() > 0.01


def test_rows_are_weighted(weighted_tumours, explain):
    found = explain(weighted_tumours, **QUICK)
    weight = weighted_tumours.splits["test"]["importance"]
    ours, theirs = compared(weighted_tumours, minus_log_loss, found, sample_weight=weight)
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
def test_other_permutations_agree_within_their_error(tumours, explain):
    ours, theirs = compared(tumours, minus_log_loss, explain(tumours, seed=1, repeats=60, **QUICK), seed=2, repeats=60)
    error = np.sqrt((ours.var(axis=1) + theirs.var(axis=1)) / 60)
    assert (np.abs(ours.mean(axis=1) - theirs.mean(axis=1)) <= 4 * error).all()
    assert (ours[0] != theirs[0]).all()


def test_ignored_column_has_importance_zero(tumours, explain):
    ignored = by_feature(explain(tumours, **QUICK))[TUMOUR[-1]]
    assert (ignored["importance"], ignored["low"], ignored["high"]) == (0, 0, 0) and not any(ignored["by_repeat"])


def test_column_of_only_the_label_is_omitted(penguins, explain):
    found = explain(penguins, **QUICK)
    assert set(by_feature(found)) == {
        "bill_length_mm",
        "bill_depth_mm",
        "flipper_length_mm",
        "body_mass_g",
        "island",
        "sex",
    }
    assert found.output == "species"


def absolute_error(label, prediction):
    return np.abs(label.reshape(-1) - prediction.reshape(-1))


def rightness(label, prediction):
    return (prediction.reshape(-1) > 0) == label.reshape(-1)


def test_custom_metric_function_is_used(diabetes, explain):
    names = ["age", "sex", "bmi", "bp"]
    found = explain(diabetes, metric=absolute_error, **QUICK)
    named = explain(diabetes, metric="mean_absolute_error", **QUICK)
    served, target = Served(diabetes, names), np.asarray(diabetes.splits["test"]["progression"], "float64")
    scoring = lambda estimator, x, y: -np.abs(y - served.output(x)[:, 0]).mean()  # noqa: E731
    served.fit = lambda *_: served
    theirs = permutation_importance(served, matrix(diabetes, names), target, scoring=scoring, random_state=0)
    for one in (found, named):
        ours = np.array([by_feature(one)[name]["by_repeat"] for name in names])
        np.testing.assert_allclose(ours, theirs.importances, rtol=1e-3, atol=1e-4)


def test_custom_metric_may_be_maximized(tumours, explain):
    by_accuracy = by_feature(explain(tumours, metric="accuracy", **QUICK))
    by_function = by_feature(explain(tumours, metric=rightness, direction="maximize", **QUICK))
    assert by_function == by_accuracy


def test_interval_covers_the_importance_of_a_known_model():
    """y = a x + noise: by the squared error of a x, the importance of x is 2 a^2 Var(x), whatever the noise.

    Of 400 samples of 200 rows, some 95% of the intervals hold it: between 92.5 and 98.5%, two to three
    standard errors of such a count to either side.
    """
    random, slope, held = np.random.default_rng(0), 1.5, 0
    for sample in range(400):
        x, noise = random.normal(size=200), random.normal(size=200)
        places = permutations(200, 5, sample)
        worse = (slope * (x - x[places]) + noise) ** 2 - noise**2
        found = importance_of("x", worse, places, np.ones(200))
        held += found.low <= 2 * slope**2 <= found.high
    assert 0.925 <= held / 400 <= 0.985


def test_interval_accounts_for_both_rows_of_an_exchange():
    """A value also affects the row that receives it. Without that variance, the intervals cover less often."""
    random, held = np.random.default_rng(0), {"both": 0, "rows": 0}
    for sample in range(400):
        x = random.exponential(size=100)
        places = permutations(100, 20, sample)
        worse = (x - x[places]) ** 2
        both = importance_of("x", worse, places, np.ones(100))
        half = 1.96 * worse.mean(0).std(ddof=1) / 10
        held["both"] += both.low <= 2 <= both.high
        held["rows"] += abs(both.importance - 2) <= half
    assert held["rows"] < held["both"] - 20


def test_permutations_are_of_all_rows():
    for places in permutations(50, 4, seed=3):
        assert sorted(places) == list(range(50))


def test_sample_is_determined_by_the_seed(tumours, explain):
    first, again, other = (explain(tumours, most_rows=50, seed=seed, **QUICK) for seed in (0, 0, 1))
    assert first.json == again.json and first.sampled and first.rows == 50
    assert first.permutation != other.permutation
    assert not explain(tumours, **QUICK).sampled


@pytest.mark.slow
def test_result_does_not_depend_on_the_number_of_workers(penguins, explain):
    options = {
        "one": [],
        "threads": ["--direct_num_workers=3", "--direct_running_mode=multi_threading"],
        "processes": ["--direct_num_workers=2", "--direct_running_mode=multi_processing"],
    }
    found = [explain(penguins, beam_options=given, repeats=2, points=4).json for given in options.values()]
    assert found[0] == found[1] == found[2]


def two_outputs_preprocessing():
    raw = {name: keras.Input((1,), name=name) for name in ("bill_length_mm", "bill_depth_mm")}
    raw |= {
        "body_mass_g": keras.Input((), name="body_mass_g"),
        "species": keras.Input((), name="species", dtype="string"),
    }
    x = keras.ops.nan_to_num(keras.layers.Concatenate()([raw["bill_length_mm"], raw["bill_depth_mm"]])) / 50
    heavy = keras.ops.cast(raw["body_mass_g"] > 4200, "float32")
    species = keras.layers.StringLookup(num_oov_indices=0)(raw["species"])
    return keras.Model(raw, {"x": x, "heavy": heavy, "species": species})


def two_outputs_model(inputs, hp):
    hidden = keras.layers.Dense(8, activation="relu")(inputs["x"])
    outputs = {
        "species": keras.layers.Dense(3, activation="softmax", name="species")(hidden),
        "heavy": keras.layers.Dense(1, activation="sigmoid", name="heavy")(hidden),
    }
    model = keras.Model(inputs, outputs)
    model.compile(
        keras.optimizers.Adam(0.05), {"species": "sparse_categorical_crossentropy", "heavy": "binary_crossentropy"}
    )
    return model


def test_each_output_is_measured_with_its_own_label(tmp_path, explain):
    splits = split_at(penguin_rows(), 244)
    problem = trained(
        tmp_path / "two",
        splits,
        two_outputs_preprocessing,
        two_outputs_model,
        label=["species", "heavy"],
        epochs=5,
    )
    columns, model = splits["test"], problem.model.load()
    raw = {
        n: np.array([np.nan if v is None else v for v in columns[n]], "float32")[:, None]
        for n in ("bill_length_mm", "bill_depth_mm")
    }
    answers = model(problem.prepared.load_features()(raw))
    heavy = np.array([(value or 0) > 4200 for value in columns["body_mass_g"]])
    known = {
        "heavy": log_loss(heavy, answers["heavy"].numpy()[:, 0].astype("float64")),
        "species": log_loss(
            [problem.prepared.facts["class_names"]["species"].index(s) for s in columns["species"]],
            answers["species"].numpy().astype("float64"),
        ),
    }
    for output, loss in known.items():
        found = explain(problem, output=output, **QUICK)
        assert found.output == output and found.permutation["value"] == pytest.approx(loss, rel=1e-4)


def label_of_a_feature():
    raw = {name: keras.Input((1,), name=name) for name in ("bmi", "bp")}
    x = keras.layers.Concatenate()([raw["bmi"] / 30, raw["bp"] / 100])
    return keras.Model(raw, {"x": x, "heavy": keras.ops.cast(raw["bmi"] > 26, "float32")})


def heavy_model(inputs, hp):
    model = keras.Model(inputs, keras.layers.Dense(1, name="heavy")(inputs["x"]))
    model.compile(keras.optimizers.Adam(0.1), keras.losses.BinaryCrossentropy(from_logits=True))
    return model


def test_label_is_unchanged_when_its_source_column_is_permuted(diabetes, tmp_path, explain):
    problem = trained(tmp_path / "p", diabetes.splits, label_of_a_feature, heavy_model, label="heavy", epochs=10)
    found, names = by_feature(explain(problem, **QUICK)), ["bmi", "bp"]
    heavy = (diabetes.splits["test"]["bmi"] > 26).astype(int)
    theirs = permutation_importance(
        Probabilities(problem, names), matrix(problem, names), heavy, scoring=minus_log_loss, random_state=0
    )
    ours = [found[name]["by_repeat"] for name in names]
    np.testing.assert_allclose(ours, theirs.importances, rtol=1e-4, atol=1e-6)
    assert found["bmi"]["importance"] > 0.1
