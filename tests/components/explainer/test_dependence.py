"""Partial dependence compared with scikit-learn's brute force and with formulas."""

import numpy as np
import pytest
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.inspection import partial_dependence

from kerasline.components.core.errors import DataError, ParameterError
from tests.components.explainer.conftest import DIABETES, MEASUREMENTS, TUMOUR, Served, matrix

QUICK = {"integrated_gradients": "off", "worst": 0, "repeats": 1}


class Regressor(Served, RegressorMixin, BaseEstimator):
    def __sklearn_is_fitted__(self):
        return True

    def fit(self, values, labels):
        return self

    def predict(self, values):
        return self.output(values)[:, 0]


class Classifier(Served, ClassifierMixin, BaseEstimator):
    classes_ = np.array([0, 1])

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, values, labels):
        return self

    def predict_proba(self, values):
        score = 1 / (1 + np.exp(-self.output(values)))
        return np.hstack([1 - score, score])


def by_scikit_learn(estimator, values, name, names, grid, **given):
    place = names.index(name)
    found = partial_dependence(
        estimator, values, [place], method="brute", kind="both", custom_values={place: np.array(grid)}, **given
    )
    return found["average"][-1], found["individual"][-1]


@pytest.mark.parametrize("name", DIABETES)
def test_dependence_of_a_number_agrees_with_scikit_learn(diabetes, explain, name):
    (found,) = explain(diabetes, features=[name], **QUICK).partial_dependence
    values = matrix(diabetes, DIABETES)
    average, rows = by_scikit_learn(Regressor(diabetes, DIABETES), values, name, DIABETES, found["x"])
    np.testing.assert_allclose(found["y"], average, rtol=1e-5)
    # Pointwise and normal, over the rows: 1.96 standard errors of the mean to either side.
    half = 1.959964 * rows.std(axis=0, ddof=1) / np.sqrt(len(values))
    np.testing.assert_allclose(found["high"], average + half, rtol=1e-5)
    np.testing.assert_allclose(found["low"], average - half, rtol=1e-5)
    assert (found["feature"], found["kind"], found["class"]) == (name, "number", None)


@pytest.mark.slow
def test_logits_are_converted_to_probabilities(tumours, explain):
    (found,) = explain(tumours, features=[TUMOUR[0]], **QUICK).partial_dependence
    average, _ = by_scikit_learn(
        Classifier(tumours, TUMOUR),
        matrix(tumours, TUMOUR),
        TUMOUR[0],
        TUMOUR,
        found["x"],
        response_method="predict_proba",
    )
    np.testing.assert_allclose(found["y"], average, rtol=1e-4, atol=1e-6)


def test_rows_are_weighted(weighted_tumours, explain):
    (found,) = explain(weighted_tumours, features=[TUMOUR[0]], **QUICK).partial_dependence
    weight = weighted_tumours.splits["test"]["importance"]
    average, _ = by_scikit_learn(
        Classifier(weighted_tumours, TUMOUR),
        matrix(weighted_tumours, TUMOUR),
        TUMOUR[0],
        TUMOUR,
        found["x"],
        response_method="predict_proba",
        sample_weight=weight,
    )
    np.testing.assert_allclose(found["y"], average, rtol=1e-4, atol=1e-6)


def test_grid_has_observed_values_between_the_5th_and_95th_percentile(diabetes, explain):
    found = {
        one["feature"]: one["x"]
        for one in explain(diabetes, features=["bmi", "sex"], points=10, **QUICK).partial_dependence
    }
    bmi = np.sort(diabetes.splits["test"]["bmi"].astype("float64"))
    assert set(found["bmi"]) <= set(bmi) and found["bmi"] == sorted(found["bmi"]) and len(found["bmi"]) == 10
    np.testing.assert_allclose(found["bmi"], np.quantile(bmi, np.linspace(0.05, 0.95, 10), method="nearest"))
    assert found["sex"] == [1, 2]  # all, where they are few


def test_categories_are_ordered_by_frequency_with_a_curve_per_class(penguins, explain):
    found = explain(penguins, features=["island"], **QUICK).partial_dependence
    islands = penguins.splits["test"]["island"]
    ordered = sorted(set(islands), key=lambda island: -islands.count(island))
    model, features = penguins.model.load(), penguins.prepared.load_features()
    columns = penguins.splits["test"]
    raw = {n: np.array([np.nan if v is None else v for v in columns[n]], "float32")[:, None] for n in MEASUREMENTS}
    raw["sex"] = np.array([value or "" for value in columns["sex"]], object)
    for one in found:
        assert one["x"] == ordered and one["kind"] == "category"
        place = penguins.prepared.facts["class_names"].index(one["class"])
        for island, y in zip(ordered, one["y"]):
            scores = model(features({**raw, "island": np.array([island] * len(islands), object)})).numpy()
            assert y == pytest.approx(scores[:, place].mean(), rel=1e-4)
    assert len(found) == 3
    np.testing.assert_allclose(np.sum([one["y"] for one in found], axis=0), 1, rtol=1e-5)


def test_classes_are_selected_by_name_or_number(penguins, explain):
    names = penguins.prepared.facts["class_names"]
    for classes in ([names[1]], [1]):
        found = explain(penguins, features=["island"], classes=classes, **QUICK).partial_dependence
        assert [one["class"] for one in found] == [names[1]]


def test_most_important_columns_are_the_default(diabetes, penguins, explain):
    found = explain(diabetes, **QUICK)
    ranked = [feature["feature"] for feature in found.permutation["features"]]
    assert [one["feature"] for one in found.partial_dependence] == ranked
    assert [f["importance"] for f in found.permutation["features"]] == sorted(
        (f["importance"] for f in found.permutation["features"]), reverse=True
    )


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"features": ["ilsand"]}, "Explainer.features: the data has no column 'ilsand'; did you mean 'island'"),
        (
            {"features": ["island"], "classes": ["Gento"]},
            "Explainer.classes: no class 'Gento'; did you mean 'Gentoo'",
        ),
    ],
)
def test_unknown_name_gets_a_suggestion(penguins, explain, given, message):
    with pytest.raises(ParameterError, match=message):
        explain(penguins, **given, **QUICK)


def test_column_without_numbers_or_categories_is_refused(tmp_path, explain):
    import tests.components.explainer.test_gradients as images

    columns = images.one_hot_columns()
    columns = {name: values[:40] for name, values in columns.items()}
    problem = images.trained(
        tmp_path / "p",
        {"train": columns, "test": columns},
        images.flat_preprocessing,
        images.linear_digits,
        label="digit",
        epochs=1,
    )
    with pytest.raises(DataError, match="column 'picture' of type .*tensor.* is neither numeric nor categorical"):
        explain(problem, features=["picture"], **QUICK)
    assert explain(problem, **QUICK).partial_dependence == []
